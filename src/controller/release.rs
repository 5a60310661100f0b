//! Kubeless's finalizers are taken away: whoever set them is gone, and an object would wait for it for ever. Must never touch a
//! finalizer of somebody else, nor anything else of an object that the dispatcher acts on.

use futures_util::StreamExt;
use kube::{
    Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    runtime::controller::{self, Action, Controller},
};
use serde_json::json;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use super::{
    cache::{self, Keep},
    context::Failures,
    drive::Parts,
    error::Error,
    reconcile::{CronJobTriggers, HttpTriggers, Subject, full_name},
};
use crate::{api::kind::TriggerKind, cluster::watch};

/// Finalizers that Kubeless set (`kubeless.io/function`, ...; one is misspelt in its source). Ours would be called otherwise; there
/// are none.
const OLD: &str = "kubeless.io/";

/// The kinds among `kinds` that Kubeless had and no other controller here looks at.
pub fn unwatched(kinds: &[TriggerKind]) -> impl Iterator<Item = TriggerKind> {
    let watched = [HttpTriggers::KIND, CronJobTriggers::KIND];
    kinds.iter().copied().filter(move |kind| kind.finalizer.is_some() && !watched.contains(&kind.kind))
}

/// The kind as the API server calls it.
pub fn resource(kind: TriggerKind) -> ApiResource {
    watch::Subject::Triggers(kind).resource()
}

/// Frees the objects of one kind until `stop`.
pub async fn drive(parts: Parts, kind: TriggerKind, stop: CancellationToken) {
    let resource = resource(kind);
    let subject = cache::Subject {
        resource: resource.clone(),
        namespace: parts.scope.clone(),
        labels: None,
        keep: Keep::Metadata,
        wishes_only: true,
    };
    let watch = cache::watch(&parts.watches, &subject);
    let context = Arc::new(Context { client: parts.client, resource, failures: Failures::default() });
    Controller::for_stream_with(watch.touched, watch.store, context.resource.clone())
        .with_config(controller::Config::default().concurrency(parts.workers))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(pass, after_error, context)
        .for_each(|_| std::future::ready(()))
        .await;
}

struct Context {
    client: Client,
    resource: ApiResource,
    failures: Failures,
}

async fn pass(object: Arc<DynamicObject>, context: Arc<Context>) -> Result<Action, Error> {
    release(&context.client, &context.resource, &object).await?;
    context.failures.forget(&full_name(&object));
    Ok(Action::await_change())
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is the library's")]
fn after_error(object: Arc<DynamicObject>, error: &Error, context: Arc<Context>) -> Action {
    let name = full_name(&object);
    tracing::warn!(kind = %context.resource.kind, object = %name, %error, "Kubeless's finalizer stays for now");
    Action::requeue(context.failures.failed(&name))
}

/// Takes Kubeless's finalizers away from an object, if it has any.
///
/// # Errors
/// What the API server says, unless it is that the object changed or is gone.
pub async fn release(client: &Client, resource: &ApiResource, object: &DynamicObject) -> Result<(), Error> {
    let held = object.metadata.finalizers.as_deref().unwrap_or_default();
    let kept = kept(held);
    if kept.len() == held.len() {
        return Ok(());
    }
    let api = cache::api(client, object.metadata.namespace.as_deref(), resource);
    // With the version: a finalizer that somebody adds meanwhile must not be lost.
    let patch = json!({
        "metadata": { "finalizers": kept, "resourceVersion": object.metadata.resource_version },
    });
    let name = object.metadata.name.as_deref().unwrap_or_default();
    match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => {
            tracing::info!(kind = %resource.kind, object = %full_name(object), "Kubeless's finalizer removed");
            Ok(())
        }
        // Changed or gone meanwhile: its next pass comes by itself.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(Error::api("remove Kubeless's finalizer")(error)),
    }
}

fn kept(held: &[String]) -> Vec<&String> {
    held.iter().filter(|name| !name.starts_with(OLD)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finalizers_of_kubeless_are_taken_away() {
        let held = [
            "kubeless.io/kenisistrigger",
            "example.com/kubeless.io",
            "foregroundDeletion",
            "kubeless.iota/x",
        ];
        assert_eq!(kept(&held.map(str::to_owned)), [held[1], held[2], held[3]]);
    }
}
