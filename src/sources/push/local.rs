//! Where what is pushed comes in under local mode: a free port of the loopback, which the dispatcher itself listens on. Must never
//! serve anything.

use crate::sources::{Embedded, Error};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// A port that was free at the start of a session.
pub struct LocalFront {
    address: SocketAddr,
    notice: &'static str,
}

impl LocalFront {
    /// Finds one. `notice`: what comes there, and what that does not prove.
    ///
    /// # Errors
    /// There is none.
    pub fn find(notice: &'static str) -> Result<Self, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(Self { address: listener.local_addr()?, notice })
    }
}

impl Embedded for LocalFront {
    fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    fn notice(&self) -> &'static str {
        self.notice
    }

    fn ensure_topic(&self, _topic: &str, _shards: i32) -> Result<(), Error> {
        // A path is there as soon as its trigger is served.
        Ok(())
    }
}
