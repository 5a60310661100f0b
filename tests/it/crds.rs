//! The CRD files under `deploy/crds` are what the Rust types say.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use kubeless::{api, sources};
use std::{fs, path::Path};

fn all() -> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>
{
    sources::crds()
}

#[test]
fn files_equal_the_types() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/crds");
    for crd in all() {
        let path = dir.join(format!("{}.yaml", crd.metadata.name.as_deref().unwrap()));
        let text = api::crd_yaml(&crd).unwrap();
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(&dir).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let stored = fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == text, "{} is stale: run UPDATE=1 cargo test --test it crds::", path.display());
        let read: serde_json::Value = serde_saphyr::from_str(&stored).unwrap();
        assert_eq!(read, serde_json::to_value(&crd).unwrap(), "the YAML reads back as the same definition");
    }
}

/// What Kubernetes calls structural: each node has a type (or is int-or-string), no `$ref`, nothing in `oneOf` only.
fn check_structural(schema: &serde_json::Value, path: &str, described: bool, faults: &mut Vec<String>) {
    let Some(map) = schema.as_object() else {
        return;
    };
    for word in ["$ref", "oneOf", "anyOf", "allOf", "not", "definitions", "$defs"] {
        if map.contains_key(word) {
            faults.push(format!("{path}: {word}"));
        }
    }
    let untyped = ["type", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
    if !untyped.iter().any(|word| map.contains_key(*word)) {
        faults.push(format!("{path}: no type"));
    }
    if described && !map.contains_key("description") {
        faults.push(format!("{path}: no description"));
    }
    for (key, inner) in map.get("properties").and_then(|p| p.as_object()).into_iter().flatten() {
        let standard = path.is_empty() && key == "metadata";
        check_structural(inner, &format!("{path}.{key}"), !standard && !path.ends_with(".metadata"), faults);
    }
    for word in ["items", "additionalProperties"] {
        if let Some(inner) = map.get(word).filter(|inner| inner.is_object()) {
            check_structural(inner, &format!("{path}.{word}"), false, faults);
        }
    }
}

#[test]
fn schemas_are_structural_and_described() {
    let mut faults = Vec::new();
    for crd in all() {
        let root = &crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema;
        let root = serde_json::to_value(root).unwrap();
        for part in ["spec", "status"] {
            let at = format!("{}.{part}", crd.spec.names.kind);
            check_structural(&root["properties"][part], &at, part == "spec", &mut faults);
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn names_are_those_of_kubeless() {
    let found: Vec<_> = all()
        .iter()
        .map(|crd| {
            let names = &crd.spec.names;
            let short = names.short_names.clone().unwrap_or_default().join(",");
            let categories = names.categories.clone().unwrap_or_default().join(",");
            let version = crd.spec.versions[0].name.clone();
            format!("{} {} {version} {short} {categories}", names.plural, crd.spec.group)
        })
        .collect();
    assert_eq!(
        found,
        [
            "functions kubeless.io v1beta1 fn kubeless",
            "kafkatriggers kubeless.io v1beta1 kt kubeless,triggers",
            "natstriggers kubeless.io v1beta1 nt kubeless,triggers",
            "kinesistriggers kubeless.io v1beta1 kst kubeless,triggers",
            "cronjobtriggers kubeless.io v1beta1 ct kubeless,triggers",
            "httptriggers kubeless.io v1beta1 ht kubeless,triggers",
            "customtriggers kubeless.io v1beta1 cst kubeless,triggers",
        ]
    );
}

/// One line a field: path, type with default and bounds, description.
fn describe(schema: &serde_json::Value, path: &str, page: &mut String) {
    let text = |key: &str| schema.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    // Kubernetes' own selector and recursive filters are described where they begin.
    let opened = properties.filter(|_| !path.ends_with("functionSelector") && !path.ends_with("filter"));
    if !path.is_empty() {
        let mut kind = match (schema["x-kubernetes-int-or-string"].is_null(), text("type")) {
            (false, _) => "int or text".to_owned(),
            (_, "") => "any JSON".to_owned(),
            (_, "string") => "text".to_owned(),
            (_, "array") => "list".to_owned(),
            (_, "object") => "mapping".to_owned(),
            (_, "boolean") => "flag".to_owned(),
            (_, other) => other.to_owned(),
        };
        if let Some(words) = schema.get("enum").and_then(serde_json::Value::as_array) {
            kind = words.iter().filter_map(|word| word.as_str()).collect::<Vec<_>>().join(", ");
        }
        for (key, sign) in [("minimum", ">="), ("maximum", "<=")] {
            if let Some(bound) = schema.get(key) {
                kind.push_str(&format!(", {sign} {}", bound.as_f64().unwrap_or_default()));
            }
        }
        let description = text("description").replace('\n', " ").replace('|', "\\|");
        page.push_str(&format!("| `{path}` | {kind} | {description} |\n"));
    }
    for (name, inner) in opened.into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        describe(inner, &path, page);
    }
}

fn page() -> String {
    let mut page = "# Resources\n\nEvery field of the six kinds, generated from the definitions in `deploy/crds` by `UPDATE=1 cargo test --test it crds`; do \
        not edit.\n\nThe group is `kubeless.io`, the version `v1beta1`; fields have the names that Kubeless gave them, new ones are camelCase and \
        optional.\n`kubeless validate` checks manifests offline by the same schemas and rules as an API server. Conditions: \
        [conditions.md](conditions.md).\n"
        .to_owned();
    for crd in all() {
        let names = &crd.spec.names;
        let short = names.short_names.clone().unwrap_or_default().join(", ");
        let root = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let root = &root["openAPIV3Schema"];
        let about = root["description"].as_str().unwrap_or_default();
        page.push_str(&format!(
            "\n## {}\n\n{about} `kubectl get {}` or `{short}`.\n",
            names.kind, names.plural
        ));
        for part in ["spec", "status"] {
            page.push_str(&format!("\n| {part} | type | meaning |\n|---|---|---|\n"));
            let mut part = root["properties"][part].clone();
            // One shape for all kinds, from Kubernetes.
            if let Some(items) = part.pointer_mut("/properties/conditions") {
                items.as_object_mut().unwrap().remove("items");
            }
            describe(&part, "", &mut page);
        }
    }
    page
}

#[test]
fn the_page_of_the_resources_equals_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/resources.md");
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "docs/resources.md is stale: run UPDATE=1 cargo test --test it crds::");
}
