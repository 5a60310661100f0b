//! CronJobTrigger → CronJob. Must never let an old CronJob of Kubeless fire beside a new one: the old goes first.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{api::DynamicObject, runtime::reflector::Store};
use serde_json::json;
use std::collections::BTreeSet;

use super::{Subject, bind, bind_named, full_name, function_of, owner_of, whole};
use crate::{
    api::{
        conditions::{Fact, Status, reasons, types},
        cronjob_trigger::{self, CronJobTrigger},
        kind::ServedBy,
    },
    controller::{
        apply::owns,
        context::Context,
        desired::{Kind, Object, cron_job},
        error::Error,
        status::Report,
    },
};

/// Owner kind of the CronJobs that Kubeless made: it does not exist, so the cluster never removes them.
const OLD_OWNER: &str = "Trigger";

/// The cron trigger controller.
pub struct CronJobTriggers;

impl Subject for CronJobTriggers {
    const NAME: &'static str = "cronjob";
    const KIND: &'static str = "CronJobTrigger";
    const PLURAL: &'static str = "cronjobtriggers";
    const CHILDREN: &'static [Kind] = &[Kind::CronJob];
    const FUNCTIONS: bool = true;

    async fn pass(context: &Context, object: &DynamicObject) -> Option<Report> {
        let owner = owner_of::<Self>(object);
        let trigger = match cronjob_trigger::decode(whole(object)) {
            Ok(trigger) if trigger.served_by == ServedBy::Dispatcher => {
                let handed = async {
                    clear(context, object, &owner, None).await?;
                    bind_named(context, object).await
                };
                return match handed.await {
                    Ok(()) => None,
                    Err(error) => Some(Report::default().stopped(types::DEPLOYED, error)),
                };
            }
            Ok(trigger) => trigger.downcast::<CronJobTrigger>(),
            // Whoever acts on an object speaks of it, also of its faults.
            Err(_) if (cronjob_trigger::KIND.acts)(&whole(object)) == ServedBy::Dispatcher => return None,
            Err(violations) => return Some(Report::default().stopped(types::ACCEPTED, violations.into())),
        };
        let trigger = trigger?;
        Some(pass(context, object, &trigger, &owner).await)
    }

    async fn begin(context: &Context, mine: &Store<DynamicObject>) {
        context.read().await;
        let _ = mine.wait_until_ready().await;
        let uids: BTreeSet<String> =
            mine.state().iter().filter_map(|trigger| trigger.metadata.uid.clone()).collect();
        for job in context.applier.cached_all(Kind::CronJob, |job| is_orphan(job, &uids)) {
            let name = full_name(&job);
            match context.applier.delete(Kind::CronJob, &job).await {
                Ok(()) => tracing::info!(%name, "CronJob of a trigger that is gone removed"),
                Err(error) => tracing::warn!(%name, %error, "CronJob of a trigger that is gone stays"),
            }
        }
    }
}

async fn pass(
    context: &Context,
    object: &DynamicObject,
    trigger: &CronJobTrigger,
    owner: &OwnerReference,
) -> Report {
    let mut report = Report::default();
    report.fact(Fact::new(types::ACCEPTED, true, reasons::VALID, ""));
    let namespace = trigger.metadata.namespace.as_deref().unwrap_or_default();
    let name = &trigger.spec.function_name;
    let function = match function_of(context, namespace, name) {
        Ok(function) => function,
        Err(missing) => {
            report.fact(Fact::new(types::FUNCTION_RESOLVED, false, reasons::FUNCTION_MISSING, missing));
            return match clear(context, object, owner, None).await {
                Ok(()) => report,
                Err(error) => report.stopped(types::DEPLOYED, error),
            };
        }
    };
    report.fact(Fact::new(types::FUNCTION_RESOLVED, true, reasons::FUNCTION_FOUND, ""));
    let made = async {
        let defaults = context.defaults()?;
        let job = cron_job::cron_job(trigger, &function, &defaults)?;
        let wanted = Object::new(Kind::CronJob, &json!(job))
            .map_err(|error| Error::api("write a CronJob as JSON")(kube::Error::SerdeError(error)))?;
        clear(context, object, owner, Some(&wanted)).await?;
        context.applier.apply(&wanted, owner).await?;
        match context.function(namespace, name) {
            Some(function) => bind(context, object, &function).await,
            None => Ok(()),
        }
    };
    if let Err(error) = made.await {
        return report.stopped(types::DEPLOYED, error);
    }
    report.fact(Fact::new(types::DEPLOYED, true, reasons::APPLIED, ""));
    let outside = "a CronJob may run twice or not at all; executor: Dispatcher claims each time first";
    report.aside(Fact::new(types::AT_MOST_ONCE, Status::Unknown, reasons::OUTSIDE_THE_CLAIM, outside));
    report
}

/// Removes CronJobs of the trigger beside `wanted`, and the one that Kubeless made for its function.
async fn clear(
    context: &Context,
    object: &DynamicObject,
    owner: &OwnerReference,
    wanted: Option<&Object>,
) -> Result<(), Error> {
    let namespace = object.metadata.namespace.as_deref();
    let keep = wanted.map(Object::name);
    let function = object.data.pointer("/spec/function-name").and_then(|name| name.as_str());
    let old_name = function.map(cron_job::old_name);
    let goes = context.applier.cached_all(Kind::CronJob, |job| {
        let name = job.metadata.name.as_deref();
        let old = job.metadata.owner_references.iter().flatten().any(|owner| owner.kind == OLD_OWNER);
        let of_function = old && name == old_name.as_deref();
        job.metadata.namespace.as_deref() == namespace && name != keep && (owns(job, owner) || of_function)
    });
    for job in goes {
        context.applier.delete(Kind::CronJob, &job).await?;
    }
    Ok(())
}

/// Whether a CronJob was made by Kubeless for a trigger that is gone: it fires on, and nobody else would stop it.
fn is_orphan(job: &DynamicObject, trigger_uids: &BTreeSet<String>) -> bool {
    let owners = job.metadata.owner_references.as_deref().unwrap_or_default();
    let old =
        owners.iter().filter(|owner| owner.kind == OLD_OWNER && owner.api_version == crate::api::API_VERSION);
    let mut old = old.peekable();
    old.peek().is_some()
        && owners.len() == old.clone().count()
        && old.all(|owner| !trigger_uids.contains(&owner.uid))
}
