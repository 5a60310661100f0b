//! From documents to typed objects: which kind, is it ours, is it right, is it there twice. Must never name a
//! source: trigger kinds are handed over.

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

use super::{
    Ignored, Limits, Loaded, Manifests, Problem,
    yaml::{self, At, Content, Node},
};
use crate::{
    api::{
        API_VERSION, DEFAULT_NAMESPACE, GROUP, SERVICE_NAME, Violation,
        function::{self, Function},
        kind::{TriggerKind, TriggerObject},
        schema, selector,
    },
    cluster::target::ObjectRef,
};

/// Collects what the documents say.
pub(super) struct Reader<'a> {
    kinds: &'a [TriggerKind],
    limits: &'a Limits,
    seen: BTreeMap<(String, ObjectRef), (Arc<str>, u64)>,
    found: Manifests,
}

enum Decoded {
    Function(Box<Function>),
    Trigger(TriggerObject),
    Service(Box<Service>),
    Slice(Box<EndpointSlice>),
    Ignored,
}

/// One document: its file, its tree, and how many lines of the file stand before the tree.
struct Document<'a> {
    file: &'a Arc<str>,
    node: &'a Node,
    before: u64,
}

impl Document<'_> {
    fn at(&self, (line, column): At) -> At {
        (self.before + line.max(1), column)
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(kinds: &'a [TriggerKind], limits: &'a Limits) -> Self {
        Self { kinds, limits, seen: BTreeMap::new(), found: Manifests::default() }
    }

    pub(super) fn finish(self) -> Manifests {
        self.found
    }

    pub(super) fn problem(
        &mut self,
        file: &Arc<str>,
        (line, column): At,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) {
        if self.found.problems.len() >= self.limits.max_problems {
            self.found.more_problems += 1;
            return;
        }
        let (what, fix) = (what.into(), fix.into());
        self.found.problems.push(Problem { file: Arc::clone(file), line, column, what, fix });
    }

    /// Reads all documents of one file.
    pub(super) fn file(&mut self, file: &Arc<str>, text: &str) {
        let mut left = self.limits.max_documents;
        for (before, part) in yaml::split(text) {
            match yaml::parse(part) {
                Ok(node) => self.document(&Document { file, node: &node, before }, &mut left),
                Err(error) => {
                    let at = (before + error.at.0.max(1), error.at.1);
                    self.problem(file, at, error.what, "correct the document; the others are read");
                }
            }
        }
    }

    fn document(&mut self, document: &Document<'_>, left: &mut usize) {
        let node = document.node;
        if matches!(node.content, Content::Scalar(Value::Null)) {
            return;
        }
        if *left == 0 {
            let what = format!("more than {} objects in one file", self.limits.max_documents);
            return self.problem(document.file, document.at(node.at), what, "split the file");
        }
        *left -= 1;
        let text = |key: &str| node.get(key).and_then(Node::text).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if api_version.is_empty() || kind.is_empty() {
            let what = "not a Kubernetes object: apiVersion or kind is missing";
            let fix = format!("begin with apiVersion: {API_VERSION} and kind: Function");
            return self.problem(document.file, document.at(node.at), what, fix);
        }
        if kind == "List" || (kind.ends_with("List") && node.get("items").is_some()) {
            if let Some(Node { content: Content::List(items), .. }) = node.get("items") {
                for item in items {
                    self.document(&Document { node: item, ..*document }, left);
                }
            }
            return;
        }
        self.object(document, api_version, kind);
    }

    fn object(&mut self, document: &Document<'_>, api_version: &str, kind: &str) {
        let mut violations = Vec::new();
        let reference = check_metadata(document.node, &mut violations);
        let decoded = match self.decode(document.node, api_version, kind) {
            Ok(Decoded::Ignored) => {
                let line = document.at(document.node.at).0;
                return self.found.ignored.push(Ignored {
                    file: Arc::clone(document.file),
                    line,
                    api_version: api_version.to_owned(),
                    kind: kind.to_owned(),
                    name: reference.name.to_string(),
                });
            }
            Ok(decoded) => Some(decoded),
            Err(more) => {
                // A fault without a place only repeats, in the deserializer's words, what metadata already said.
                let told = !violations.is_empty();
                violations.extend(more.into_iter().filter(|fault| !told || !fault.path.is_empty()));
                None
            }
        };
        for violation in &violations {
            let at = document.at(document.node.locate(&violation.path));
            let what = match violation.path.as_str() {
                "" => format!("{kind} {reference}: {}", violation.what),
                _ => format!("{kind} {reference}: {}: {}", violation.field(), violation.what),
            };
            self.problem(document.file, at, what, violation.fix.clone());
        }
        if let Some(decoded) = decoded.filter(|_| violations.is_empty()) {
            self.keep(document, kind, reference, decoded);
        }
    }

    fn decode(&self, node: &Node, api_version: &str, kind: &str) -> Result<Decoded, Vec<Violation>> {
        match (api_version, kind) {
            ("v1", "Service") => return typed(node).map(|object| Decoded::Service(Box::new(object))),
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                let slice = typed(node)?;
                let faults = check_slice(&slice);
                return if faults.is_empty() { Ok(Decoded::Slice(Box::new(slice))) } else { Err(faults) };
            }
            _ => {}
        }
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        if group != GROUP {
            return Ok(Decoded::Ignored);
        }
        let mut known = vec!["Function"];
        known.extend(self.kinds.iter().map(|kind| kind.kind));
        if known.contains(&kind) && api_version != API_VERSION {
            let what = format!("{kind} has no version {api_version}");
            return Err(vec![Violation::new(
                "/apiVersion",
                what,
                format!("write apiVersion: {API_VERSION}"),
            )]);
        }
        if kind == "Function" {
            return function::decode(node.to_value()).map(|object| Decoded::Function(Box::new(object)));
        }
        if let Some(registered) = self.kinds.iter().find(|registered| registered.kind == kind) {
            return (registered.decode)(node.to_value()).map(Decoded::Trigger);
        }
        match schema::nearest(kind, &known) {
            // A name of the same family that is merely similar is another source's kind, not a misspelling.
            Some(near) if kind.len().abs_diff(near.len()) <= 1 || !kind.ends_with("Trigger") => {
                let what = format!("unknown kind {kind:?}");
                Err(vec![Violation::new("/kind", what, format!("did you mean {near}?"))])
            }
            _ => Ok(Decoded::Ignored),
        }
    }

    fn keep(&mut self, document: &Document<'_>, kind: &str, reference: ObjectRef, decoded: Decoded) {
        let (line, column) = document.at(document.node.at);
        let key = (kind.to_owned(), reference.clone());
        if let Some((file, first)) = self.seen.get(&key) {
            let what = format!("{kind} {reference} is already defined in {file}:{first}");
            return self.problem(document.file, (line, column), what, "remove or rename one of the two");
        }
        self.seen.insert(key, (Arc::clone(document.file), line));
        let file = Arc::clone(document.file);
        let fingerprint = fingerprint(document.node);
        match decoded {
            Decoded::Function(object) => {
                let object = Arc::new(*object);
                self.found.functions.insert(reference, Loaded { object, file, line, fingerprint });
            }
            Decoded::Trigger(object) => {
                let key = (object.kind, reference);
                let object = Arc::new(object);
                self.found.triggers.insert(key, Loaded { object, file, line, fingerprint });
            }
            Decoded::Service(object) => {
                let object = Arc::new(*object);
                self.found.services.insert(reference, Loaded { object, file, line, fingerprint });
            }
            Decoded::Slice(object) => {
                let object = Arc::new(*object);
                self.found.slices.insert(reference, Loaded { object, file, line, fingerprint });
            }
            Decoded::Ignored => {}
        }
    }
}

fn typed<T: serde::de::DeserializeOwned>(node: &Node) -> Result<T, Vec<Violation>> {
    serde_json::from_value(node.to_value()).map_err(|error| {
        vec![Violation::new("", error.to_string(), "compare with the Kubernetes API reference")]
    })
}

/// What an API server would refuse, and what would make the slice belong to no function.
fn check_slice(slice: &EndpointSlice) -> Vec<Violation> {
    let mut faults = Vec::new();
    let labels = slice.metadata.labels.as_ref();
    if !labels.is_some_and(|labels| labels.contains_key(SERVICE_NAME)) {
        let what = format!("label {SERVICE_NAME} is missing");
        faults.push(Violation::new(
            "/metadata/labels",
            what,
            format!("add {SERVICE_NAME}: <name of the function>"),
        ));
    }
    for (index, port) in slice.ports.iter().flatten().enumerate() {
        if let Some(number) = port.port.filter(|number| !(1..=65_535).contains(number)) {
            let path = format!("/ports/{index}/port");
            faults.push(Violation::new(
                path,
                format!("{number} is not a port"),
                "write a number from 1 to 65535",
            ));
        }
    }
    if slice.address_type == "FQDN" {
        faults.push(Violation::new("/addressType", "names are not looked up", "use IPv4 or IPv6 addresses"));
        return faults;
    }
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        for (place, text) in endpoint.addresses.iter().enumerate() {
            if text.parse::<std::net::IpAddr>().is_err() {
                let path = format!("/endpoints/{index}/addresses/{place}");
                let what = format!("{text:?} is not an IP address");
                faults.push(Violation::new(
                    path,
                    what,
                    "write for example 127.0.0.1; the port goes under ports",
                ));
            }
        }
    }
    faults
}

fn fingerprint(node: &Node) -> u128 {
    // serde_json's map is sorted by key, so the text is the same however the keys were ordered.
    xxhash_rust::xxh3::xxh3_128(node.to_value().to_string().as_bytes())
}

/// Namespace and name, checked here because the CRD schema leaves `metadata` to the API server.
fn check_metadata(node: &Node, violations: &mut Vec<Violation>) -> ObjectRef {
    let metadata = node.get("metadata");
    let text = |key: &str| metadata.and_then(|metadata| metadata.get(key)).and_then(Node::text);
    let namespace = text("namespace").filter(|text| !text.is_empty()).unwrap_or(DEFAULT_NAMESPACE);
    if !selector::is_dns_label(namespace) {
        let what = format!("{namespace:?} is not a namespace");
        violations.push(Violation::new("/metadata/namespace", what, "use a-z, 0-9 and '-', at most 63"));
    }
    let name = text("name").unwrap_or_default();
    if name.is_empty() {
        let fix = "add metadata.name (in quotes if it is a number)";
        violations.push(Violation::new("/metadata/name", "the object has no name", fix));
    } else if !selector::is_subdomain(name) {
        let what = format!("{name:?} is not an object name");
        let fix = "use a-z, 0-9, '-' and '.', beginning and ending with a letter or digit";
        violations.push(Violation::new("/metadata/name", what, fix));
    }
    for group in ["labels", "annotations"] {
        let Some(Node { content: Content::Mapping(entries), .. }) = metadata.and_then(|m| m.get(group))
        else {
            continue;
        };
        for (key, _, value) in entries.iter().filter(|(.., value)| value.text().is_none()) {
            let path = format!("/metadata/{group}/{}", crate::api::escape(key));
            let fix = format!("write it in quotes: \"{}\"", value.to_value());
            violations.push(Violation::new(path, "the value is not a text", fix));
        }
    }
    ObjectRef::new(namespace, name)
}
