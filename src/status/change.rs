//! What of a verdict has to be written over a status that is there. Pure. Must never find a change where there is none:
//! each one is a write, and a message to everybody who watches.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use serde_json::{Map, Value, json};
use std::collections::HashSet;

use super::facts::Verdict;
use crate::api::{conditions, kind::TriggerKind};

/// A status that differs from the one that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The whole status, as far as it is the dispatcher's.
    pub status: Value,
    /// Whether somebody may wait for it. Else only counters or words are new, and it has time.
    pub urgent: bool,
}

/// Fields that the status of a kind has, by its definition.
pub fn fields_of(kind: TriggerKind) -> HashSet<String> {
    let schema = (kind.crd)().spec.versions.into_iter().next().and_then(|version| version.schema);
    let root = schema.and_then(|schema| schema.open_api_v3_schema);
    let status = root.and_then(|mut root| root.properties.as_mut()?.remove("status"));
    status.and_then(|status| status.properties).unwrap_or_default().into_keys().collect()
}

/// What to write of `verdict` about this generation of an object, if anything. `there` is its status, `fields` the fields
/// that it may have.
pub fn compare(
    there: &Value,
    generation: Option<i64>,
    verdict: &Verdict,
    fields: &HashSet<String>,
    now: Timestamp,
) -> Option<Change> {
    let old = conditions_of(there);
    let (mut next, mut urgent, mut stale) = (Vec::new(), false, false);
    for fact in &verdict.facts {
        let before = conditions::find(&old, fact.kind);
        // Words of a source may change with every attempt: for them alone nothing is written at once.
        urgent |= before.is_none_or(|old| old.status != fact.status.as_str() || old.reason != fact.reason);
        let mut one: Vec<Condition> = before.cloned().into_iter().collect();
        stale |= conditions::set(&mut one, fact, generation, now);
        next.extend(one);
    }
    let mut status = Map::new();
    status.insert("observedGeneration".to_owned(), json!(generation));
    status.insert("functions".to_owned(), json!(verdict.functions));
    let differs = |name: &str, value: &Value| !value.is_null() && there.get(name) != Some(value);
    let events = json!(verdict.counts);
    stale |= fields.contains("events") && differs("events", &events);
    status.retain(|name, value| fields.contains(name) && !value.is_null());
    urgent |= status.iter().any(|(name, value)| differs(name, value));
    if fields.contains("events") {
        status.insert("events".to_owned(), events);
    }
    status.insert("conditions".to_owned(), json!(next));
    (urgent || stale).then_some(Change { status: Value::Object(status), urgent })
}

fn conditions_of(status: &Value) -> Vec<Condition> {
    let list = status.get("conditions").cloned();
    list.and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default()
}
