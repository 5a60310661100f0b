//! The status of triggers, written by dispatchers to a real API server while their events come from a real Kafka: what is
//! said, by whom, and what is left alone.

use super::support::{
    apiserver::{self, ApiServer},
    kafka,
    ports::{self, free_port},
    process::Launch,
    shop::{LIMIT, Shop},
    wait,
    witness::Witness,
};
use kubeless::{
    api::conditions::{reasons, types},
    sources::{KINDS, TRIGGERS},
};
use serde_json::{Value, json};

/// The least that a sound object of each kind says, so that the dispatcher acts on it.
pub const SPECS: &[(&str, &str)] = &[
    (
        "KafkaTrigger",
        r#"{"topic": "t", "bootstrapServers": "127.0.0.1:1", "functionSelector": {"matchLabels": {"app": "none"}}}"#,
    ),
    ("NATSTrigger", r#"{"topic": "t", "functionSelector": {"matchLabels": {"app": "none"}}}"#),
    (
        "KinesisTrigger",
        r#"{"function-name": "nobody", "aws-region": "eu-central-1", "stream": "s", "shard": "shardId-000000000000", "secret": "keys"}"#,
    ),
    ("CronJobTrigger", r#"{"function-name": "nobody", "schedule": "0 0 1 1 *", "executor": "Dispatcher"}"#),
    (
        "HTTPTrigger",
        r#"{"function-name": "nobody", "host-name": "shop.example.com", "delivery": {"through": "Dispatcher"}}"#,
    ),
    ("CustomTrigger", r#"{"function-name": "nobody", "secret": "push"}"#),
];

pub fn trigger(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "kubeless.io/v1beta1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

pub fn plural(kind: &str) -> String {
    format!("{}s.kubeless.io", kind.to_ascii_lowercase())
}

fn status(api: &ApiServer, shop: &Shop, kind: &str, name: &str) -> Value {
    api.get(&shop.namespace, &format!("{}/{name}", plural(kind)))["status"].clone()
}

/// Status, reason and message.
fn condition(status: &Value, kind: &str) -> Option<(String, String, String)> {
    let list = status["conditions"].as_array()?;
    let found = list.iter().find(|condition| condition["type"] == kind)?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

/// Waits until the condition of an object has this status and reason; returns its message.
#[track_caller]
fn says(api: &ApiServer, shop: &Shop, object: (&str, &str), kind: &str, wanted: (&str, &str)) -> String {
    let mut last = Value::Null;
    let found = wait::try_until(LIMIT, || {
        last = status(api, shop, object.0, object.1);
        let (status, reason, message) = condition(&last, kind)?;
        (status == wanted.0 && reason == wanted.1).then_some(message)
    });
    found.unwrap_or_else(|| panic!("{object:?} never said {kind} {wanted:?}, but {last:#}"))
}

fn lease(api: &ApiServer, shop: &Shop) -> Value {
    // The namespace of the kubeconfig.
    api.get("default", &format!("lease/{}", shop.namespace))["spec"].clone()
}

/// Waits for renewals of the Lease: a clock that needs no sleep. The writer looks thrice as often.
#[track_caller]
fn renewals(api: &ApiServer, shop: &Shop, count: usize) {
    let mut seen = lease(api, shop)["renewTime"].clone();
    for _ in 0..count {
        seen = wait::until("the Lease is renewed", LIMIT, || {
            let now = lease(api, shop)["renewTime"].clone();
            (now != seen).then_some(now)
        });
    }
}

/// Writes of statuses in the namespace that the API server took.
fn writes(api: &ApiServer, shop: &Shop) -> usize {
    let written = |event: &Value| {
        event["verb"] == "patch"
            && event["objectRef"]["namespace"] == *shop.namespace
            && event["objectRef"]["subresource"] == "status"
            && event["responseStatus"]["code"] == 200
    };
    api.audit().iter().filter(|event| written(event)).count()
}

#[test]
fn two_replicas_tell_one_truth_and_the_other_one_takes_over() {
    let api = apiserver::shared();
    let witness = Witness::start_on(ports::own_address());
    let mut shop = Shop::new(api, kafka::shared(), &[&witness]);
    let (first, second) = (free_port(), free_port());
    let peers = format!("status.peers=127.0.0.1:{first},127.0.0.1:{second}");
    let start = |name: &str, port: u16| {
        let launch = shop.launch_as(&api.kubeconfig(), name, name, port).env("HOSTNAME", name);
        let sets = ["--set", &peers, "--set", "status.counters_every=1s"];
        sets.into_iter().fold(launch, Launch::arg).start()
    };
    let (mut one, mut two) = (start("one", first), start("two", second));
    one.wait_ready(LIMIT);
    two.wait_ready(LIMIT);
    let object = ("KafkaTrigger", "trigger");
    says(api, &shop, object, types::READY, ("True", reasons::ALL_GOOD));
    shop.produce(50);
    let events = |received: u64, replicas: u64| {
        let mut last = Value::Null;
        let counted = wait::try_until(LIMIT, || {
            last = status(api, &shop, object.0, object.1)["events"].clone();
            (last["received"] == received && last["replicas"] == replicas && last["inFlight"] == 0)
                .then_some(())
        });
        assert!(counted.is_some(), "{received} events of {replicas} replicas never came, but {last}");
        last
    };
    assert_eq!(events(50, 2)["outcomes"], json!({"delivered": 50}));
    let status_now = status(api, &shop, object.0, object.1);
    assert_eq!((&status_now["functions"], &status_now["observedGeneration"]), (&json!(1), &json!(1)));
    assert_eq!(condition(&status_now, types::AT_MOST_ONCE).expect("a promise").1, reasons::CLAIMED_AT_SOURCE);
    let columns = api.kubectl(&["get", "-n", &shop.namespace, &plural(object.0), "--no-headers"]);
    let columns: Vec<&str> = columns.split_whitespace().collect();
    assert!(columns.windows(2).any(|pair| pair == ["True", reasons::ALL_GOOD]), "{columns:?}");
    // Nothing changes: nothing is written.
    let before = writes(api, &shop);
    renewals(api, &shop, 3);
    assert_eq!(writes(api, &shop), before);
    // The writer dies; the other one says that it hears nothing of it.
    let holder = lease(api, &shop)["holderIdentity"].as_str().expect("somebody leads").to_owned();
    let (leader, other) = if holder.starts_with("one_") { (&mut one, "two_") } else { (&mut two, "one_") };
    leader.kill9();
    wait::until("the other one leads", LIMIT, || {
        lease(api, &shop)["holderIdentity"].as_str().filter(|holder| holder.starts_with(other)).map(drop)
    });
    let mut message = String::new();
    let told = wait::try_until(LIMIT, || {
        message = says(api, &shop, object, types::SOURCE_CONNECTED, ("True", reasons::CONNECTED));
        message.starts_with("1 of 2 replicas did not answer: 127.0.0.1:").then_some(())
    });
    assert!(told.is_some(), "{message:?}");
    assert_eq!(status(api, &shop, object.0, object.1)["events"]["replicas"], 1);
    // Deleted: nothing is written any more.
    api.kubectl(&["delete", "-n", &shop.namespace, "kafkatriggers.kubeless.io/trigger"]);
    let before = writes(api, &shop);
    renewals(api, &shop, 2);
    assert_eq!(writes(api, &shop), before);
}

#[test]
fn what_is_wrong_is_said_and_what_others_wrote_stays() {
    let api = apiserver::shared();
    let witness = Witness::start_on(ports::own_address());
    let mut shop = Shop::new(api, kafka::shared(), &[&witness]);
    let namespace = shop.namespace.clone();
    for (kind, spec) in SPECS {
        let sound: Value = serde_json::from_str(spec).expect("JSON");
        shop.apply(api, &trigger(kind, "sound", &sound));
        let mut malformed = sound;
        malformed["delivery"]["timeout"] = json!("999h");
        shop.apply(api, &trigger(kind, "malformed", &malformed));
    }
    assert_eq!(SPECS.len(), TRIGGERS.len(), "one of each kind");
    // As the source of the clock claims.
    let claim = json!({
        "apiVersion": "kubeless.io/v1beta1", "kind": "CronJobTrigger", "metadata": {"name": "malformed"},
        "status": {"claim": [
            {"token": "t", "instance": "i", "instant": "2026-01-01T00:00:00Z", "deadline": "2026-01-01T00:01:00Z"},
        ]},
    });
    let apply = [
        "apply",
        "--server-side",
        "--subresource=status",
        "--field-manager=clock",
        "-n",
        &namespace,
        "-f",
        "-",
    ];
    api.try_kubectl(&apply, &claim.to_string()).expect("another writer of the status");
    let mut dispatcher = shop.start(&api.kubeconfig());
    let object = ("KafkaTrigger", "trigger");
    says(api, &shop, object, types::READY, ("True", reasons::ALL_GOOD));
    for (kind, _) in SPECS {
        let message = says(api, &shop, (kind, "malformed"), types::READY, ("False", reasons::INVALID));
        assert!(message.contains("spec.delivery.timeout"), "{kind}: {message}");
        if KINDS.iter().all(|known| known.trigger().kind != *kind) {
            says(api, &shop, (kind, "sound"), types::READY, ("False", reasons::NOT_SERVED));
        }
    }
    let clock = ("CronJobTrigger", "malformed");
    assert_eq!(status(api, &shop, clock.0, clock.1)["claim"][0]["token"], "t");
    says(api, &shop, ("KafkaTrigger", "sound"), types::READY, ("False", reasons::NOTHING_SELECTED));
    let named = says(
        api,
        &shop,
        ("KinesisTrigger", "sound"),
        types::FUNCTION_RESOLVED,
        ("False", reasons::FUNCTION_MISSING),
    );
    assert!(named.contains("nobody"), "{named}");
    // Handed to the controller, which does not run here: our words go, those of others stay.
    let edit = r#"{"spec": {"executor": "CronJob"}}"#;
    let at = format!("{}/{}", plural(clock.0), clock.1);
    api.kubectl(&["patch", "-n", &namespace, &at, "--type=merge", "-p", edit]);
    wait::until("our conditions are gone", LIMIT, || {
        let now = status(api, &shop, clock.0, clock.1);
        (now.get("conditions").is_none() && now["claim"][0]["token"] == "t").then_some(())
    });
    // No broker there.
    shop.servers = format!("127.0.0.1:{}", free_port());
    shop.trigger(api, "  ");
    let message = says(api, &shop, object, types::SOURCE_CONNECTED, ("False", reasons::UNREACHABLE));
    assert!(message.starts_with("witness: "), "{message}");
    says(api, &shop, object, types::READY, ("False", reasons::UNREACHABLE));
    // Mended, and malformed while its last sound version goes on.
    shop.servers = kafka::shared().bootstrap().to_owned();
    shop.trigger(api, "  delivery: {timeout: 999h}");
    let message = says(api, &shop, object, types::READY, ("False", reasons::INVALID));
    assert!(message.contains("the last sound version stays in force"), "{message}");
    shop.trigger(api, "  ");
    says(api, &shop, object, types::READY, ("True", reasons::ALL_GOOD));
    api.kubectl(&["delete", "-n", &namespace, "functions.kubeless.io/witness"]);
    says(api, &shop, object, types::FUNCTION_RESOLVED, ("False", reasons::NOTHING_SELECTED));
    says(api, &shop, object, types::READY, ("False", reasons::NOTHING_SELECTED));
    // Whoever stops gives the Lease back, so that nobody has to wait for it.
    dispatcher.sigterm();
    dispatcher.wait_exit(LIMIT);
    assert_eq!(lease(api, &shop)["holderIdentity"], "");
}
