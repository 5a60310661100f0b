//! Function → ConfigMap, Service, Deployment, autoscaler. Must never remove code that a running Pod may still need.

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api,
    api::{DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

use super::{Subject, owner_of, whole};
use crate::{
    api::{
        conditions::{Fact, Status, reasons, types},
        function::{self, Function},
    },
    controller::{
        apply::owns,
        context::Context,
        desired::{
            self, Kind, Object, autoscaler,
            code::{self, Code, FileNames},
            deployment::{self, Input},
            runtime::Chosen,
            service,
        },
        error::Error,
        status::Report,
    },
};

/// ConfigMaps of earlier code that are kept unasked while a rollout goes on.
const EARLIER: usize = 3;

/// The function controller.
pub struct Functions;

impl Subject for Functions {
    const NAME: &'static str = "function";
    const KIND: &'static str = "Function";
    const PLURAL: &'static str = "functions";
    const CHILDREN: &'static [Kind] = &[Kind::ConfigMap, Kind::Service, Kind::Deployment, Kind::Autoscaler];
    const FUNCTIONS: bool = false;

    async fn pass(context: &Context, object: &DynamicObject) -> Option<Report> {
        Some(pass(context, object).await)
    }
}

async fn pass(context: &Context, object: &DynamicObject) -> Report {
    let report = Report::default();
    let function = match function::decode(whole(object)) {
        Ok(function) => function,
        Err(violations) => return report.stopped(types::ACCEPTED, violations.into()),
    };
    let owner = owner_of::<Functions>(object);
    let wanted = match wanted(context, &function) {
        Ok(wanted) => wanted,
        Err((kind, error)) => return report.stopped(kind, error),
    };
    let mut report = Report::default();
    report.fact(Fact::new(types::ACCEPTED, true, reasons::VALID, ""));
    describe(context, &function, &wanted, &mut report);
    if let Some(missing) = autoscaler::ignored(&function) {
        // Told, but no part of `Ready`: Kubeless took it, too.
        report.aside(Fact::new(types::AUTOSCALED, false, reasons::INVALID, missing.to_string()));
    }
    let live = match make(context, &wanted, &owner).await {
        Ok(live) => live,
        Err(error) => return report.stopped(types::DEPLOYED, error),
    };
    report.fact(Fact::new(types::DEPLOYED, true, reasons::APPLIED, ""));
    available(&live, &mut report);
    if let Err(error) = autoscale(context, &function, &wanted, &owner, &mut report).await {
        return report.stopped(types::AUTOSCALED, error);
    }
    if let Err(error) = sweep(context, &wanted, &live, &owner).await {
        report.trouble = Some(error);
    }
    report
}

/// Everything that a function should have.
struct Wanted {
    config_map: Option<Object>,
    service: Object,
    deployment: Object,
    autoscaler: Option<Object>,
    monitor: Option<Object>,
}

fn wanted(context: &Context, function: &Function) -> Result<Wanted, (&'static str, Error)> {
    let accepted = |error: Error| (types::ACCEPTED, error);
    let config = context.config().map_err(|error| (types::DEPLOYED, error))?;
    let defaults = context.defaults().map_err(|error| (types::DEPLOYED, error))?;
    let found =
        Some(&function.spec.runtime).filter(|name| !name.is_empty()).map(|name| config.runtimes.find(name));
    let (runtime, unknown) = match found {
        Some(Ok((runtime, version))) => (Some(Chosen { runtime, version }), None),
        Some(Err(unknown)) => (None, Some(unknown)),
        None => (None, None),
    };
    let names = runtime.as_ref().map_or_else(FileNames::default, Chosen::files);
    let code = Code::of(function, names).map_err(|violation| accepted(violation.into()))?;
    let config_map = code.as_ref().map(|code| code::config_map(function, code));
    let scaler =
        autoscaler::autoscaler(function).map_err(|violation| (types::AUTOSCALED, violation.into()))?;
    let (namespace, name) = names_of(function);
    let live = context.applier.cached(Kind::Deployment, namespace, name).and_then(|live| typed(&live));
    let selector = live.and_then(|live| live.spec).map(|spec| spec.selector);
    let deployment = deployment::deployment(&Input {
        function,
        runtime,
        defaults: &defaults,
        config_map: config_map.as_ref().and_then(|map| map.metadata.name.as_deref()),
        selector: selector.as_ref(),
        autoscaled: scaler.is_some(),
    });
    let deployment = deployment.map_err(|violations| match unknown {
        // The nearest names say more than that there is no image.
        Some(unknown) => {
            let violation = crate::api::Violation::new("/spec/runtime", unknown.wanted.clone(), unknown.fix);
            accepted(vec![violation].into())
        }
        None => accepted(violations.into()),
    })?;
    let service = service::service(function).map_err(|violation| accepted(violation.into()))?;
    let object = |kind: Kind, value: Value| {
        Object::new(kind, &value)
            .map_err(|error| accepted(Error::api("write an object as JSON")(kube::Error::SerdeError(error))))
    };
    let monitor = scaler.as_ref().and_then(|scaler| autoscaler::service_monitor(function, scaler));
    Ok(Wanted {
        config_map: config_map.map(|map| object(Kind::ConfigMap, json!(map))).transpose()?,
        service: object(Kind::Service, json!(service))?,
        deployment: object(Kind::Deployment, json!(deployment))?,
        autoscaler: scaler.map(|scaler| object(Kind::Autoscaler, json!(scaler))).transpose()?,
        monitor,
    })
}

fn names_of(function: &Function) -> (&str, &str) {
    let meta = &function.metadata;
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn typed(object: &DynamicObject) -> Option<Deployment> {
    serde_json::from_value(serde_json::to_value(object).ok()?).ok()
}

/// Code first: a Pod must find what its template names.
async fn make(context: &Context, wanted: &Wanted, owner: &OwnerReference) -> Result<DynamicObject, Error> {
    if let Some(config_map) = &wanted.config_map {
        context.applier.apply(config_map, owner).await?;
    }
    context.applier.apply(&wanted.service, owner).await?;
    if wanted.autoscaler.is_some() {
        hand_over_replicas(context, &wanted.deployment).await?;
    }
    context.applier.apply(&wanted.deployment, owner).await
}

/// Before the number of Pods is left to an autoscaler, somebody else must have said it: a field that its only owner
/// stops to say falls back to 1.
async fn hand_over_replicas(context: &Context, wanted: &Object) -> Result<(), Error> {
    const HEIR: &str = "kubeless-autoscaler";
    let (namespace, name) = (wanted.namespace(), wanted.name());
    let Some(cached) = context.applier.cached(Kind::Deployment, namespace, name) else { return Ok(()) };
    let digest = |value: &Value| {
        value.pointer("/metadata/annotations").and_then(|all| all.get(desired::APPLIED)).cloned()
    };
    if digest(&serde_json::to_value(&cached).unwrap_or_default()) == digest(&wanted.value) {
        return Ok(());
    }
    let Some(live) = context.applier.get(Kind::Deployment, namespace, name).await? else { return Ok(()) };
    let owned = |manager: &str| {
        live.metadata.managed_fields.iter().flatten().any(|entry| {
            let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
            entry.manager.as_deref() == Some(manager)
                && fields.is_some_and(|fields| fields.pointer("/f:spec/f:replicas").is_some())
        })
    };
    if !owned(crate::controller::apply::MANAGER) || owned(HEIR) {
        return Ok(());
    }
    let replicas = live.data.pointer("/spec/replicas").cloned();
    let body = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "uid": live.metadata.uid },
        "spec": { "replicas": replicas },
    });
    let api = crate::controller::cache::api(&context.client, Some(namespace), &Kind::Deployment.resource());
    let patched = api.patch(name, &PatchParams::apply(HEIR).force(), &Patch::Apply(&body)).await;
    patched.map(|_| ()).map_err(Error::api("hand the number of Pods over to the autoscaler"))
}

fn describe(context: &Context, function: &Function, wanted: &Wanted, report: &mut Report) {
    let (namespace, name) = names_of(function);
    let port = function.service_port().port;
    let domain = &context.choices.cluster_domain;
    report.field("url", format!("http://{name}.{namespace}.svc.{domain}:{port}"));
    let containers = &wanted.deployment.value["spec"]["template"]["spec"]["containers"];
    report.field("image", containers[0]["image"].clone());
    let labels = desired::selector(name);
    let selector = labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
    report.field("selector", selector);
}

/// What the Deployment says about its Pods.
fn available(live: &DynamicObject, report: &mut Report) {
    let number = |pointer: &str| live.data.pointer(pointer).and_then(Value::as_i64);
    let wanted = number("/spec/replicas").unwrap_or(1);
    let ready = number("/status/availableReplicas").unwrap_or(0);
    report.field("replicas", number("/status/replicas").unwrap_or(0));
    report.field("readyReplicas", number("/status/readyReplicas").unwrap_or(0));
    let seen = number("/status/observedGeneration") >= live.metadata.generation;
    let fact = |status: Status, reason, message: String| Fact::new(types::AVAILABLE, status, reason, message);
    let failing = live.data.pointer("/status/conditions").and_then(Value::as_array).and_then(|conditions| {
        let is = |c: &&Value, kind: &str, status: &str| c["type"] == kind && c["status"] == status;
        let failed = conditions.iter().find(|c| is(c, "ReplicaFailure", "True"));
        failed.or_else(|| conditions.iter().find(|c| is(c, "Progressing", "False")))
    });
    report.fact(match failing {
        _ if !seen => {
            fact(Status::Unknown, reasons::PENDING, "the Deployment is not looked at yet".to_owned())
        }
        Some(condition) if ready < wanted => {
            let message = condition["message"].as_str().unwrap_or_default().to_owned();
            fact(Status::False, reasons::PODS_FAILING, message)
        }
        _ if wanted == 0 => fact(Status::True, reasons::SCALED_TO_ZERO, String::new()),
        // Calls are answered all the while, by earlier code too: who waits for the new one must be able to tell.
        stuck if ready >= wanted && !rolled_out(live) => {
            let why = stuck.and_then(|condition| condition["message"].as_str()).unwrap_or_default();
            let current = number("/status/updatedReplicas").unwrap_or(0);
            let message = format!("{current} of {wanted} Pods are of this version {why}");
            fact(Status::True, reasons::ROLLING_OUT, message.trim_end().to_owned())
        }
        _ if ready >= wanted => fact(Status::True, reasons::ENOUGH_REPLICAS, String::new()),
        _ => fact(Status::False, reasons::TOO_FEW_REPLICAS, format!("{ready} of {wanted} are available")),
    });
}

/// The autoscaler and what it reads, or their removal.
async fn autoscale(
    context: &Context,
    function: &Function,
    wanted: &Wanted,
    owner: &OwnerReference,
    report: &mut Report,
) -> Result<(), Error> {
    let (namespace, name) = names_of(function);
    match &wanted.monitor {
        Some(monitor) => {
            context.served.must_have(Kind::ServiceMonitor).await?;
            context.applier.apply(monitor, owner).await?;
        }
        None if context.served.has(Kind::ServiceMonitor).await? => {
            context.applier.delete_own(Kind::ServiceMonitor, namespace, name, owner).await?;
        }
        None => {}
    }
    if let Some(scaler) = &wanted.autoscaler {
        context.applier.apply(scaler, owner).await?;
        report.fact(Fact::new(types::AUTOSCALED, true, reasons::APPLIED, ""));
    }
    let keep = wanted.autoscaler.as_ref().map(Object::name);
    let old = context.applier.cached_all(Kind::Autoscaler, |object| {
        object.metadata.namespace.as_deref() == Some(namespace)
            && object.metadata.name.as_deref() != keep
            && owns(object, owner)
    });
    for object in old {
        context.applier.delete(Kind::Autoscaler, &object).await?;
    }
    Ok(())
}

/// Removes ConfigMaps of earlier code once no ReplicaSet with Pods names them.
async fn sweep(
    context: &Context,
    wanted: &Wanted,
    live: &DynamicObject,
    owner: &OwnerReference,
) -> Result<(), Error> {
    let namespace = wanted.deployment.namespace();
    let current = wanted.config_map.as_ref().map(Object::name);
    let old = context.applier.cached_all(Kind::ConfigMap, |object| {
        object.metadata.namespace.as_deref() == Some(namespace)
            && object.metadata.name.as_deref() != current
            && owns(object, owner)
    });
    if old.is_empty() || (!rolled_out(live) && old.len() <= EARLIER) {
        return Ok(());
    }
    let needed = still_mounted(context, namespace, wanted.deployment.name()).await?;
    for object in old {
        if !needed.contains(object.metadata.name.as_deref().unwrap_or_default()) {
            context.applier.delete(Kind::ConfigMap, &object).await?;
        }
    }
    Ok(())
}

fn rolled_out(live: &DynamicObject) -> bool {
    let number = |pointer: &str| live.data.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let wanted = live.data.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    number("/status/observedGeneration") >= live.metadata.generation.unwrap_or(0)
        && number("/status/updatedReplicas") == wanted
        && number("/status/replicas") == wanted
        && number("/status/availableReplicas") >= wanted
}

/// ConfigMaps that ReplicaSets with Pods name.
async fn still_mounted(context: &Context, namespace: &str, name: &str) -> Result<BTreeSet<String>, Error> {
    let api = Api::<ReplicaSet>::namespaced(context.client.clone(), namespace);
    let labels = desired::selector(name);
    let selector = labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
    let sets = api.list(&ListParams::default().labels(&selector)).await;
    let sets = sets.map_err(Error::api(format!("list the ReplicaSets of {namespace}/{name}")))?;
    let with_pods = sets.items.into_iter().filter(|set| {
        let asked = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        asked > 0 || set.status.as_ref().is_some_and(|status| status.replicas > 0)
    });
    let volumes = with_pods
        .filter_map(|set| set.spec?.template?.spec?.volumes)
        .flatten()
        .filter_map(|volume| Some(volume.config_map?.name));
    Ok(volumes.collect())
}
