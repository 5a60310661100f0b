//! The dispatcher with its objects from a real API server, its events from a real Kafka, and a function that stands
//! behind EndpointSlices: what is served, what an outage costs (nothing), when claiming stops.

use super::{
    status,
    support::{
        apiserver::{self, ApiServer, Part},
        kafka, metrics, ports,
        shop::{LIMIT, Shop, subscription},
        wait,
        witness::Witness,
    },
};
use kubeless::{cluster::access, sources::TRIGGERS};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Instant};

#[test]
fn a_function_without_ready_pods_and_a_rollout_cost_no_event() {
    let api = apiserver::shared();
    let (old, new) = (Witness::start_on(ports::own_address()), Witness::start_on(ports::own_address()));
    let mut shop = Shop::new(api, kafka::shared(), &[&old]);
    let mut dispatcher = shop.start(&api.kubeconfig());
    shop.produce(200);
    shop.settle(&[&old, &new]).assert_clean();
    // No pod is ready: nothing is claimed.
    shop.endpoint(api, &old, &json!({"ready": false}));
    let admin = dispatcher.admin();
    wait::until("it claims nothing", LIMIT, || (subscription(admin)?["claiming"] == false).then_some(()));
    shop.produce(100);
    assert_eq!(shop.committed(), 200);
    // A rollout under load: the new pod is ready, the old one leaves and then is gone.
    shop.endpoint(api, &old, &json!({"ready": true}));
    shop.endpoint(api, &new, &json!({"ready": true}));
    for _ in 0..10 {
        shop.produce(50);
    }
    shop.endpoint(api, &old, &json!({"ready": false, "serving": true, "terminating": true}));
    let before = new.len();
    shop.produce(300);
    new.wait_for(before + 100, LIMIT);
    old.refuse();
    shop.produce(300);
    let report = shop.settle(&[&old, &new]);
    report.assert_clean();
    assert_eq!(report.outcome("delivered"), shop.produced.len(), "{report:?}");
    // Deleted: nothing is claimed any more.
    let begun = Instant::now();
    api.kubectl(&["delete", "-n", &shop.namespace, "kafkatriggers.kubeless.io/trigger"]);
    wait::until("the subscription is gone", LIMIT, || subscription(admin).is_none().then_some(()));
    println!("a deleted trigger was let go after {:.2?} (kubectl included)", begun.elapsed());
}

#[test]
fn events_go_on_while_the_api_server_is_down() {
    let mut api = ApiServer::start();
    let witness = Witness::start_on(ports::own_address());
    let mut shop = Shop::new(&api, kafka::shared(), &[&witness]);
    let mut dispatcher = shop.start(&api.kubeconfig());
    shop.produce(100);
    shop.settle(&[&witness]).assert_clean();
    let admin = dispatcher.admin();
    for part in [Part::Etcd, Part::ApiServer] {
        api.kill9(part);
    }
    let watch = |name: &str| metrics::scrape(admin).get(name, &[("kind", "KafkaTrigger")]);
    wait::until("the outage is seen", LIMIT, || (watch("kubeless_watch_up") == Some(0.0)).then_some(()));
    let heard = watch("kubeless_watch_last_heard_timestamp_seconds").expect("a watch was heard");
    shop.produce(500);
    shop.settle(&[&witness]).assert_clean();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    assert!(now.as_secs_f64() > heard, "the age of the cache is told");
    assert_eq!(metrics::get(admin, "/readyz").expect("it answers").0, 200, "and it stays ready");
    api.start_again(Part::Etcd);
    api.start_again(Part::ApiServer);
    shop.trigger(&api, "  paused: true");
    wait::until("an edit arrives again", LIMIT, || (subscription(admin)?["claiming"] == false).then_some(()));
    shop.trigger(&api, "  paused: false");
    shop.produce(50);
    shop.settle(&[&witness]).assert_clean();
}

#[test]
fn revoked_rights_stop_claiming_and_granted_ones_let_it_go_on() {
    let api = apiserver::shared();
    let witness = Witness::start_on(ports::own_address());
    let mut shop = Shop::new(api, kafka::shared(), &[&witness]);
    let namespace = shop.namespace.clone();
    api.kubectl(&["create", "serviceaccount", "dispatcher", "-n", &namespace]);
    let grant = |on: bool| {
        let account = format!("--serviceaccount={namespace}:dispatcher");
        if on {
            api.kubectl(&[
                "create",
                "rolebinding",
                "dispatcher",
                "--role=dispatcher",
                &account,
                "-n",
                &namespace,
            ]);
        } else {
            api.kubectl(&["delete", "rolebinding", "dispatcher", "-n", &namespace]);
        }
    };
    let mut rules = access::dispatcher(TRIGGERS);
    // No trigger here names a Secret, nor is any called by the clock.
    rules.retain(|rule| !rule.by_name && rule.resources != ["cronjobtriggers/status"]);
    let written = rules.iter().map(|rule| {
        json!({"apiGroups": [rule.group], "resources": rule.resources, "verbs": rule.verbs, "resourceNames": rule.names})
    });
    let written: Vec<Value> = written.collect();
    // One of each kind that it speaks of.
    for (kind, spec) in status::SPECS {
        let spec: Value = serde_json::from_str(spec).expect("JSON");
        shop.apply(api, &status::trigger(kind, "other", &spec));
    }
    shop.apply(
        api,
        &json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "dispatcher"},
            "rules": written,
        }),
    );
    grant(true);
    let config = api.service_account(&namespace, "dispatcher");
    let mut launch = shop.launch(&config);
    let lease = format!("status.lease={}", access::LEASE);
    for set in ["kubernetes.watch_silence=2s", "kubernetes.refused_budget=1s", &lease] {
        launch = launch.arg("--set").arg(set);
    }
    let mut dispatcher = launch.start();
    dispatcher.wait_ready(LIMIT);
    shop.produce(50);
    shop.settle(&[&witness]).assert_clean();
    grant(false);
    let admin = dispatcher.admin();
    let held = wait::until("claiming stops", LIMIT, || {
        subscription(admin).filter(|page| page["claiming"] == false && page["held"].is_string())
    });
    assert!(held["held"].as_str().is_some_and(|why| why.contains("refused")), "{held}");
    shop.produce(20);
    assert_eq!(shop.committed(), 50);
    assert_eq!(metrics::get(admin, "/readyz").expect("it answers").0, 200);
    grant(true);
    shop.settle(&[&witness]).assert_clean();
    // What the list grants and nothing else was asked for.
    let granted: BTreeSet<String> = rules
        .iter()
        .flat_map(|rule| rule.resources.iter().map(move |resource| format!("{}/{resource}", rule.group)))
        .collect();
    // The status of each object is written in its turn.
    let account = format!("system:serviceaccount:{namespace}:dispatcher");
    let mut used = BTreeSet::new();
    let _ = wait::try_until(LIMIT, || {
        used = api.used_by(&account);
        used =
            used.iter().map(|line| line.split_once(' ').expect("verb and resource").1.to_owned()).collect();
        (used == granted).then_some(())
    });
    assert_eq!(used, granted);
}
