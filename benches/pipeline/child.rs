//! Children of the benchmark: this very binary with a role as its argument, and `wrk`. Must never leave one behind:
//! the kernel kills them with the benchmark, and each is killed by its own handle on drop.

use crate::{
    procfs,
    support::{metrics, spawn},
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

/// A child whose standard output is read here.
pub struct Role {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Role {
    /// This binary as `arguments`.
    pub fn own(arguments: &[&str]) -> Self {
        Self::start(std::env::current_exe().expect("a running binary has a path"), arguments)
    }

    /// Any program.
    pub fn start(program: impl AsRef<OsStr>, arguments: &[&str]) -> Self {
        let mut command = spawn::bound_command(program);
        command.args(arguments).stdout(Stdio::piped());
        let mut child = spawn::spawn(command);
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, output }
    }

    /// The next line of its output.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a pipe of our own");
        line.trim().to_owned()
    }

    /// Waits for the end: the rest of the output, and the CPU seconds it spent.
    pub fn finish(mut self) -> (String, f64) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("a pipe of our own");
        // The figures of an ended process stay until it is waited for.
        while !procfs::has_ended(self.child.id()) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let cpu = procfs::cpu_seconds(self.child.id());
        let status = self.child.wait().expect("our own child");
        assert!(status.success(), "a child failed ({status}): {rest}");
        (rest, cpu)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `name=value` lines.
pub fn values(text: &str) -> HashMap<String, f64> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))).collect()
}

/// A running sink.
pub struct Sink {
    role: Role,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Sink {
    /// One that answers after `delay`.
    pub fn start(delay: Duration) -> Self {
        let mut role = Role::own(&["sink", &delay.as_micros().to_string()]);
        let port = role.line().parse().expect("the sink says its port first");
        Self { role, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// Forgets what it saw.
    pub fn reset(&self) {
        self.ask("/reset");
    }

    /// What it saw.
    pub fn stats(&self) -> HashMap<String, f64> {
        values(&self.ask("/stats"))
    }

    /// Percentiles of the latencies it saw; ask once, it sorts.
    pub fn latency(&self) -> HashMap<String, f64> {
        values(&self.ask("/latency"))
    }

    /// The first event's request head.
    pub fn head(&self) -> String {
        self.ask("/head")
    }

    /// CPU seconds it has spent so far.
    pub fn cpu(&self) -> f64 {
        procfs::cpu_seconds(self.role.child.id())
    }

    fn ask(&self, path: &str) -> String {
        metrics::get(self.address, path).expect("the sink answers").1
    }
}
