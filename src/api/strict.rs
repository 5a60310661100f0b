//! Texts and Kubernetes objects inside a ConfigMap, read strictly: a key that is misspelt or written twice is a fault,
//! not something to pass over. Must never run without bound: the parser has a budget.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::Violation;

/// Values of one text: a catalogue of a thousand versions has some ten thousand.
const MAX_NODES: usize = 100_000;

/// Reads JSON or YAML; empty text is null. Two equal keys in one mapping are a fault.
///
/// # Errors
/// One violation at `path` with line and column in the text.
pub fn parse(text: &str, path: &str) -> Result<Value, Violation> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let mut options = serde_saphyr::Options::default();
    let mut budget = serde_saphyr::Budget::default();
    budget.max_nodes = MAX_NODES;
    budget.max_events = 4 * MAX_NODES;
    budget.max_documents = 2;
    options.budget = Some(budget);
    // YAML 1.1 would read the texts yes, no, on and off as flags.
    options.strict_booleans = true;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error
            .location()
            .map_or_else(String::new, |at| format!("line {}, column {}: ", at.line(), at.column()));
        let words = error.without_snippet().to_string();
        let line = words.lines().find(|line| !line.trim().is_empty()).unwrap_or("malformed text");
        Violation::new(path, format!("{place}{}", line.trim()), "write well-formed JSON or YAML")
    })
}

/// Reads `value`, which stands at `path`, as a Kubernetes type; adds a violation for what the type refuses and for
/// each field that it does not have.
pub fn typed<T: DeserializeOwned + Serialize>(
    value: &Value,
    path: &str,
    violations: &mut Vec<Violation>,
) -> Option<T> {
    let typed: T = match serde_json::from_value(value.clone()) {
        Ok(typed) => typed,
        Err(error) => {
            let fix = "compare with the Kubernetes API reference";
            violations.push(Violation::new(path, error.to_string(), fix));
            return None;
        }
    };
    let before = violations.len();
    // What a type does not know does not come back.
    lost(value, &serde_json::to_value(&typed).unwrap_or_default(), path, violations);
    (violations.len() == before).then_some(typed)
}

fn lost(given: &Value, kept: &Value, path: &str, violations: &mut Vec<Violation>) {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (key, value) in given.iter().filter(|(_, value)| !says_nothing(value)) {
                let at = format!("{path}/{}", super::escape(key));
                match kept.get(key) {
                    Some(kept) => lost(value, kept, &at, violations),
                    None => violations.push(Violation::new(
                        at,
                        format!("unknown field {key:?}"),
                        "correct its name or its place, or remove it",
                    )),
                }
            }
        }
        (Value::Array(given), Value::Array(kept)) => {
            for (index, (given, kept)) in given.iter().zip(kept).enumerate() {
                lost(given, kept, &format!("{path}/{index}"), violations);
            }
        }
        _ => {}
    }
}

// Null, and lists and mappings without entries, may be dropped without loss, even from fields that are known.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;

    fn faults(text: &str) -> Vec<String> {
        let mut violations = Vec::new();
        match parse(text, "/deployment") {
            Ok(value) => drop(typed::<Deployment>(&value, "/deployment", &mut violations)),
            Err(violation) => violations.push(violation),
        }
        violations.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_kubernetes_knows_passes() {
        for text in [
            "{}",
            "{\n\t\"spec\": {\"replicas\": 2, \"strategy\": {}, \"template\": {\"metadata\": {\"creationTimestamp\": null}}},\n\t\"status\": {}}",
            "spec:\n  template:\n    spec:\n      containers:\n      - resources: {limits: {cpu: 100m, memory: 1Gi}}\n        env: []\n        name: a\n",
        ] {
            assert!(faults(text).is_empty(), "{text}: {:?}", faults(text));
        }
    }

    #[test]
    fn what_it_does_not_know_is_told_with_its_place() {
        let misspelt = "{\"spec\": {\"template\": {\"spec\": {\"nodeSelektor\": {\"a\": \"b\"}}}}}";
        assert_eq!(
            faults(misspelt),
            [
                "deployment.spec.template.spec.nodeSelektor: unknown field \"nodeSelektor\"; correct its name or its place, or remove it"
            ]
        );
        let twice = faults("spec: {replicas: 1, replicas: 2}");
        assert!(
            twice.len() == 1 && twice[0].contains("replicas") && twice[0].contains("line 1"),
            "{twice:?}"
        );
        assert!(faults("spec: {replicas: many}")[0].starts_with("deployment: "));
        assert!(faults("{a: [").len() == 1);
    }
}
