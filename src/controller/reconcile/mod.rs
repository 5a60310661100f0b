//! One pass over one object, the part that all kinds share: let go of what Kubeless held, look, make, say. Must never
//! depend on why it runs: every pass sees the whole object and does whatever is missing.

mod cronjob_trigger;
mod function;
mod http_trigger;
mod passages;

pub use self::{cronjob_trigger::CronJobTriggers, function::Functions, http_trigger::HttpTriggers};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    runtime::{controller::Action, reflector::Store},
};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    cache,
    context::Context,
    desired::{self, Kind},
    error::Error,
    release,
    status::{self, Report},
};

/// Every object is looked at again after this, give or take a tenth: what is not watched (optional kinds) drifts no longer.
const RESYNC: Duration = Duration::from_secs(600);
/// Longest wait for the stores in one pass; afterwards the object waits its turn again.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// A kind of ours and how one object of it is brought about.
pub trait Subject: Send + Sync + 'static {
    /// What the controller is called in logs and metrics.
    const NAME: &'static str;
    /// `kind`.
    const KIND: &'static str;
    /// Plural, as the API server calls it.
    const PLURAL: &'static str;
    /// What is made and watched.
    const CHILDREN: &'static [Kind];
    /// Whether changes of Functions matter.
    const FUNCTIONS: bool;

    /// Does whatever is missing; `None`: the object is somebody else's to serve and to speak of.
    fn pass(context: &Context, object: &DynamicObject) -> impl Future<Output = Option<Report>> + Send;

    /// What is done once when the controller starts. `mine` holds all objects of the kind once it is read.
    fn begin(context: &Context, mine: &Store<DynamicObject>) -> impl Future<Output = ()> + Send {
        let _ = (context, mine);
        std::future::ready(())
    }
}

/// The kind that a controller reconciles.
pub fn resource<S: Subject>() -> ApiResource {
    let gvk = kube::core::GroupVersionKind::gvk(crate::api::GROUP, crate::api::VERSION, S::KIND);
    ApiResource::from_gvk_with_plural(&gvk, S::PLURAL)
}

/// One pass with everything around it.
///
/// # Errors
/// What should be tried again after a pause; it stands in the object's conditions already.
pub async fn reconcile<S: Subject>(
    object: Arc<DynamicObject>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let started = Instant::now();
    let result = guarded::<S>(&object, &context).await;
    context.metrics.passed(started.elapsed(), result.is_ok());
    if result.is_ok() {
        context.failures.forget(&full_name(&object));
    }
    context.metrics.failing.set(context.failures.len() as f64);
    result.map(|()| Action::requeue(RESYNC.mul_f64(0.9 + 0.2 * fastrand::f64())))
}

async fn guarded<S: Subject>(object: &DynamicObject, context: &Context) -> Result<(), Error> {
    let read = tokio::time::timeout(READ_PATIENCE, context.read()).await;
    read.map_err(|_| Error::NotRead("the objects of this cluster"))?;
    release::release(&context.client, &context.resource, object).await?;
    if object.metadata.deletion_timestamp.is_some() {
        // What was made goes by its owner references.
        return Ok(());
    }
    let Some(mut report) = S::pass(context, object).await else {
        return status::hand_back(&context.client, &context.resource, object).await;
    };
    status::write(&context.client, &context.resource, &context.announcer, object, &report).await?;
    match report.trouble.take() {
        Some(trouble) if trouble.may_pass() => Err(trouble),
        _ => Ok(()),
    }
}

/// After an error: it is logged, counted and tried again.
#[expect(clippy::needless_pass_by_value, reason = "the signature is the library's")]
pub fn after_error(object: Arc<DynamicObject>, error: &Error, context: Arc<Context>) -> Action {
    let name = full_name(&object);
    let pause = context.failures.failed(&name);
    context.metrics.failing.set(context.failures.len() as f64);
    let again_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
    tracing::warn!(kind = %context.resource.kind, object = %name, %error, again_in_ms, "Not as it should be");
    Action::requeue(pause)
}

/// Namespace and name.
pub fn full_name(object: &DynamicObject) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&object.metadata.namespace), part(&object.metadata.name))
}

/// The owner reference that children of this object carry.
fn owner_of<S: Subject>(object: &DynamicObject) -> OwnerReference {
    desired::owner(S::KIND, &object.metadata)
}

/// A whole object as the checks of its kind read it.
fn whole(object: &DynamicObject) -> Value {
    let mut object = object.clone();
    // Not input, and null where an object never had one.
    object.metadata.managed_fields = None;
    serde_json::to_value(&object).unwrap_or_default()
}

/// The function that a trigger names, if it is there, sound and not on its way out.
fn function_of(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<crate::api::function::Function, String> {
    let Some(found) = context.function(namespace, name) else {
        return Err(format!("there is no Function {namespace}/{name}"));
    };
    if found.metadata.deletion_timestamp.is_some() {
        return Err(format!("Function {namespace}/{name} is being deleted"));
    }
    crate::api::function::decode(whole(&found)).map_err(|violations| {
        let list = violations.iter().map(ToString::to_string).collect::<Vec<_>>();
        format!("Function {namespace}/{name} is not valid: {}", list.join("; "))
    })
}

/// As [`bind`], for a trigger that the dispatcher acts on: whoever acts, it goes with its function.
async fn bind_named(context: &Context, object: &DynamicObject) -> Result<(), Error> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let name = object.data.pointer("/spec/function-name").and_then(Value::as_str);
    match name.and_then(|name| context.function(namespace, name)) {
        Some(function) if function.metadata.deletion_timestamp.is_none() => {
            bind(context, object, &function).await
        }
        _ => Ok(()),
    }
}

/// Ties a trigger to its function, so that the cluster removes it together with the function, as Kubeless did.
async fn bind(context: &Context, object: &DynamicObject, function: &DynamicObject) -> Result<(), Error> {
    let owner = OwnerReference {
        controller: None,
        block_owner_deletion: None,
        ..desired::owner("Function", &function.metadata)
    };
    let bound = object.metadata.owner_references.iter().flatten().any(|other| other.uid == owner.uid);
    if bound || owner.uid.is_empty() {
        return Ok(());
    }
    let api = cache::api(&context.client, object.metadata.namespace.as_deref(), &context.resource);
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let body = json!({
        "apiVersion": crate::api::API_VERSION,
        "kind": context.resource.kind,
        "metadata": { "name": name, "uid": object.metadata.uid, "ownerReferences": [owner] },
    });
    let parameters = PatchParams::apply(super::apply::MANAGER).force();
    match api.patch(name, &parameters, &Patch::Apply(&body)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(Error::api("tie the trigger to its function")(error)),
    }
}
