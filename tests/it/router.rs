//! The router: objects in, routes out. No API server, no network.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kubeless::{
    api::{function::Function, http_trigger, kind::TriggerObject, selector::Selector, trigger::TriggerCore},
    cluster::{
        index::Index as _,
        target::{ObjectRef, Protocol, TriggerRef},
    },
    router::{Router, RouterOptions, index::Index, table::SubscriptionKey},
    sources::kafka::spec,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

fn function(namespace: &str, name: &str, labels: &Value) -> Function {
    let object = json!({
        "apiVersion": "kubeless.io/v1beta1", "kind": "Function",
        "metadata": {"namespace": namespace, "name": name, "labels": labels}, "spec": {"timeout": "10"}
    });
    kubeless::api::function::decode(object).unwrap()
}

fn trigger(namespace: &str, name: &str, selector: &Value) -> Arc<TriggerCore> {
    let object = json!({
        "apiVersion": "kubeless.io/v1beta1", "kind": "KafkaTrigger",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"topic": "orders", "functionSelector": selector}
    });
    let decoded: TriggerObject = spec::decode(object).unwrap();
    decoded.core
}

fn slice(name: &str, service: &str, endpoints: &Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "metrics", "port": 9090}, {"name": "http-function-port", "port": 8080}],
        "endpoints": endpoints
    }))
    .unwrap()
}

fn shop(name: &str) -> ObjectRef {
    ObjectRef::new("shop", name)
}

fn key(trigger: &str) -> TriggerRef {
    TriggerRef::new("KafkaTrigger", shop(trigger))
}

fn names(router: &Router, trigger: &str) -> Vec<String> {
    router.subscriptions(&key(trigger)).iter().map(|route| route.key.function.name.to_string()).collect()
}

#[test]
fn subscriptions_follow_labels_and_stay_in_the_namespace() {
    let (mut index, router) = Router::new(RouterOptions::default());
    index.apply(trigger("shop", "t", &json!({"matchLabels": {"app": "a"}})));
    index.apply(trigger("shop", "all", &json!({})));
    index.apply(function("shop", "f1", &json!({"app": "a"})));
    index.apply(function("shop", "f2", &json!({"app": "b"})));
    index.apply(function("other", "f3", &json!({"app": "a"})));
    assert_eq!(names(&router, "t"), ["f1"]);
    assert_eq!(names(&router, "all"), ["f1", "f2"]);
    index.apply(function("shop", "f2", &json!({"app": "a"})));
    assert_eq!(names(&router, "t"), ["f1", "f2"]);
    index.apply(trigger("shop", "t", &json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]})));
    assert_eq!(names(&router, "t"), ["f1", "f2"]);
    <Index as kubeless::cluster::index::Index<Function>>::delete(&mut index, &shop("f1"));
    assert_eq!(names(&router, "t"), ["f2"]);
    <Index as kubeless::cluster::index::Index<Arc<TriggerCore>>>::delete(&mut index, &key("t"));
    assert!(names(&router, "t").is_empty());
    assert_eq!(router.load().iter().count(), 1);
}

#[test]
fn two_kinds_with_one_name_stand_side_by_side() {
    let (mut index, router) = Router::new(RouterOptions::default());
    let http = http_trigger::decode(json!({
        "apiVersion": "kubeless.io/v1beta1", "kind": "HTTPTrigger",
        "metadata": {"namespace": "shop", "name": "t"},
        "spec": {"function-name": "f2", "delivery": {"through": "Dispatcher"}}
    }))
    .unwrap();
    let http_key = http.core.key();
    index.apply(trigger("shop", "t", &json!({"matchLabels": {"app": "a"}})));
    index.apply(Arc::clone(&http.core));
    index.apply(function("shop", "f1", &json!({"app": "a"})));
    index.apply(function("shop", "f2", &json!({"app": "b"})));
    index.apply(function("other", "f2", &json!({})));
    let of = |key: &TriggerRef| -> Vec<String> {
        router.subscriptions(key).iter().map(|route| route.key.to_string()).collect()
    };
    assert_eq!(of(&key("t")), ["KafkaTrigger shop/t->f1"]);
    assert_eq!(of(&http_key), ["HTTPTrigger shop/t->f2"], "a name selects one function of the namespace");
    index.apply(function("shop", "f2", &json!({"app": "a"})));
    assert_eq!((of(&key("t")).len(), of(&http_key).len()), (2, 1), "labels do not touch what a name selects");
    <Index as kubeless::cluster::index::Index<Arc<TriggerCore>>>::delete(&mut index, &key("t"));
    assert_eq!((of(&key("t")).len(), of(&http_key).len()), (0, 1));
    <Index as kubeless::cluster::index::Index<Function>>::delete(&mut index, &shop("f2"));
    assert!(of(&http_key).is_empty());
}

#[test]
fn a_target_is_kept_up_to_date_in_place() {
    let (mut index, router) = Router::new(RouterOptions::default());
    index.apply(trigger("shop", "t", &json!({})));
    index.apply(function("shop", "f", &json!({})));
    let key = SubscriptionKey { trigger: key("t"), function: shop("f") };
    let cell = Arc::clone(&router.route(&key).unwrap().target);
    assert!(cell.load().endpoints.is_empty());
    assert_eq!(cell.load().call_timeout, Duration::from_secs(15));
    assert_eq!(&*cell.load().authority, "f.shop.svc.cluster.local:8080");
    let mut changes = router.changes();
    changes.mark_unchanged();
    index.apply(slice(
        "f-1",
        "f",
        &json!([
            {"addresses": ["10.0.0.2"]},
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.4"], "conditions": {"ready": true, "terminating": true}}
        ]),
    ));
    assert!(changes.has_changed().unwrap());
    let found: Vec<_> = cell.load().endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["10.0.0.1:8080", "10.0.0.2:8080"]);
    index.apply(slice("f-2", "f", &json!([{"addresses": ["10.0.1.1"]}])));
    assert_eq!(cell.load().endpoints.len(), 3);
    let service: Service = serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": "f"},
        "spec": {"ports": [{"name": "metrics", "port": 90, "appProtocol": "kubernetes.io/h2c"}]}
    }))
    .unwrap();
    index.apply(service);
    assert_eq!(cell.load().protocol, Protocol::H2c);
    assert_eq!(&*cell.load().authority, "f.shop.svc.cluster.local:90");
    assert_eq!(cell.load().endpoints[0].port(), 9090);
    // The second slice now belongs to another Service.
    index.apply(slice("f-2", "g", &json!([{"addresses": ["10.0.1.1"]}])));
    assert_eq!(cell.load().endpoints.len(), 2);
    changes.mark_unchanged();
    index.apply(slice("f-2", "g", &json!([{"addresses": ["10.0.1.2"]}])));
    assert!(!changes.has_changed().unwrap(), "nobody routes to g");
    <Index as kubeless::cluster::index::Index<Function>>::delete(&mut index, &shop("f"));
    assert!(cell.load().endpoints.is_empty(), "a holder of the cell sees that the function is gone");
    assert!(router.route(&key).is_none());
}

#[test]
fn reset_replaces_a_kind_in_one_change() {
    let (mut index, router) = Router::new(RouterOptions::default());
    let changes = router.changes();
    index.reset(vec![trigger("shop", "a", &json!({})), trigger("shop", "b", &json!({}))]);
    index.reset(vec![function("shop", "f", &json!({})), function("shop", "g", &json!({}))]);
    assert_eq!(router.load().iter().count(), 4);
    index.reset(vec![trigger("shop", "b", &json!({}))]);
    assert_eq!((names(&router, "a").len(), names(&router, "b").len()), (0, 2));
    index.reset(vec![slice("s", "f", &json!([{"addresses": ["10.0.0.1"]}]))]);
    let before = *changes.borrow();
    index.reset(vec![trigger("shop", "b", &json!({}))]);
    assert_eq!(*changes.borrow(), before, "the same objects change nothing");
    index.reset(Vec::<EndpointSlice>::new());
    assert!(router.subscriptions(&key("b"))[0].target.load().endpoints.is_empty());
}

#[test]
fn an_edit_keeps_the_cell_and_replaces_the_settings() {
    let (mut index, router) = Router::new(RouterOptions::default());
    index.apply(function("shop", "f", &json!({"v": "1"})));
    index.apply(trigger("shop", "t", &json!({})));
    let before = Arc::clone(&router.subscriptions(&key("t"))[0]);
    index.apply(function("shop", "f", &json!({"v": "2"})));
    index.apply(trigger("shop", "t", &json!({"matchLabels": {"v": "2"}})));
    let after = Arc::clone(&router.subscriptions(&key("t"))[0]);
    assert!(Arc::ptr_eq(&before.target, &after.target));
    assert_ne!(before.trigger, after.trigger);
}

type Requirement = (String, &'static str, Vec<String>);

fn requirement() -> impl Strategy<Value = Requirement> {
    (
        prop::sample::select(vec!["a", "b", "c"]),
        prop::sample::select(vec!["In", "NotIn", "Exists", "DoesNotExist"]),
        prop::collection::vec(prop::sample::select(vec!["1", "2", "3"]), 1..3),
    )
        .prop_map(|(key, operator, values)| {
            let takes_values = operator.ends_with("In");
            let values = if takes_values { values.into_iter().map(str::to_owned).collect() } else { vec![] };
            (key.to_owned(), operator, values)
        })
}

fn labels() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let pair = (prop::sample::select(vec!["a", "b", "c"]), prop::sample::select(vec!["1", "2", "3"]));
    prop::collection::vec(pair, 0..3)
}

fn selector_json(equal: &[(&str, &str)], requirements: &[Requirement]) -> Value {
    let equal: serde_json::Map<_, _> = equal.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    let expressions: Vec<_> = requirements
        .iter()
        .map(|(key, operator, values)| match values.is_empty() {
            true => json!({"key": key, "operator": operator}),
            false => json!({"key": key, "operator": operator, "values": values}),
        })
        .collect();
    json!({"matchLabels": equal, "matchExpressions": expressions})
}

/// The selector's meaning in the plainest words.
fn naive(selector: &Value, labels: &serde_json::Map<String, Value>) -> bool {
    let equal = selector["matchLabels"].as_object().unwrap().iter().all(|(k, v)| labels.get(k) == Some(v));
    let expressions = selector["matchExpressions"].as_array().unwrap().iter().all(|e| {
        let value = labels.get(e["key"].as_str().unwrap());
        let listed = value.is_some_and(|v| e["values"].as_array().is_some_and(|values| values.contains(v)));
        match e["operator"].as_str().unwrap() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            _ => value.is_none(),
        }
    });
    equal && expressions
}

#[derive(Clone, Debug)]
enum Step {
    Trigger(usize, Vec<(&'static str, &'static str)>, Vec<Requirement>),
    Function(usize, Vec<(&'static str, &'static str)>),
    DropTrigger(usize),
    DropFunction(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4usize, labels(), prop::collection::vec(requirement(), 0..2))
            .prop_map(|(n, l, r)| Step::Trigger(n, l, r)),
        (0..4usize, labels()).prop_map(|(n, l)| Step::Function(n, l)),
        (0..4usize).prop_map(Step::DropTrigger),
        (0..4usize).prop_map(Step::DropFunction),
    ]
}

proptest! {
    #[test]
    fn selectors_agree_with_a_naive_reading(
        equal in labels(),
        requirements in prop::collection::vec(requirement(), 0..3),
        has in labels(),
    ) {
        let json = selector_json(&equal, &requirements);
        let compiled = Selector::compile(&serde_json::from_value(json.clone()).unwrap(), "").unwrap();
        let has: serde_json::Map<_, _> = has.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        let typed = has.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect();
        prop_assert_eq!(compiled.matches("any", &typed), naive(&json, &has));
    }

    #[test]
    fn any_history_of_edits_ends_in_the_table_of_its_last_state(steps in prop::collection::vec(step(), 0..24)) {
        let (mut index, router) = Router::new(RouterOptions::default());
        let mut triggers = std::collections::BTreeMap::new();
        let mut functions = std::collections::BTreeMap::new();
        for step in steps {
            match step {
                Step::Trigger(n, equal, requirements) => {
                    let json = selector_json(&equal, &requirements);
                    index.apply(trigger("shop", &format!("t{n}"), &json));
                    triggers.insert(n, json);
                }
                Step::Function(n, has) => {
                    let has: serde_json::Map<_, _> = has.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
                    index.apply(function("shop", &format!("f{n}"), &Value::Object(has.clone())));
                    functions.insert(n, has);
                }
                Step::DropTrigger(n) => {
                    <Index as kubeless::cluster::index::Index<Arc<TriggerCore>>>::delete(&mut index, &key(&format!("t{n}")));
                    triggers.remove(&n);
                }
                Step::DropFunction(n) => {
                    <Index as kubeless::cluster::index::Index<Function>>::delete(&mut index, &shop(&format!("f{n}")));
                    functions.remove(&n);
                }
            }
            let found: BTreeSet<String> = router.load().iter().map(|route| route.key.to_string()).collect();
            let wanted: BTreeSet<String> = triggers
                .iter()
                .flat_map(|(t, selector)| functions.iter().filter(move |(_, has)| naive(selector, has)).map(move |(f, _)| format!("KafkaTrigger shop/t{t}->f{f}")))
                .collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
