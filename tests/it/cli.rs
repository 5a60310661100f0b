//! The command line in process: what it publishes, prints and returns. The journal commands run the real binary.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kubeless::{
    api::{command::TriggerCommand, kind::TriggerKind},
    cli::{DevRequest, Exit, Message, Publisher, Wiring, help, run},
    sources,
};
use std::{
    cell::RefCell,
    ffi::OsString,
    io::Write,
    path::Path,
    process::Command,
    rc::Rc,
    sync::mpsc::{Sender, channel},
    time::Duration,
};

/// Records what commands ask for.
#[derive(Default)]
struct Recorder {
    sent: Rc<RefCell<Vec<Message>>>,
    servers: RefCell<String>,
    dev: RefCell<Option<DevRequest>>,
    told: RefCell<Option<Sender<usize>>>,
}

struct Recording(Rc<RefCell<Vec<Message>>>, Option<Sender<usize>>);

impl Publisher for Recording {
    fn publish(&mut self, messages: Vec<Message>) -> anyhow::Result<Vec<String>> {
        let positions = (0..messages.len()).map(|offset| format!("t/0/{offset}")).collect();
        self.0.borrow_mut().extend(messages);
        if let Some(told) = &self.1 {
            told.send(self.0.borrow().len())?;
        }
        Ok(positions)
    }
}

impl Wiring for Recorder {
    fn triggers(&self) -> Vec<TriggerCommand> {
        sources::COMMANDS.to_vec()
    }

    fn definitions(&self) -> Vec<CustomResourceDefinition> {
        sources::crds()
    }

    fn crds(&self) -> anyhow::Result<String> {
        anyhow::bail!("no definitions here")
    }

    fn trigger_kinds(&self) -> Vec<TriggerKind> {
        sources::TRIGGERS.to_vec()
    }

    fn publisher(&self, servers: &str) -> anyhow::Result<Box<dyn Publisher>> {
        servers.clone_into(&mut self.servers.borrow_mut());
        Ok(Box::new(Recording(Rc::clone(&self.sent), self.told.borrow().clone())))
    }

    fn topics(&self, _: &str) -> anyhow::Result<Box<dyn sources::Topics>> {
        anyhow::bail!("no topics here")
    }

    fn dev(&self, request: DevRequest) -> anyhow::Result<()> {
        *self.dev.borrow_mut() = Some(request);
        Ok(())
    }

    fn child(&self, _: u32, _: &[OsString]) -> anyhow::Error {
        anyhow::anyhow!("not here")
    }
}

fn cli(recorder: &Recorder, arguments: &[&str]) -> Exit {
    let all = std::iter::once("kubeless").chain(arguments.iter().copied()).map(OsString::from);
    run(all, recorder)
}

#[test]
fn help_begins_with_an_example_and_ends_with_the_exit_codes() {
    let text = help();
    assert!(text.starts_with("Examples:\n  kubeless dev"), "{text}");
    assert!(text.contains("130 interrupted"), "{text}");
    assert!(!text.contains("child"), "{text}");
}

#[test]
fn exit_codes() {
    let recorder = Recorder::default();
    assert_eq!(cli(&recorder, &["version"]), Exit::Ok);
    assert_eq!(cli(&recorder, &["--help"]), Exit::Ok);
    assert_eq!(cli(&recorder, &["crds"]), Exit::Failed);
    assert_eq!(cli(&recorder, &["crd"]), Exit::Usage);
    assert_eq!(cli(&recorder, &["cron", "next", "@daily", "--tz", "Asia/Tokyo", "-o", "json"]), Exit::Ok);
    assert_eq!(cli(&recorder, &["cron", "next", "* * * *"]), Exit::Usage);
    assert_eq!(cli(&recorder, &["cron", "next", "@daily", "--tz", "Mars/Olympus"]), Exit::Usage);
    assert_eq!(cli(&recorder, &["validate", "config/examples/flights"]), Exit::Ok);
    assert_eq!(cli(&recorder, &["validate", "/nonexistent"]), Exit::Failed);
    assert_eq!(cli(&recorder, &["dev", "/nonexistent"]), Exit::Usage);
    assert_eq!(cli(&recorder, &["send", "t", "--broker", "b:1", "--header", "novalue"]), Exit::Usage);
    assert_eq!(cli(&recorder, &["events", "list", "--outcome", "lost"]), Exit::Usage);
}

#[test]
fn one_event() {
    let recorder = Recorder::default();
    let arguments =
        ["send", "orders", "{\"id\":42}", "--id", "o-42", "--key", "k", "-H", "a=b=c", "--broker", "h:1"];
    assert_eq!(cli(&recorder, &arguments), Exit::Ok);
    assert_eq!(*recorder.servers.borrow(), "h:1");
    let sent = recorder.sent.borrow();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].topic, "orders");
    assert_eq!(sent[0].id.as_deref(), Some("o-42"));
    assert_eq!(sent[0].key.as_deref(), Some("k"));
    assert_eq!(sent[0].headers, [("a".to_owned(), "b=c".to_owned())]);
    assert_eq!(sent[0].content_type, "application/json");
    assert_eq!(sent[0].data.as_deref(), Some(b"{\"id\":42}".as_slice()));
}

#[test]
fn a_repeat_of_an_id_goes_where_the_first_went() {
    let recorder = Recorder::default();
    assert_eq!(cli(&recorder, &["send", "orders", "--id", "o-42", "--broker", "h:1"]), Exit::Ok);
    assert_eq!(recorder.sent.borrow()[0].key.as_deref(), Some("o-42"));
}

#[test]
fn a_file_is_one_event_a_line_with_ids_from_a_member() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"{\"n\":1,\"c\":\"x\"}\n\n{\"n\":2,\"c\":\"y\"}\n").unwrap();
    let path = file.path().to_str().unwrap();
    let recorder = Recorder::default();
    let arguments = ["send", "t", "--file", path, "--id-from", "n", "--key-from", "c", "--broker", "h:1"];
    assert_eq!(cli(&recorder, &arguments), Exit::Ok);
    let ids: Vec<_> = recorder.sent.borrow().iter().map(|message| message.id.clone()).collect();
    assert_eq!(ids, [Some("1".to_owned()), Some("2".to_owned())]);
    let keys: Vec<_> = recorder.sent.borrow().iter().map(|message| message.key.clone()).collect();
    assert_eq!(keys, [Some("x".to_owned()), Some("y".to_owned())]);
    let missing = ["send", "t", "--file", path, "--id-from", "z", "--broker", "h:1"];
    assert_eq!(cli(&recorder, &missing), Exit::Failed);
}

#[test]
fn lines_of_a_slow_pipe_go_out_as_they_come() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (told, published) = channel();
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || {
            let mut pipe = std::fs::OpenOptions::new().write(true).open(pipe).unwrap();
            for sent in 1..=2 {
                pipe.write_all(b"{}\n").unwrap();
                // Without the first on its way the second is never written.
                assert_eq!(published.recv_timeout(Duration::from_secs(30)), Ok(sent));
            }
        }
    });
    let recorder = Recorder { told: RefCell::new(Some(told)), ..Recorder::default() };
    let arguments = ["send", "t", "--file", pipe.to_str().unwrap(), "--positions", "--broker", "h:1"];
    assert_eq!(cli(&recorder, &arguments), Exit::Ok);
    writer.join().unwrap();
}

#[test]
fn lines_before_a_wrong_one_are_sent() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"{\"n\":1}\n{\"n\":2}\nnonsense\n{\"n\":4}\n").unwrap();
    let recorder = Recorder::default();
    let path = file.path().to_str().unwrap();
    let arguments = ["send", "t", "--file", path, "--id-from", "n", "--broker", "h:1"];
    assert_eq!(cli(&recorder, &arguments), Exit::Failed);
    assert_eq!(recorder.sent.borrow().len(), 2);
}

#[test]
fn dev_takes_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    assert_eq!(cli(&recorder, &["dev", folder.path().to_str().unwrap(), "--json"]), Exit::Ok);
    let request = recorder.dev.borrow().clone().unwrap();
    assert!(request.json && request.dir == folder.path());
}

fn journal(state: &Path) {
    let line = |ts: &str, id: &str, sequence: u64, rest: &str| {
        format!(
            "{{\"ts\":\"{ts}\",\"trigger\":\"shop/orders\",\"function\":\"shop/bill\",\"id\":\"{id}\",\"stream\":\"t\",\
             \"shard\":0,\"sequence\":{sequence},\"epoch\":0,\"time_ms\":1,\"owner\":\"ab\",{rest}}}\n"
        )
    };
    let early = "2026-01-01T00:00:00Z";
    let text = [
        line(
            early,
            "a",
            1,
            "\"outcome\":\"delivered\",\"status\":200,\"endpoint\":\"127.0.0.1:1\",\"took_us\":1500",
        ),
        line(early, "b", 2, "\"outcome\":\"in_doubt\""),
        line(early, "c", 3, "\"outcome\":\"in_doubt\""),
        line("2026-01-02T00:00:00Z", "c", 3, "\"outcome\":\"failed\",\"status\":500"),
    ]
    .concat();
    std::fs::create_dir_all(state.join("journal")).unwrap();
    std::fs::write(state.join("journal/0000000000.jsonl"), text + "{\"torn").unwrap();
}

fn events(state: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kubeless"))
        .arg("events")
        .args(arguments)
        .arg("--state-dir")
        .arg(state)
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn events_from_the_journal() {
    let state = tempfile::tempdir().unwrap();
    journal(state.path());
    let (code, text) = events(state.path(), &["list", "-o", "name"]);
    assert_eq!((code, text.as_str()), (0, "a\nb\nc\n"), "c was settled by its own claimer");
    let (_, text) = events(state.path(), &["list", "--outcome", "in_doubt", "-o", "name"]);
    assert_eq!(text, "b\n");
    let (_, text) = events(state.path(), &["list", "--since", "2026-01-01T12:00:00Z", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let (_, text) = events(state.path(), &["list", "--trigger", "other", "-o", "name"]);
    assert_eq!(text, "");
    let (_, text) = events(state.path(), &["list", "--limit", "1"]);
    assert!(text.starts_with("ENDED") && text.lines().count() == 2 && text.contains("failed"), "{text}");
    let (code, text) = events(state.path(), &["get", "a"]);
    assert_eq!(code, 0);
    for part in
        ["Position    t/0/1", "Outcome     delivered", "Sent to     127.0.0.1:1", "Took        1.5 ms"]
    {
        assert!(text.contains(part), "{part} missing in\n{text}");
    }
    assert_eq!(events(state.path(), &["get", "t/0/3"]).0, 0);
    assert_eq!(events(state.path(), &["get", "zzz"]).0, 1);
}

#[test]
fn publishing_means_the_server_that_its_flags_name() {
    let recorder = Recorder::default();
    let to = |arguments: &[&str]| {
        assert_eq!(cli(&recorder, arguments), Exit::Ok, "{arguments:?}");
        recorder.servers.borrow().clone()
    };
    let nats = ["trigger", "nats", "publish", "--url", "localhost:4222", "--message", "x"];
    assert_eq!(to(&nats), "nats://localhost:4222");
    let kinesis = ["trigger", "kinesis", "publish", "--stream", "s", "--records", "1", "--records", "2"];
    assert_eq!(to(&[&kinesis[..], &["--aws-region", "eu-west-1"]].concat()), "kinesis://eu-west-1");
    let endpoint =
        ["--aws-region", "eu-west-1", "--endpoint", "http://localhost:4566/", "--partition-key", "k"];
    assert_eq!(to(&[&kinesis[..], &endpoint].concat()), "kinesis+http://localhost:4566/eu-west-1");
    let kafka = ["trigger", "kafka", "publish", "--data", "1", "--id", "i", "--broker", "b:1"];
    assert_eq!(to(&kafka), "b:1");
    let sent = recorder.sent.borrow();
    let topics: Vec<&str> = sent.iter().map(|message| message.topic.as_str()).collect();
    assert_eq!(topics, ["kubeless", "s", "s", "s", "s", "kubeless"]);
    assert_eq!((sent[3].key.as_deref(), sent[5].key.as_deref()), (Some("k"), Some("i")));
    let wrong = [&kinesis[..], &["--endpoint", "localhost"]].concat();
    assert_eq!(cli(&recorder, &wrong), Exit::Usage);
}
