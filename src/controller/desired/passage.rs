//! The way from outside to the dispatcher, for triggers that it takes requests for: as [`super::exposure`], but in the namespace
//! of the installation, because an Ingress leads to Services of its own namespace only. Must never let a trigger speak there in
//! words of its own: its annotations and Secrets belong to another namespace.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

use super::{
    CREATED_BY, Kind, Object,
    exposure::{self, GATEWAY_API, Gateways, Way},
    owner,
};
use crate::api::{Violation, http_trigger::HTTPTrigger};

/// The dispatcher's Service for requests, in the namespace of the installation, and its port (`deploy/kustomize/programs`).
pub const SERVICE: &str = "kubeless-dispatcher";
/// See [`SERVICE`].
pub const PORT: u16 = 80;
/// Label of what is made here: the namespace of the trigger.
pub const OF_NAMESPACE: &str = "kubeless.io/trigger-namespace";
/// Annotation of what is made here: the trigger's name.
pub const OF_TRIGGER: &str = "kubeless.io/trigger";
/// Kinds that a way can be.
pub const KINDS: [Kind; 2] = [Kind::Ingress, Kind::HttpRoute];
/// Most characters of a name.
const LONGEST_NAME: usize = 253;

/// What a trigger's way is called. A namespace has no dot, so that no two triggers share a name.
pub fn name(namespace: &str, trigger: &str) -> String {
    format!("{namespace}.{trigger}")
}

/// The way to the dispatcher.
///
/// # Errors
/// One violation if it cannot be as the trigger asks for.
pub fn passage(trigger: &HTTPTrigger, gateways: &Gateways) -> Result<Object, Violation> {
    let spec = &trigger.spec;
    let elsewhere = [
        (!spec.tls_secret.is_empty(), "tls-secret", "use tls: true, or let the gateway hold the certificate"),
        (!spec.basic_auth_secret.is_empty(), "basic-auth-secret", "remove it, or ask for it at the gateway"),
    ];
    if let Some((_, field, fix)) = elsewhere.into_iter().find(|(asked, ..)| *asked) {
        let what =
            "the way to the dispatcher is made in the installation's namespace, where this Secret is not";
        return Err(Violation::new(format!("/spec/{field}"), what, fix));
    }
    if spec.cors_enable && spec.gateway == "traefik" {
        return Err(exposure::cannot(
            trigger,
            "/spec/cors-enable",
            "cors-enable on the way to the dispatcher",
            "nginx",
        ));
    }
    let way = |annotations| -> Result<Way, Violation> {
        Ok(Way {
            metadata: metadata(trigger, gateways, annotations)?,
            service: SERVICE.to_owned(),
            port: PORT,
        })
    };
    let made = if spec.gateway == GATEWAY_API {
        let route = exposure::http_route(trigger, &way(BTreeMap::new())?, gateways)?;
        Object::new(Kind::HttpRoute, &route)
    } else {
        Object::new(Kind::Ingress, &exposure::ingress(trigger, way(annotations(trigger))?, gateways))
    };
    made.map_err(exposure::broken)
}

fn metadata(
    trigger: &HTTPTrigger,
    gateways: &Gateways,
    annotations: BTreeMap<String, String>,
) -> Result<ObjectMeta, Violation> {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, own) = (part(&trigger.metadata.namespace), part(&trigger.metadata.name));
    let name = name(&namespace, &own);
    if name.len() > LONGEST_NAME {
        let what =
            format!("the way to the dispatcher would be called {name}: over {LONGEST_NAME} characters");
        return Err(Violation::new("/metadata/name", what, "give the trigger a shorter name"));
    }
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    // Of the same namespace, the cluster itself takes it away with its trigger; else the controller does.
    let owners = (namespace == gateways.home).then(|| vec![owner("HTTPTrigger", &trigger.metadata)]);
    let labels = BTreeMap::from([pair(CREATED_BY.0, CREATED_BY.1), pair(OF_NAMESPACE, &namespace)]);
    let mut annotations = annotations;
    annotations.extend([pair(OF_TRIGGER, &own)]);
    Ok(ObjectMeta {
        name: Some(name),
        namespace: Some(gateways.home.clone()),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: owners,
        ..ObjectMeta::default()
    })
}

/// The path is not written anew: the dispatcher knows triggers by it. A request is offered to one dispatcher, once: one without
/// an id that a gateway repeats would be another event.
fn annotations(trigger: &HTTPTrigger) -> BTreeMap<String, String> {
    let spec = &trigger.spec;
    let prefix =
        if spec.gateway == "nginx" { "nginx.ingress.kubernetes.io" } else { "ingress.kubernetes.io" };
    let all = [
        (true, "nginx.ingress.kubernetes.io/proxy-next-upstream".to_owned(), "off"),
        (spec.cors_enable, format!("{prefix}/enable-cors"), "true"),
        (spec.tls, "kubernetes.io/tls-acme".to_owned(), "true"),
        (spec.tls, "nginx.ingress.kubernetes.io/ssl-redirect".to_owned(), "true"),
    ];
    all.into_iter().filter(|(asked, ..)| *asked).map(|(_, name, value)| (name, value.to_owned())).collect()
}
