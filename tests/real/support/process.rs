//! The product's dispatcher as a child process: started, stopped, killed, frozen. Must never reach into it other
//! than by the ways an operator has.

use super::{
    spawn::{self, Running},
    wait,
};
use rustix::process::Signal;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

/// Environment of the child, apart from its own settings.
const KEPT: [&str; 4] = ["PATH", "HOME", "TMPDIR", "RUST_BACKTRACE"];

/// How to start a dispatcher.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Binary; the product's own dispatcher by default.
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Folder for its output; must outlive the process.
    pub dir: PathBuf,
    /// Name in messages and of the output file.
    pub name: String,
}

impl Launch {
    /// The dispatcher, with its output in `dir`.
    pub fn dispatcher(dir: &Path, name: &str) -> Self {
        Self {
            program: PathBuf::from(env!("CARGO_BIN_EXE_kubeless-dispatcher")),
            args: Vec::new(),
            env: Vec::new(),
            dir: dir.to_path_buf(),
            name: name.into(),
        }
    }

    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it with nothing else in its environment.
    pub fn start(&self) -> Dispatcher {
        let mut command = spawn::bound_command(&self.program);
        command.args(&self.args).env_clear().current_dir(&self.dir);
        command.envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let log = self.dir.join(format!("{}.log", self.name));
        let skip = fs::metadata(&log).map_or(0, |found| found.len() as usize);
        Dispatcher { running: Running::start(&self.name, command, log), skip }
    }
}

/// A running dispatcher. Killed on drop.
pub struct Dispatcher {
    running: Running,
    /// Output of earlier processes of the same name.
    skip: usize,
}

impl Dispatcher {
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// What this process printed so far.
    pub fn output(&self) -> String {
        self.running.output().split_off(self.skip)
    }

    /// The admin server's address: the JSON log line that has `admin_address` (or its `fields` have it).
    pub fn admin(&mut self) -> SocketAddr {
        let found = wait::try_until(Duration::from_secs(20), || {
            assert!(self.running.exited().is_none(), "it ended:\n{}", self.running.tail(40));
            self.output().lines().find_map(admin_address)
        });
        found.unwrap_or_else(|| panic!("no admin_address in the log:\n{}", self.running.tail(40)))
    }

    /// Returns when `/readyz` answers 200; panics at the limit.
    pub fn wait_ready(&mut self, limit: Duration) {
        let admin = self.admin();
        let ready = wait::try_until(limit, || {
            assert!(self.running.exited().is_none(), "it ended:\n{}", self.running.tail(40));
            super::metrics::get(admin, "/readyz").is_ok_and(|(status, _)| status == 200).then_some(())
        });
        assert!(ready.is_some(), "not ready after {limit:?}:\n{}", self.running.tail(40));
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill9(&mut self) {
        self.running.kill9();
    }
    pub fn sigterm(&mut self) {
        self.running.signal(Signal::TERM);
    }
    pub fn sigstop(&mut self) {
        self.running.signal(Signal::STOP);
    }
    pub fn sigcont(&mut self) {
        self.running.signal(Signal::CONT);
    }

    /// How it ended; panics if it still runs after `limit`.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        self.running.wait_exit(limit)
    }

    /// Whether it has ended (by itself or by a failpoint).
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.running.exited()
    }
}

fn admin_address(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let value = line.get("admin_address").or_else(|| line.get("fields")?.get("admin_address"))?;
    value.as_str()?.parse().ok()
}

#[test]
fn the_admin_address_is_found_at_the_top_and_among_the_fields() {
    let wanted = Some(SocketAddr::from(([127, 0, 0, 1], 80)));
    assert_eq!(admin_address(r#"{"admin_address":"127.0.0.1:80"}"#), wanted);
    assert_eq!(admin_address(r#"{"fields":{"admin_address":"127.0.0.1:80"}}"#), wanted);
    assert_eq!(admin_address("not json"), None);
}
