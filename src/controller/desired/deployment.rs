//! A function's Deployment: the user's template over the operator's, and the contract of the runtimes on top. Must never
//! let a user's word decide over labels, selector or owner, by which the cluster finds and removes the Pods.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Affinity, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
            LocalObjectReference, PodAffinityTerm, PodAntiAffinity, PodSpec, PodTemplateSpec,
            ResourceRequirements, Volume, WeightedPodAffinityTerm,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use serde_json::Value;
use std::collections::BTreeMap;

use super::{
    CONTENT, annotations,
    code::{self, Code, FileNames},
    env, init, labels, merge, metadata, probes,
    runtime::{Chosen, Defaults},
    security, selector, service, short_name,
};
use crate::api::{Violation, function::Function, runtimes::Phase};

/// Where a function's template stands in its resource.
const POD: &str = "/spec/deployment/spec/template/spec";
/// As in Kubeless: strong, but not a must.
const SPREAD_WEIGHT: i32 = 100;

/// Everything that a Deployment is made from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The function.
    pub function: &'a Function,
    /// Its runtime; `None`: not in the catalogue, or none named.
    pub runtime: Option<Chosen<'a>>,
    /// The operator's settings.
    pub defaults: &'a Defaults,
    /// Name of the ConfigMap with its code.
    pub config_map: Option<&'a str>,
    /// Selector of the Deployment that is there: it cannot be changed.
    pub selector: Option<&'a LabelSelector>,
    /// Whether an autoscaler decides how many Pods there are.
    pub autoscaled: bool,
}

/// The Deployment.
///
/// # Errors
/// Everything that is wrong with the function's template.
pub fn deployment(input: &Input<'_>) -> Result<Deployment, Vec<Violation>> {
    let function = input.function;
    let merged =
        merge::under(function.spec.deployment.clone().unwrap_or_default(), &input.defaults.deployment);
    let merged: Deployment = serde_json::from_value(Value::Object(merged)).map_err(|error| {
        vec![Violation::new("/spec/deployment", error.to_string(), "write an apps/v1 Deployment")]
    })?;
    let template = merged.spec.unwrap_or_default();
    let pod = pod(input, template.template.spec.clone().unwrap_or_default()).map_err(|wrong| vec![wrong])?;
    let below = security::below(input.defaults.floor, &pod, POD);
    if !below.is_empty() {
        return Err(below);
    }
    let selector = input.selector.cloned().unwrap_or_else(|| LabelSelector {
        match_labels: Some(own_selector(function)),
        ..LabelSelector::default()
    });
    let port = service::container_port(function).map_err(|wrong| vec![wrong])?;
    let pod_meta = pod_metadata(function, template.template.metadata.as_ref(), &selector, port);
    let mut meta = metadata(&function.metadata);
    meta.labels = Some(over(merged.metadata.labels, labels(&function.metadata)));
    meta.annotations = Some(over(merged.metadata.annotations, annotations(&function.metadata)));
    let replicas = function.spec.replicas.or(template.replicas);
    Ok(Deployment {
        metadata: meta,
        spec: Some(DeploymentSpec {
            selector,
            // Whoever scales owns the number: saying it here would undo every step of the autoscaler.
            replicas: replicas.filter(|_| !input.autoscaled),
            strategy: Some(strategy(template.strategy.clone())),
            template: PodTemplateSpec { metadata: Some(pod_meta), spec: Some(pod) },
            ..template
        }),
        status: None,
    })
}

fn own_selector(function: &Function) -> BTreeMap<String, String> {
    selector(function.metadata.name.as_deref().unwrap_or_default())
}

/// Both sides' entries; the second side wins.
fn over(
    first: Option<BTreeMap<String, String>>,
    second: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut all = first.unwrap_or_default();
    all.extend(second);
    all
}

fn strategy(given: Option<DeploymentStrategy>) -> DeploymentStrategy {
    given.filter(|strategy| strategy.type_.is_some() || strategy.rolling_update.is_some()).unwrap_or_else(
        || DeploymentStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateDeployment {
                max_unavailable: Some(IntOrString::Int(0)),
                max_surge: None,
            }),
        },
    )
}

fn pod_metadata(
    function: &Function,
    template: Option<&ObjectMeta>,
    selector: &LabelSelector,
    port: u16,
) -> ObjectMeta {
    let mut all_labels = over(template.and_then(|meta| meta.labels.clone()), labels(&function.metadata));
    // A Deployment of an old Kubeless selects by every label that the function had when it was made.
    all_labels.extend(selector.match_labels.clone().unwrap_or_default());
    let mut all = over(template.and_then(|meta| meta.annotations.clone()), annotations(&function.metadata));
    let scrape = [("scrape", "true".to_owned()), ("path", "/metrics".to_owned()), ("port", port.to_string())];
    for (name, value) in scrape {
        all.entry(format!("prometheus.io/{name}")).or_insert(value);
    }
    all.insert(CONTENT.to_owned(), code::digest(function));
    ObjectMeta { labels: Some(all_labels), annotations: Some(all), ..ObjectMeta::default() }
}

fn pod(input: &Input<'_>, mut pod: PodSpec) -> Result<PodSpec, Violation> {
    let function = input.function;
    let port = service::container_port(function)?;
    if pod.containers.is_empty() {
        pod.containers.push(Container::default());
    }
    let mut main = std::mem::take(&mut pod.containers[0]);
    // Only the resources of the first are meant for ours; complete ones are the user's own and run after ours.
    let given = pod.init_containers.take().unwrap_or_default();
    let resources = given.first().and_then(|container| container.resources.clone());
    let mut env = Vec::new();
    for variable in main.env.take().unwrap_or_default() {
        env::set(&mut env, variable);
    }
    let own_image = main.image.as_ref().is_some_and(|image| !image.is_empty());
    let mut inits = Vec::new();
    if own_image {
        // The image holds the code: a volume over its folder would hide it.
    } else {
        main.image = Some(image(input)?);
        let mut volumes = pod.volumes.take().unwrap_or_default();
        inits = files(input, &mut main, &mut volumes, (&env, resources))?;
        pod.volumes = Some(volumes).filter(|list| !list.is_empty());
    }
    let limit =
        main.resources.as_ref().and_then(|resources| resources.limits.as_ref()?.get("memory").cloned());
    env::of_function(&mut env, function, input.runtime, limit.as_ref().map(|limit| limit.0.as_str()), port);
    main.env = Some(env);
    main.name = function.metadata.name.clone().unwrap_or_default();
    add_port(&mut main, port);
    probes::fill_in(
        &mut main,
        input.runtime.and_then(|chosen| chosen.runtime.liveness_probe_info.as_ref()),
        port,
    );
    pod.containers[0] = main;
    inits.extend(
        given.into_iter().filter(|container| container.image.as_ref().is_some_and(|i| !i.is_empty())),
    );
    pod.init_containers = Some(inits).filter(|list| !list.is_empty());
    pod.affinity.get_or_insert_with(|| apart(function));
    add_pull_secrets(&mut pod, input);
    security::fill_in(&mut pod);
    Ok(pod)
}

/// The init containers, and the volumes and mounts that they and the function share.
fn files(
    input: &Input<'_>,
    main: &mut Container,
    volumes: &mut Vec<Volume>,
    (env, resources): (&[EnvVar], Option<ResourceRequirements>),
) -> Result<Vec<Container>, Violation> {
    let names = input.runtime.as_ref().map_or_else(FileNames::default, Chosen::files);
    let (Some(code), Some(config_map)) = (Code::of(input.function, names)?, input.config_map) else {
        return Ok(Vec::new());
    };
    let name = input.function.metadata.name.as_deref().unwrap_or_default();
    let layout = init::Layout {
        function: input.function,
        code: &code,
        runtime: input.runtime,
        defaults: input.defaults,
        env,
        resources,
        install_volume: short_name(name),
        source_volume: short_name(&format!("{name}-deps")),
    };
    let (containers, secrets) = init::containers(&layout)?;
    add_volumes(volumes, own_volumes(&layout, config_map).into_iter().chain(secrets))?;
    let mounts = main.volume_mounts.get_or_insert_default();
    mounts.retain(|mount| mount.mount_path != init::INSTALL_VOLUME);
    mounts.push(init::mount(&layout.install_volume, init::INSTALL_VOLUME));
    Ok(containers)
}

fn image(input: &Input<'_>) -> Result<String, Violation> {
    match input.runtime.as_ref().and_then(|runtime| runtime.image(Phase::Runtime)) {
        Some(run) => Ok(run.image.clone()),
        None => Err(Violation::new(
            "/spec/runtime",
            format!(
                "{:?} is not in the catalogue and the Deployment template names no image",
                input.function.spec.runtime
            ),
            "name a runtime of the catalogue (kubeless-config, key runtime-images), or an image",
        )),
    }
}

fn own_volumes(layout: &init::Layout<'_>, config_map: &str) -> [Volume; 2] {
    let source = ConfigMapVolumeSource { name: config_map.to_owned(), ..ConfigMapVolumeSource::default() };
    [
        Volume {
            name: layout.install_volume.clone(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        },
        Volume { name: layout.source_volume.clone(), config_map: Some(source), ..Volume::default() },
    ]
}

fn add_volumes(volumes: &mut Vec<Volume>, more: impl Iterator<Item = Volume>) -> Result<(), Violation> {
    for volume in more {
        if volumes.iter().any(|other| other.name == volume.name) {
            let what = format!("volume {:?} has a name that the function's own files need", volume.name);
            return Err(Violation::new(format!("{POD}/volumes"), what, "call it something else"));
        }
        volumes.push(volume);
    }
    Ok(())
}

fn add_port(container: &mut Container, port: u16) {
    let ports = container.ports.get_or_insert_default();
    for declared in ports.iter_mut() {
        declared.protocol.get_or_insert_with(|| "TCP".to_owned());
    }
    let number = i32::from(port);
    if !ports.iter().any(|p| p.container_port == number && p.protocol.as_deref() == Some("TCP")) {
        let protocol = Some("TCP".to_owned());
        ports.push(ContainerPort { container_port: number, protocol, ..ContainerPort::default() });
    }
}

fn add_pull_secrets(pod: &mut PodSpec, input: &Input<'_>) {
    let secrets = pod.image_pull_secrets.get_or_insert_default();
    let configured = input.defaults.pull_secrets.iter().map(String::as_str);
    for name in configured.chain(input.runtime.iter().flat_map(Chosen::pull_secrets)) {
        if !secrets.iter().any(|secret| secret.name == name) {
            secrets.push(LocalObjectReference { name: name.to_owned() });
        }
    }
    if secrets.is_empty() {
        pod.image_pull_secrets = None;
    }
}

/// Pods of one function would rather not share a node.
fn apart(function: &Function) -> Affinity {
    let term = PodAffinityTerm {
        label_selector: Some(LabelSelector {
            match_labels: Some(own_selector(function)),
            ..LabelSelector::default()
        }),
        topology_key: "kubernetes.io/hostname".to_owned(),
        ..PodAffinityTerm::default()
    };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: SPREAD_WEIGHT,
                pod_affinity_term: term,
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}
