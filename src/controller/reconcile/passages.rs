//! Ways to the dispatcher, which stand in the namespace of the installation: made with their triggers, and taken away without the
//! cluster's help, which collects nothing across namespaces. Must never touch what does not carry the label of a trigger that is
//! this controller's to look after.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    ResourceExt as _,
    api::{DynamicObject, ListParams},
    runtime::reflector::{ObjectRef, Store},
};
use std::time::Duration;

use super::{HttpTriggers, RESYNC, full_name, resource, whole};
use crate::{
    api::{
        http_trigger::{self, HTTPTrigger},
        kind::ServedBy,
    },
    controller::{
        cache,
        context::Context,
        desired::{Kind, passage},
        error::Error,
    },
};

/// Changes within this time are one look.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Pause after a look that failed.
const RETRY: Duration = Duration::from_secs(10);

/// Makes the way of a trigger.
pub(super) async fn make(
    context: &Context,
    trigger: &HTTPTrigger,
    owner: &OwnerReference,
) -> Result<(), Error> {
    let wanted = passage::passage(trigger, &context.choices.gateways)?;
    if wanted.kind != Kind::Ingress {
        context.served.must_have(wanted.kind).await?;
    }
    context.applier.apply(&wanted, owner).await?;
    Ok(())
}

/// Takes away what no trigger asks for any more, whenever one changed or went. Ends with whoever polls it.
pub(super) async fn tend(context: &Context, mine: &Store<DynamicObject>) {
    context.read().await;
    let _ = mine.wait_until_ready().await;
    loop {
        let pause = match sweep(context, mine).await {
            Ok(()) => RESYNC,
            Err(error) => {
                tracing::warn!(%error, "Ways to the dispatcher are not looked after; trying again");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = context.leftovers.notified() => tokio::time::sleep(DEBOUNCE).await,
        }
    }
}

async fn sweep(context: &Context, mine: &Store<DynamicObject>) -> Result<(), Error> {
    let home = &context.choices.gateways.home;
    let label = passage::OF_NAMESPACE;
    let ours = context.scope.as_ref().map_or_else(|| label.to_owned(), |scope| format!("{label}={scope}"));
    for kind in passage::KINDS {
        if kind != Kind::Ingress && !context.served.ask(kind).await? {
            continue;
        }
        let api = cache::api(&context.client, Some(home), &kind.resource());
        let found = api.list(&ListParams::default().labels(&ours)).await;
        let found = found.map_err(Error::api(format!("list {} of {home}", kind.names().3)))?;
        for way in found.items.iter().filter(|way| !is_wanted(context, mine, kind, way)) {
            context.applier.delete(kind, way).await?;
            tracing::info!(kind = kind.names().2, name = %full_name(way), "Way to the dispatcher removed");
        }
    }
    Ok(())
}

/// Whether the trigger that it names asks for it now.
fn is_wanted(context: &Context, mine: &Store<DynamicObject>, kind: Kind, way: &DynamicObject) -> bool {
    let namespace = way.labels().get(passage::OF_NAMESPACE);
    let name = way.annotations().get(passage::OF_TRIGGER);
    let (Some(namespace), Some(name)) = (namespace, name) else { return false };
    let reference = ObjectRef::new_with(name, resource::<HttpTriggers>()).within(namespace);
    let Some(trigger) = mine.get(&reference) else { return false };
    let Ok(decoded) = http_trigger::decode(whole(&trigger)) else { return false };
    let through = decoded.served_by == ServedBy::Dispatcher;
    let typed = decoded.downcast::<HTTPTrigger>().filter(|_| through);
    let wanted = typed.and_then(|trigger| passage::passage(&trigger, &context.choices.gateways).ok());
    wanted.is_some_and(|wanted| wanted.kind == kind && wanted.name() == way.name_any())
}
