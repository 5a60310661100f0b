//! `kubeless topic` and `kubeless trigger KIND publish` against real servers: what is made is there, what is sent has a place,
//! and what is wrong is said with its fix.

use crate::support::{kafka, kinesis, nats::NatsCluster};
use serde_json::Value;
use std::process::{Command, Output};

fn kubeless(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubeless"));
    command.args(arguments).env_remove("KUBELESS_BROKER").current_dir("/");
    command.output().expect("the binary was built")
}

fn out(arguments: &[&str]) -> String {
    let ended = kubeless(arguments);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{arguments:?}: {said}");
    String::from_utf8(ended.stdout).expect("text")
}

fn refused(arguments: &[&str]) -> String {
    let ended = kubeless(arguments);
    assert!(!ended.status.success(), "{arguments:?} was done");
    String::from_utf8(ended.stderr).expect("text")
}

#[test]
fn topics_are_made_listed_filled_and_removed() {
    let brokers = kafka::shared().bootstrap();
    let name = format!("cli-{:08x}", fastrand::u32(..));
    out(&["topic", "create", &name, "--partitions", "3", "--replicas", "1", "--broker", brokers]);
    let again = refused(&["topic", "create", &name, "--broker", brokers]);
    assert!(again.contains("is there already"), "{again}");
    let listed: Value =
        serde_json::from_str(&out(&["topic", "ls", "-o", "json", "--broker", brokers])).expect("JSON");
    let found =
        listed["items"].as_array().expect("a list").iter().find(|topic| topic["name"] == name.as_str());
    let found = found.expect("the new topic");
    assert_eq!((&found["partitions"], &found["replicas"]), (&Value::from(3), &Value::from(1)));
    let place = out(&["topic", "publish", "--topic", &name, "--data", "{}", "--broker", brokers]);
    assert!(place.starts_with(&format!("{name}/")), "{place}");
    let publish =
        ["trigger", "kafka", "publish", "--topic", &name, "--data", "1", "--data", "2", "--key", "k"];
    let places = out(&[&publish[..], &["--broker", brokers]].concat());
    assert_eq!(places.lines().count(), 2, "{places}");
    out(&["topic", "delete", &name, "--broker", brokers]);
    let gone = refused(&["topic", "delete", &name, "--broker", brokers]);
    assert!(gone.contains("kubeless topic list"), "{gone}");
}

#[test]
fn nats_and_kinesis_take_what_is_published() {
    let server = NatsCluster::start(1);
    let place =
        out(&["trigger", "nats", "publish", "--url", &server.url(), "--topic", "a.b", "--message", "x"]);
    assert_eq!(place.trim(), "a.b");
    let endpoint = kinesis::shared().endpoint();
    let service = ["--aws-region", "us-east-1", "--endpoint", &endpoint];
    let name = format!("cli-{:08x}", fastrand::u32(..));
    let create = ["trigger", "kinesis", "create-stream", "--stream-name", &name, "--shard-count", "2"];
    out(&[&create[..], &service].concat());
    let publish = ["trigger", "kinesis", "publish", "--stream", &name, "--records", "1", "--records", "2"];
    let places = out(&[&publish[..], &service, &["--partition-key", "k"]].concat());
    assert_eq!(
        places.lines().filter(|line| line.starts_with(&format!("{name}/shardId-"))).count(),
        2,
        "{places}"
    );
    let missing = refused(&[&publish[..3], &["--stream", "nowhere", "--records", "1"], &service].concat());
    assert!(missing.contains("nowhere"), "{missing}");
}

#[test]
fn what_names_no_server_is_told_how() {
    for arguments in [
        &["topic", "list"][..],
        &["trigger", "nats", "publish", "--message", "x"],
        &["trigger", "kinesis", "create-stream", "--stream-name", "s"],
    ] {
        let said = refused(arguments);
        assert!(said.contains("kubeless dev") && said.contains("write --"), "{arguments:?}: {said}");
    }
}
