//! Filters: dialects of CloudEvents subscriptions, what they match and how faults are told.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use kubeless::{
    api::filter::{FilterSpec, compile},
    event::{Attributes, Event, Position, cel, filter::Filter},
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn event(content_type: &'static str, data: &str) -> Event {
    let attributes = Attributes {
        id: "order-42".into(),
        source: "/shop/berlin".into(),
        kind: "com.example.order.created".into(),
        subject: None,
        time_ms: -1,
        extensions: vec![(HeaderName::from_static("ce-region"), HeaderValue::from_static("eu-1"))],
    };
    Event {
        position: Position {
            stream: "t".into(),
            shard: 0,
            sequence: 1,
            coordinates: None,
            epoch: -1,
            time_ms: -1,
        },
        business: None,
        lane: None,
        attributes,
        content_type: HeaderValue::from_static(content_type),
        headers: Vec::new(),
        data: Some(Bytes::copy_from_slice(data.as_bytes())),
        weight: data.len(),
        exchange: None,
    }
}

fn specs(clauses: &Value) -> Vec<FilterSpec> {
    clauses.as_array().unwrap().iter().map(|clause| FilterSpec(clause.as_object().unwrap().clone())).collect()
}

fn filter(clauses: &Value) -> Filter {
    compile(&specs(clauses), "/spec/filter").unwrap()
}

fn passes(clauses: &Value) -> bool {
    filter(clauses).check(&event("application/json", "{}")).is_ok()
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
fn cel_sees_attributes_and_json_data() {
    let order = r#"{"amount": 120, "price": 1.5, "lines": [{"sku": "a-1", "n": 2}, {"sku": "b-2", "n": 0}], "note": null}"#;
    let passes = |expression: &str, kind: &'static str, data: &str| {
        filter(&json!([{"cel": expression}])).check(&event(kind, data)).is_ok()
    };
    for (expression, wanted) in [
        ("true", true),
        ("data.amount > 100", true),
        ("data.amount", false), // not a truth value
        ("data.price * 2.0 == 3.0 && event.type.startsWith('com.example.')", true),
        ("event.region in ['eu-1', 'eu-2'] && event.specversion == '1.0'", true),
        ("has(data.voucher) && data.voucher > 5", false),
        ("data.voucher > 5 || true", true),
        ("data.voucher > 5", false), // absent: it fails, so it does not match
        ("!(data.voucher > 5)", false),
        ("has(event.subject)", false),
        ("data.lines.exists(line, line.n == 0)", true),
        ("data.lines.all(line, line.sku.matches('^[a-z]-[0-9]+$'))", true),
        ("size(data.lines) == 2 && data.note == null", true),
        ("data.amount / 0 == 1", false),
        ("event.datacontenttype == 'application/json'", true),
    ] {
        assert_eq!(passes(expression, "application/json", order), wanted, "{expression}");
    }
    assert!(passes("data.amount == 120", "application/vnd.shop+json; charset=utf-8", order));
    for (kind, data) in
        [("text/plain", order), ("application/json", "{\"amount\": 12"), ("application/json", "")]
    {
        assert!(passes("data == null", kind, data), "{kind} {data}");
    }
    let long = format!("{{\"amount\": 1, \"pad\": \"{}\"}}", "x".repeat(cel::MAX_DATA_BYTES));
    assert!(passes("data == null", "application/json", &long));
    let both = filter(&json!([{"any": [{"cel": "data.amount > 1"}, {"exact": {"region": "eu-1"}}]}]));
    assert!(both.check(&event("application/json", "{}")).is_ok());
    let alone = filter(&json!([{"cel": "data.amount > 1"}]));
    assert_eq!(&*alone.check(&event("application/json", "{}")).unwrap_err().path, "filter[0].cel");
}

#[test]
fn cel_that_could_cost_too_much_or_is_misspelt_is_refused() {
    let long = format!("data.a == '{}'", "x".repeat(cel::MAX_EXPRESSION_BYTES));
    let large = vec!["true"; 150].join("&&");
    for (expression, wanted) in [
        ("data.amount >", "not a CEL expression"),
        ("", "not a CEL expression"),
        ("dat.amount > 1", "there is no \"dat\""),
        ("event.type.beginsWith('a')", "there is no \"beginsWith\""),
        ("data.a.all(x, x.b.all(y, y > x.c))", "inside another one"),
        ("data.a.map(x, x + 1).size() > 3", "it builds a list in a loop"),
        ("data.a.matches(data.b)", "written out"),
        ("data.a.matches('(')", "unclosed group"),
        (&long, "1024 are allowed"),
        (&large, "more than 256 parts"),
    ] {
        let faults = compile(&specs(&json!([{"cel": expression}])), "/spec/filter").unwrap_err();
        let text = faults[0].to_string();
        assert!(text.starts_with("spec.filter.0.cel: ") && text.contains(wanted), "{expression}: {text}");
    }
    let faults = compile(&specs(&json!([{"cel": 5}])), "/spec/filter").unwrap_err();
    assert!(faults[0].to_string().contains("an expression is a text"));
}

#[test]
fn the_clause_that_failed_is_named() {
    let filter = filter(&json!([{"prefix": {"type": "com."}}, {"not": {"exact": {"region": "eu-1"}}}]));
    let failed = filter.check(&event("text/plain", "")).unwrap_err();
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
