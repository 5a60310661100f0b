//! `kubeless dev` with every kind of trigger of one folder bound to one function, and no server installed: what is sent to
//! each source calls the function once, also after triggers were edited, added and deleted.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use crate::support::wait;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Longest wait for anything; a schedule needs up to a minute.
const PATIENCE: Duration = Duration::from_secs(120);

const FUNCTION: &str = r#"
apiVersion: kubeless.io/v1beta1
kind: Function
metadata: {name: note, labels: {app: note}}
spec:
  runtime: python3.11
  handler: note.handler
  function: |
    import os
    def handler(event, context):
        line = "%s\n" % (event["event-id"] or "-")
        file = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(file, line.encode())
        os.close(file)
        return "noted"
  deployment: {spec: {template: {spec: {containers: [{name: note, env: [{name: NOTES, value: "@NOTES@"}]}]}}}}
"#;

struct Session {
    folder: tempfile::TempDir,
    child: Child,
}

impl Session {
    fn start(triggers: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let notes = folder.path().join("notes");
        let function = FUNCTION.replace("@NOTES@", &notes.display().to_string());
        fs::write(folder.path().join("function.yaml"), function).unwrap();
        for (name, text) in triggers {
            write(folder.path(), name, text);
        }
        let child = Command::new(env!("CARGO_BIN_EXE_kubeless"))
            .arg("dev")
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("said")).unwrap())
            .spawn()
            .unwrap();
        Self { folder, child }
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.folder.path().join(".kubeless").join(path)
    }

    /// What the session says of itself to programs.
    fn known(&self) -> Value {
        wait::until("the session is described", PATIENCE, || {
            serde_json::from_slice(&fs::read(self.inside("run/dev.json")).ok()?).ok()
        })
    }

    /// Waits until exactly these triggers are served, and nothing is wrong with them.
    fn serves(&self, wanted: &[&str]) {
        let address = self.known()["admin"].as_str().unwrap().to_owned();
        let mut last = Value::Null;
        let served = wait::try_until(PATIENCE, || {
            let answer = ureq::get(format!("http://{address}/debug/subscriptions")).call().ok()?;
            last = serde_json::from_str(&answer.into_body().read_to_string().ok()?).ok()?;
            let all = last.as_array()?;
            let mut names: Vec<&str> = all.iter().filter_map(|one| one["trigger"].as_str()).collect();
            names.sort_unstable();
            let fit =
                |one: &Value| one["claiming"] == true && one["status"] == "" && one["state"] == "connected";
            let wanted: Vec<String> = wanted.iter().map(|name| format!("default/{name}")).collect();
            (names == wanted && all.iter().all(fit)).then_some(())
        });
        let log = fs::read_to_string(self.inside("logs/dispatcher.log")).unwrap_or_default();
        assert!(served.is_some(), "{wanted:?} are not served: {last:#}\n{}\n{log}", self.said());
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("said")).unwrap_or_default()
    }

    /// `kubeless send` in the folder: it finds the server by itself.
    fn send(&self, arguments: &[&str]) {
        let sent = Command::new(env!("CARGO_BIN_EXE_kubeless"))
            .arg("send")
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("KUBELESS_BROKER")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&sent.stderr);
        assert!(sent.status.success(), "send {arguments:?}: {said}");
    }

    /// How often the function was called with each id.
    fn notes(&self) -> BTreeMap<String, usize> {
        let text = fs::read_to_string(self.folder.path().join("notes")).unwrap_or_default();
        let mut notes = BTreeMap::new();
        text.lines().for_each(|id| *notes.entry(id.to_owned()).or_default() += 1);
        notes
    }

    fn noted(&self, ids: &[&str]) {
        let noted = wait::try_until(PATIENCE, || {
            let notes = self.notes();
            ids.iter().all(|id| notes.contains_key(*id)).then_some(())
        });
        assert!(noted.is_some(), "{ids:?} not all in {:?}\n{}", self.notes(), self.said());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
}

fn trigger(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: kubeless.io/v1beta1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn selecting(kind: &str, name: &str, topic: &str) -> String {
    trigger(kind, name, &format!("{{topic: {topic}, functionSelector: {{matchLabels: {{app: note}}}}}}"))
}

fn kinesis(stream: &str) -> String {
    let spec = format!(
        "{{function-name: note, aws-region: eu-central-1, stream: {stream}, startingPosition: TRIM_HORIZON}}"
    );
    trigger("KinesisTrigger", "shards", &spec)
}

#[test]
fn every_kind_of_trigger_calls_one_function_without_a_server_installed() {
    let mut session = Session::start(&[
        ("kafka", selecting("KafkaTrigger", "log", "orders")),
        ("nats", selecting("NATSTrigger", "subject", "paid.*")),
        ("kinesis", kinesis("clicks")),
        (
            "http",
            trigger(
                "HTTPTrigger",
                "door",
                "{function-name: note, path: door, delivery: {through: Dispatcher}}",
            ),
        ),
        (
            "cron",
            trigger(
                "CronJobTrigger",
                "clock",
                "{schedule: '* * * * *', function-name: note, executor: Dispatcher}",
            ),
        ),
    ]);
    session.serves(&["clock", "door", "log", "shards", "subject"]);
    for (topic, id) in [("orders", "k1"), ("paid.eu", "n1"), ("clicks", "s1"), ("/door", "h1")] {
        session.send(&[topic, r#"{"n":1}"#, "--id", id]);
        // The same event again: it is known.
        session.send(&[topic, r#"{"n":1}"#, "--id", id]);
    }
    session.noted(&["k1", "n1", "s1", "h1"]);
    // Edited: another subject and another stream. Deleted: the topic.
    write(session.folder.path(), "nats", &selecting("NATSTrigger", "subject", "refunded"));
    write(session.folder.path(), "kinesis", &kinesis("views"));
    fs::remove_file(session.folder.path().join("kafka.yaml")).unwrap();
    session.serves(&["clock", "door", "shards", "subject"]);
    wait::until("the session knows the new subject", PATIENCE, || {
        session.known()["topics"].to_string().contains("refunded").then_some(())
    });
    session.send(&["refunded", "1", "--id", "n2"]);
    session.send(&["views", "1", "--id", "s2"]);
    // Nobody reads these any more.
    let servers = session.known()["servers"].clone();
    session.send(&["orders", "1", "--id", "k3", "--broker", servers["kafka"].as_str().unwrap()]);
    session.send(&["paid.eu", "1", "--id", "n3", "--broker", servers["nats"].as_str().unwrap()]);
    session.noted(&["n2", "s2"]);
    // The ids of the clock's calls are longer than ours.
    let by_clock = || session.notes().into_iter().find(|(id, _)| id.len() > 2);
    wait::until("the clock called", PATIENCE, by_clock);
    let pid = Pid::from_raw(i32::try_from(session.child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ended = wait::until("local mode ends", PATIENCE, || session.child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0), "{}", session.said());
    let mut notes = session.notes();
    assert!(notes.values().all(|calls| *calls == 1), "{notes:?}");
    notes.retain(|id, _| id.len() == 2);
    let ids: Vec<String> = notes.into_keys().collect();
    assert_eq!(ids, ["h1", "k1", "n1", "n2", "s1", "s2"], "{}", session.said());
}
