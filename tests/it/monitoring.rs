//! Dashboard and alert rules name only metrics that exist, and every alert has its section in the runbook. What the rules
//! do is tested by `make alerts`. Must never need a Prometheus.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use kubeless::telemetry::metrics::{self, Kind};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path};

/// What every runtime's page has: deploy/runtimes/contract/README.md.
const RUNTIMES: [(&str, Kind); 3] = [
    ("function_calls_total", Kind::Counter),
    ("function_failures_total", Kind::Counter),
    ("function_duration_seconds", Kind::Histogram),
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All strings under the key `name`, at any depth.
fn under(value: &Value, name: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner {
                    Value::String(text) if key == name => found.push(text.clone()),
                    _ => under(inner, name, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| under(inner, name, found)),
        _ => {}
    }
}

/// Names of metrics in an expression. Ours all begin in one of three ways.
fn named(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours =
        |word: &&str| ["kubeless_", "process_", "function_"].iter().any(|start| word.starts_with(start));
    words.filter(ours).map(str::to_owned).collect()
}

/// Whether a page has a series of this name: a histogram has three, and none under its own name.
fn exists(name: &str) -> bool {
    let ours = metrics::ALL.iter().map(|metric| (metric.name, metric.kind));
    ours.chain(RUNTIMES).any(|(known, kind)| match kind {
        Kind::Histogram => {
            name.strip_prefix(known).is_some_and(|end| ["_bucket", "_sum", "_count"].contains(&end))
        }
        _ => name == known,
    })
}

fn expressions() -> Vec<(&'static str, String)> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/kubeless.json")).unwrap();
    let rules: Value = serde_saphyr::from_str(&read("deploy/prometheus/rules.yaml")).unwrap();
    let (mut panels, mut queries, mut alerts) = (Vec::new(), Vec::new(), Vec::new());
    under(&dashboard, "expr", &mut panels);
    under(&dashboard, "query", &mut queries);
    under(&rules, "expr", &mut alerts);
    assert!(panels.len() > 20 && queries.len() > 1 && alerts.len() > 10, "the files are not read");
    let told = |source: &'static str, list: Vec<String>| list.into_iter().map(move |text| (source, text));
    told("dashboard", panels).chain(told("dashboard", queries)).chain(told("rules", alerts)).collect()
}

#[test]
fn every_metric_that_is_asked_for_exists() {
    for (source, expression) in expressions() {
        for name in named(&expression) {
            assert!(exists(&name), "{source} asks for {name}, which no page has: {expression}");
        }
    }
    assert!(!exists("kubeless_invocation_duration_seconds") && exists("function_duration_seconds_bucket"));
    assert!(!exists("kubeless_evnts_total"));
}

#[test]
fn labels_that_are_asked_for_are_those_of_the_metric() {
    // Added by Prometheus, or by the histogram.
    let added = ["instance", "pod", "job", "le"];
    for (source, expression) in expressions() {
        for metric in metrics::ALL {
            let Some((_, rest)) = expression.split_once(&format!("{}{{", metric.name)) else { continue };
            let matchers = rest.split('}').next().unwrap();
            for matcher in matchers.split(", ") {
                let label = matcher.split(['=', '!']).next().unwrap().trim();
                let known = metric.labels.contains(&label) || added.contains(&label);
                assert!(known, "{source}: {} has no label {label}: {expression}", metric.name);
            }
        }
    }
}

#[test]
fn every_alert_has_a_section_in_the_runbook_and_a_test() {
    let rules: Value = serde_saphyr::from_str(&read("deploy/prometheus/rules.yaml")).unwrap();
    let (runbook, tests) = (read("docs/runbook.md"), read("deploy/prometheus/tests.yaml"));
    let sections: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let mut alerts = BTreeSet::new();
    let groups = rules["groups"].as_array().unwrap().iter();
    for rule in groups.flat_map(|group| group["rules"].as_array().unwrap()) {
        let name = rule["alert"].as_str().unwrap();
        alerts.insert(name);
        assert_eq!(
            rule["annotations"]["runbook"],
            format!("docs/runbook.md#{}", name.to_lowercase()),
            "{name}"
        );
        assert!(rule["labels"]["severity"].is_string(), "{name}");
        assert!(
            tests.contains(&format!("alertname: {name}\n")),
            "deploy/prometheus/tests.yaml never fires {name}"
        );
    }
    assert_eq!(alerts, sections, "docs/runbook.md has other sections than there are alerts");
}
