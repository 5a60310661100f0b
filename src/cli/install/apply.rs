//! Applies objects to a cluster, server-side and in order. Must never take over a field that somebody else owns unless it
//! was told to.

use anyhow::{Context, anyhow, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
    discovery::{self, Scope},
    runtime::{conditions::is_crd_established, wait::await_condition},
};
use serde_json::Value;
use std::{collections::HashMap, time::Duration};

use crate::cluster::client::explain;

/// Owner of the fields that we write.
pub const MANAGER: &str = "kubeless-install";
/// Longest wait for the API server to serve a new definition; usually under a second.
const SERVED_WITHIN: Duration = Duration::from_secs(60);

/// Applies all objects; `tell` hears of each.
///
/// # Errors
/// The first refusal, with what was to be applied and the API server's words.
pub async fn apply(
    client: &Client,
    objects: &[Value],
    force: bool,
    mut tell: impl FnMut(&str),
) -> anyhow::Result<()> {
    let mut parameters = PatchParams::apply(MANAGER);
    parameters.force = force;
    let mut known: HashMap<GroupVersionKind, (ApiResource, Scope)> = HashMap::new();
    let mut definitions = Vec::new();
    for object in objects {
        let object: DynamicObject = serde_json::from_value(object.clone()).context("an object of ours")?;
        let types = object.types.as_ref().ok_or_else(|| anyhow!("an object of ours has no kind"))?;
        let kind = GroupVersionKind::try_from(types)?;
        let name = object.metadata.name.clone().unwrap_or_default();
        let what = format!("{} {name}", kind.kind);
        if !known.contains_key(&kind) {
            let (resource, capabilities) = discovery::pinned_kind(client, &kind)
                .await
                .map_err(|error| anyhow!("this cluster does not know {}: {}", kind.kind, explain(&error)))?;
            known.insert(kind.clone(), (resource, capabilities.scope));
        }
        let (resource, scope) = &known[&kind];
        let api: Api<DynamicObject> = match (scope, &object.metadata.namespace) {
            (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client.clone(), namespace, resource),
            _ => Api::all_with(client.clone(), resource),
        };
        match api.patch(&name, &parameters, &Patch::Apply(&object)).await {
            Ok(_) => tell(&format!("{what} applied")),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                bail!("{what}: {}; --force-conflicts takes these fields over", status.message.trim_end())
            }
            Err(error) => bail!("{what}: {}", explain(&error)),
        }
        if kind.kind == "CustomResourceDefinition" {
            definitions.push(name);
        }
    }
    for name in definitions {
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        let served = await_condition(api, &name, is_crd_established());
        tokio::time::timeout(SERVED_WITHIN, served)
            .await
            .map_err(|_| {
                anyhow!("{name} is not served after {SERVED_WITHIN:?}; kubectl describe crd {name}")
            })?
            .with_context(|| format!("waiting for {name}"))?;
    }
    Ok(())
}
