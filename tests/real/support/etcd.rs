//! An etcd server as a child process in a folder of the test's own, on free ports. Must never use a fixed port or leave a server
//! behind.

use super::{kubectl::kubernetes_dir, ports::free_port, spawn, spawn::Running, wait};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

/// Longest wait for the server to start. Usually well below a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// One server, which keeps its folder when it is killed. Everything goes away on drop.
pub struct Etcd {
    client: u16,
    peer: u16,
    process: Running,
    // Last: removed after the server is gone.
    dir: tempfile::TempDir,
}

impl Etcd {
    /// Starts one and returns when it answers.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("kubeless-etcd-").tempdir().expect("a temporary folder");
        let (client, peer) = (free_port(), free_port());
        let process = launch(&dir, client, peer);
        let mut server = Self { client, peer, process, dir };
        server.wait_answers();
        server
    }

    /// `host:port` for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.client)
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// A start on the same folder; returns when it answers.
    pub fn restart(&mut self) {
        self.process = launch(&self.dir, self.client, self.peer);
        self.wait_answers();
    }

    fn wait_answers(&mut self) {
        let address = self.address();
        let process = &mut self.process;
        let answered = wait::try_until(PATIENCE, || {
            assert!(process.exited().is_none(), "etcd ended:\n{}", process.tail(30));
            let mut stream = TcpStream::connect(&address).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
            stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.contains("\"true\"").then_some(())
        });
        assert!(answered.is_some(), "etcd does not answer:\n{}", process.tail(30));
    }
}

fn launch(dir: &tempfile::TempDir, client: u16, peer: u16) -> Running {
    let url = |port| format!("http://127.0.0.1:{port}");
    let mut command = spawn::bound_command(kubernetes_dir().join("kube"));
    command.args(["etcd", "--log-level=warn", "--name=etcd"]);
    command.arg("--data-dir").arg(dir.path().join("data"));
    for flag in ["--listen-client-urls", "--advertise-client-urls"] {
        command.args([flag, &url(client)]);
    }
    for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
        command.args([flag, &url(peer)]);
    }
    command.arg(format!("--initial-cluster=etcd={}", url(peer)));
    Running::start("etcd", command, dir.path().join("etcd.log"))
}
