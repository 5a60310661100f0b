//! What should exist: pure functions from resources, catalogue and configuration to Kubernetes objects. Must never read
//! a clock, a cluster or a random number: the same input gives the same bytes, else every pass would roll Pods.

pub mod autoscaler;
pub mod code;
pub mod cron_job;
pub mod deployment;
mod env;
pub mod exposure;
mod init;
mod merge;
pub mod passage;
mod probes;
pub mod runtime;
pub mod security;
pub mod service;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::{ApiResource, GroupVersionKind};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

use crate::{api, pod};

/// Label and value that every generated object carries; what lacks it is not ours to change.
pub const CREATED_BY: (&str, &str) = ("created-by", "kubeless");
/// Label that holds the function's name.
pub const FUNCTION_LABEL: &str = "function";
/// Annotation with the digest of what was applied last.
pub const APPLIED: &str = "kubeless.io/applied";
/// Annotation of Pods with the digest of code, dependencies and runtime.
pub const CONTENT: &str = "kubeless.io/content-sha256";
/// Annotations that belong to the object they stand on: copied, they would lie, or roll Pods at every `kubectl apply`.
const OWN_ANNOTATIONS: [&str; 4] =
    ["kubectl.kubernetes.io/", "kubeless.io/", "deployment.kubernetes.io/", "meta.helm.sh/"];

/// Kinds of objects that are generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Code and dependencies.
    ConfigMap,
    /// Where a function is called.
    Service,
    /// A function's Pods.
    Deployment,
    /// How many Pods.
    Autoscaler,
    /// What Prometheus scrapes for an autoscaler.
    ServiceMonitor,
    /// A way from outside, networking.k8s.io.
    Ingress,
    /// A way from outside, Gateway API.
    HttpRoute,
    /// Calls by the clock.
    CronJob,
    /// What traefik does to requests before it passes them on.
    Middleware,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ConfigMap,
        Self::Service,
        Self::Deployment,
        Self::Autoscaler,
        Self::ServiceMonitor,
        Self::Ingress,
        Self::HttpRoute,
        Self::CronJob,
        Self::Middleware,
    ];

    /// Group, version, kind and plural.
    pub const fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::Autoscaler => ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
            Self::ServiceMonitor => ("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
            Self::Ingress => ("networking.k8s.io", "v1", "Ingress", "ingresses"),
            Self::HttpRoute => ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
            Self::CronJob => ("batch", "v1", "CronJob", "cronjobs"),
            Self::Middleware => ("traefik.io", "v1alpha1", "Middleware", "middlewares"),
        }
    }

    /// How the API server is asked for it.
    pub fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = self.names();
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }
}

/// One object as it should be: complete, with the digest of itself in [`APPLIED`].
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// All of it.
    pub value: Value,
}

impl Object {
    /// Wraps a typed object or JSON without `apiVersion` and `kind`. Nulls and empty structures of the typed form are
    /// left out: what is not said is not owned.
    ///
    /// # Errors
    /// Only for values that have no JSON form, which Kubernetes types always have.
    pub fn new(kind: Kind, object: &impl Serialize) -> Result<Self, serde_json::Error> {
        let mut value = serde_json::to_value(object)?;
        let (group, version, name, _) = kind.names();
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        value["apiVersion"] = api_version.into();
        value["kind"] = name.into();
        if let Some(map) = value.as_object_mut() {
            map.remove("status");
        }
        let digest = sha256(&[value.to_string().as_bytes()]);
        value["metadata"]["annotations"][APPLIED] = digest[..32].into();
        Ok(Self { kind, value })
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.value["metadata"]["namespace"].as_str().unwrap_or_default()
    }
}

/// Labels of everything that is made for a function: its own, and ours, which win.
pub fn labels(own: &ObjectMeta) -> BTreeMap<String, String> {
    let mut labels = own.labels.clone().unwrap_or_default();
    labels.extend(selector(own.name.as_deref().unwrap_or_default()));
    labels
}

/// The two labels by which a function's Pods are found.
pub fn selector(function: &str) -> BTreeMap<String, String> {
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    BTreeMap::from([pair(CREATED_BY), pair((FUNCTION_LABEL, function))])
}

/// Annotations that generated objects take over.
pub fn annotations(own: &ObjectMeta) -> BTreeMap<String, String> {
    let own = own.annotations.iter().flatten();
    let copied = own.filter(|(name, _)| !OWN_ANNOTATIONS.iter().any(|prefix| name.starts_with(prefix)));
    copied.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The reference by which the cluster removes an object with its owner.
pub fn owner(kind: &str, metadata: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api::API_VERSION.to_owned(),
        kind: kind.to_owned(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Metadata of an object that is made for a function, under the function's name.
pub fn metadata(function: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: function.name.clone(),
        namespace: function.namespace.clone(),
        labels: Some(labels(function)),
        owner_references: Some(vec![owner("Function", function)]),
        ..ObjectMeta::default()
    }
}

/// Hex SHA-256 of the parts, each with its length, so that no two lists of parts give the same bytes.
pub fn sha256(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    pod::hex(&hasher.finalize())
}

/// A name of at most 63 characters that stays unique: what is too long ends in a digest of itself.
pub fn short_name(name: &str) -> String {
    const LONGEST: usize = 63;
    const DIGEST: usize = 10;
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let head: String = name.chars().take_while(char::is_ascii).take(LONGEST - DIGEST - 1).collect();
    format!("{}-{}", head.trim_end_matches(['-', '.']), &sha256(&[name.as_bytes()])[..DIGEST])
}

/// Text from a user as Kubernetes reads it in `command`, `args` and `env`, where `$(NAME)` would be replaced.
pub fn literal(text: &str) -> String {
    text.replace('$', "$$")
}
