//! The six kinds: what old clusters stored, what the groups that all triggers share say, and that the rules of the
//! schemas are the ones that are checked offline.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use kubeless::{
    api::{
        cronjob_trigger::{CronJobTrigger, Executor},
        function::{self, Function},
        http_trigger::{HTTPTrigger, Through},
        kind::{ServedBy, TriggerObject},
    },
    cluster::{
        index::Index as _,
        manifests::{Limits, Manifests, load, read_text},
        target::ObjectRef,
    },
    dispatch::Workers,
    invoker::InvokerConfig,
    ledger::journal::{Journal, JournalConfig},
    router::{Router, RouterOptions},
    sources::{
        self, Environment, TRIGGERS, kinesis::spec::KinesisTrigger, manager::SourceManager,
        nats::spec::NATSTrigger,
    },
};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc, time::Duration};

fn stored() -> Manifests {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/kubeless-1.0.8");
    load(&dir, TRIGGERS, &Limits::default())
}

fn trigger(found: &Manifests, kind: &str, name: &str) -> Arc<TriggerObject> {
    let found = found.triggers.iter().find(|((k, n), _)| *k == kind && &*n.name == name);
    Arc::clone(&found.unwrap_or_else(|| panic!("no {kind} {name}")).1.object)
}

fn decode(kind: &str, spec: &Value) -> Result<TriggerObject, Vec<String>> {
    let registered = TRIGGERS.iter().find(|registered| registered.kind == kind).unwrap();
    let object = json!({
        "apiVersion": "kubeless.io/v1beta1", "kind": kind,
        "metadata": {"namespace": "shop", "name": "t"}, "spec": spec
    });
    (registered.decode)(object).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

#[test]
fn every_kind_that_kubeless_1_0_8_stored_is_read() {
    let found = stored();
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    assert_eq!((found.functions.len(), found.triggers.len(), found.ignored.len()), (3, 6, 0));
    for loaded in found.functions.values() {
        let written = serde_json::to_value(&*loaded.object).unwrap();
        let again: Function = function::decode(written).unwrap();
        assert_eq!(again, *loaded.object, "what is written reads back equal");
        loaded.object.deployment().unwrap();
    }
    let busy = &found.functions[&ObjectRef::new("shop", "busy")].object;
    assert!(busy.content_type().archive.is_some() && busy.content_type().bundled_deps);
    assert_eq!(busy.handler().unwrap().module, "busy");
    assert_eq!(busy.service().unwrap().cluster_ip.as_deref(), Some("None"));
    let metrics = &busy.spec.horizontal_pod_autoscaler.as_ref().unwrap()["spec"]["metrics"];
    assert_eq!(metrics[1]["resource"]["targetAverageUtilization"], 70, "v2beta1 is kept as it is");

    let http = trigger(&found, "HTTPTrigger", "get-python");
    let typed = http.downcast::<HTTPTrigger>().unwrap();
    assert_eq!((typed.through(), typed.path().as_str()), (Through::Ingress, "/"));
    assert_eq!((http.served_by, typed.spec.cors_enable), (ServedBy::Controller, true));
    let cron = trigger(&found, "CronJobTrigger", "scheduled");
    let typed = cron.downcast::<CronJobTrigger>().unwrap();
    assert_eq!((typed.executor(), typed.spec.payload.clone()), (Executor::CronJob, json!({})));
    let typed = trigger(&found, "CronJobTrigger", "scheduled-get").downcast::<CronJobTrigger>().unwrap();
    assert!(typed.spec.payload.is_null(), "no payload is a GET, an empty one a POST");
    let nats = trigger(&found, "NATSTrigger", "orders");
    assert_eq!(nats.downcast::<NATSTrigger>().unwrap().spec.topic, "orders.>");
    assert!(nats.core.selector.matches("any", &[("function".to_owned(), "busy".to_owned())].into()));
    let kinesis = trigger(&found, "KinesisTrigger", "orders");
    assert_eq!(
        kinesis.downcast::<KinesisTrigger>().unwrap().spec.shard.as_deref(),
        Some("shardId-000000000000")
    );
    assert!(kinesis.core.selector.matches("get-python", &Default::default()));
    assert!(!kinesis.core.selector.matches("busy", &Default::default()));
}

#[test]
fn finalizers_are_the_exact_texts_of_kubeless() {
    let mut all: Vec<_> = TRIGGERS.iter().filter_map(|kind| kind.finalizer).collect();
    all.push(function::FINALIZER);
    all.sort_unstable();
    assert_eq!(
        all,
        [
            "kubeless.io/cronjobtrigger",
            "kubeless.io/function",
            "kubeless.io/httptrigger",
            "kubeless.io/kafkatrigger",
            "kubeless.io/kenisistrigger",
            "kubeless.io/natstrigger",
        ]
    );
}

/// The schema of `spec` of every kind.
fn schemas() -> Vec<(String, Value)> {
    let pointer = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let spec = |crd: &_| serde_json::to_value(crd).unwrap().pointer(pointer).cloned().unwrap();
    sources::crds().iter().map(|crd| (crd.spec.names.kind.clone(), spec(crd))).collect()
}

#[test]
fn the_shared_groups_are_the_same_in_every_trigger() {
    let mut schemas = schemas();
    schemas.retain(|(kind, _)| kind != "Function");
    let first = schemas[0].1["properties"].clone();
    for (kind, schema) in &mut schemas {
        // What HTTPTrigger alone has.
        let through =
            schema["properties"]["delivery"]["properties"].as_object_mut().unwrap().remove("through");
        assert_eq!(through.is_some(), kind == "HTTPTrigger");
        for group in ["delivery", "dedup", "filter", "ordering", "paused"] {
            let mut own = schema["properties"][group].clone();
            let mut wanted = first[group].clone();
            for text in [&mut own, &mut wanted] {
                text.as_object_mut().unwrap().remove("description");
            }
            assert_eq!(own, wanted, "{kind}: {group}");
        }
    }
}

#[test]
fn every_rule_and_pattern_can_be_checked_offline() {
    fn walk(schema: &Value, path: &str, found: &mut usize) {
        for rule in schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
            let alone = json!({"type": "object", "x-kubernetes-validations": [rule]});
            let compiled = kube::core::cel::compile_schema(&alone);
            assert!(!compiled.has_errors(), "{path}: {rule}: {:?}", compiled.compilation_errors());
            assert!(
                rule["message"].as_str().is_some_and(|text| !text.is_empty()),
                "{path}: {rule} says no fix"
            );
            *found += 1;
        }
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
            regex::Regex::new(pattern).unwrap();
        }
        match schema {
            Value::Object(map) => {
                map.iter().for_each(|(key, inner)| walk(inner, &format!("{path}/{key}"), found));
            }
            Value::Array(items) => items.iter().for_each(|inner| walk(inner, path, found)),
            _ => {}
        }
    }
    let mut found = 0;
    schemas().iter().for_each(|(kind, schema)| walk(schema, kind, &mut found));
    assert!(found > 15, "{found}");
}

#[test]
fn faults_of_each_kind_are_told() {
    let kinesis = |change: &[(&str, &str)]| {
        let mut spec = json!({
            "function-name": "f", "aws-region": "eu-west-1", "stream": "s", "shard": "shardId-000000000000", "secret": "k"
        });
        change.iter().for_each(|(key, value)| spec[*key] = json!(value));
        spec
    };
    for (kind, spec, wanted) in [
        ("HTTPTrigger", json!({}), "spec: field \"function-name\" is missing; add function-name"),
        (
            "HTTPTrigger",
            json!({"function-name": "F"}),
            "spec.function-name: \"F\" is not the name of a function; write 1 to 63 of a-z, 0-9, '-', starting and ending with a letter or digit",
        ),
        (
            "HTTPTrigger",
            json!({"function-name": "f", "tls": true, "tls-secret": "s"}),
            "spec.tls-secret: tls (a certificate is asked for) and tls-secret (it exists) exclude each other; remove one of the two",
        ),
        (
            "HTTPTrigger",
            json!({"function-name": "f", "host-name": "https://a"}),
            "spec.host-name: \"https://a\" is not a host name; write for example shop.example.com, without scheme, port and path",
        ),
        (
            "HTTPTrigger",
            json!({"function-name": "f", "delivery": {"through": "dispatcher"}}),
            "spec.delivery.through: \"dispatcher\" is not allowed here; did you mean Dispatcher?",
        ),
        (
            "HTTPTrigger",
            json!({"function-name": "f", "delivery": {"deadLetter": {"topic": "d"}}}),
            "spec.delivery.deadLetter: a request has no topic beside it where it could be kept; remove it; the caller sees the outcome",
        ),
        (
            "HTTPTrigger",
            json!({"function-name": "f", "hostname": "a"}),
            "spec.hostname: unknown field \"hostname\"; did you mean host-name?",
        ),
        (
            "CronJobTrigger",
            json!({"function-name": "f", "schedule": "* * *"}),
            "spec.schedule: a schedule has five fields, this one has 3; write minute, hour, day of month, month, day of week, for example \"*/5 * * * *\", or a name like @hourly",
        ),
        (
            "CronJobTrigger",
            json!({"function-name": "f", "schedule": "@every 5m", "executor": "Dispatcher"}),
            "spec.schedule: @every counts from the start of a process, which names no instant to claim; write five fields, for example \"*/5 * * * *\", or executor: CronJob",
        ),
        (
            "CronJobTrigger",
            json!({"function-name": "f", "schedule": "@daily", "timeZone": "Mars"}),
            "spec.timeZone: \"Mars\" is not a time zone; write its IANA name, for example Europe/Berlin or Etc/UTC",
        ),
        (
            "CronJobTrigger",
            json!({"function-name": "f", "schedule": "@daily", "catchUp": "All"}),
            "spec.catchUp: a CronJob does not make up for missed times as it is told; write executor: Dispatcher, or remove it",
        ),
        (
            "CronJobTrigger",
            json!({"function-name": "f", "schedule": "@daily", "retries": 3}),
            "spec.retries: a retry option (retries) cannot work with delivery.mode AtMostOnce; remove it; only calls that provably never reached the function are tried again, and delivery.deadLetter keeps the rest",
        ),
        (
            "NATSTrigger",
            json!({"topic": "a..b"}),
            "spec.topic: \"a..b\" is not a subject; write tokens separated by dots, without spaces; * stands for one token, > at the end for one or more",
        ),
        (
            "NATSTrigger",
            json!({"topic": "a", "dedup": {"key": {"recordKey": true}}}),
            "spec.dedup.key.recordKey: a message has no key; use header or jsonPointer",
        ),
        (
            "KinesisTrigger",
            kinesis(&[("aws-region", "EU West")]),
            "spec.aws-region: \"EU West\" is not allowed here; write what matches ^[a-z0-9-]+$",
        ),
        (
            "KinesisTrigger",
            kinesis(&[("endpoint", "localhost:4566")]),
            "spec.endpoint: \"localhost:4566\" is not the URL of a service; write for example http://localhost:4566",
        ),
        (
            "KinesisTrigger",
            json!({"function-name": "f", "aws-region": "a", "secret": "s"}),
            "spec: field \"stream\" is missing; add stream",
        ),
    ] {
        assert_eq!(decode(kind, &spec).unwrap_err(), [wanted], "{kind} {spec}");
    }
    decode("HTTPTrigger", &json!({"function-name": "f", "host-name": "*.example.com", "path": "/a"}))
        .unwrap();
    decode("CronJobTrigger", &json!({"function-name": "f", "schedule": "@daily", "catchUp": "All", "catchUpLimit": 5, "executor": "Dispatcher", "timeZone": "Asia/Tokyo"})).unwrap();
}

#[test]
fn who_serves_a_trigger_is_known() {
    let served = |kind: &str, spec: &Value| decode(kind, spec).unwrap().served_by;
    let http = json!({"function-name": "f", "delivery": {"through": "Dispatcher", "maxInFlight": 8}});
    assert_eq!(served("HTTPTrigger", &http), ServedBy::Dispatcher);
    assert_eq!(decode("HTTPTrigger", &http).unwrap().core.delivery.max_in_flight, 8);
    assert_eq!(served("HTTPTrigger", &json!({"function-name": "f"})), ServedBy::Controller);
    let cron = json!({"function-name": "f", "schedule": "@daily", "executor": "Dispatcher", "suspend": true});
    assert_eq!(served("CronJobTrigger", &cron), ServedBy::Dispatcher);
    assert!(decode("CronJobTrigger", &cron).unwrap().core.paused, "suspended counts as paused");
    assert_eq!(served("NATSTrigger", &json!({"topic": "a"})), ServedBy::Dispatcher);
}

#[test]
fn a_trigger_that_nothing_serves_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let journal =
        Journal::open(dir.path(), JournalConfig { max_bytes: 1 << 20, segment_bytes: 1 << 16 }).unwrap();
    let (mut index, router) = Router::new(RouterOptions::default());
    let environment = Environment {
        journal: Arc::new(journal),
        workers: Arc::new(Workers::start(1, &InvokerConfig::default()).unwrap()),
        permits: Arc::new(tokio::sync::Semaphore::new(0)),
        memory: Arc::default(),
        timeout_margin: Duration::ZERO,
        secret: None,
        router: router.clone(),
        cluster: None,
    };
    let mut manager = SourceManager::new(Vec::new(), router, environment, Duration::ZERO);
    let function = json!({"apiVersion": "kubeless.io/v1beta1", "kind": "Function", "metadata": {"namespace": "shop", "name": "f"}});
    index.apply(function::decode(function).unwrap());
    let schedule = json!({"function-name": "f", "schedule": "@daily"});
    for trigger in [decode("NATSTrigger", &json!({"topic": "a"})), decode("CronJobTrigger", &schedule)] {
        let trigger = Arc::new(trigger.unwrap());
        index.apply(Arc::clone(&trigger.core));
        assert!(!manager.serves(&trigger));
        manager.apply(trigger);
    }
    manager.reconcile();
    let shown = manager.snapshot().lock().unwrap().clone();
    // The CronJobTrigger is the controller's business.
    assert_eq!(
        shown,
        json!([{
            "kind": "NATSTrigger", "trigger": "shop/t", "claiming": false,
            "status": "not served: this dispatcher has no source for NATSTrigger"
        }])
    );
}

#[test]
fn two_kinds_in_one_folder_may_have_one_name() {
    let text = "apiVersion: kubeless.io/v1beta1
kind: NATSTrigger
metadata: {name: orders}
spec: {topic: orders}
---
apiVersion: kubeless.io/v1beta1
kind: KafkaTrigger
metadata: {name: orders}
spec: {topic: orders}
";
    let found = read_text("a.yaml", text, TRIGGERS, &Limits::default());
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let uids: Vec<_> = found.triggers.values().map(|loaded| loaded.object.core.uid.to_string()).collect();
    assert_eq!(uids, ["file:KafkaTrigger:default/orders", "file:NATSTrigger:default/orders"]);
}
