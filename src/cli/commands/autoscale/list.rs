//! `kubeless autoscale list`: the autoscalers that were made of functions. Must never show one that is not a function's.

use crate::cli::{
    Exit,
    commands::function::{CREATED_BY, some},
    listing::{Listing, Rows},
    output::Cell,
    session::{Session, objects::Kind},
};
use serde_json::Value;

const AUTOSCALERS: Kind = Kind {
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    noun: "autoscaler",
    group: "autoscaling",
    version: "v2",
};

/// Runs the command.
pub async fn run(listing: &Listing, session: &Session) -> anyhow::Result<Exit> {
    let listing = listing.with_label(&format!("{}={}", CREATED_BY.0, CREATED_BY.1));
    let found = listing.read(session, &AUTOSCALERS, &[]).await?;
    listing.show(session, &AUTOSCALERS, &[], found, &Autoscalers).await
}

struct Autoscalers;

impl Rows for Autoscalers {
    fn head(&self) -> Vec<&str> {
        vec!["NAME", "NAMESPACE", "TARGET", "MIN", "MAX", "METRIC", "VALUE", "PODS"]
    }

    fn row(&self, autoscaler: &Value) -> Vec<Cell> {
        let text =
            |pointer: &str| some(autoscaler.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
        let number = |pointer: &str| {
            some(
                &autoscaler
                    .pointer(pointer)
                    .and_then(Value::as_i64)
                    .map(|n| n.to_string())
                    .unwrap_or_default(),
            )
        };
        let (metric, value) = metric(&autoscaler["spec"]["metrics"][0]);
        [
            text("/metadata/name"),
            text("/metadata/namespace"),
            text("/spec/scaleTargetRef/name"),
            number("/spec/minReplicas"),
            number("/spec/maxReplicas"),
            some(&metric),
            some(&value),
            number("/status/currentReplicas"),
        ]
        .into_iter()
        .map(Cell::from)
        .collect()
    }
}

/// What is measured, and what it should be.
fn metric(metric: &Value) -> (String, String) {
    let text = |pointer: &str| metric.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(percent) = metric.pointer("/resource/target/averageUtilization").and_then(Value::as_i64) {
        return (text("/resource/name"), format!("{percent}%"));
    }
    let value = match text("/object/target/value") {
        value if value.is_empty() => text("/object/target/averageValue"),
        value => value,
    };
    (text("/object/metric/name"), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_metrics_are_shown() {
        let cpu = json!({ "resource": { "name": "cpu", "target": { "averageUtilization": 70 } } });
        assert_eq!(metric(&cpu), ("cpu".to_owned(), "70%".to_owned()));
        let calls =
            json!({ "object": { "metric": { "name": "function_calls" }, "target": { "value": "100" } } });
        assert_eq!(metric(&calls), ("function_calls".to_owned(), "100".to_owned()));
    }
}
