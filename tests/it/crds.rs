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
        ]
    );
}
