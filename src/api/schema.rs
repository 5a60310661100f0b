//! Checks a document against the structural schema of its CRD, so that a folder refuses what a cluster would
//! refuse, with a path and a fix for each fault. Must never change a value beyond dropping nulls.
//!
//! Covered: type, required, properties (unknown ones are faults), items, enum, bounds. Patterns and CEL rules come
//! last (`checker.rs`), after the kinds' own checks, whose messages say more.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Violation;

const RETRY_WORDS: [&str; 8] =
    ["retry", "retries", "retryPolicy", "maxRetries", "backoff", "backoffDelay", "attempts", "maxAttempts"];

/// Brings a whole object of a CRD into the form that its type reads, and checks its structure: `spec` is the schema of
/// `spec` (see [`spec_schema`]). `status` is dropped: it is not input.
///
/// # Errors
/// Everything that is wrong, in document order.
pub fn prepare(object: &mut Value, spec: &Value) -> Result<(), Vec<Violation>> {
    let mut violations = Vec::new();
    if let Value::Object(map) = object {
        map.remove("status");
        map.entry("spec").or_insert_with(|| Value::Object(Map::new()));
        for key in
            map.keys().filter(|key| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "spec"))
        {
            violations.push(unknown(key, "", &["apiVersion", "kind", "metadata", "spec"]));
        }
        if let Some(value) = map.get_mut("spec") {
            drop_nulls(value, spec);
            check(value, spec, "/spec", &mut violations);
        }
    }
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

/// Reads an object that [`prepare`] found in order.
///
/// # Errors
/// What its type refuses.
pub fn typed<T: DeserializeOwned>(object: Value) -> Result<T, Vec<Violation>> {
    serde_json::from_value(object).map_err(|error| {
        vec![Violation::new("", error.to_string(), "see the CRD's schema under deploy/crds")]
    })
}

/// The schema of `spec` inside a CRD, as JSON; `Null` (everything allowed) if it has none.
pub fn spec_schema(
    crd: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
) -> Value {
    let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref());
    let root = schema.and_then(|schema| schema.open_api_v3_schema.as_ref());
    let spec = root.and_then(|root| root.properties.as_ref()).and_then(|properties| properties.get("spec"));
    spec.and_then(|spec| serde_json::to_value(spec).ok()).unwrap_or(Value::Null)
}

/// Old stored objects carry explicit nulls; Kubernetes treats them as absent, and so does this.
fn drop_nulls(value: &mut Value, schema: &Value) {
    if preserves(schema) {
        return;
    }
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            for (key, value) in map {
                drop_nulls(value, property(schema, key).unwrap_or(&Value::Null));
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| drop_nulls(item, schema.get("items").unwrap_or(&Value::Null)));
        }
        _ => {}
    }
}

/// Checks `value`, which stands at `path`, against `schema`.
pub fn check(value: &Value, schema: &Value, path: &str, violations: &mut Vec<Violation>) {
    if !check_type(value, schema, path, violations) {
        return;
    }
    match value {
        Value::Object(map) => check_object(map, schema, path, violations),
        Value::Array(items) => {
            check_count(items.len(), schema, ("minItems", "maxItems"), "items", path, violations);
            if let Some(item_schema) = schema.get("items") {
                for (index, item) in items.iter().enumerate() {
                    check(item, item_schema, &format!("{path}/{index}"), violations);
                }
            }
        }
        Value::String(text) => {
            check_enum(text, schema, path, violations);
            let length = text.chars().count();
            check_count(length, schema, ("minLength", "maxLength"), "characters", path, violations);
        }
        Value::Number(number) => check_range(number, schema, path, violations),
        Value::Null | Value::Bool(_) => {}
    }
}

fn check_object(map: &Map<String, Value>, schema: &Value, path: &str, violations: &mut Vec<Violation>) {
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        if let Some(name) = name.as_str().filter(|name| !map.contains_key(*name)) {
            violations.push(Violation::new(
                path,
                format!("field {name:?} is missing"),
                format!("add {name}"),
            ));
        }
    }
    let known: Vec<&str> = schema
        .get("properties")
        .and_then(Value::as_object)
        .map(|properties| properties.keys().map(String::as_str).collect())
        .unwrap_or_default();
    for (key, value) in map {
        let at = format!("{path}/{}", super::escape(key));
        match property(schema, key) {
            Some(inner) => check(value, inner, &at, violations),
            None if preserves(schema)
                || (known.is_empty() && schema.get("additionalProperties").is_none()) => {}
            None => violations.push(unknown(key, path, &known)),
        }
    }
}

/// The schema of one member of a mapping.
pub(super) fn property<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    schema
        .get("properties")
        .and_then(|properties| properties.get(key))
        .or_else(|| schema.get("additionalProperties").filter(|inner| inner.is_object()))
}

fn preserves(schema: &Value) -> bool {
    schema.get("x-kubernetes-preserve-unknown-fields").and_then(Value::as_bool).unwrap_or(false)
}

fn check_type(value: &Value, schema: &Value, path: &str, violations: &mut Vec<Violation>) -> bool {
    let Some(wanted) = schema.get("type").and_then(Value::as_str) else {
        return true;
    };
    let fits = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    };
    if !fits {
        let fix = match (wanted, value) {
            ("string", Value::Number(_) | Value::Bool(_)) => format!("write it in quotes: \"{value}\""),
            ("integer", Value::String(text)) if text.parse::<i64>().is_ok() => {
                format!("write it without quotes: {text}")
            }
            ("boolean", Value::String(_)) => "write true or false".to_owned(),
            ("array", _) => "write a list: one item a line, each after \"- \"".to_owned(),
            _ => format!("write {}", article(wanted)),
        };
        let what = format!("expected {}, found {}", article(wanted), describe(value));
        violations.push(Violation::new(path, what, fix));
    }
    fits
}

fn check_enum(text: &str, schema: &Value, path: &str, violations: &mut Vec<Violation>) {
    let Some(allowed) = schema.get("enum").and_then(Value::as_array) else {
        return;
    };
    let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
    if !allowed.contains(&text) {
        let fix = one_of(text, &allowed);
        violations.push(Violation::new(path, format!("{text:?} is not allowed here"), fix));
    }
}

fn check_range(number: &serde_json::Number, schema: &Value, path: &str, violations: &mut Vec<Violation>) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let (min, max) = (bound("minimum"), bound("maximum"));
    let value = number.as_f64().unwrap_or(f64::NAN);
    if min.is_some_and(|min| value < min) || max.is_some_and(|max| value > max) {
        let range = match (min, max) {
            (Some(min), Some(max)) => format!("write a number from {min} to {max}"),
            (Some(min), None) => format!("write a number of at least {min}"),
            _ => format!("write a number of at most {}", max.unwrap_or(f64::MAX)),
        };
        violations.push(Violation::new(path, format!("{number} is out of range"), range));
    }
}

pub(super) fn check_count(
    count: usize,
    schema: &Value,
    (min, max): (&str, &str),
    unit: &str,
    path: &str,
    violations: &mut Vec<Violation>,
) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    let count = count as u64;
    if let Some(min) = bound(min).filter(|min| count < *min) {
        violations.push(Violation::new(path, format!("has {count} {unit}"), format!("write at least {min}")));
    }
    if let Some(max) = bound(max).filter(|max| count > *max) {
        violations.push(Violation::new(path, format!("has {count} {unit}"), format!("write at most {max}")));
    }
}

/// The violation for a field that does not exist: names the nearest one, and says why there is no retry.
pub fn unknown(key: &str, parent: &str, known: &[&str]) -> Violation {
    let path = format!("{parent}/{}", super::escape(key));
    if RETRY_WORDS.iter().any(|word| word.eq_ignore_ascii_case(key)) {
        return Violation::new(
            path,
            format!("a retry option ({key}) cannot work with delivery.mode AtMostOnce"),
            "remove it; only calls that provably never reached the function are tried again, and delivery.deadLetter keeps the rest",
        );
    }
    Violation::new(path, format!("unknown field {key:?}"), one_of(key, known))
}

/// The fix text for a word that is not in a closed list: the nearest one if it is near, else all of them.
pub fn one_of(word: &str, allowed: &[&str]) -> String {
    if let Some(near) = nearest(word, allowed) {
        return format!("did you mean {near}?");
    }
    match allowed.is_empty() {
        true => "remove it".to_owned(),
        false => format!("use one of: {}", allowed.join(", ")),
    }
}

/// The entry of `allowed` that `word` is most likely a misspelling of (case ignored, at most 2 edits, or 3 for
/// long words).
pub fn nearest<'a>(word: &str, allowed: &[&'a str]) -> Option<&'a str> {
    // Longer words come from broken files, not from typing mistakes; the bound keeps the table small.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    let best = allowed.iter().map(|entry| (distance(&lower, &entry.to_ascii_lowercase()), *entry)).min()?;
    let limit = if word.len() < 4 { 1 } else { 2 + usize::from(word.len() > 10) };
    (best.0 <= limit).then_some(best.1)
}

/// Edits (insert, delete, replace) from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = corner + usize::from(left != *right);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn article(kind: &str) -> String {
    match kind {
        "object" => "a mapping".to_owned(),
        "array" => "a list".to_owned(),
        "integer" => "a whole number".to_owned(),
        other => format!("a {other}"),
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(flag) => format!("{flag}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {:?}", text.chars().take(40).collect::<String>()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}
