//! The ways from outside to a function: Ingress, or HTTPRoute of the Gateway API, and what a gateway needs beside them.
//! Must never open a way with less protection than the trigger asks for: what a gateway cannot do is refused.

use k8s_openapi::{
    api::networking::v1::{
        HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend,
        IngressSpec, IngressTLS, ServiceBackendPort,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::{CREATED_BY, FUNCTION_LABEL, Kind, Object, annotations, owner};
use crate::api::{Violation, function::ServicePort, http_trigger::HTTPTrigger};

/// `gateway` of a trigger that wants an HTTPRoute.
pub const GATEWAY_API: &str = "gateway-api";
/// Annotation of a trigger that names its Gateway as `namespace/name`, in place of the controller's own setting.
pub const GATEWAY_ANNOTATION: &str = "kubeless.io/gateway";
/// The class in the form that came before `spec.ingressClassName`; the API server takes only one of the two.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";
/// Most characters of a path that every gateway reads as a prefix and none as a pattern.
const PLAIN: &str = "-_./~";

/// What the operator says about all triggers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateways {
    /// IngressClass of triggers that name neither class nor gateway; `None`: the cluster's default class.
    pub ingress_class: Option<String>,
    /// Gateway (`namespace/name`) of triggers with `gateway: gateway-api`.
    pub parent: Option<String>,
    /// Namespace of the installation, where the dispatcher is reached.
    pub home: String,
}

/// As what a way is made and where it leads: its own metadata, and a Service of its namespace.
pub(super) struct Way {
    pub(super) metadata: ObjectMeta,
    pub(super) service: String,
    pub(super) port: u16,
}

/// What opens the way, in the order in which it is to be made: protection first.
///
/// # Errors
/// One violation if the gateway cannot do what the trigger asks for.
pub fn exposure(
    trigger: &HTTPTrigger,
    port: &ServicePort,
    gateways: &Gateways,
) -> Result<Vec<Object>, Violation> {
    let way = |annotations| Way {
        metadata: metadata(trigger, annotations),
        service: trigger.spec.function_name.clone(),
        port: port.port,
    };
    let made = if trigger.spec.gateway == GATEWAY_API {
        let way = way(annotations(&trigger.metadata));
        vec![Object::new(Kind::HttpRoute, &http_route(trigger, &way, gateways)?)]
    } else {
        let mut made = Vec::new();
        for (name, spec) in middlewares(trigger) {
            let meta = ObjectMeta { name: Some(name), ..metadata(trigger, BTreeMap::new()) };
            made.push(Object::new(Kind::Middleware, &json!({ "metadata": meta, "spec": spec })));
        }
        made.push(Object::new(
            Kind::Ingress,
            &ingress(trigger, way(ingress_annotations(trigger)?), gateways),
        ));
        made
    };
    made.into_iter().collect::<Result<_, _>>().map_err(broken)
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err hands it over")]
pub(super) fn broken(error: serde_json::Error) -> Violation {
    Violation::new("", error.to_string(), "report this as a defect")
}

/// Where the function is reached; `None` without a host name.
pub fn url(trigger: &HTTPTrigger) -> Option<String> {
    let spec = &trigger.spec;
    let scheme = if spec.tls || !spec.tls_secret.is_empty() { "https" } else { "http" };
    (!spec.host_name.is_empty()).then(|| format!("{scheme}://{}/{}", spec.host_name, spec.path))
}

pub(super) fn metadata(trigger: &HTTPTrigger, own_annotations: BTreeMap<String, String>) -> ObjectMeta {
    let mut labels = trigger.metadata.labels.clone().unwrap_or_default();
    labels.insert(CREATED_BY.0.to_owned(), CREATED_BY.1.to_owned());
    labels.insert(FUNCTION_LABEL.to_owned(), trigger.spec.function_name.clone());
    ObjectMeta {
        name: trigger.metadata.name.clone(),
        namespace: trigger.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: Some(own_annotations),
        owner_references: Some(vec![owner("HTTPTrigger", &trigger.metadata)]),
        ..ObjectMeta::default()
    }
}

pub(super) fn ingress(trigger: &HTTPTrigger, way: Way, gateways: &Gateways) -> Ingress {
    let spec = &trigger.spec;
    let class = spec.ingress_class_name.clone();
    let class = class.or_else(|| Some(spec.gateway.clone()).filter(|name| !name.is_empty()));
    let class = class.or_else(|| gateways.ingress_class.clone());
    let path = format!("/{}", spec.path);
    let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || PLAIN.contains(c));
    let backend = IngressBackend {
        service: Some(IngressServiceBackend {
            name: way.service,
            port: Some(ServiceBackendPort { number: Some(i32::from(way.port)), name: None }),
        }),
        resource: None,
    };
    let host = Some(spec.host_name.clone()).filter(|host| !host.is_empty());
    let own_secret = || format!("{}-tls", way.metadata.name.as_deref().unwrap_or_default());
    let secret = if spec.tls { own_secret() } else { spec.tls_secret.clone() };
    let annotated = way.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(OLD_CLASS));
    Ingress {
        spec: Some(IngressSpec {
            ingress_class_name: class.filter(|_| !annotated),
            rules: Some(vec![IngressRule {
                host: host.clone(),
                http: Some(HTTPIngressRuleValue {
                    paths: vec![HTTPIngressPath {
                        path: Some(path),
                        path_type: if plain { "Prefix" } else { "ImplementationSpecific" }.to_owned(),
                        backend,
                    }],
                }),
            }]),
            tls: (!secret.is_empty())
                .then(|| vec![IngressTLS { hosts: host.map(|host| vec![host]), secret_name: Some(secret) }]),
            default_backend: None,
        }),
        metadata: way.metadata,
        status: None,
    }
}

/// Ours, then the trigger's own over them, then what protects over both.
fn ingress_annotations(trigger: &HTTPTrigger) -> Result<BTreeMap<String, String>, Violation> {
    let spec = &trigger.spec;
    let nginx = spec.gateway == "nginx";
    let mut all = BTreeMap::new();
    let set = |all: &mut BTreeMap<String, String>, name: &str, value: &str| {
        all.insert(name.to_owned(), value.to_owned());
    };
    if nginx {
        set(&mut all, "nginx.ingress.kubernetes.io/rewrite-target", "/");
    }
    all.extend(annotations(&trigger.metadata));
    let prefix = if nginx { "nginx.ingress.kubernetes.io" } else { "ingress.kubernetes.io" };
    if spec.cors_enable {
        set(&mut all, &format!("{prefix}/enable-cors"), "true");
    }
    if !spec.basic_auth_secret.is_empty() {
        if !nginx && spec.gateway != "traefik" {
            return Err(cannot(trigger, "/spec/basic-auth-secret", "basic-auth-secret", "nginx or traefik"));
        }
        set(&mut all, &format!("{prefix}/auth-type"), "basic");
        set(&mut all, &format!("{prefix}/auth-secret"), &spec.basic_auth_secret);
    }
    let namespace = trigger.metadata.namespace.as_deref().unwrap_or_default();
    let names = middlewares(trigger).into_iter().map(|(name, _)| format!("{namespace}-{name}@kubernetescrd"));
    let names = names.collect::<Vec<_>>().join(",");
    if !names.is_empty() {
        // Since version 2 traefik reads no other annotation; a middleware that is missing closes the way.
        set(&mut all, "traefik.ingress.kubernetes.io/router.middlewares", &names);
    }
    if spec.tls {
        set(&mut all, "kubernetes.io/tls-acme", "true");
        set(&mut all, "nginx.ingress.kubernetes.io/ssl-redirect", "true");
    }
    Ok(all)
}

pub(super) fn cannot(trigger: &HTTPTrigger, path: &str, what: &str, who: &str) -> Violation {
    let what = format!("gateway {:?} takes no {what}", trigger.spec.gateway);
    Violation::new(path, what, format!("remove it, or use gateway {who}"))
}

/// Names of the middlewares that a trigger can have: without their going, protection would outlive its wish.
pub fn middleware_names(name: &str) -> [String; 2] {
    [format!("{name}-cors"), format!("{name}-auth")]
}

/// What traefik does before the function is asked. Questions of browsers, which carry no credentials, come first.
fn middlewares(trigger: &HTTPTrigger) -> Vec<(String, Value)> {
    let spec = &trigger.spec;
    let [cors, auth] = middleware_names(trigger.metadata.name.as_deref().unwrap_or_default());
    let mut made = Vec::new();
    if spec.gateway == "traefik" && spec.cors_enable {
        let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        let headers = json!({
            "accessControlAllowOriginList": ["*"],
            "accessControlAllowHeaders": ["*"],
            "accessControlAllowMethods": methods,
        });
        made.push((cors, json!({ "headers": headers })));
    }
    if spec.gateway == "traefik" && !spec.basic_auth_secret.is_empty() {
        made.push((auth, json!({ "basicAuth": { "secret": spec.basic_auth_secret } })));
    }
    made
}

pub(super) fn http_route(trigger: &HTTPTrigger, way: &Way, gateways: &Gateways) -> Result<Value, Violation> {
    let spec = &trigger.spec;
    let own = trigger.metadata.annotations.as_ref().and_then(|all| all.get(GATEWAY_ANNOTATION));
    let parent = own.or(gateways.parent.as_ref()).ok_or_else(|| {
        let fix = format!("annotate the trigger with {GATEWAY_ANNOTATION}: NAMESPACE/NAME, or set --gateway");
        Violation::new("/spec/gateway", "no Gateway is named", fix)
    })?;
    let (namespace, name) = parent
        .split_once('/')
        .unwrap_or((trigger.metadata.namespace.as_deref().unwrap_or_default(), parent.as_str()));
    if spec.tls || !spec.tls_secret.is_empty() {
        let fix = "remove tls and tls-secret: certificates belong to the Gateway's listener";
        return Err(Violation::new("/spec/tls", "a route carries no certificate", fix));
    }
    if !spec.basic_auth_secret.is_empty() {
        return Err(cannot(trigger, "/spec/basic-auth-secret", "basic-auth-secret", "nginx or traefik"));
    }
    let mut rule = json!({
        "matches": [{ "path": { "type": "PathPrefix", "value": format!("/{}", spec.path) } }],
        "backendRefs": [{ "name": way.service, "port": way.port }],
    });
    if spec.cors_enable {
        let allow = json!([{ "name": "Access-Control-Allow-Origin", "value": "*" }]);
        rule["filters"] =
            json!([{ "type": "ResponseHeaderModifier", "responseHeaderModifier": { "set": allow } }]);
    }
    let mut route = json!({
        "metadata": way.metadata,
        "spec": { "parentRefs": [{ "name": name, "namespace": namespace }], "rules": [rule] },
    });
    if !spec.host_name.is_empty() {
        route["spec"]["hostnames"] = json!([spec.host_name]);
    }
    Ok(route)
}
