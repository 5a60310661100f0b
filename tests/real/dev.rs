//! `kubeless dev` with real processes and a dispatcher that only lives: what is started, restarted, replaced, and that
//! nothing is left when it ends, however it ends.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::{
    fs,
    io::{Read, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// Longest wait for anything here; nothing needs more than a few seconds, packages from a registry apart.
const PATIENCE: Duration = Duration::from_secs(90);

const ECHO: &str =
    "apiVersion: kubeless.io/v1beta1\nkind: Function\nmetadata: {name: echo}\nspec: {runtime: echo}\n";

struct Session {
    folder: tempfile::TempDir,
    child: Child,
}

impl Session {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("echo.yaml"), ECHO).unwrap();
        // Ignores its arguments and ends at SIGTERM.
        let dispatcher = folder.path().join("dispatcher.sh");
        fs::write(&dispatcher, "#!/bin/sh\nexec sleep 600\n").unwrap();
        fs::set_permissions(&dispatcher, fs::Permissions::from_mode(0o755)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_kubeless"))
            .arg("dev")
            .arg(folder.path())
            .arg("--dispatcher")
            .arg(dispatcher)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { folder, child }
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.folder.path().join(".kubeless").join(path)
    }

    /// The running dispatcher, once there is one other than `not`.
    fn dispatcher(&self, not: Option<Pid>) -> Pid {
        until("a dispatcher runs", || {
            let text = fs::read_to_string(self.inside("dispatcher.pid")).ok()?;
            let pid = Pid::from_raw(text.trim().parse().ok()?)?;
            (Some(pid) != not && exists(pid)).then_some(pid)
        })
    }

    /// The address in a function's EndpointSlice.
    fn endpoint(&self, function: &str) -> String {
        until("the function is ready", || {
            let text =
                fs::read_to_string(self.inside(&format!("run/endpoints/default.{function}.yaml"))).ok()?;
            let port = text.rsplit_once("name: http-function-port, port: ")?.1.split(',').next()?.to_owned();
            text.contains("127.0.0.1").then(|| format!("127.0.0.1:{port}"))
        })
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        until("local mode ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn exists(pid: Pid) -> bool {
    // A zombie that waits for its reaper is not running any more.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    test_kill_process(pid).is_ok() && !stat.contains(") Z ")
}

fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

#[test]
fn a_session_from_start_to_ctrl_c() {
    let mut session = Session::start();
    let first = session.dispatcher(None);
    let echo = session.endpoint("echo");
    assert!(TcpStream::connect(&echo).is_ok());
    // A dispatcher that dies is started again.
    kill_process(first, Signal::KILL).unwrap();
    let second = session.dispatcher(Some(first));
    // A function that appears is started; one that disappears is stopped, in about a second.
    write(session.folder.path(), "more.yaml", &ECHO.replace("name: echo", "name: more"));
    let more = session.endpoint("more");
    fs::remove_file(session.folder.path().join("more.yaml")).unwrap();
    until("the removed function is gone", || TcpStream::connect(&more).is_err().then_some(()));
    assert!(!session.inside("run/endpoints/default.more.yaml").exists());
    // What the journal gains is printed, as JSON because standard output is no terminal.
    let line = r#"{"ts":"2026-01-01T00:00:00Z","trigger":"default/t","function":"default/echo","id":"e1","stream":"t","shard":0,"sequence":1,"epoch":0,"time_ms":1,"outcome":"duplicate","owner":"00"}"#;
    fs::create_dir_all(session.inside("state/journal")).unwrap();
    write(&session.inside("state/journal"), "0000000000.jsonl", &format!("{line}\n"));
    session.signal(Signal::INT);
    assert_eq!(session.wait().code(), Some(0));
    let mut text = String::new();
    session.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["id"], "e1");
    assert_eq!(lines[1]["summary"]["duplicate"], 1);
    assert!(!exists(second) && TcpStream::connect(&echo).is_err());
    let outside: Vec<_> = fs::read_dir(session.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !["echo.yaml", "dispatcher.sh", ".kubeless"].contains(&name.as_str()))
        .collect();
    assert!(outside.is_empty(), "{outside:?}");
}

#[test]
fn children_end_with_a_killed_session() {
    let mut session = Session::start();
    let dispatcher = session.dispatcher(None);
    session.signal(Signal::KILL);
    session.wait();
    until("the dispatcher is gone too", || (!exists(dispatcher)).then_some(()));
}

#[test]
fn a_runtime_that_is_not_supported_concerns_its_function_only() {
    let session = Session::start();
    let text = ECHO.replace("name: echo", "name: other").replace("runtime: echo", "runtime: cobol85");
    write(session.folder.path(), "other.yaml", &text);
    session.endpoint("echo");
    let file = session.inside("run/endpoints/default.other.yaml");
    until("it is known to have no endpoint", || {
        fs::read_to_string(&file).ok().filter(|text| text.contains("endpoints: []"))
    });
}

#[test]
fn a_node_function_runs_with_its_packages_and_its_edits() {
    let session = Session::start();
    let function = |word: &str| {
        format!(
            "apiVersion: kubeless.io/v1beta1\nkind: Function\nmetadata: {{name: node}}\nspec:\n  runtime: nodejs18\n  \
             handler: index.say\n  deps: |\n    {{\"dependencies\": {{\"lodash\": \"4.17.21\"}}}}\n  function: |\n    \
             const _ = require('lodash');\n    \
             module.exports = {{ say: (event) => _.toUpper('{word} ' + event.data) }};\n"
        )
    };
    write(session.folder.path(), "node.yaml", &function("hello"));
    assert_eq!(post(&session.endpoint("node"), "world"), "HELLO WORLD");
    write(session.folder.path(), "node.yaml", &function("goodbye"));
    until("the edit serves", || (post(&session.endpoint("node"), "world") == "GOODBYE WORLD").then_some(()));
    // The packages of the first version serve the second: they are the same.
    let versions = fs::read_dir(session.inside("functions/default.node")).unwrap();
    let deps =
        versions.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("deps-"));
    assert_eq!(deps.count(), 1);
}

/// The body of an answer; empty while nobody listens.
fn post(address: &str, body: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    let length = body.len();
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.rsplit_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}
