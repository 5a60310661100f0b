//! `HTTPTrigger`: a way from outside to one function, under its old JSON names. Must never know an ingress controller
//! beyond the names that users write.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Violation,
    checker::Checker,
    filter::FilterSpec,
    kind::{ServedBy, Trigger, TriggerKind, TriggerObject},
    selector,
    trigger::{DedupSpec, DeliverySpec, Functions, Ordering, SharedGroups},
};

/// The registration of this kind.
pub const KIND: TriggerKind = TriggerKind {
    kind: "HTTPTrigger",
    finalizer: Some("kubeless.io/httptrigger"),
    crd: HTTPTrigger::crd,
    decode,
    acts,
};
/// What brings requests to the function when `delivery.through` says nothing: as in Kubeless.
pub const DEFAULT_THROUGH: Through = Through::Ingress;

/// HTTP requests from outside the cluster to one function.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kubeless.io",
    version = "v1beta1",
    kind = "HTTPTrigger",
    namespaced,
    status = "HTTPTriggerStatus",
    derive = "PartialEq",
    shortname = "ht",
    category = "kubeless",
    category = "triggers",
    doc = "HTTP requests from outside the cluster to one function.",
    selectable = ".spec.function-name",
    printcolumn = r#"{"name": "Host", "type": "string", "jsonPath": ".spec.host-name"}"#,
    printcolumn = r#"{"name": "Path", "type": "string", "jsonPath": ".spec.path"}"#,
    printcolumn = r#"{"name": "Function", "type": "string", "jsonPath": ".spec.function-name"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Gateway", "type": "string", "jsonPath": ".spec.gateway", "priority": 1}"#,
    printcolumn = r#"{"name": "URL", "type": "string", "jsonPath": ".status.url", "priority": 1}"#,
    printcolumn = r#"{"name": "Paused", "type": "boolean", "jsonPath": ".spec.paused", "priority": 1}"#
)]
#[x_kube(
    validation = (
        "!self.tls || !has(self.tls__dash__secret) || self.tls__dash__secret == ''",
        "tls (a certificate is asked for) and tls-secret (it exists) exclude each other"
    ),
    validation = (
        "!has(self.auth) || (has(self.delivery.through) && self.delivery.through == 'Dispatcher')",
        "auth is checked by the dispatcher: set delivery.through: Dispatcher"
    ),
    validation = ("!has(self.delivery.deadLetter)", "a request has no topic beside it: remove delivery.deadLetter"),
    validation = (
        "!has(self.dedup.key) || !has(self.dedup.key.recordKey)",
        "a request has no key: use dedup.key.header or jsonPointer"
    )
)]
#[serde(rename_all = "kebab-case")]
pub struct HTTPTriggerSpec {
    /// Function of the same namespace that receives the requests.
    #[schemars(length(min = 1, max = 63))]
    pub function_name: String,
    /// Host name of the requests. Empty: every host that no other trigger names.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub host_name: String,
    /// Path; its leading slash may be left out. Empty: the root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub path: String,
    /// Whether a certificate is asked for by ACME (an annotation for cert-manager). Default false.
    #[serde(default)]
    pub tls: bool,
    /// Name of an existing TLS Secret. Excludes `tls`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub tls_secret: String,
    /// Name of an existing Secret with an htpasswd file under the key `auth`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub basic_auth_secret: String,
    /// Ingress controller that the annotations are written for: nginx, traefik or kong. Others get no annotations.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub gateway: String,
    /// Whether the gateway answers cross-origin requests. Default false.
    #[serde(default)]
    pub cors_enable: bool,
    /// Name of the IngressClass. Default: the one that is called like `gateway`.
    #[serde(default, rename = "ingressClassName", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ingress_class_name: Option<String>,
    /// Ignored, as by the last Kubeless; older objects carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_enabled: Option<bool>,
    /// Ignored, as by the last Kubeless; older objects carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub route_name: Option<String>,
    /// Who may call, with `delivery.through: Dispatcher`. Default: everybody who reaches the dispatcher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<HTTPAuthSpec>,
    /// How events are handed to the function.
    #[serde(default)]
    pub delivery: HTTPDeliverySpec,
    /// How repeated business events are recognised.
    #[serde(default)]
    pub dedup: DedupSpec,
    /// CloudEvents subscription filters; all must match. Default: every event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub filter: Vec<FilterSpec>,
    /// Which events wait for each other. Default Key.
    #[serde(default)]
    pub ordering: Ordering,
    /// Refuses requests until it is false again. Default false.
    #[serde(default)]
    pub paused: bool,
}

/// Who may call: holders of a token, or of a key that signs the body.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPAuthSpec {
    /// Name of the Secret (or credentials folder). Its key `token` holds what callers show as `Authorization: Bearer`, one a line;
    /// with `signatureHeader` its key `key` holds what they sign with, one a line.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub secret: String,
    /// Header with the HMAC-SHA256 of the body in hexadecimal, `sha256=` before it or not. Without it callers show a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9][-A-Za-z0-9_]*$"))]
    pub signature_header: Option<String>,
}

/// How requests are handed to the function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HTTPDeliverySpec {
    /// See [`Through`], whose text stands in the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub through: Option<Through>,
    /// The group that all trigger kinds share.
    #[serde(flatten)]
    pub shared: DeliverySpec,
}

/// What brings requests to the function. `Ingress`: the gateway calls it directly, as in Kubeless, and nothing here
/// keeps repeats away. `Dispatcher`: the gateway hands requests to the dispatcher. Default Ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Through {
    /// The dispatcher, which claims each event first.
    Dispatcher,
    /// The gateway itself.
    Ingress,
}

/// What is known about an HTTP trigger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HTTPTriggerStatus {
    /// `metadata.generation` that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions; `Ready` sums them up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Where the function is reached from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl HTTPTrigger {
    /// What brings requests to the function.
    pub fn through(&self) -> Through {
        self.spec.delivery.through.unwrap_or(DEFAULT_THROUGH)
    }

    /// The path with its leading slash. One that was written with it has one all the same.
    pub fn path(&self) -> String {
        format!("/{}", self.spec.path.trim_start_matches('/'))
    }
}

impl Trigger for HTTPTrigger {
    const KIND: &'static str = KIND.kind;

    fn groups(&self) -> SharedGroups<'_> {
        SharedGroups {
            functions: Functions::Named(&self.spec.function_name),
            delivery: &self.spec.delivery.shared,
            dedup: &self.spec.dedup,
            filter: &self.spec.filter,
            ordering: self.spec.ordering,
            paused: self.spec.paused,
        }
    }

    fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        let spec = &self.spec;
        let mut say = |path: &str, what: String, fix: &str| violations.push(Violation::new(path, what, fix));
        if spec.tls && !spec.tls_secret.is_empty() {
            let what = "tls (a certificate is asked for) and tls-secret (it exists) exclude each other";
            say("/spec/tls-secret", what.to_owned(), "remove one of the two");
        }
        let host = spec.host_name.strip_prefix("*.").unwrap_or(&spec.host_name);
        if !host.is_empty() && !selector::is_subdomain(host) {
            let what = format!("{:?} is not a host name", spec.host_name);
            say("/spec/host-name", what, "write for example shop.example.com, without scheme, port and path");
        }
        if spec.auth.is_some() && self.through() != Through::Dispatcher {
            let what = "nobody checks it: an Ingress leads past the dispatcher".to_owned();
            say("/spec/auth", what, "set delivery.through: Dispatcher, or remove it");
        }
        if spec.auth.as_ref().is_some_and(|auth| !selector::is_dns_label(&auth.secret)) {
            let what = "it is not the name of a Secret or credentials folder".to_owned();
            say("/spec/auth/secret", what, "write its name (a-z, 0-9, '-'), not a path");
        }
        if spec.delivery.shared.dead_letter.is_some() {
            let what = "a request has no topic beside it where it could be kept".to_owned();
            say("/spec/delivery/deadLetter", what, "remove it; the caller sees the outcome");
        }
        if spec.dedup.key.as_ref().is_some_and(|key| key.record_key.is_some()) {
            say("/spec/dedup/key/recordKey", "a request has no key".to_owned(), "use header or jsonPointer");
        }
        violations
    }

    fn served_by(&self) -> ServedBy {
        who(self.through())
    }
}

/// Reads and checks a whole HTTPTrigger; the typed object is a [`HTTPTrigger`].
///
/// # Errors
/// Everything that is wrong with it.
pub fn decode(object: Value) -> Result<TriggerObject, Vec<Violation>> {
    static CHECKER: Checker = Checker::new(HTTPTrigger::crd);
    CHECKER.trigger::<HTTPTrigger>(object)
}

/// Who acts on an object that need not be sound.
fn acts(object: &Value) -> ServedBy {
    let said = object.pointer("/spec/delivery/through").cloned();
    who(said.and_then(|said| serde_json::from_value(said).ok()).unwrap_or(DEFAULT_THROUGH))
}

fn who(through: Through) -> ServedBy {
    match through {
        Through::Dispatcher => ServedBy::Dispatcher,
        Through::Ingress => ServedBy::Controller,
    }
}
