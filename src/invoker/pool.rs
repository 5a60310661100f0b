//! The endpoints this thread has called: calls in flight, recent connect failures, idle connections. Must never be
//! shared between threads and never run a task or a timer per idle connection.

use super::{InvokerConfig, choose::Load, error::Error, h2c, http1, io::Wire};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

/// How long an endpoint that could not be connected to is avoided while there is another: about one endpoint-slice
/// propagation, so that a pod that is gone is tried once or twice before the table drops it.
const AVOID_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// One address. Calls hold it by reference count while they run.
#[derive(Debug, Default)]
pub(super) struct Endpoint {
    in_flight: Cell<usize>,
    avoid_until: Cell<Option<Instant>>,
    /// Most recently used last: a busy function keeps few connections warm and lets the others age.
    idle: RefCell<Vec<http1::Connection>>,
    /// HTTP/2 connections, each shared by many calls.
    pub(super) shared: RefCell<Vec<Rc<h2c::Connection>>>,
    /// Held while an HTTP/2 connection is made, so that a burst of calls makes one and not one each.
    pub(super) dialling: tokio::sync::Mutex<()>,
}

/// Counts one call in flight for as long as it lives, also when the call's future is dropped.
pub(super) struct InFlight<'a>(&'a Endpoint);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

impl Endpoint {
    pub(super) fn enter(&self) -> InFlight<'_> {
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight(self)
    }

    fn load(&self) -> Load {
        let failing = match self.avoid_until.get() {
            Some(until) if Instant::now() < until => true,
            Some(_) => {
                self.avoid_until.set(None);
                false
            }
            None => false,
        };
        Load { in_flight: self.in_flight.get(), failing }
    }

    /// The most recently used idle connection that is still fit for a request; unfit ones are closed on the way.
    /// `stale` counts those.
    pub(super) fn take_idle(&self, max_idle: Duration, stale: &Cell<u64>) -> Option<http1::Connection> {
        let mut idle = self.idle.borrow_mut();
        let newest = idle.last()?;
        if newest.last_used.elapsed() >= max_idle {
            // The others are older still.
            stale.set(stale.get() + idle.len() as u64);
            idle.clear();
            return None;
        }
        while let Some(connection) = idle.pop() {
            if connection.is_fit() {
                return Some(connection);
            }
            stale.set(stale.get() + 1);
        }
        None
    }

    pub(super) fn put_idle(&self, connection: http1::Connection) {
        self.idle.borrow_mut().push(connection);
    }

    /// A TCP connection, or the reason why there is none; a failure makes other endpoints preferred for a while.
    pub(super) async fn dial(
        &self,
        address: SocketAddr,
        config: &InvokerConfig,
        deadline: Instant,
    ) -> Result<Rc<Wire>, Error> {
        // The router leaves such addresses out; this is for the day when it does not.
        if !config.reach.allows(address.ip()) {
            self.avoid_until.set(Some(Instant::now() + AVOID_AFTER_FAILURE));
            return Err(Error::Forbidden);
        }
        let until = deadline.min(Instant::now() + config.connect_timeout);
        let stream = match timeout_at(until, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.avoid_until.set(Some(Instant::now() + AVOID_AFTER_FAILURE));
                return Err(Error::Connect(error));
            }
            Err(_) => {
                self.avoid_until.set(Some(Instant::now() + AVOID_AFTER_FAILURE));
                return Err(Error::ConnectTimeout);
            }
        };
        stream.set_nodelay(true).map_err(Error::Connect)?;
        self.avoid_until.set(None);
        Ok(Wire::new(stream))
    }

    /// Closes what was idle for too long; true while the endpoint is worth remembering.
    fn purge(&self, max_idle: Duration) -> bool {
        let mut idle = self.idle.borrow_mut();
        // Ordered by age of last use, so the old ones are at the front. `is_fit` also finds those the peer closed.
        idle.retain(|connection| connection.last_used.elapsed() < max_idle && connection.is_fit());
        let mut shared = self.shared.borrow_mut();
        shared.retain(|connection| !connection.is_over(max_idle));
        !idle.is_empty() || !shared.is_empty() || self.in_flight.get() > 0 || self.load().failing
    }
}

/// All endpoints of this thread.
#[derive(Debug, Default)]
pub(super) struct Pool {
    endpoints: RefCell<HashMap<SocketAddr, Rc<Endpoint>>>,
}

impl Pool {
    pub(super) fn endpoint(&self, address: SocketAddr) -> Rc<Endpoint> {
        Rc::clone(self.endpoints.borrow_mut().entry(address).or_default())
    }

    /// What is known of `address`; an endpoint that was never called is idle.
    pub(super) fn load(&self, address: SocketAddr) -> Load {
        self.endpoints
            .borrow()
            .get(&address)
            .map_or(Load { in_flight: 0, failing: false }, |endpoint| endpoint.load())
    }

    pub(super) fn purge(&self, max_idle: Duration) {
        self.endpoints.borrow_mut().retain(|_, endpoint| endpoint.purge(max_idle));
    }

    /// Idle HTTP/1.1 connections and HTTP/2 connections.
    pub(super) fn connections(&self) -> usize {
        let endpoints = self.endpoints.borrow();
        endpoints.values().map(|e| e.idle.borrow().len() + e.shared.borrow().len()).sum()
    }
}
