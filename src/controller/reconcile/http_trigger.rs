//! HTTPTrigger → Ingress or HTTPRoute, to its function or to the dispatcher. Must never leave a way open that the trigger does not name any more.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{api::DynamicObject, runtime::reflector::Store};

use super::{Subject, bind, bind_named, function_of, owner_of, passages, whole};
use crate::{
    api::{
        conditions::{Fact, Status, reasons, types},
        http_trigger::{self, HTTPTrigger},
        kind::ServedBy,
    },
    controller::{
        context::Context,
        desired::{Kind, Object, exposure},
        error::Error,
        status::Report,
    },
};

/// The HTTP trigger controller.
pub struct HttpTriggers;

impl Subject for HttpTriggers {
    const NAME: &'static str = "http";
    const KIND: &'static str = "HTTPTrigger";
    const PLURAL: &'static str = "httptriggers";
    const CHILDREN: &'static [Kind] = &[Kind::Ingress];
    const FUNCTIONS: bool = true;

    async fn pass(context: &Context, object: &DynamicObject) -> Option<Report> {
        let owner = owner_of::<Self>(object);
        let decoded = http_trigger::decode(whole(object));
        // What it left in the installation's namespace, if it was served otherwise before.
        context.leftovers.notify_one();
        let trigger = match decoded {
            Ok(trigger) if trigger.served_by == ServedBy::Dispatcher => {
                // The dispatcher speaks of it; what the gateway was told before must not stand beside that.
                let handed = async {
                    clear(context, object, &owner, &[]).await?;
                    if let Some(trigger) = trigger.downcast::<HTTPTrigger>() {
                        passages::make(context, &trigger, &owner).await?;
                    }
                    bind_named(context, object).await
                };
                return match handed.await {
                    Ok(()) => None,
                    Err(error) => Some(Report::default().stopped(types::DEPLOYED, error)),
                };
            }
            Ok(trigger) => trigger.downcast::<HTTPTrigger>(),
            // Whoever acts on an object speaks of it, also of its faults.
            Err(_) if (http_trigger::KIND.acts)(&whole(object)) == ServedBy::Dispatcher => return None,
            Err(violations) => return Some(Report::default().stopped(types::ACCEPTED, violations.into())),
        };
        let trigger = trigger?;
        Some(pass(context, object, &trigger, &owner).await)
    }

    async fn begin(context: &Context, mine: &Store<DynamicObject>) {
        passages::tend(context, mine).await;
    }
}

async fn pass(
    context: &Context,
    object: &DynamicObject,
    trigger: &HTTPTrigger,
    owner: &OwnerReference,
) -> Report {
    let mut report = Report::default();
    report.fact(Fact::new(types::ACCEPTED, true, reasons::VALID, ""));
    let namespace = trigger.metadata.namespace.as_deref().unwrap_or_default();
    let name = &trigger.spec.function_name;
    let function = match function_of(context, namespace, name) {
        Ok(function) => function,
        Err(missing) => {
            // The Ingress, if there is one, stays: the way is closed anyway while nothing answers behind it.
            report.fact(Fact::new(types::FUNCTION_RESOLVED, false, reasons::FUNCTION_MISSING, missing));
            return report;
        }
    };
    report.fact(Fact::new(types::FUNCTION_RESOLVED, true, reasons::FUNCTION_FOUND, ""));
    if trigger.spec.paused {
        return match clear(context, object, owner, &[]).await {
            Ok(()) => {
                report.fact(Fact::new(types::DEPLOYED, false, reasons::PAUSED, "spec.paused is true"));
                report
            }
            Err(error) => report.stopped(types::DEPLOYED, error),
        };
    }
    let wanted = match exposure::exposure(trigger, &function.service_port(), &context.choices.gateways) {
        Ok(wanted) => wanted,
        Err(violation) => {
            // A way with less protection than is now asked for must not stay open.
            let cleared = clear(context, object, owner, &[]).await;
            return report.stopped(types::DEPLOYED, cleared.err().unwrap_or_else(|| violation.into()));
        }
    };
    if let Err(error) = make(context, object, &wanted, owner).await {
        return report.stopped(types::DEPLOYED, error);
    }
    report.fact(Fact::new(types::DEPLOYED, true, reasons::APPLIED, ""));
    let outside = "the gateway may send a request twice or not at all";
    // Told, but no part of `Ready`: this is what was asked for.
    let fact = Fact::new(types::AT_MOST_ONCE, Status::Unknown, reasons::OUTSIDE_THE_CLAIM, outside);
    report.aside(fact);
    if let Some(url) = exposure::url(trigger) {
        report.field("url", url);
    }
    report
}

async fn make(
    context: &Context,
    object: &DynamicObject,
    wanted: &[Object],
    owner: &OwnerReference,
) -> Result<(), Error> {
    for made in wanted {
        if made.kind != Kind::Ingress {
            context.served.must_have(made.kind).await?;
        }
        context.applier.apply(made, owner).await?;
    }
    clear(context, object, owner, wanted).await?;
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let function = wanted.first().and_then(|made| made.value.pointer("/metadata/labels/function")?.as_str());
    match function.and_then(|name| context.function(namespace, name)) {
        Some(function) => bind(context, object, &function).await,
        None => Ok(()),
    }
}

/// Removes what was made for the trigger and is not in `wanted`.
async fn clear(
    context: &Context,
    object: &DynamicObject,
    owner: &OwnerReference,
    wanted: &[Object],
) -> Result<(), Error> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let middlewares = exposure::middleware_names(name);
    let possible = [(Kind::Ingress, name), (Kind::HttpRoute, name)];
    let possible =
        possible.into_iter().chain(middlewares.iter().map(|name| (Kind::Middleware, name.as_str())));
    for (kind, name) in possible {
        if wanted.iter().any(|made| made.kind == kind && made.name() == name) {
            continue;
        }
        if kind == Kind::Ingress || context.served.has(kind).await? {
            context.applier.delete_own(kind, namespace, name, owner).await?;
        }
    }
    Ok(())
}
