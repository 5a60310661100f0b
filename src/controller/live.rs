//! Comparing what is there with what should be, and whose it is. Must never call something equal that the API server
//! would change, or ours what is not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};
use std::collections::BTreeSet;

use super::desired::{APPLIED, CREATED_BY, Kind, Object};

/// Fields by which server-side apply tells the entries of a list apart, in the order in which they are tried.
const KEYS: [&str; 8] = ["name", "containerPort", "mountPath", "port", "uid", "type", "topologyKey", "key"];

/// Whose an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Ours, and this owner's.
    Ours,
    /// Ours, made for an earlier object of the same kind and name, which is gone.
    Predecessors,
    /// Not ours to change.
    Foreign,
}

/// Whose an object is, seen from `owner`.
pub fn whose(live: &ObjectMeta, owner: &OwnerReference) -> Whose {
    let owners = live.owner_references.as_deref().unwrap_or_default();
    if owners.iter().any(|other| other.uid == owner.uid) {
        return Whose::Ours;
    }
    let labelled = live.labels.as_ref().and_then(|all| all.get(CREATED_BY.0)).map(String::as_str);
    if labelled != Some(CREATED_BY.1) {
        return Whose::Foreign;
    }
    match owners {
        [] => Whose::Ours,
        _ if owners.iter().all(|other| other.kind == owner.kind && other.name == owner.name) => {
            Whose::Predecessors
        }
        _ => Whose::Foreign,
    }
}

/// Whether it was ever applied by this controller.
pub fn was_applied(live: &ObjectMeta) -> bool {
    live.annotations.as_ref().is_some_and(|all| all.contains_key(APPLIED))
}

/// Whether an object is as wanted: the last wish applied was this very one, and nobody changed what it says since.
pub fn is_as_wanted(live: &Value, wanted: &Object) -> bool {
    let digest = |value: &Value| value["metadata"]["annotations"][APPLIED].as_str().map(str::to_owned);
    // Where only metadata is kept, the rest cannot have changed: those objects are immutable.
    let metadata_only = live.get("spec").is_none() && live.get("data").is_none();
    let (live_part, wanted_part) =
        if metadata_only { (&live["metadata"], &wanted.value["metadata"]) } else { (live, &wanted.value) };
    digest(live) == digest(&wanted.value) && contains(live_part, wanted_part)
}

/// Whether everything that `wanted` says is in `live`.
pub fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| match live.get(name) {
                Some(found) => contains(found, value),
                // The API server drops what is empty.
                None => is_nothing(value),
            })
        }
        (Value::Array(live), Value::Array(wanted)) => {
            wanted.len() <= live.len()
                && wanted
                    .iter()
                    .enumerate()
                    .all(|(at, value)| entry(live, at, value).is_some_and(|found| contains(found, value)))
        }
        (live, wanted) => live == wanted,
    }
}

/// The steps (RFC 6902) that put what is wanted in the place of what is there, finalizers and status apart, if it still is the
/// version that was looked at. The sign that it was applied is left out; a number of Pods that is not wanted stays an autoscaler's.
pub fn replacement(live: &Value, wanted: &Object) -> Value {
    let kept = |name: &str| matches!(name, "apiVersion" | "kind" | "metadata" | "status");
    let mut after = wanted.value.clone();
    if let Some(annotations) = after["metadata"]["annotations"].as_object_mut() {
        annotations.remove(APPLIED);
    }
    let replicas = &live["spec"]["replicas"];
    if wanted.kind == Kind::Deployment && after["spec"]["replicas"].is_null() && !replicas.is_null() {
        after["spec"]["replicas"] = replicas.clone();
    }
    let version = live["metadata"]["resourceVersion"].clone();
    let mut steps = vec![json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version})];
    for name in ["labels", "annotations", "ownerReferences"] {
        steps.extend(step(&format!("/metadata/{name}"), &live["metadata"][name], &after["metadata"][name]));
    }
    let names = [live, &wanted.value].into_iter().filter_map(Value::as_object).flat_map(|map| map.keys());
    for name in names.filter(|name| !kept(name)).collect::<BTreeSet<_>>() {
        steps.extend(step(&format!("/{name}"), &live[name], &after[name]));
    }
    Value::Array(steps)
}

/// What `managedFields` says of an object that is written by `manager` alone. Left empty, the API server would invent an owner
/// (`before-first-apply`) of all that is there, who would keep it for ever.
pub fn sole_owner(wanted: &Object, manager: &str) -> Value {
    let fields = json!({"f:metadata": {"f:labels": {format!("f:{}", CREATED_BY.0): {}}}});
    let version = &wanted.value["apiVersion"];
    json!({"manager": manager, "operation": "Apply", "apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": fields})
}

fn step(path: &str, live: &Value, wanted: &Value) -> Option<Value> {
    match (live.is_null(), wanted.is_null()) {
        (_, false) => Some(json!({"op": "add", "path": path, "value": wanted})),
        (false, true) => Some(json!({"op": "remove", "path": path})),
        (true, true) => None,
    }
}

fn entry<'a>(live: &'a [Value], at: usize, wanted: &Value) -> Option<&'a Value> {
    let key = KEYS.iter().find(|key| wanted.get(**key).is_some());
    match key {
        Some(key) => live.iter().find(|entry| entry.get(*key) == wanted.get(*key)),
        None => live.get(at),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_nothing),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn owner(kind: &str, name: &str, uid: &str) -> OwnerReference {
        OwnerReference { kind: kind.into(), name: name.into(), uid: uid.into(), ..OwnerReference::default() }
    }

    fn meta(labelled: bool, owners: &[OwnerReference]) -> ObjectMeta {
        let label = (CREATED_BY.0.to_owned(), CREATED_BY.1.to_owned());
        ObjectMeta {
            labels: labelled.then(|| [label].into()),
            owner_references: Some(owners.to_vec()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn only_what_carries_the_label_or_our_uid_is_ours() {
        let me = owner("Function", "f", "1");
        assert_eq!(whose(&meta(false, &[]), &me), Whose::Foreign);
        assert_eq!(whose(&meta(true, &[]), &me), Whose::Ours);
        assert_eq!(whose(&meta(false, std::slice::from_ref(&me)), &me), Whose::Ours);
        assert_eq!(whose(&meta(true, &[owner("Function", "f", "0")]), &me), Whose::Predecessors);
        assert_eq!(whose(&meta(true, &[owner("Function", "g", "2")]), &me), Whose::Foreign);
        assert_eq!(whose(&meta(false, &[owner("Function", "f", "0")]), &me), Whose::Foreign);
        // The owner kind of Kubeless's CronJobs, which does not exist, with the trigger's true uid.
        assert_eq!(whose(&meta(true, &[owner("Trigger", "f", "1")]), &me), Whose::Ours);
    }

    #[test]
    fn a_replacement_keeps_status_and_finalizers_and_drops_all_else() {
        let wanted = json!({"metadata": {"name": "f", "labels": {"new": "1"}}, "data": {"a": "1"}});
        let wanted = Object::new(Kind::ConfigMap, &wanted).unwrap();
        let live = json!({"apiVersion": "v1", "kind": "ConfigMap", "binaryData": {"b": ""}, "status": {},
            "metadata": {"name": "f", "resourceVersion": "7", "finalizers": ["x/y"], "labels": {"old": "1"},
                "ownerReferences": [{"uid": "1"}]}});
        let expected = json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "add", "path": "/metadata/labels", "value": {"new": "1"}},
            {"op": "add", "path": "/metadata/annotations", "value": {}},
            {"op": "remove", "path": "/metadata/ownerReferences"},
            {"op": "remove", "path": "/binaryData"},
            {"op": "add", "path": "/data", "value": {"a": "1"}},
        ]);
        assert_eq!(replacement(&live, &wanted), expected);
        let steps: json_patch::Patch = serde_json::from_value(expected).unwrap();
        let mut after = live;
        json_patch::patch(&mut after, &steps).unwrap();
        assert_eq!(after["metadata"]["finalizers"], json!(["x/y"]));
        assert_eq!((after["status"].clone(), after["data"].clone()), (json!({}), json!({"a": "1"})));
    }

    #[test]
    fn defaults_and_others_entries_do_not_count_and_changes_do() {
        let wanted =
            json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}], "empty": {"a": []}, "args": ["a"]}});
        let live = json!({"spec": {"ports": [{"port": 81}, {"port": 80, "protocol": "TCP", "nodePort": 3}],
            "args": ["a"], "type": "ClusterIP"}});
        assert!(contains(&live, &wanted));
        for (pointer, value) in [("/spec/args/0", json!("b")), ("/spec/ports/1/protocol", json!("UDP"))] {
            let mut changed = live.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            assert!(!contains(&changed, &wanted), "{pointer}");
        }
    }
}
