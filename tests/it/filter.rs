//! Filters: dialects of CloudEvents subscriptions, what they match and how faults are told.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use http::header::{HeaderName, HeaderValue};
use kubeless::{
    api::filter::{FilterSpec, compile},
    event::{Attributes, filter::Filter},
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn event() -> Attributes {
    Attributes {
        id: "order-42".into(),
        source: "/shop/berlin".into(),
        kind: "com.example.order.created".into(),
        subject: None,
        time_ms: -1,
        extensions: vec![(HeaderName::from_static("ce-region"), HeaderValue::from_static("eu-1"))],
    }
}

fn specs(clauses: &Value) -> Vec<FilterSpec> {
    clauses.as_array().unwrap().iter().map(|clause| FilterSpec(clause.as_object().unwrap().clone())).collect()
}

fn filter(clauses: &Value) -> Filter {
    compile(&specs(clauses), "/spec/filter").unwrap()
}

fn passes(clauses: &Value) -> bool {
    filter(clauses).check(&event(), &HeaderValue::from_static("application/json")).is_ok()
}

#[test]
fn dialects_compare_as_the_specification_says() {
    for (clauses, wanted) in [
        (json!([]), true),
        (json!([{"exact": {"type": "com.example.order.created"}}]), true),
        (json!([{"exact": {"type": "com.example.order"}}]), false),
        (json!([{"prefix": {"type": "com.example."}}]), true),
        (json!([{"suffix": {"type": ".created"}}]), true),
        (json!([{"suffix": {"type": ".Created"}}]), false),
        (json!([{"exact": {"region": "eu-1"}}]), true),
        (json!([{"prefix": {"region": "us"}}]), false),
        (json!([{"exact": {"datacontenttype": "application/json"}}]), true),
        (json!([{"exact": {"specversion": "1.0"}}]), true),
        (json!([{"prefix": {"subject": ""}}]), false), // absent: even the empty prefix does not match
        (json!([{"not": {"exact": {"subject": "x"}}}]), true),
        (json!([{"exact": {"id": "order-42", "region": "us"}}]), false),
        (json!([{"any": [{"exact": {"id": "x"}}, {"exact": {"region": "eu-1"}}]}]), true),
        (json!([{"all": [{"exact": {"id": "x"}}, {"exact": {"region": "eu-1"}}]}]), false),
        (json!([{"exact": {"id": "order-42"}}, {"exact": {"id": "x"}}]), false),
    ] {
        assert_eq!(passes(&clauses), wanted, "{clauses}");
    }
}

#[test]
fn the_clause_that_failed_is_named() {
    let filter = filter(&json!([{"prefix": {"type": "com."}}, {"not": {"exact": {"region": "eu-1"}}}]));
    let failed = filter.check(&event(), &HeaderValue::from_static("text/plain")).unwrap_err();
    assert_eq!(&*failed.path, "filter[1].not");
}

#[test]
fn faults_are_told_with_path_and_fix() {
    for (clauses, wanted) in [
        (
            json!([{"exakt": {"type": "a"}}]),
            "spec.filter.0.exakt: unknown filter dialect \"exakt\"; did you mean exact?",
        ),
        (
            json!([{"exact": {"type": "a"}, "prefix": {"id": "b"}}]),
            "spec.filter.0: a clause has exactly one dialect, this one has 2; write one clause for each; all clauses must match",
        ),
        (
            json!([{"any": [{"not": {"exact": {"id": 7}}}]}]),
            "spec.filter.0.any.0.not.exact.id: the value to compare with is not a text; write it in quotes",
        ),
        (json!([{"all": []}]), "spec.filter.0.all: needs at least one clause; write a list of clauses"),
        (
            json!([{"exact": {"time": "x"}}]),
            "spec.filter.0.exact.time: \"time\": time cannot be compared as text; use id, source, type, subject, datacontenttype, dataschema or an extension (lower-case letters and digits)",
        ),
    ] {
        let faults = compile(&specs(&clauses), "/spec/filter").unwrap_err();
        assert_eq!(faults[0].to_string(), wanted);
    }
    let mut deep = json!({"exact": {"id": "a"}});
    for _ in 0..20 {
        deep = json!({ "not": deep });
    }
    let faults = compile(&specs(&json!([deep])), "/spec/filter").unwrap_err();
    assert!(faults[0].what.contains("nested deeper"), "{}", faults[0]);
}

fn clause() -> impl Strategy<Value = Value> {
    let compare = (
        prop::sample::select(vec!["exact", "prefix", "suffix"]),
        prop::sample::select(vec!["id", "source", "region", "subject"]),
        prop::sample::select(vec!["", "order-42", "o", "42", "eu-1", "/shop"]),
    )
        .prop_map(|(dialect, name, text)| json!({ dialect: { name: text } }));
    compare.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| json!({ "all": parts })),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| json!({ "any": parts })),
            inner.prop_map(|part| json!({ "not": part })),
        ]
    })
}

/// The same question asked of the JSON itself.
fn naive(clause: &Value) -> bool {
    let (dialect, value) = clause.as_object().unwrap().iter().next().unwrap();
    let compare = |test: fn(&str, &str) -> bool| {
        let (name, wanted) = value.as_object().unwrap().iter().next().unwrap();
        let found = match name.as_str() {
            "id" => Some("order-42"),
            "source" => Some("/shop/berlin"),
            "region" => Some("eu-1"),
            _ => None,
        };
        found.is_some_and(|found| test(found, wanted.as_str().unwrap()))
    };
    match dialect.as_str() {
        "exact" => compare(|a, b| a == b),
        "prefix" => compare(|a, b| a.starts_with(b)),
        "suffix" => compare(|a, b| a.ends_with(b)),
        "all" => value.as_array().unwrap().iter().all(naive),
        "any" => value.as_array().unwrap().iter().any(naive),
        _ => !naive(value),
    }
}

proptest! {
    #[test]
    fn agrees_with_a_naive_reading(clauses in prop::collection::vec(clause(), 0..4)) {
        let wanted = clauses.iter().all(naive);
        prop_assert_eq!(passes(&Value::Array(clauses)), wanted);
    }
}
