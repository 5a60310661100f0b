//! The resource definitions on a real API server: what old clusters stored is taken over, and what is refused there
//! and offline is the same. Must never prove what the schema alone says: that is `tests/it/resources.rs`.

use super::support::apiserver::{self, ApiServer};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::ApiResource,
};
use kubeless::{
    api::{
        conditions::{Fact, reasons, set, types},
        function,
        kind::TriggerKind,
    },
    sources::{TRIGGERS, crds},
};
use serde_json::{Value, json};
use std::{fs, path::Path};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(work)
}

/// The objects under `tests/it/kubeless-1.0.8`, in `namespace`, without what a server gives.
fn stored(namespace: &str) -> Vec<Value> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/kubeless-1.0.8");
    let mut found = Vec::new();
    for file in ["functions.yaml", "triggers.yaml"] {
        let text = fs::read_to_string(dir.join(file)).expect("a sample of this repository");
        for document in text.split("\n---\n") {
            let value: Value = serde_saphyr::from_str(document).expect("a sample is YAML");
            match value.get("items").and_then(Value::as_array) {
                Some(items) => found.extend(items.iter().cloned()),
                None => found.push(value),
            }
        }
    }
    for object in &mut found {
        let metadata = object["metadata"].as_object_mut().expect("a sample has metadata");
        metadata
            .retain(|key, _| !["uid", "resourceVersion", "selfLink", "generation"].contains(&key.as_str()));
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    found
}

fn api_of(client: &Client, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let all = crds();
    let names = &all.iter().find(|crd| crd.spec.names.kind == kind).expect("one of the six").spec.names;
    let resource = ApiResource {
        group: "kubeless.io".to_owned(),
        version: "v1beta1".to_owned(),
        api_version: "kubeless.io/v1beta1".to_owned(),
        kind: kind.to_owned(),
        plural: names.plural.clone(),
    };
    Api::namespaced_with(client.clone(), namespace, &resource)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What this product says about an object.
fn offline(object: Value) -> Result<(), String> {
    let kind = text(&object, "/kind").to_owned();
    let told = |faults: Vec<kubeless::api::Violation>| {
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    match TRIGGERS.iter().find(|registered| registered.kind == kind) {
        Some(TriggerKind { decode, .. }) => decode(object).map(drop).map_err(told),
        None => function::decode(object).map(drop).map_err(told),
    }
}

/// A definition as Kubeless had it: no schema at all.
fn old_definition(new: &CustomResourceDefinition) -> Value {
    let names = &new.spec.names;
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": new.metadata.name},
        "spec": {
            "group": "kubeless.io", "scope": "Namespaced",
            "names": {"kind": names.kind, "plural": names.plural, "singular": names.singular},
            "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema":
                {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]
        }
    })
}

#[test]
fn what_kubeless_stored_is_taken_over() {
    let api = ApiServer::start();
    for crd in crds() {
        api.apply("default", &old_definition(&crd).to_string());
        let name = format!("crd/{}", crd.metadata.name.as_deref().unwrap_or_default());
        api.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &name]);
    }
    let namespace = api.namespace("old");
    let samples = stored(&namespace);
    block_on(async {
        let client = api.client().await;
        for sample in &samples {
            let object: DynamicObject = serde_json::from_value(sample.clone()).expect("an object");
            let kind = text(sample, "/kind");
            api_of(&client, &namespace, kind).create(&PostParams::default(), &object).await.expect(kind);
        }
    });
    api.install_crds();
    for crd in crds() {
        let name = format!("crd/{}", crd.metadata.name.as_deref().unwrap_or_default());
        let found = api.get("default", &name);
        let wrong: Vec<&Value> = found["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|condition| condition["type"] == "NonStructuralSchema" && condition["status"] == "True")
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    block_on(async {
        let client = api.client().await;
        for sample in &samples {
            adopt(&client, &namespace, sample).await;
        }
    });
}

/// The object is read as it was, its status can be written, and the finalizer of Kubeless taken away.
async fn adopt(client: &Client, namespace: &str, sample: &Value) {
    let (kind, name) = (text(sample, "/kind"), text(sample, "/metadata/name"));
    let objects = api_of(client, namespace, kind);
    let found = serde_json::to_value(objects.get(name).await.expect(name)).expect("JSON");
    assert!(
        kept(&sample["spec"], &found["spec"]),
        "{kind} {name}: {}\nbecame {}",
        sample["spec"],
        found["spec"]
    );
    offline(found.clone()).unwrap_or_else(|told| panic!("{kind} {name}: {told}"));
    let generation = found["metadata"]["generation"].as_i64();
    let mut conditions = Vec::new();
    let fact = Fact::new(types::READY, false, reasons::NOT_SERVED, "no source here");
    set(&mut conditions, &fact, generation, jiff::Timestamp::now());
    let status = json!({"status": {"observedGeneration": generation, "conditions": conditions}});
    let written =
        objects.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect(name);
    assert_eq!(written.data["status"]["conditions"][0]["reason"], reasons::NOT_SERVED);
    assert_eq!(written.metadata.generation, generation, "status is a subresource");
    let bare = json!({"metadata": {"finalizers": null}});
    let written = objects.patch(name, &PatchParams::default(), &Patch::Merge(bare)).await.expect(name);
    assert!(written.metadata.finalizers.unwrap_or_default().is_empty());
}

/// Whether all that `old` says stands in `new`; nulls may go, and defaults may come.
fn kept(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Null, _) => true,
        (Value::Object(old), Value::Object(new)) => old
            .iter()
            .all(|(key, value)| value.is_null() || new.get(key).is_some_and(|found| kept(value, found))),
        (Value::Array(old), Value::Array(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| kept(old, new))
        }
        _ => old == new,
    }
}

fn kinesis(change: &Value) -> Value {
    let mut spec = json!({
        "function-name": "f", "aws-region": "eu-west-1", "stream": "s", "shard": "shardId-000000000000", "secret": "k"
    });
    for (key, value) in change.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

/// Specs that are refused, by the server and offline.
fn refused_by_both() -> Vec<(&'static str, Value)> {
    let kafka = |change: Value| {
        let mut spec = json!({"topic": "orders"});
        change.as_object().into_iter().flatten().for_each(|(key, value)| spec[key] = value.clone());
        ("KafkaTrigger", spec)
    };
    vec![
        kafka(json!({"topic": ".."})),
        kafka(json!({"topic": "a b"})),
        kafka(json!({"topik": "a"})),
        kafka(json!({"startingPosition": "timestamp"})),
        kafka(json!({"startingTimestamp": "2026-01-01T00:00:00Z"})),
        kafka(json!({"delivery": {"deadLetter": {"topic": "orders"}}})),
        kafka(json!({"delivery": {"deadLetter": {"topic": "d", "outcomes": []}}})),
        kafka(json!({"delivery": {"mode": "ExactlyOnce"}})),
        kafka(json!({"delivery": {"maxInFlight": 0}})),
        kafka(json!({"delivery": {"claimWindow": 4097}})),
        kafka(json!({"delivery": {"timeout": "1d"}})),
        kafka(json!({"delivery": {"retries": 3}})),
        kafka(json!({"dedup": {"key": {}}})),
        kafka(json!({"dedup": {"key": {"header": "a", "recordKey": true}}})),
        kafka(json!({"tls": {"insecureSkipVerify": true}})),
        kafka(json!({"sasl": {"mechanism": "PLAIN"}})),
        kafka(json!({"sasl": {"mechanism": "PLAIN", "tokenEndpoint": "http://a"}, "credentials": "c"})),
        kafka(json!({"filter": [{}]})),
        kafka(json!({"filter": [{"exact": {"type": "a"}, "prefix": {"type": "a"}}]})),
        kafka(json!({"ordering": "key"})),
        ("NATSTrigger", json!({})),
        ("NATSTrigger", json!({"topic": "a b"})),
        ("NATSTrigger", json!({"topic": "a", "dedup": {"key": {"recordKey": true}}})),
        ("KinesisTrigger", kinesis(&json!({"aws-region": "EU West"}))),
        ("KinesisTrigger", kinesis(&json!({"stream": ""}))),
        ("KinesisTrigger", json!({"function-name": "f"})),
        ("HTTPTrigger", json!({"host-name": "a.example.com"})),
        ("HTTPTrigger", json!({"function-name": "f", "tls": true, "tls-secret": "s"})),
        ("HTTPTrigger", json!({"function-name": "f", "delivery": {"through": "Proxy"}})),
        ("HTTPTrigger", json!({"function-name": "f", "delivery": {"deadLetter": {"topic": "d"}}})),
        ("HTTPTrigger", json!({"function-name": "f", "dedup": {"key": {"recordKey": true}}})),
        ("CustomTrigger", json!({"function-name": "f", "functionSelector": {"matchLabels": {"a": "b"}}})),
        ("CustomTrigger", json!({"function-name": "f", "secret": "../push"})),
        ("CustomTrigger", json!({"function-name": "f", "dedup": {"enabled": false}})),
        ("CustomTrigger", json!({"function-name": "f", "dedup": {"key": {"header": "a"}}})),
        ("CustomTrigger", json!({"function-name": "f", "delivery": {"deadLetter": {"topic": "d"}}})),
        ("CronJobTrigger", json!({"function-name": "f"})),
        ("CronJobTrigger", json!({"function-name": "f", "schedule": "@daily", "catchUpLimit": 3})),
        ("CronJobTrigger", json!({"function-name": "f", "schedule": "@daily", "catchUp": "Last"})),
        (
            "CronJobTrigger",
            json!({"function-name": "f", "schedule": "@daily", "dedup": {"key": {"header": "a"}}}),
        ),
        ("CronJobTrigger", json!({"function-name": "f", "schedule": "@daily", "concurrencyPolicy": "None"})),
        ("Function", json!({"function": "x"})),
        ("Function", json!({"handler": "a.b.c"})),
        ("Function", json!({"handler": "a.b", "function-content-type": "zip"})),
        ("Function", json!({"handler": "a.b", "checksum": "md5:1"})),
        ("Function", json!({"handler": "a.b", "timeout": "30s"})),
        ("Function", json!({"handler": "a.b", "timeout": 30})),
        ("Function", json!({"handler": "a.b", "replicas": -1})),
    ]
}

/// Specs that both take.
fn taken_by_both() -> Vec<(&'static str, Value)> {
    let full = json!({
        "topic": "orders", "functionSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
        "bootstrapServers": "a:9092,b:9092", "startingPosition": "timestamp", "startingTimestamp": "2026-01-01T00:00:00Z",
        "credentials": "c", "tls": {"enabled": true, "insecureSkipVerify": true}, "sasl": {"mechanism": "SCRAM-SHA-512"},
        "delivery": {"mode": "AtMostOnce", "maxInFlight": 8, "claimWindow": 64, "timeout": "30s", "expireAfter": "1h",
            "deadLetter": {"topic": "d", "outcomes": ["failed"]}},
        "dedup": {"enabled": true, "window": "1h", "maxEntries": 5000, "key": {"jsonPointer": "/id"}},
        "filter": [{"exact": {"type": "a"}}, {"any": [{"prefix": {"source": "b"}}, {"not": {"suffix": {"id": "c"}}}]}],
        "ordering": "Partition", "paused": true
    });
    vec![
        ("KafkaTrigger", full),
        ("NATSTrigger", json!({"topic": "orders.*.>"})),
        ("KinesisTrigger", kinesis(&json!({"endpoint": "http://localhost:4566"}))),
        (
            "HTTPTrigger",
            json!({"function-name": "f", "delivery": {"through": "Dispatcher"}, "ingressClassName": "nginx"}),
        ),
        ("CustomTrigger", json!({"function-name": "f", "secret": "push"})),
        ("CustomTrigger", json!({"functionSelector": {"matchLabels": {"a": "b"}}})),
        (
            "CronJobTrigger",
            json!({"function-name": "f", "schedule": "@daily", "executor": "Dispatcher", "catchUp": "All",
            "catchUpLimit": 3, "timeZone": "Europe/Berlin", "startingDeadlineSeconds": 60, "payload": [1, {"a": null}]}),
        ),
        ("Function", json!({})),
        (
            "Function",
            json!({"handler": "a.b", "function": "x", "function-content-type": "url+zip", "timeout": "30"}),
        ),
    ]
}

/// What the server would say, unknown fields being faults, without writing anything.
async fn rehearse(client: &Client, object: &Value) -> Result<String, String> {
    let all = crds();
    let kind = text(object, "/kind");
    let plural =
        &all.iter().find(|crd| crd.spec.names.kind == kind).expect("one of the six").spec.names.plural;
    let url = format!(
        "/apis/kubeless.io/v1beta1/namespaces/{}/{plural}?dryRun=All&fieldValidation=Strict",
        text(object, "/metadata/namespace")
    );
    let request = http::Request::post(url).header("content-type", "application/json");
    let request = request.body(object.to_string().into_bytes()).expect("a request");
    client.request_text(request).await.map_err(|error| error.to_string())
}

#[test]
fn the_server_and_the_offline_check_agree() {
    let api = apiserver::shared();
    api.install_crds();
    let namespace = api.namespace("agree");
    block_on(async {
        let client = api.client().await;
        let cases = refused_by_both().into_iter().map(|case| (case, false));
        for ((kind, spec), good) in cases.chain(taken_by_both().into_iter().map(|case| (case, true))) {
            let object = json!({
                "apiVersion": "kubeless.io/v1beta1", "kind": kind,
                "metadata": {"name": "x", "namespace": namespace}, "spec": spec
            });
            let server = rehearse(&client, &object).await;
            assert_eq!(server.is_ok(), good, "server, {kind} {spec}: {server:?}");
            let here = offline(object);
            assert_eq!(here.is_ok(), good, "offline, {kind} {spec}: {here:?}");
        }
    });
}

#[test]
fn kubectl_shows_scales_and_selects_them() {
    let api = apiserver::shared();
    api.install_crds();
    let namespace = api.namespace("shown");
    block_on(async {
        let client = api.client().await;
        for (kind, spec) in taken_by_both() {
            let object = json!({
                "apiVersion": "kubeless.io/v1beta1", "kind": kind, "metadata": {"name": "x"}, "spec": spec
            });
            let typed: DynamicObject = serde_json::from_value(object).expect("an object");
            // Some kinds stand in the list twice: the second is there already.
            let _ = api_of(&client, &namespace, kind).create(&PostParams::default(), &typed).await;
        }
    });
    let get = |what: &str| api.kubectl(&["get", what, "-n", &namespace]);
    for (short, columns) in [
        ("fn", "NAME READY REASON RUNTIME REPLICAS URL AGE"),
        ("kt", "NAME TOPIC SELECTOR READY REASON AGE"),
        ("nt", "NAME SUBJECT SELECTOR READY REASON AGE"),
        ("kst", "NAME STREAM REGION FUNCTION READY REASON AGE"),
        ("ct", "NAME SCHEDULE FUNCTION READY REASON LAST AGE"),
        ("ht", "NAME HOST PATH FUNCTION READY REASON AGE"),
        ("cst", "NAME FUNCTION SELECTOR READY REASON AGE"),
    ] {
        let shown = get(short);
        let head: Vec<&str> = shown.lines().next().unwrap_or_default().split_whitespace().collect();
        assert_eq!(head.join(" "), columns, "{short}");
    }
    let names = |what: &str| {
        let mut names: Vec<String> =
            api.kubectl(&["get", what, "-n", &namespace, "-o", "name"]).lines().map(str::to_owned).collect();
        names.sort_unstable();
        names
    };
    assert_eq!((names("kubeless").len(), names("triggers").len()), (TRIGGERS.len() + 1, TRIGGERS.len()));
    api.kubectl(&["scale", "fn/x", "--replicas=3", "-n", &namespace]);
    assert_eq!(api.get(&namespace, "fn/x")["spec"]["replicas"], 3);
    let selected = |topic: &str| {
        let field = format!("spec.topic={topic}");
        api.kubectl(&["get", "kt", "-n", &namespace, "--field-selector", &field, "-o", "name"])
    };
    assert!(!selected("orders").is_empty() && selected("payments").is_empty());
}
