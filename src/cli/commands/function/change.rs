//! What the flags of `deploy` and `update` change in a Function. Must never touch what no flag names: objects carry
//! fields that this program does not know.

use super::{code::Code, pairs::Pair};
use serde_json::{Map, Value, json};

/// Label of everything that the command line makes.
pub const CREATED_BY: (&str, &str) = ("created-by", "kubeless");

const CONTAINER: [&str; 6] = ["spec", "deployment", "spec", "template", "spec", "containers"];
const POD: [&str; 5] = ["spec", "deployment", "spec", "template", "spec"];
const SERVICE: [&str; 2] = ["spec", "service"];

/// Changes; `None` and empty lists leave things alone, an empty text removes the field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// `spec.runtime`
    pub runtime: Option<String>,
    /// `spec.handler`
    pub handler: Option<String>,
    /// `spec.function`, `spec.function-content-type` and `spec.checksum`
    pub code: Option<Code>,
    /// `spec.deps`
    pub dependencies: Option<String>,
    /// `spec.timeout`
    pub timeout: Option<String>,
    /// `metadata.labels`
    pub labels: Vec<Pair>,
    /// Environment of the first container.
    pub env: Vec<Pair>,
    /// Secrets mounted at `/<name>`.
    pub secrets: Vec<Pair>,
    /// Secrets whose keys become environment variables.
    pub env_secrets: Vec<Pair>,
    /// Node labels that the Pods need.
    pub node_selectors: Vec<Pair>,
    /// Account that the Pods run as.
    pub service_account: Option<String>,
    /// Memory, requested and limit.
    pub memory: Option<String>,
    /// CPU, requested and limit.
    pub cpu: Option<String>,
    /// Image of the first container.
    pub image: Option<String>,
    /// Its pull policy.
    pub pull_policy: Option<String>,
    /// Port that the container listens on.
    pub port: Option<u16>,
    /// Port of the Service.
    pub service_port: Option<u16>,
    /// Whether the Service is headless.
    pub headless: Option<bool>,
}

/// A Function that says nothing yet.
pub fn blank(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": crate::api::API_VERSION,
        "kind": "Function",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": { (CREATED_BY.0): CREATED_BY.1, "function": name },
        },
        "spec": {},
    })
}

impl Changes {
    /// Makes the changes.
    pub fn apply(&self, function: &mut Value) {
        for (field, value) in
            [("runtime", &self.runtime), ("handler", &self.handler), ("timeout", &self.timeout)]
        {
            set_text(function, &["spec", field], value.as_deref());
        }
        set_text(function, &["spec", "deps"], self.dependencies.as_deref());
        if let Some(code) = &self.code {
            set_text(function, &["spec", "function"], Some(&code.text));
            set_text(function, &["spec", "function-content-type"], Some(&code.content_type));
            set_text(function, &["spec", "checksum"], Some(&code.checksum));
        }
        set_pairs(function, &["metadata", "labels"], &self.labels);
        self.apply_to_pod(function);
        self.apply_to_service(function);
    }

    fn apply_to_pod(&self, function: &mut Value) {
        let at = |field| POD.into_iter().chain([field]).collect::<Vec<_>>();
        set_pairs(function, &at("nodeSelector"), &self.node_selectors);
        set_text(function, &at("serviceAccountName"), self.service_account.as_deref());
        for pair in &self.secrets {
            let secret = pair.key();
            let volume = format!("{secret}-vol");
            let added = matches!(pair, Pair::Set(..));
            let entry = json!({ "name": volume, "secret": { "secretName": secret } });
            set_named(list(function, &at("volumes")), &volume, added.then_some(entry));
            let mount = json!({ "name": volume, "mountPath": format!("/{secret}") });
            set_named(container_list(function, "volumeMounts"), &volume, added.then_some(mount));
        }
        for pair in &self.env_secrets {
            let entries = container_list(function, "envFrom");
            entries.retain(|entry| entry["secretRef"]["name"] != pair.key());
            if let Pair::Set(secret, _) = pair {
                entries.push(json!({ "secretRef": { "name": secret } }));
            }
        }
        for pair in &self.env {
            let entry = match pair {
                Pair::Set(name, value) => Some(json!({ "name": name, "value": value })),
                Pair::Remove(_) => None,
            };
            set_named(container_list(function, "env"), pair.key(), entry);
        }
        for (resource, amount) in [("memory", &self.memory), ("cpu", &self.cpu)] {
            for side in ["limits", "requests"] {
                if amount.is_some() {
                    set_text(container(function), &["resources", side, resource], amount.as_deref());
                }
            }
        }
        for (field, value) in [("image", &self.image), ("imagePullPolicy", &self.pull_policy)] {
            if value.is_some() {
                set_text(container(function), &[field], value.as_deref());
            }
        }
    }

    /// A Service without ports is the controller's default one, so a port is written out as soon as one flag asks for
    /// something else; `port` alone moves the container's port and leaves the Service's where callers know it.
    fn apply_to_service(&self, function: &mut Value) {
        if self.port.is_none() && self.service_port.is_none() && self.headless.is_none() {
            return;
        }
        let name = function["metadata"]["name"].clone();
        let service = map(entry(function, &SERVICE));
        let port = crate::api::function::DEFAULT_PORT;
        if service.get("ports").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            let container = self.port.unwrap_or(port);
            let first = json!({
                "name": crate::api::function::DEFAULT_PORT_NAME,
                "port": container,
                "targetPort": container,
                "protocol": "TCP",
            });
            service.insert("ports".to_owned(), json!([first]));
            // With ports of its own the Service is used as it is, so it has to say which Pods it means.
            if service.get("selector").and_then(Value::as_object).is_none_or(Map::is_empty) {
                let labels = json!({ (CREATED_BY.0): CREATED_BY.1, "function": name });
                service.insert("selector".to_owned(), labels);
            }
        }
        let first = service.get_mut("ports").and_then(|ports| ports.get_mut(0));
        if let Some(first) = first.and_then(Value::as_object_mut) {
            if let Some(port) = self.port {
                first.insert("targetPort".to_owned(), port.into());
            }
            if let Some(port) = self.service_port {
                first.insert("port".to_owned(), port.into());
            }
        }
        match self.headless {
            Some(true) => drop(service.insert("clusterIP".to_owned(), "None".into())),
            Some(false) if service.get("clusterIP").is_some_and(|ip| ip == "None") => {
                service.remove("clusterIP");
            }
            Some(false) | None => {}
        }
    }
}

/// The value at a path, made on the way; old objects hold nulls where nothing was said.
fn entry<'a>(mut value: &'a mut Value, path: &[&str]) -> &'a mut Value {
    for step in path {
        value = map(value).entry(*step).or_insert(Value::Null);
    }
    value
}

fn map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("an object was put there")
}

fn list<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Vec<Value> {
    let value = entry(value, path);
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().expect("a list was put there")
}

/// The first container, which is the function's.
fn container(function: &mut Value) -> &mut Value {
    let name = function["metadata"]["name"].clone();
    let containers = list(function, &CONTAINER);
    if containers.is_empty() {
        containers.push(json!({ "name": name }));
    }
    &mut containers[0]
}

fn container_list<'a>(function: &'a mut Value, field: &str) -> &'a mut Vec<Value> {
    list(container(function), &[field])
}

fn set_text(value: &mut Value, path: &[&str], text: Option<&str>) {
    match (text, path) {
        (None, _) | (_, []) => {}
        (Some(""), [parents @ .., last]) => {
            let pointer = parents.iter().fold(String::new(), |pointer, step| format!("{pointer}/{step}"));
            if let Some(parent) = value.pointer_mut(&pointer).and_then(Value::as_object_mut) {
                parent.remove(*last);
            }
        }
        (Some(text), _) => *entry(value, path) = text.into(),
    }
}

fn set_pairs(value: &mut Value, path: &[&str], pairs: &[Pair]) {
    for pair in pairs {
        let entries = map(entry(value, path));
        match pair {
            Pair::Set(key, value) => drop(entries.insert(key.clone(), value.as_str().into())),
            Pair::Remove(key) => drop(entries.remove(key)),
        }
    }
}

/// Replaces, adds or removes the entry of this name; the order of the others stays.
fn set_named(entries: &mut Vec<Value>, name: &str, new: Option<Value>) {
    let found = entries.iter().position(|entry| entry["name"] == name);
    match (found, new) {
        (Some(at), Some(new)) => entries[at] = new,
        (None, Some(new)) => entries.push(new),
        (Some(at), None) => drop(entries.remove(at)),
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Value {
        json!({
            "metadata": { "name": "f", "labels": { "function": "f", "team": "a" }, "creationTimestamp": null },
            "spec": {
                "handler": "h.f", "runtime": "python3.8", "timeout": "60", "future-field": { "kept": [1] },
                "service": { "ports": [{ "name": "p", "port": 80, "targetPort": 9000 }], "clusterIP": "None" },
                "deployment": { "spec": { "strategy": {}, "template": { "spec": {
                    "containers": [
                        { "name": "f", "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }] },
                        { "name": "beside" }
                    ],
                    "volumes": null
                } } } }
            }
        })
    }

    fn changed(changes: &Changes) -> Value {
        let mut function = stored();
        changes.apply(&mut function);
        function
    }

    fn set(key: &str, value: &str) -> Pair {
        Pair::Set(key.to_owned(), value.to_owned())
    }

    #[test]
    fn no_flag_changes_nothing() {
        assert_eq!(changed(&Changes::default()), stored());
    }

    #[test]
    fn each_flag_changes_its_place_and_nothing_else() {
        type Edit = fn(&mut Value);
        let cases: [(Changes, Edit); 10] = [
            (Changes { runtime: Some("python3.11".into()), ..Changes::default() }, |f| {
                f["spec"]["runtime"] = "python3.11".into();
            }),
            (Changes { timeout: Some(String::new()), ..Changes::default() }, |f| {
                f["spec"].as_object_mut().map(|spec| spec.remove("timeout"));
            }),
            (Changes { labels: vec![set("team", "b"), set("x", "y")], ..Changes::default() }, |f| {
                f["metadata"]["labels"] = json!({ "function": "f", "team": "b", "x": "y" });
            }),
            (Changes { env: vec![set("B", "3"), Pair::Remove("A".into())], ..Changes::default() }, |f| {
                f["spec"]["deployment"]["spec"]["template"]["spec"]["containers"][0]["env"] =
                    json!([{ "name": "B", "value": "3" }]);
            }),
            (Changes { secrets: vec![set("db", "")], ..Changes::default() }, |f| {
                let pod = &mut f["spec"]["deployment"]["spec"]["template"]["spec"];
                pod["volumes"] = json!([{ "name": "db-vol", "secret": { "secretName": "db" } }]);
                pod["containers"][0]["volumeMounts"] = json!([{ "name": "db-vol", "mountPath": "/db" }]);
            }),
            (Changes { memory: Some("64Mi".into()), ..Changes::default() }, |f| {
                f["spec"]["deployment"]["spec"]["template"]["spec"]["containers"][0]["resources"] =
                    json!({ "limits": { "memory": "64Mi" }, "requests": { "memory": "64Mi" } });
            }),
            (Changes { port: Some(7000), ..Changes::default() }, |f| {
                f["spec"]["service"]["ports"][0]["targetPort"] = 7000.into();
            }),
            (Changes { service_port: Some(81), ..Changes::default() }, |f| {
                f["spec"]["service"]["ports"][0]["port"] = 81.into();
            }),
            (Changes { headless: Some(false), ..Changes::default() }, |f| {
                f["spec"]["service"].as_object_mut().map(|service| service.remove("clusterIP"));
            }),
            (Changes { node_selectors: vec![set("disk", "ssd")], ..Changes::default() }, |f| {
                f["spec"]["deployment"]["spec"]["template"]["spec"]["nodeSelector"] =
                    json!({ "disk": "ssd" });
            }),
        ];
        for (changes, edit) in cases {
            let mut wanted = stored();
            edit(&mut wanted);
            assert_eq!(changed(&changes), wanted, "{changes:?}");
        }
    }

    #[test]
    fn the_same_change_twice_is_one() {
        let changes = Changes {
            secrets: vec![set("db", "")],
            env_secrets: vec![set("keys", "")],
            env: vec![set("C", "1")],
            headless: Some(true),
            port: Some(9000),
            ..Changes::default()
        };
        let once = changed(&changes);
        let mut twice = once.clone();
        changes.apply(&mut twice);
        assert_eq!(once, twice);
    }

    #[test]
    fn a_new_function_with_a_port_says_which_pods_its_service_means() {
        let mut function = blank("ns", "f");
        Changes { port: Some(9000), service_port: Some(80), ..Changes::default() }.apply(&mut function);
        assert_eq!(
            function["spec"]["service"],
            json!({
                "ports": [{ "name": "http-function-port", "port": 80, "targetPort": 9000, "protocol": "TCP" }],
                "selector": { "created-by": "kubeless", "function": "f" }
            })
        );
    }
}
