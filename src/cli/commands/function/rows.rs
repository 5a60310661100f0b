//! Functions as rows of a table. Must never need more than the object (and, where no controller reports, its
//! Deployment).

use crate::{
    api::conditions::{find, types},
    cli::{
        age::age,
        listing::{GONE, is_gone},
        output::{Cell, Tone},
        session::objects::conditions,
    },
};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::Value;
use std::fmt::Write as _;

/// Characters of a cell that would otherwise push the rest off the screen.
const NARROW: usize = 40;
/// What kubectl writes for nothing.
pub const NONE: &str = "<none>";

/// Where the containers of a Function's Pods are described.
pub const CONTAINER: &str = "/spec/deployment/spec/template/spec/containers/0";

/// The head of the table.
pub fn head(wide: bool) -> Vec<&'static str> {
    let mut head = vec!["NAME", "NAMESPACE", "HANDLER", "RUNTIME", "DEPENDENCIES", "STATUS", "AGE"];
    if wide {
        head.extend(["MEMORY", "ENV", "LABEL", "IMAGE", "URL"]);
    }
    head
}

/// The row of a function. `deployment` is looked at only if the function has no status.
pub fn row(function: &Value, deployment: Option<&Deployment>, wide: bool, now: Timestamp) -> Vec<Cell> {
    let text = |pointer: &str| some(function.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
    let dependencies = dependencies(function["spec"]["deps"].as_str().unwrap_or_default());
    let mut row = vec![
        text("/metadata/name").into(),
        text("/metadata/namespace").into(),
        text("/spec/handler").into(),
        text("/spec/runtime").into(),
        some(&if wide { dependencies } else { cut(&dependencies) }).into(),
        status(function, deployment),
        age(function["metadata"]["creationTimestamp"].as_str(), now).into(),
    ];
    if wide {
        let labels = pairs(function["metadata"]["labels"].as_object().into_iter().flatten());
        let image =
            function.pointer("/status/image").or_else(|| function.pointer(&format!("{CONTAINER}/image")));
        row.extend([
            text(&format!("{CONTAINER}/resources/limits/memory")).into(),
            some(&environment(function).join(",")).into(),
            some(&labels.join(",")).into(),
            some(image.and_then(Value::as_str).unwrap_or_default()).into(),
            text("/status/url").into(),
        ]);
    }
    row
}

/// `1/1 READY`, `0/1 NOT READY (reason)`, or `MISSING: …` where nothing runs and nobody says why.
pub fn status(function: &Value, deployment: Option<&Deployment>) -> Cell {
    if is_gone(function) {
        return Cell::new(GONE, Tone::Pending);
    }
    if !function["metadata"]["deletionTimestamp"].is_null() {
        return Cell::new("DELETING", Tone::Pending);
    }
    let conditions = conditions(function);
    let count = |name: &str| function["status"][name].as_i64().unwrap_or(0);
    let (ready, all, told) = match (find(&conditions, types::READY), deployment) {
        (Some(condition), _) => (count("readyReplicas"), count("replicas"), Some(condition)),
        (None, Some(deployment)) => {
            let status = deployment.status.clone().unwrap_or_default();
            let number = |count: Option<i32>| i64::from(count.unwrap_or(0));
            (number(status.ready_replicas), number(status.replicas), None)
        }
        (None, None) => {
            return Cell::new("MISSING: see kubeless check", Tone::Bad);
        }
    };
    match told {
        Some(told) if told.status == "True" => Cell::new(format!("{ready}/{all} READY"), Tone::Good),
        Some(told) => {
            let tone = if told.status == "False" { Tone::Bad } else { Tone::Pending };
            Cell::new(format!("{ready}/{all} NOT READY ({})", told.reason), tone)
        }
        None if ready > 0 => Cell::new(format!("{ready}/{all} READY"), Tone::Good),
        None => Cell::new(format!("{ready}/{all} NOT READY"), Tone::Bad),
    }
}

/// Environment variables of the first container; what comes from elsewhere is named by its place.
pub fn environment(function: &Value) -> Vec<String> {
    let entries = function.pointer(&format!("{CONTAINER}/env")).and_then(Value::as_array);
    let one = |entry: &Value| {
        let name = entry["name"].as_str().unwrap_or_default();
        match entry["valueFrom"].as_object().and_then(|from| from.keys().next()) {
            Some(from) => format!("{name}=<{from}>"),
            None => format!("{name}={}", entry["value"].as_str().unwrap_or_default()),
        }
    };
    entries.into_iter().flatten().map(one).collect()
}

/// `key=value` for each entry.
pub fn pairs<'a>(entries: impl Iterator<Item = (&'a String, &'a Value)>) -> Vec<String> {
    entries.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect()
}

/// The text, or what kubectl writes for nothing.
pub fn some(text: &str) -> String {
    if text.is_empty() { NONE.to_owned() } else { text.to_owned() }
}

/// What a dependency file asks for, on one line: `name: version` of a package.json, the lines of anything else.
fn dependencies(text: &str) -> String {
    if let Ok(package) = serde_json::from_str::<Value>(text) {
        let mut found = String::new();
        for (name, version) in package["dependencies"].as_object().into_iter().flatten() {
            // Writing to a String cannot fail.
            let _ = write!(found, "{name}: {}, ", version.as_str().unwrap_or_default());
        }
        return found.trim_end_matches(", ").to_owned();
    }
    if text.trim_start().starts_with('<') {
        return format!("XML, {} lines", text.lines().count());
    }
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect::<Vec<_>>().join(", ")
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(NARROW) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Table;
    use serde_json::json;

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn function(status: &Value) -> Value {
        json!({
            "metadata": { "name": "hello", "namespace": "shop", "labels": { "a": "b" },
                          "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "handler": "h.f", "runtime": "python3.11", "deps": "# x\nrequests\nnumpy==2\n",
                      "deployment": { "spec": { "template": { "spec": { "containers": [{
                          "env": [{ "name": "A", "value": "1" },
                                  { "name": "B", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }],
                          "resources": { "limits": { "memory": "64Mi" } } }] } } } } },
            "status": status
        })
    }

    fn ready(status: &str, reason: &str) -> Value {
        json!({ "replicas": 2, "readyReplicas": 1, "url": "http://hello.shop:8080", "conditions": [{ "type": "Ready",
            "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" }] })
    }

    #[test]
    fn the_table_is_kubeless_with_an_age() {
        let functions = [
            function(&ready("True", "AllGood")),
            function(&ready("False", "CrashLoop")),
            function(&Value::Null),
        ];
        let mut table = Table::new(&head(false));
        functions.iter().for_each(|function| table.cells(row(function, None, false, NOW.parse().unwrap())));
        let text = anstream::adapter::strip_str(&table.to_string()).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("NAME   NAMESPACE  HANDLER  RUNTIME     DEPENDENCIES"), "{text}");
        assert!(lines[1].contains("h.f      python3.11  requests, numpy==2  1/2 READY"), "{text}");
        assert!(lines[2].contains("1/2 NOT READY (CrashLoop)"), "{text}");
        assert!(lines[3].contains("MISSING: ") && lines[3].ends_with("60m"), "{text}");
    }

    #[test]
    fn wide_has_a_column_for_each_title() {
        let row = row(&function(&ready("True", "AllGood")), None, true, NOW.parse().unwrap());
        assert_eq!(row.len(), head(true).len());
        assert!(row.contains(&"A=1,B=<secretKeyRef>".into()) && row.contains(&"64Mi".into()), "{row:?}");
    }

    #[test]
    fn without_a_status_the_deployment_speaks() {
        let deployment = |ready: i32| -> Deployment {
            serde_json::from_value(json!({ "status": { "readyReplicas": ready, "replicas": 1 } })).unwrap()
        };
        let function = function(&Value::Null);
        assert_eq!(status(&function, Some(&deployment(1))), Cell::new("1/1 READY", Tone::Good));
        assert_eq!(status(&function, Some(&deployment(0))), Cell::new("0/1 NOT READY", Tone::Bad));
    }

    #[test]
    fn dependency_files_on_one_line() {
        assert_eq!(dependencies("{\"dependencies\":{\"a\":\"^1\",\"b\":\"2\"}}"), "a: ^1, b: 2");
        assert_eq!(dependencies("<project>\n</project>"), "XML, 2 lines");
        assert_eq!(dependencies(""), "");
        assert_eq!(cut(&"x".repeat(50)).chars().count(), NARROW + 1);
    }
}
