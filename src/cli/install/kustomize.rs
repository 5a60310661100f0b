//! The part of kustomize that `deploy/kustomize/base` and the overlays for `kubeless install` use: resources, JSON patches,
//! deletions, namespace, images. Must never pass over what it does not understand, and must give what `kubectl kustomize`
//! gives: a test compares them.

use anyhow::{Context, anyhow, bail, ensure};
use json_patch::Patch;
use serde::Deserialize;
use serde_json::Value;

use super::files;

/// Names of the file, in the order in which they are looked for.
const NAMES: [&str; 2] = ["kustomization.yaml", "Kustomization"];
/// Folders below folders: a loop would not end.
const MAX_DEPTH: usize = 8;
/// Kinds without a namespace, of those that are installed.
const CLUSTER_KINDS: [&str; 4] =
    ["Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kustomization {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    namespace: Option<String>,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    patches: Vec<PatchEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PatchEntry {
    target: Option<Target>,
    path: String,
    // A JSON patch may change the kind; kustomize wants to be told.
    #[serde(rename = "options", default)]
    _options: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    kind: String,
    name: String,
}

/// The objects of a folder below `deploy/`, as its kustomization makes them.
///
/// # Errors
/// What is missing or not understood.
pub fn build(folder: &str) -> anyhow::Result<Vec<Value>> {
    build_at(folder, 0)
}

fn build_at(folder: &str, depth: usize) -> anyhow::Result<Vec<Value>> {
    ensure!(depth < MAX_DEPTH, "{folder}: more than {MAX_DEPTH} folders below one another");
    let found = NAMES.iter().find_map(|name| files::content(&format!("{folder}/{name}")));
    let text = found.ok_or_else(|| anyhow!("{folder}: no kustomization in this program"))?;
    let told: Kustomization = serde_saphyr::from_str(text).context(folder.to_owned())?;
    let mut objects = Vec::new();
    for resource in &told.resources {
        let path = join(folder, resource);
        match files::content(&path) {
            Some(text) => objects.extend(documents(text).context(path)?),
            None => objects.extend(build_at(&path, depth + 1)?),
        }
    }
    for entry in &told.patches {
        let path = join(folder, &entry.path);
        let text = files::content(&path).ok_or_else(|| anyhow!("{path}: not in this program"))?;
        change(&mut objects, entry.target.as_ref(), text).context(path)?;
    }
    if let Some(namespace) = &told.namespace {
        objects.iter_mut().for_each(|object| place(object, namespace));
    }
    Ok(objects)
}

/// The documents of a file; empty ones left out.
pub fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut all: Vec<Value> = serde_saphyr::from_multiple(text)?;
    all.retain(|value| !value.is_null());
    all.iter_mut().for_each(without_points);
    Ok(all)
}

/// Writes 1.0 as 1, as kustomize does.
fn without_points(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(without_points),
        Value::Array(list) => list.iter_mut().for_each(without_points),
        Value::Number(number) if number.is_f64() => {
            // Digits and ".0" only where it is whole and not too large to be written out.
            if let Some(whole) =
                number.to_string().strip_suffix(".0").and_then(|text| text.parse::<i64>().ok())
            {
                *value = whole.into();
            }
        }
        _ => {}
    }
}

fn change(objects: &mut Vec<Value>, target: Option<&Target>, text: &str) -> anyhow::Result<()> {
    let patch: Value = serde_saphyr::from_str(text)?;
    let Some(target) = target else {
        ensure!(patch["$patch"] == "delete", "without a target it can only be `$patch: delete`");
        let before = objects.len();
        objects.retain(|object| !is(object, &text_at(&patch, "/kind"), &text_at(&patch, "/metadata/name")));
        ensure!(objects.len() + 1 == before, "it deletes {} objects, not one", before - objects.len());
        return Ok(());
    };
    let patch: Patch = serde_json::from_value(patch).context("not a JSON patch")?;
    let mut hits = objects.iter_mut().filter(|object| is(object, &target.kind, &target.name));
    let (Some(object), None) = (hits.next(), hits.next()) else {
        bail!("{} {} is not there exactly once", target.kind, target.name);
    };
    json_patch::patch(object, &patch)?;
    Ok(())
}

fn is(object: &Value, kind: &str, name: &str) -> bool {
    text_at(object, "/kind") == kind && text_at(object, "/metadata/name") == name
}

/// Moves an object into a namespace, with what refers to accounts there.
pub fn place(object: &mut Value, namespace: &str) {
    let kind = text_at(object, "/kind");
    if kind == "Namespace" {
        object["metadata"]["name"] = namespace.into();
    } else if !CLUSTER_KINDS.contains(&kind.as_str()) {
        object["metadata"]["namespace"] = namespace.into();
    }
    for subject in object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        if subject["kind"] == "ServiceAccount" {
            subject["namespace"] = namespace.into();
        }
    }
}

/// Replaces an image wherever a container has it or is told of it, whatever its tag or digest.
pub fn replace_image(object: &mut Value, name: &str, by: &str) {
    let containers = object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        replace_in(&mut container["image"], name, by);
        let variables = container.get_mut("env").and_then(Value::as_array_mut);
        variables.into_iter().flatten().filter_map(|variable| variable.get_mut("value")).for_each(|value| {
            replace_in(value, name, by);
        });
    }
}

fn replace_in(value: &mut Value, name: &str, by: &str) {
    if value.as_str().is_some_and(|image| repository(image) == name) {
        *value = by.into();
    }
}

/// An image's name without tag and digest. A registry's port is no tag.
pub fn repository(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

fn text_at(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A path relative to a folder, without `.` and `..`.
fn join(folder: &str, path: &str) -> String {
    let mut steps: Vec<&str> = folder.split('/').collect();
    for step in path.split('/') {
        match step {
            "." | "" => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    steps.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_end_before_tag_and_digest() {
        for (image, name) in [
            ("docker.io/kubeless/kubeless:0.1.0", "docker.io/kubeless/kubeless"),
            ("host:5000/kubeless", "host:5000/kubeless"),
            ("host:5000/kubeless:1@sha256:ab", "host:5000/kubeless"),
        ] {
            assert_eq!(repository(image), name);
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let unknown = "apiVersion: a\nkind: b\nreplicas: []\n";
        assert!(serde_saphyr::from_str::<Kustomization>(unknown).is_err());
        let mut objects = vec![serde_json::json!({"kind": "A", "metadata": {"name": "a"}})];
        assert!(change(&mut objects, None, "{kind: A, metadata: {name: a}}").is_err(), "no delete");
        let target = Target { kind: "B".to_owned(), name: "a".to_owned() };
        assert!(change(&mut objects, Some(&target), "[]").is_err(), "no such object");
        assert!(build("kustomize/nowhere").is_err());
        assert_eq!(join("kustomize/overlays/daemonset", "../../base"), "kustomize/base");
    }
}
