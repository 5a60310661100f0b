//! The manifest folder: what is read, what is refused and with which words, what an edit changes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use kubeless::{
    cluster::{
        manifests::{Limits, Manifests, diff::diff, load, watch::watch},
        target::{ObjectRef, Protocol},
    },
    sources::{TRIGGERS, kafka::spec::KafkaTrigger},
};
use proptest::prelude::*;
use std::{fs, path::Path, time::Duration};

const TRIGGER: &str = "apiVersion: kubeless.io/v1beta1
kind: KafkaTrigger
metadata:
  name: orders
spec:
  topic: orders
";

const FUNCTION: &str = "apiVersion: kubeless.io/v1beta1
kind: Function
metadata:
  name: hello
  labels: {function: hello}
spec:
  handler: hello.run
  runtime: python3.8
";

fn read(dir: &Path) -> Manifests {
    load(dir, TRIGGERS, &Limits::default())
}

fn one(text: &str) -> Manifests {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), text).unwrap();
    read(dir.path())
}

fn told(text: &str) -> Vec<String> {
    one(text).problems.iter().map(ToString::to_string).collect()
}

#[test]
fn reads_what_old_clusters_stored() {
    let found = one(r#"
apiVersion: v1
kind: List
items:
- apiVersion: kubeless.io/v1beta1
  kind: Function
  metadata:
    creationTimestamp: null
    name: get-python
    namespace: shop
    finalizers: [kubeless.io/function]
  spec:
    checksum: sha256:abc
    deployment:
      metadata: {creationTimestamp: null}
      spec: {strategy: {}, template: {spec: {containers: null}}}
      status: {}
    deps: ""
    function: "def foo(event, context): pass"
    function-content-type: text
    handler: helloget.foo
    horizontalPodAutoscaler:
      metadata: {creationTimestamp: null}
      spec: {maxReplicas: 0, scaleTargetRef: {kind: "", name: ""}}
      status: {conditions: null, currentMetrics: null, currentReplicas: 0, desiredReplicas: 0}
    runtime: python3.8
    service:
      ports:
      - {name: http-function-port, port: 9000, protocol: TCP, targetPort: 9000, appProtocol: kubernetes.io/h2c}
    timeout: "30"
- apiVersion: kubeless.io/v1beta1
  kind: KafkaTrigger
  metadata: {creationTimestamp: null, name: test, namespace: shop, uid: 1-2-3}
  spec:
    functionSelector: {matchLabels: {created-by: kubeless}}
    topic: s3
"#);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let function = &found.functions[&ObjectRef::new("shop", "get-python")].object;
    assert_eq!(function.timeout().unwrap(), Duration::from_secs(30));
    assert_eq!((function.service_port().port, function.service_port().protocol), (9000, Protocol::H2c));
    let written = serde_json::to_value(&**function).unwrap();
    assert_eq!(written["spec"]["function-content-type"], "text");
    assert_eq!(written["spec"]["horizontalPodAutoscaler"]["spec"]["maxReplicas"], 0);
    assert!(written["spec"]["deployment"]["status"].is_object(), "empty structures are kept");
    let again: kubeless::api::function::Function = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(again, **function);
    let (key, trigger) = found.triggers.iter().next().unwrap();
    assert_eq!(key.0, "KafkaTrigger");
    assert_eq!(&*trigger.object.core.uid, "1-2-3");
    assert_eq!(trigger.object.downcast::<KafkaTrigger>().unwrap().spec.topic, "s3");
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let found = one(TRIGGER);
    let core = &found.triggers.values().next().unwrap().object.core;
    assert_eq!(core.reference, ObjectRef::new("default", "orders"));
    assert_eq!(&*core.uid, "file:KafkaTrigger:default/orders");
    assert_eq!((core.delivery.max_in_flight, core.delivery.claim_window), (64, 2048));
    assert_eq!((core.dedup.window, core.dedup.max_entries), (Duration::from_secs(600), 1_000_000));
    assert!(core.dedup.enabled && core.filter.is_empty() && !core.paused);
}

#[test]
fn faults_are_told_with_file_line_and_fix() {
    let trigger = |spec: &str| format!("{TRIGGER}{spec}");
    for (text, wanted) in [
        (
            trigger("  topik: x\n"),
            "a.yaml:7:3: KafkaTrigger default/orders: spec.topik: unknown field \"topik\"; did you mean topic?",
        ),
        (
            trigger("  delivery:\n    retries: 3\n"),
            "a.yaml:8:5: KafkaTrigger default/orders: spec.delivery.retries: a retry option (retries) cannot work with delivery.mode AtMostOnce; remove it; only calls that provably never reached the function are tried again, and delivery.deadLetter keeps the rest",
        ),
        (
            trigger("  delivery: {mode: AtMostOnc}\n"),
            "a.yaml:7:14: KafkaTrigger default/orders: spec.delivery.mode: \"AtMostOnc\" is not allowed here; did you mean AtMostOnce?",
        ),
        (
            trigger("  delivery:\n    maxInFlight: 0\n"),
            "a.yaml:8:5: KafkaTrigger default/orders: spec.delivery.maxInFlight: 0 is out of range; write a number from 1 to 4096",
        ),
        (
            trigger("  delivery:\n    timeout: 30\n"),
            "a.yaml:8:5: KafkaTrigger default/orders: spec.delivery.timeout: expected a string, found the number 30; write it in quotes: \"30\"",
        ),
        (
            trigger("  dedup:\n    window: 10 minutes\n"),
            "a.yaml:8:5: KafkaTrigger default/orders: spec.dedup.window: \"10 minutes\" is not a duration: a whole number and one of the units ms, s, m, h is needed; write a duration from 1s to 24h, for example \"30s\"",
        ),
        (
            trigger("  dedup:\n    key: {header: a, recordKey: true}\n"),
            "a.yaml:8:5: KafkaTrigger default/orders: spec.dedup.key: does not name exactly one id; write exactly one of header, jsonPointer, recordKey",
        ),
        (
            trigger("  startingPosition: timestamp\n"),
            "a.yaml:7:3: KafkaTrigger default/orders: spec.startingPosition: startingPosition: timestamp needs startingTimestamp; add startingTimestamp, for example \"2026-11-23T10:00:00Z\"",
        ),
        (
            trigger("  credentials: /etc/secrets\n"),
            "a.yaml:7:3: KafkaTrigger default/orders: spec.credentials: \"/etc/secrets\" is not the name of a Secret or credentials folder; write its name (a-z, 0-9, '-'), not a path",
        ),
        (
            trigger("  functionSelector:\n    matchExpressions:\n    - key: a\n      operator: Inn\n"),
            "a.yaml:10:7: KafkaTrigger default/orders: spec.functionSelector.matchExpressions.0.operator: unknown operator \"Inn\"; did you mean In?",
        ),
        (
            trigger("  filter:\n  - exakt: {type: a}\n"),
            "a.yaml:8:5: KafkaTrigger default/orders: spec.filter.0.exakt: unknown field \"exakt\"; did you mean exact?",
        ),
        (
            trigger("  delivery:\n    deadLetter: {topic: orders}\n"),
            "a.yaml:8:18: KafkaTrigger default/orders: spec.delivery.deadLetter.topic: the dead-letter topic is the topic that is read: an event would circle for ever; name another topic",
        ),
        (
            trigger("  topic: again\n"),
            "a.yaml:7:3: not valid YAML: duplicate mapping key: topic; correct the document; the others are read",
        ),
        (
            TRIGGER.replace("topic: orders", "topic: a/b"),
            "a.yaml:6:3: KafkaTrigger default/orders: spec.topic: \"a/b\" is not a topic name; write 1 to 249 of a-z, A-Z, 0-9, '.', '_', '-', and neither \".\" nor \"..\"",
        ),
        (
            TRIGGER.replace("KafkaTrigger", "KafkTrigger"),
            "a.yaml:2:1: KafkTrigger default/orders: kind: unknown kind \"KafkTrigger\"; did you mean KafkaTrigger?",
        ),
        (
            TRIGGER.replace("v1beta1", "v1"),
            "a.yaml:1:1: KafkaTrigger default/orders: apiVersion: KafkaTrigger has no version kubeless.io/v1; write apiVersion: kubeless.io/v1beta1",
        ),
        (
            FUNCTION.replace("runtime: python3.8", "timeout: 30s"),
            "a.yaml:8:3: Function default/hello: spec.timeout: timeout \"30s\" is not a whole number of seconds from 1 to 86400; write whole seconds in quotes, for example \"180\"",
        ),
        (
            FUNCTION.replace("function: hello}", "rev: 7}"),
            "a.yaml:5:12: Function default/hello: metadata.labels.rev: the value is not a text; write it in quotes: \"7\"",
        ),
        (
            "hello: world\n".to_owned(),
            "a.yaml:1:1: not a Kubernetes object: apiVersion or kind is missing; begin with apiVersion: kubeless.io/v1beta1 and kind: Function",
        ),
    ] {
        assert_eq!(told(&text), [wanted], "for\n{text}");
    }
}

#[test]
fn a_bad_document_does_not_stop_the_others() {
    let text = format!(
        "# first\n---\n{TRIGGER}---\na: [1\n---\n{FUNCTION}---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\n"
    );
    let found = one(&text);
    assert_eq!((found.functions.len(), found.triggers.len()), (1, 1));
    assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
    assert!((9..=11).contains(&found.problems[0].line), "{}", found.problems[0]);
    assert_eq!(found.ignored.len(), 1);
    assert_eq!((found.ignored[0].kind.as_str(), found.ignored[0].name.as_str()), ("Deployment", "d"));
}

#[test]
fn other_sources_kinds_and_duplicates() {
    let other = TRIGGER.replace("KafkaTrigger", "PulsarTrigger");
    let found = one(&format!("{TRIGGER}---\n{other}---\n{TRIGGER}"));
    assert_eq!((found.triggers.len(), found.ignored.len()), (1, 1));
    assert_eq!(
        found.problems[0].to_string(),
        "a.yaml:15:1: KafkaTrigger default/orders is already defined in a.yaml:1; remove or rename one of the two"
    );
}

#[test]
fn the_walk_stays_in_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let sub = dir.path().join("sub");
    fs::create_dir_all(sub.join(".git")).unwrap();
    fs::write(sub.join("f.yml"), FUNCTION).unwrap();
    fs::write(sub.join(".git/g.yaml"), "broken: [").unwrap();
    fs::write(sub.join(".hidden.yaml"), "broken: [").unwrap();
    fs::write(sub.join("notes.txt"), "broken: [").unwrap();
    fs::write(
        dir.path().join("t.json"),
        serde_json::to_string_pretty(&serde_json::json!({
        "apiVersion": "kubeless.io/v1beta1", "kind": "KafkaTrigger",
        "metadata": {"name": "orders"}, "spec": {"topic": "orders"}}))
        .unwrap()
        .replace("  ", "\t"),
    )
    .unwrap();
    std::os::unix::fs::symlink(dir.path(), sub.join("loop")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("gone"), dir.path().join("dangling.yaml")).unwrap();
    fs::write(dir.path().join("big.yaml"), vec![b'#'; 3000]).unwrap();
    fs::write(dir.path().join("latin.yaml"), b"a: \xff").unwrap();
    let found = load(dir.path(), TRIGGERS, &Limits { max_file_bytes: 2000, ..Limits::default() });
    assert_eq!((found.functions.len(), found.triggers.len()), (1, 1), "{:?}", found.problems);
    let told: Vec<_> = found.problems.iter().map(|p| format!("{} {}", p.file, p.what)).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("big.yaml is larger than 2000 bytes"), "{told:?}");
    assert!(told[1].starts_with("latin.yaml is not UTF-8"), "{told:?}");
    assert!(told[2].starts_with("dangling.yaml cannot be read"), "{told:?}");
    let missing = read(&dir.path().join("nowhere"));
    assert!(missing.problems[0].to_string().starts_with(".: cannot be opened"), "{:?}", missing.problems);
}

#[test]
fn bombs_hit_the_budget() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let refs = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
    }
    assert_eq!(told(&bomb).len(), 1);
    assert_eq!(told(&"[".repeat(100_000)).len(), 1);
    assert_eq!(told(&"- ".repeat(10_000)).len(), 1);
}

#[test]
fn an_edit_touches_only_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, format!("{TRIGGER}---\n{FUNCTION}")).unwrap();
    let first = read(dir.path());
    let all = diff(&Manifests::default(), &first);
    assert_eq!((all.functions.apply.len(), all.triggers.apply.len()), (1, 1));
    fs::write(&file, format!("# a comment\n{TRIGGER}---\n{FUNCTION}")).unwrap();
    assert!(diff(&first, &read(dir.path())).is_empty(), "comments change nothing");
    fs::write(&file, format!("{TRIGGER}  paused: true\n---\n{FUNCTION}")).unwrap();
    let second = read(dir.path()).keep_last_good(&first);
    let changes = diff(&first, &second);
    assert!(changes.functions.is_empty() && changes.triggers.apply[0].core.paused);
    fs::write(&file, format!("{TRIGGER}  pausd: true\n---\n{FUNCTION}")).unwrap();
    let broken = read(dir.path()).keep_last_good(&second);
    assert!(diff(&second, &broken).is_empty(), "a bad edit keeps the last good object");
    assert_eq!(broken.problems.len(), 1);
    fs::write(&file, FUNCTION).unwrap();
    let third = read(dir.path()).keep_last_good(&broken);
    assert_eq!(
        diff(&broken, &third).triggers.delete,
        [("KafkaTrigger", ObjectRef::new("default", "orders"))]
    );
}

#[tokio::test]
async fn the_watch_signals_an_edit_soon_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let watch = watch(dir.path(), Duration::from_millis(20)).unwrap();
    let mut signals = watch.signals();
    fs::write(dir.path().join("a.yaml"), TRIGGER).unwrap();
    tokio::time::timeout(Duration::from_secs(5), signals.changed()).await.unwrap().unwrap();
    drop(watch);
    // The thread is gone: after what it already said comes the end.
    while signals.changed().await.is_ok() {}
}

#[test]
fn ten_thousand_triggers_are_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    for file in 0..10 {
        let name = |n: usize| TRIGGER.replace("name: orders", &format!("name: orders-{file}-{n}"));
        let text: Vec<String> = (0..1000).map(name).collect();
        fs::write(dir.path().join(format!("{file}.yaml")), text.join("---\n")).unwrap();
    }
    let found = read(dir.path());
    assert_eq!((found.triggers.len(), found.problems.len()), (10_000, 0));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        one(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_yaml_never_panics(text in "(apiVersion: kubeless.io/v1beta1\nkind: (Function|KafkaTrigger)\n)?([a-z]{1,5}: ?[-\\[\\]{}&*!|>'\"%@a-z0-9:#, \n]{0,12}\n){0,8}") {
        one(&text);
    }
}
