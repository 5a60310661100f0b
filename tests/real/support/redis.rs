//! A Redis server as a child process in a folder of the test's own, on a free port, each write on the disk before its answer. Must
//! never use a fixed port or leave a server behind.

use super::{ports::free_port, spawn, spawn::Running, wait};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

/// Longest wait for the server to start. Usually well below a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// One server, which keeps its folder when it is killed. Everything goes away on drop.
pub struct Redis {
    port: u16,
    process: Running,
    // Last: removed after the server is gone.
    dir: tempfile::TempDir,
}

impl Redis {
    /// Starts one and returns when it answers.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("kubeless-redis-").tempdir().expect("a temporary folder");
        let port = free_port();
        let process = launch(dir.path(), port);
        let mut server = Self { port, process, dir };
        server.wait_answers();
        server
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// A start on the same folder; returns when it answers.
    pub fn restart(&mut self) {
        self.process = launch(self.dir.path(), self.port);
        self.wait_answers();
    }

    fn wait_answers(&mut self) {
        let address = self.address();
        let process = &mut self.process;
        let answered = wait::try_until(PATIENCE, || {
            assert!(process.exited().is_none(), "Redis ended:\n{}", process.tail(30));
            let mut stream = TcpStream::connect(&address).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
            stream.write_all(b"PING\r\n").ok()?;
            let mut answer = [0; 7];
            stream.read_exact(&mut answer).ok()?;
            (&answer == b"+PONG\r\n").then_some(())
        });
        assert!(answered.is_some(), "Redis does not answer:\n{}", process.tail(30));
    }
}

fn launch(dir: &Path, port: u16) -> Running {
    let mut command = spawn::bound_command("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(dir);
    command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
    Running::start("redis-server", command, dir.join("redis.log"))
}
