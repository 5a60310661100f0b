//! Credentials in Secrets of the trigger's own namespace: read by name, read again, never told. With a real API server
//! and a broker that wants TLS, a user and a password.

use super::{
    kafka_security::{PASSWORD, SECURE, USER},
    support::{
        apiserver, metrics, ports,
        shop::{LIMIT, Shop, subscription},
        wait,
        witness::Witness,
    },
};
use kubeless::{cluster::access, sources::TRIGGERS};
use serde_json::{Value, json};
use std::fs;

const TRIGGER: &str = "  credentials: broker\n  tls: {enabled: true}\n  sasl: {mechanism: SCRAM-SHA-512}";
/// Nobody's.
const WRONG: &str = "canary-Wrong-55d1";

fn secret(authority: &str, password: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "broker"},
        "stringData": {"username": USER, "password": password, "ca.crt": authority},
    })
}

#[test]
fn a_secret_is_waited_for_read_by_name_and_followed_when_it_changes() {
    let api = apiserver::shared();
    let witness = Witness::start_on(ports::own_address());
    let mut shop = Shop::new(api, &SECURE.cluster, &[&witness]);
    shop.servers = SECURE.sasl.clone();
    shop.trigger(api, TRIGGER);
    let namespace = shop.namespace.clone();
    let rules = access::dispatcher(TRIGGERS).into_iter().map(|rule| {
        let mut written =
            json!({"apiGroups": [rule.group], "resources": rule.resources, "verbs": rule.verbs});
        if rule.by_name {
            written["resourceNames"] = json!(["broker"]);
        }
        written
    });
    let rules: Vec<Value> = rules.collect();
    shop.apply(api, &json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "dispatcher"}, "rules": rules,
    }));
    api.kubectl(&["create", "serviceaccount", "dispatcher", "-n", &namespace]);
    let account = format!("--serviceaccount={namespace}:dispatcher");
    api.kubectl(&["create", "rolebinding", "dispatcher", "--role=dispatcher", &account, "-n", &namespace]);
    let config = api.service_account(&namespace, "dispatcher");
    let launch = shop.launch(&config).arg("--set").arg("kubernetes.secrets_interval=1s");
    let mut dispatcher = launch.arg("--log-level=debug").start();
    dispatcher.wait_ready(LIMIT);
    let admin = dispatcher.admin();
    let says = |words: &str| {
        wait::until(words, LIMIT, || {
            subscription(admin)
                .filter(|page| page["status"].as_str().is_some_and(|status| status.contains(words)))
        })
    };
    says("Secret");
    says("does not exist");
    let authority = fs::read_to_string(&SECURE.authority.certificate).expect("openssl wrote it");
    shop.apply(api, &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "broker"}, "stringData": {"username": USER}}));
    says("Secret broker: password is missing");
    shop.apply(api, &secret(&authority, WRONG));
    says("uthenticat");
    shop.apply(api, &secret(&authority, PASSWORD));
    shop.produce(100);
    let report = shop.settle(&[&witness]);
    report.assert_clean();
    assert_eq!(report.outcome("delivered"), 100);
    // A rotation restarts the source with what is new, and costs no event.
    shop.apply(api, &secret(&format!("{authority}\n"), PASSWORD));
    wait::until("the source is begun again", LIMIT, || {
        (dispatcher.output().matches("Subscription started").count() >= 3).then_some(())
    });
    shop.produce(100);
    shop.settle(&[&witness]).assert_clean();
    // What is gone is told; what was read goes on.
    api.kubectl(&["delete", "secret", "broker", "-n", &namespace]);
    wait::until("the reader misses it", LIMIT, || {
        dispatcher.output().lines().filter(|line| line.contains("Secret not read")).nth(1).map(|_| ())
    });
    shop.produce(50);
    shop.settle(&[&witness]).assert_clean();
    let used = api.used_by(&format!("system:serviceaccount:{namespace}:dispatcher"));
    let secrets: Vec<&String> = used.iter().filter(|line| line.contains("secrets")).collect();
    assert_eq!(secrets, ["get /secrets"], "never listed, never watched");
    let (_, page) = metrics::get(admin, "/debug/subscriptions").expect("the page answers");
    for text in [dispatcher.output(), page, metrics::get(admin, "/metrics").expect("it answers").1] {
        assert!(!text.contains("canary") && !text.contains("BEGIN CERT"), "a secret is told");
    }
}
