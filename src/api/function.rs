//! `Function`: what Kubeless calls a function, field by field under its old JSON names. Must tolerate what old
//! clusters stored (explicit empty structures, nulls).

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ServiceSpec};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::time::Duration;

use super::{
    Violation,
    checker::Checker,
    code::{self, ContentType, Handler},
};
use crate::cluster::target::Protocol;

/// Seconds a call may take when `spec.timeout` is empty.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(180);
/// Longest `spec.timeout`: a day.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);
/// Service port of a function that declares none.
pub const DEFAULT_PORT: u16 = 8080;
/// Name of that port; the `http-` prefix is for service meshes.
pub const DEFAULT_PORT_NAME: &str = "http-function-port";
/// Finalizer that Kubeless put on functions: taken away, else they could not be deleted.
pub const FINALIZER: &str = "kubeless.io/function";
/// `appProtocol` of HTTP/2 with prior knowledge.
pub const H2C: &str = "kubernetes.io/h2c";

/// Code that runs as a workload and is called over HTTP.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kubeless.io",
    version = "v1beta1",
    kind = "Function",
    namespaced,
    status = "FunctionStatus",
    derive = "PartialEq",
    shortname = "fn",
    category = "kubeless",
    doc = "Code that runs as a workload and is called over HTTP.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    selectable = ".spec.runtime",
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name": "Runtime", "type": "string", "jsonPath": ".spec.runtime"}"#,
    printcolumn = r#"{"name": "Replicas", "type": "integer", "jsonPath": ".status.readyReplicas"}"#,
    printcolumn = r#"{"name": "URL", "type": "string", "jsonPath": ".status.url"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Handler", "type": "string", "jsonPath": ".spec.handler", "priority": 1}"#,
    printcolumn = r#"{"name": "Timeout", "type": "string", "jsonPath": ".spec.timeout", "priority": 1}"#,
    printcolumn = r#"{"name": "Image", "type": "string", "jsonPath": ".status.image", "priority": 1}"#
)]
#[x_kube(validation = (
    "!has(self.function) || self.function == '' || (has(self.handler) && self.handler != '')",
    "function needs handler: <module>.<function>"
))]
#[serde(rename_all = "kebab-case")]
pub struct FunctionSpec {
    /// `<module>.<function>`: what the runtime loads and calls. Required whenever `function` is set.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512), regex(pattern = "^([^.]+[.][^.]+)?$"))]
    pub handler: String,
    /// Source text, base64 text or a URL, by `function-content-type`. Empty for a prebuilt image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub function: String,
    /// `text` (or empty), `base64` or `url`, each optionally with `+zip` or `+compressedtar` and `+deps`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64), regex(pattern = "^$|text|base64|url"))]
    pub function_content_type: String,
    /// `sha256:<hex>` of the file's bytes (after base64 decoding or download). Empty: not checked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128), regex(pattern = "^$|^sha256:"))]
    pub checksum: String,
    /// Runtime and version, e.g. `python3.8`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub runtime: String,
    /// Longest run of one call in whole seconds, written as text. Default "180".
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8), regex(pattern = "^ *[0-9]{0,5} *$"))]
    pub timeout: String,
    /// Text of the dependency file (requirements.txt, package.json, go.mod, ...).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub deps: String,
    /// apps/v1 Deployment that is merged with the generated one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "preserved_deployment")]
    pub deployment: Option<Map<String, Value>>,
    /// core/v1 ServiceSpec, used as it is when it has at least one port. Default: port 8080.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "preserved_service")]
    pub service: Option<Map<String, Value>>,
    /// HorizontalPodAutoscaler (autoscaling/v2, or v2beta1 as Kubeless stored it).
    #[serde(default, rename = "horizontalPodAutoscaler", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "preserved_autoscaler")]
    pub horizontal_pod_autoscaler: Option<Map<String, Value>>,
    /// Pods of the function; what `kubectl scale` writes. It wins over the Deployment template's own number. Leave it
    /// out when an autoscaler decides. Default: the template's number, else 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000), extend("format" = "int32"))]
    pub replicas: Option<i32>,
}

/// What is known about a function's workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionStatus {
    /// `metadata.generation` that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions; `Ready` sums them up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Pods that exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Pods that are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Label selector of the pods, as text, for autoscalers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Where the function is called inside the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Image of the function's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

fn preserved_deployment(_: &mut SchemaGenerator) -> Schema {
    preserved("apps/v1 Deployment that is merged with the generated one.")
}

fn preserved_service(_: &mut SchemaGenerator) -> Schema {
    preserved("core/v1 ServiceSpec, used as it is when it has at least one port. Default: port 8080.")
}

fn preserved_autoscaler(_: &mut SchemaGenerator) -> Schema {
    preserved("HorizontalPodAutoscaler (autoscaling/v2, or v2beta1 as Kubeless stored it).")
}

// Whole Kubernetes objects inside ours: their schemas would triple the CRD and refuse what old clusters stored.
fn preserved(text: &str) -> Schema {
    json_schema!({
        "type": "object", "nullable": true, "description": text, "x-kubernetes-preserve-unknown-fields": true
    })
}

/// The port that the dispatcher calls: always the first one, as everywhere in Kubeless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name, by which the EndpointSlice's port is found.
    pub name: Option<String>,
    /// Port of the Service (not of the pods).
    pub port: u16,
    /// Framing, from `appProtocol`.
    pub protocol: Protocol,
}

/// Framing for an `appProtocol`; everything but [`H2C`] is HTTP/1.1.
pub fn protocol_of(app_protocol: Option<&str>) -> Protocol {
    match app_protocol {
        Some(H2C) => Protocol::H2c,
        _ => Protocol::Http1,
    }
}

/// `spec.timeout` is not a whole number of seconds from 1 to a day.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timeout {0:?} is not a whole number of seconds from 1 to 86400")]
pub struct TimeoutError(pub String);

impl Function {
    /// How long one call may run: `spec.timeout`, default 180 s.
    ///
    /// # Errors
    /// [`TimeoutError`] unless it is empty or a whole number of seconds from 1 to 86400.
    pub fn timeout(&self) -> Result<Duration, TimeoutError> {
        let text = self.spec.timeout.trim();
        if text.is_empty() {
            return Ok(DEFAULT_TIMEOUT);
        }
        let seconds: u64 = text.parse().map_err(|_| TimeoutError(text.to_owned()))?;
        let timeout = Duration::from_secs(seconds);
        if timeout.is_zero() || timeout > MAX_TIMEOUT {
            return Err(TimeoutError(text.to_owned()));
        }
        Ok(timeout)
    }

    /// The first port of `spec.service`, or 8080 `http-function-port` over HTTP/1.1.
    pub fn service_port(&self) -> ServicePort {
        let ports = self.spec.service.as_ref().and_then(|service| service.get("ports"));
        let first = ports.and_then(Value::as_array).and_then(|ports| ports.first());
        let number = first.and_then(|port| port.get("port")).and_then(Value::as_u64);
        let text = |name: &str| first.and_then(|port| port.get(name)).and_then(Value::as_str);
        match number.and_then(|number| u16::try_from(number).ok()) {
            Some(port) => ServicePort {
                name: text("name").map(str::to_owned),
                port,
                protocol: protocol_of(text("appProtocol")),
            },
            None => ServicePort {
                name: Some(DEFAULT_PORT_NAME.to_owned()),
                port: DEFAULT_PORT,
                protocol: Protocol::Http1,
            },
        }
    }

    /// `function-content-type`, taken apart; text for one that [`Self::violations`] refuses.
    pub fn content_type(&self) -> ContentType {
        ContentType::parse(&self.spec.function_content_type).unwrap_or_default()
    }

    /// `handler`, taken apart; `None` for a prebuilt image.
    pub fn handler(&self) -> Option<Handler<'_>> {
        Handler::parse(&self.spec.handler)
    }

    /// `deployment` as the Kubernetes type; empty if there is none.
    ///
    /// # Errors
    /// One violation that says what Kubernetes would refuse.
    pub fn deployment(&self) -> Result<Deployment, Violation> {
        embedded(self.spec.deployment.as_ref(), "/spec/deployment", "write an apps/v1 Deployment")
    }

    /// `service` as the Kubernetes type; empty if there is none.
    ///
    /// # Errors
    /// One violation that says what Kubernetes would refuse.
    pub fn service(&self) -> Result<ServiceSpec, Violation> {
        let fix = "write a core/v1 ServiceSpec, for example ports: [{name: http, port: 8080}]";
        embedded(self.spec.service.as_ref(), "/spec/service", fix)
    }

    /// Checks what the schema cannot say.
    pub fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        if let Err(error) = self.timeout() {
            let fix = "write whole seconds in quotes, for example \"180\"";
            violations.push(Violation::new("/spec/timeout", error.to_string(), fix));
        }
        code::check(&self.spec, &mut violations);
        self.check_service(&mut violations);
        violations.extend(self.deployment().err());
        violations
    }

    fn check_service(&self, violations: &mut Vec<Violation>) {
        match self.service() {
            Err(violation) => violations.push(violation),
            Ok(spec) => {
                for (index, port) in spec.ports.iter().flatten().enumerate() {
                    if !(1..=65_535).contains(&port.port) {
                        violations.push(Violation::new(
                            format!("/spec/service/ports/{index}/port"),
                            format!("{} is not a port", port.port),
                            "write a number from 1 to 65535",
                        ));
                    }
                }
            }
        }
    }
}

/// A Kubernetes object that stands inside ours. Parts that other API versions have are passed over.
fn embedded<T: DeserializeOwned + Default>(
    map: Option<&Map<String, Value>>,
    path: &str,
    fix: &str,
) -> Result<T, Violation> {
    let Some(map) = map else {
        return Ok(T::default());
    };
    serde_json::from_value(Value::Object(map.clone()))
        .map_err(|error| Violation::new(path, error.to_string(), fix))
}

/// The custom resource definition.
pub fn crd() -> CustomResourceDefinition {
    Function::crd()
}

/// Reads and checks a whole Function.
///
/// # Errors
/// Everything that is wrong with it.
pub fn decode(object: Value) -> Result<Function, Vec<Violation>> {
    static CHECKER: Checker = Checker::new(crd);
    CHECKER.read(object, Function::violations)
}
