//! The configuration's `deployment` under a function's own: the function wins, what it leaves empty is filled in. Must
//! never lose what a function says, and never give the API server two entries of one key.

use serde_json::{Map, Value};

/// Lists whose entries are told apart by a key: both sides' entries are kept, the function's win. All other lists
/// are one value.
const KEYED: [(&str, &str); 10] = [
    ("containers", ""),
    ("initContainers", ""),
    ("env", "name"),
    ("ports", "containerPort"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("volumes", "name"),
    ("imagePullSecrets", "name"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
];

/// Fills in what `own` leaves empty from `defaults`.
pub fn under(mut own: Map<String, Value>, defaults: &Map<String, Value>) -> Map<String, Value> {
    fill(&mut own, defaults);
    own
}

fn fill(own: &mut Map<String, Value>, defaults: &Map<String, Value>) {
    for (name, default) in defaults {
        match own.get_mut(name) {
            None => {
                own.insert(name.clone(), default.clone());
            }
            Some(value) => fill_value(name, value, default),
        }
    }
}

fn fill_value(name: &str, own: &mut Value, default: &Value) {
    match (own, default) {
        (Value::Object(own), Value::Object(default)) => fill(own, default),
        (Value::Array(own), Value::Array(default)) => {
            match KEYED.iter().find(|(list, _)| *list == name) {
                // Containers belong together by their place: the first one is the function's.
                Some((_, "")) => by_place(own, default),
                Some((_, key)) => by_key(own, default, key),
                None if own.is_empty() => own.clone_from(default),
                None => {}
            }
        }
        (own, default) if is_empty(own) => *own = default.clone(),
        _ => {}
    }
}

fn by_place(own: &mut Vec<Value>, defaults: &[Value]) {
    for (index, default) in defaults.iter().enumerate() {
        match own.get_mut(index) {
            Some(value) => fill_value("", value, default),
            None => own.push(default.clone()),
        }
    }
}

fn by_key(own: &mut Vec<Value>, defaults: &[Value], key: &str) {
    for default in defaults {
        if !own.iter().any(|entry| entry.get(key) == default.get(key)) {
            own.push(default.clone());
        }
    }
}

/// What Go would call the zero value: stored objects are full of them.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::needless_pass_by_value, reason = "json! makes values")]
    use super::*;
    use serde_json::json;

    fn merged(own: Value, defaults: Value) -> Value {
        let (Value::Object(own), Value::Object(defaults)) = (own, defaults) else { panic!("objects") };
        Value::Object(under(own, &defaults))
    }

    #[test]
    fn the_function_wins_and_gaps_are_filled() {
        let own = json!({"spec": {"replicas": 0, "paused": true, "template": {"metadata": {"creationTimestamp": null},
            "spec": {"containers": [{"name": "", "image": "mine", "resources": {}}], "serviceAccountName": "me"}}}});
        let defaults = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"replicas": 2, "paused": false,
            "template": {"metadata": {"labels": {"team": "x"}}, "spec": {"securityContext": {}, "serviceAccountName": "d",
            "containers": [{"name": "n", "image": "theirs", "resources": {"limits": {"cpu": "1"}}}]}}}});
        let wanted = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"replicas": 2, "paused": true,
            "template": {"metadata": {"creationTimestamp": null, "labels": {"team": "x"}},
            "spec": {"securityContext": {}, "serviceAccountName": "me",
            "containers": [{"name": "n", "image": "mine", "resources": {"limits": {"cpu": "1"}}}]}}}});
        assert_eq!(merged(own, defaults), wanted);
    }

    #[test]
    fn keyed_lists_keep_both_sides_without_doubles() {
        let own =
            json!({"containers": [{"env": [{"name": "A", "value": "mine"}], "args": ["x"]}], "volumes": []});
        let defaults = json!({"containers": [
            {"env": [{"name": "A", "value": "theirs"}, {"name": "B", "value": "b"}], "args": ["y", "z"]},
            {"name": "sidecar"}], "volumes": [{"name": "v"}]});
        let wanted = json!({"containers": [
            {"env": [{"name": "A", "value": "mine"}, {"name": "B", "value": "b"}], "args": ["x"]},
            {"name": "sidecar"}], "volumes": [{"name": "v"}]});
        assert_eq!(merged(own, defaults), wanted);
    }
}
