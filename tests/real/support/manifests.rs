//! A folder of manifests as `kubectl get -o yaml` would show them. Must never write a half file where a watcher
//! could read it: every file is renamed into place.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Writes Functions, Services, EndpointSlices and triggers into one folder.
pub struct Manifests {
    dir: PathBuf,
    pub namespace: String,
}

impl Manifests {
    /// A new folder `manifests` inside `dir`; objects go to the namespace `default`.
    pub fn new(dir: &Path) -> Self {
        let dir = dir.join("manifests");
        fs::create_dir_all(&dir).expect("a folder in the test's own folder");
        Self { dir, namespace: "default".into() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A Function, its Service and an EndpointSlice with `endpoints`, all ready.
    pub fn function(&self, name: &str, labels: &[(&str, &str)], endpoints: &[SocketAddr]) -> &Self {
        self.function_with(name, labels, endpoints, "  timeout: \"5\"\n")
    }

    /// The same with further lines of the Function's `spec` (indented by two spaces).
    pub fn function_with(&self, name: &str, labels: &[(&str, &str)], to: &[SocketAddr], spec: &str) -> &Self {
        let labels: String = labels.iter().map(|(k, v)| format!("    {k}: \"{v}\"\n")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("  labels:\n{labels}") };
        let head = self.head("kubeless.io/v1beta1", "Function", name);
        self.write(
            &format!("function-{name}"),
            &format!("{head}{labels}spec:\n  handler: witness.handler\n  runtime: python3.11\n{spec}"),
        );
        let head = self.head("v1", "Service", name);
        let port = to.first().map_or(8080, SocketAddr::port);
        self.write(
            &format!("service-{name}"),
            &format!("{head}spec:\n  ports:\n  - name: http-function-port\n    port: 8080\n    targetPort: {port}\n"),
        );
        self.endpoints(name, to)
    }

    /// Replaces the function's EndpointSlice; an empty list means that no pod is ready.
    pub fn endpoints(&self, function: &str, endpoints: &[SocketAddr]) -> &Self {
        // A slice has one list of ports for all its addresses: one slice per port.
        let mut text = String::new();
        let ports: std::collections::BTreeSet<u16> = endpoints.iter().map(SocketAddr::port).collect();
        for port in &ports {
            let head = self.head("discovery.k8s.io/v1", "EndpointSlice", &format!("{function}-{port}"));
            let label = format!("  labels:\n    kubernetes.io/service-name: {function}\n");
            let ports = format!("ports:\n- name: http-function-port\n  port: {port}\n  protocol: TCP\n");
            text.push_str(&format!("---\n{head}{label}addressType: IPv4\n{ports}endpoints:\n"));
            for address in endpoints.iter().filter(|address| address.port() == *port) {
                text.push_str(&format!(
                    "- addresses: [\"{}\"]\n  conditions:\n    ready: true\n",
                    address.ip()
                ));
            }
        }
        if ports.is_empty() {
            let head = self.head("discovery.k8s.io/v1", "EndpointSlice", &format!("{function}-none"));
            let label = format!("  labels:\n    kubernetes.io/service-name: {function}\n");
            text = format!("{head}{label}addressType: IPv4\nports: []\nendpoints: []\n");
        }
        self.write(&format!("endpoints-{function}"), &text)
    }

    /// A trigger of any kind for the functions with `label`; `spec` holds its further lines (indented by two spaces).
    pub fn trigger(&self, kind: &str, name: &str, label: (&str, &str), spec: &str) -> &Self {
        let head = self.head("kubeless.io/v1beta1", kind, name);
        let selector = format!("  functionSelector:\n    matchLabels:\n      {}: \"{}\"\n", label.0, label.1);
        self.write(&format!("trigger-{name}"), &format!("{head}spec:\n{selector}{spec}"))
    }

    /// A KafkaTrigger for the functions with `label`; `spec` holds further lines (indented by two spaces).
    pub fn kafka_trigger(&self, name: &str, topic: &str, label: (&str, &str), spec: &str) -> &Self {
        let head = self.head("kubeless.io/v1beta1", "KafkaTrigger", name);
        let selector = format!("  functionSelector:\n    matchLabels:\n      {}: \"{}\"\n", label.0, label.1);
        self.write(&format!("trigger-{name}"), &format!("{head}spec:\n  topic: {topic}\n{selector}{spec}"))
    }

    /// Writes `<name>.yaml`, whole or not at all.
    pub fn write(&self, name: &str, text: &str) -> &Self {
        let hidden = self.dir.join(format!(".{name}.tmp"));
        fs::write(&hidden, text).expect("a file in the test's own folder");
        fs::rename(&hidden, self.dir.join(format!("{name}.yaml"))).expect("the same folder");
        self
    }

    /// Removes `<name>.yaml` (`trigger-…`, `function-…`, `service-…`, `endpoints-…`).
    pub fn remove(&self, name: &str) -> &Self {
        fs::remove_file(self.dir.join(format!("{name}.yaml"))).expect("it was written");
        self
    }

    fn head(&self, version: &str, kind: &str, name: &str) -> String {
        let namespace = &self.namespace;
        format!("apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: {name}\n  namespace: {namespace}\n")
    }
}

#[test]
fn every_document_is_yaml_with_a_kind() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let to = [SocketAddr::from(([127, 0, 0, 1], 81)), SocketAddr::from(([127, 0, 0, 1], 82))];
    let manifests = Manifests::new(dir.path());
    manifests.function("f", &[("app", "x")], &to).function("g", &[], &[]);
    manifests.kafka_trigger("t", "flights", ("app", "x"), "  dedup:\n    key: id\n");
    let mut kinds = Vec::new();
    for entry in fs::read_dir(manifests.dir()).expect("it is there").flatten() {
        let text = fs::read_to_string(entry.path()).expect("a text");
        for document in serde_saphyr::from_multiple::<serde_json::Value>(&text).expect("YAML") {
            kinds.push(document["kind"].as_str().expect("a kind").to_owned());
        }
    }
    kinds.sort();
    assert_eq!(kinds.iter().filter(|kind| *kind == "EndpointSlice").count(), 3, "{kinds:?}");
    assert_eq!(kinds.len(), 8, "{kinds:?}");
}
