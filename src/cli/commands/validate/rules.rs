//! The rules (CEL) that stand in the custom resource definitions, evaluated here as the API server will evaluate them.
//! Must never speak about an object that is wrong in another way already: its rules would only say so again.

use crate::{
    api::{API_VERSION, escape},
    cluster::manifests::{
        Problem,
        yaml::{self, Content, Node},
    },
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_cel::{ErrorKind, Validator};
use std::sync::Arc;

/// What the objects of one file break. `known` are the problems that were found in another way.
pub fn check(
    file: &Arc<str>,
    text: &str,
    definitions: &[CustomResourceDefinition],
    known: &[Problem],
) -> Vec<Problem> {
    let mut broken = Vec::new();
    let parts = yaml::split(text);
    for (index, (before, part)) in parts.iter().enumerate() {
        let end = parts.get(index + 1).map_or(u64::MAX, |(next, _)| *next);
        let is_here = |problem: &Problem| {
            problem.file == *file && (problem.line == 0 || (problem.line > *before && problem.line <= end))
        };
        if known.iter().any(is_here) {
            continue;
        }
        // What cannot be parsed is a known problem.
        if let Ok(node) = yaml::parse(part) {
            let mut say = |(line, column): yaml::At, what: String, fix: String| {
                let line = before + line.max(1);
                broken.push(Problem { file: Arc::clone(file), line, column, what, fix });
            };
            each(&node, &mut |object| check_object(object, definitions, &mut say));
        }
    }
    broken
}

/// Calls `see` with the object, or with the items of a list.
fn each(node: &Node, see: &mut impl FnMut(&Node)) {
    let list = node.get("kind").and_then(Node::text).is_some_and(|kind| kind.ends_with("List"));
    match node.get("items").map(|items| &items.content) {
        Some(Content::List(items)) if list => items.iter().for_each(|item| each(item, see)),
        _ => see(node),
    }
}

fn check_object(
    node: &Node,
    definitions: &[CustomResourceDefinition],
    say: &mut impl FnMut(yaml::At, String, String),
) {
    let text = |key: &str| node.get(key).and_then(Node::text).unwrap_or_default();
    let kind = text("kind");
    let definition =
        definitions.iter().find(|crd| text("apiVersion") == API_VERSION && crd.spec.names.kind == kind);
    let schema = definition
        .and_then(|crd| crd.spec.versions.first())
        .and_then(|version| version.schema.as_ref())
        .and_then(|schema| serde_json::to_value(&schema.open_api_v3_schema).ok());
    let Some(schema) = schema else { return };
    let Err(errors) = Validator::new().validate_with_defaults(&schema, &node.to_value(), None) else {
        return;
    };
    let name = node.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Node::text);
    for error in &errors {
        let pointer = pointer(&error.field_path);
        let what = format!("{kind} {}: {}: {}", name.unwrap_or_default(), error.field_path, error.message);
        let fix = match error.kind {
            ErrorKind::ValidationFailure => format!("the rule is: {}", error.rule),
            _ => "report this as a defect: the rule itself cannot be evaluated".to_owned(),
        };
        say(node.locate(&pointer), what, fix);
    }
}

/// `spec.dedup.key` or `spec.filter[0]` as a JSON pointer.
fn pointer(path: &str) -> String {
    let steps = path.split(['.', '[', ']']).filter(|step| !step.is_empty());
    steps.fold(String::new(), |pointer, step| format!("{pointer}/{}", escape(step)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition() -> CustomResourceDefinition {
        serde_json::from_value(json!({
            "metadata": { "name": "things.kubeless.io" },
            "spec": {
                "group": "kubeless.io", "scope": "Namespaced",
                "names": { "kind": "Thing", "plural": "things" },
                "versions": [{ "name": "v1beta1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "properties": { "spec": {
                        "type": "object",
                        "properties": {
                            "low": { "type": "integer", "default": 1 },
                            "high": { "type": "integer" },
                        },
                        "x-kubernetes-validations": [{ "rule": "self.low <= self.high", "message": "low is above high" }],
                    } },
                } } }],
            },
        }))
        .unwrap()
    }

    fn thing(low: &str, high: u32) -> String {
        format!(
            "apiVersion: kubeless.io/v1beta1\nkind: Thing\nmetadata: {{name: t}}\nspec:\n  {low}\n  high: {high}\n"
        )
    }

    #[test]
    fn rules_are_evaluated_after_defaults_and_told_with_their_place() {
        let text = format!("{}---\n{}---\n{}", thing("low: 2", 3), thing("low: 4", 3), thing("", 0));
        let broken = check(&"f.yaml".into(), &text, &[definition()], &[]);
        let told: Vec<String> = broken.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "f.yaml:11:1: Thing t: spec: low is above high; the rule is: self.low <= self.high",
                "f.yaml:18:1: Thing t: spec: low is above high; the rule is: self.low <= self.high",
            ]
        );
        let known =
            Problem { file: "f.yaml".into(), line: 12, column: 1, what: String::new(), fix: String::new() };
        assert_eq!(check(&"f.yaml".into(), &text, &[definition()], &[known]).len(), 1);
    }
}
