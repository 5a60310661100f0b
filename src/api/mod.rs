//! What users write in YAML: the custom resources, their checks and their schemas. Must never do I/O, know a
//! broker or hold state: everything here is a value or a pure function.

pub mod checker;
pub mod code;
pub mod command;
pub mod conditions;
pub mod cronjob_trigger;
pub mod duration;
pub mod filter;
pub mod function;
pub mod http_trigger;
pub mod kind;
pub mod kubeless_config;
pub mod occurrences;
pub mod runtimes;
pub mod schedule;
pub mod schema;
pub mod selector;
pub mod strict;
pub mod trigger;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cluster::target::ObjectRef;

/// API group of every resource, as in Kubeless.
pub const GROUP: &str = "kubeless.io";
/// Version of every resource, as in Kubeless.
pub const VERSION: &str = "v1beta1";
/// `apiVersion` of every resource.
pub const API_VERSION: &str = "kubeless.io/v1beta1";
/// Namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Label by which an EndpointSlice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// One thing that is wrong in one resource, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer to the offending field, e.g. `/spec/delivery/timeout`; empty for the whole object.
    pub path: String,
    /// What is wrong, without a trailing dot.
    pub what: String,
    /// What to write instead, without a trailing dot.
    pub fix: String,
}

impl Violation {
    /// Builds a violation from its three parts.
    pub fn new(path: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { path: path.into(), what: what.into(), fix: fix.into() }
    }

    /// The path as users write it: `spec.delivery.timeout`.
    pub fn field(&self) -> String {
        dotted(&self.path)
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "{}; {}", self.what, self.fix),
            _ => write!(f, "{}: {}; {}", self.field(), self.what, self.fix),
        }
    }
}

/// A JSON pointer in the dotted form of error messages (`/spec/a~1b/0` becomes `spec.a/b.0`).
pub fn dotted(pointer: &str) -> String {
    let parts: Vec<String> = pointer.split('/').skip(1).map(unescape).collect();
    parts.join(".")
}

/// Escapes one segment of a JSON pointer (RFC 6901).
pub fn escape(segment: &str) -> String {
    segment.replace('~', "~0").replace('/', "~1")
}

/// Undoes [`escape`].
pub fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

/// Namespace (default [`DEFAULT_NAMESPACE`]) and name of an object; an unnamed object has the empty name.
pub fn reference(metadata: &ObjectMeta) -> ObjectRef {
    let namespace =
        metadata.namespace.as_deref().filter(|text| !text.is_empty()).unwrap_or(DEFAULT_NAMESPACE);
    ObjectRef::new(namespace, metadata.name.as_deref().unwrap_or_default())
}

/// The YAML text of a custom resource definition, as stored under `deploy/crds/`.
///
/// # Errors
/// When the definition cannot be written as YAML, which a definition made from Rust types always can.
pub fn crd_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_saphyr::SerializeError> {
    let body = serde_saphyr::to_string(crd)?;
    Ok(format!("# Generated from the Rust types; UPDATE=1 cargo test --test it crds:: rewrites it.\n{body}"))
}
