//! The manifests under `deploy/kustomize`: carried whole by the program, right by the types of Kubernetes, restricted, in step
//! with version, catalogue, configuration and rules. What an API server makes of them: tests/real/install.rs.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment},
        core::v1::{ConfigMap, Namespace, PodTemplateSpec, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kubeless::{
    api::{kubeless_config::KubelessConfig, runtimes::BUILT_IN},
    cli::install::{self, IMAGE, Request, files, kustomize},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy().join(path)).unwrap_or_else(|error| panic!("deploy/{path}: {error}"))
}

/// Compares a generated file; `UPDATE=1` rewrites it.
fn is_fresh(path: &str, text: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(deploy().join(path), text).unwrap();
    }
    assert!(read(path) == text, "deploy/{path} is stale: run UPDATE=1 cargo test --test it install");
}

fn indented(text: &str, by: usize) -> String {
    let blank = " ".repeat(by);
    text.lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("{blank}{line}\n") })
        .collect()
}

fn requests() -> Vec<Request> {
    let moved = Request { namespace: Some("events".to_owned()), ..Request::default() };
    let image = Request { image: Some("host:5000/own:2".to_owned()), ..Request::default() };
    vec![Request::default(), Request { daemonset: true, ..moved }, image]
}

/// Every YAML document of every kustomize folder that is no kustomization and no patch, with its file.
fn all_documents() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for folder in ["base", "programs", "overlays/podmonitor", "overlays/namespaced"] {
        for entry in fs::read_dir(deploy().join("kustomize").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            for value in kustomize::documents(&fs::read_to_string(&path).unwrap()).unwrap() {
                // A patch is a list.
                if value.is_object() && value["kind"] != "Kustomization" {
                    found.push((format!("{folder}/{name}"), value));
                }
            }
        }
    }
    found
}

#[test]
fn the_program_carries_the_files_as_they_are() {
    let mut wanted = BTreeSet::new();
    for folder in ["crds", "kustomize/base", "kustomize/programs", "kustomize/overlays/daemonset"] {
        for entry in fs::read_dir(deploy().join(folder)).unwrap() {
            wanted.insert(format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap()));
        }
    }
    let carried: BTreeSet<String> = files::FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(carried, wanted, "src/cli/install/files.rs lists other files than there are");
    files::FILES.iter().for_each(|(name, text)| assert_eq!(*text, read(name), "{name}"));
}

#[test]
fn every_definition_is_installed() {
    let listed = |text: &str| -> BTreeSet<String> {
        let told: Value = serde_saphyr::from_str(text).unwrap();
        told["resources"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let there: BTreeSet<String> = fs::read_dir(deploy().join("crds"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    assert_eq!(listed(&read("crds/Kustomization")), there);
}

#[test]
fn kubeless_config_holds_the_catalogue() {
    let text = format!(
        "# Generated from deploy/runtimes/runtime-images.json; UPDATE=1 cargo test --test it install rewrites it.\n\
         # What the keys mean: docs/install.md. The controller follows changes; nothing is restarted.\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: kubeless-config\n  \
         labels: {{app.kubernetes.io/part-of: kubeless}}\ndata:\n  \
         deployment: '{{}}'\n  enable-build-step: \"false\"\n  function-registry-tls-verify: \"true\"\n  \
         runtime-images: |\n{}",
        indented(BUILT_IN, 4)
    );
    is_fresh("kustomize/programs/kubeless-config.yaml", &text);
    let map: ConfigMap = serde_saphyr::from_str(&text).unwrap();
    let config = KubelessConfig::parse(&map.data.unwrap()).unwrap();
    assert_eq!(config, KubelessConfig::default(), "installing changes nothing of what holds without it");
}

#[test]
fn the_operators_rules_are_the_rules() {
    let rules = read("prometheus/rules.yaml");
    let groups = rules.split_once("groups:\n").unwrap().1;
    let text = format!(
        "# Generated from deploy/prometheus/rules.yaml; UPDATE=1 cargo test --test it install rewrites it.\n\
         apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: kubeless\n  \
         labels: {{app.kubernetes.io/part-of: kubeless}}\nspec:\n  groups:\n{}",
        indented(groups, 2)
    );
    is_fresh("kustomize/overlays/podmonitor/rules.yaml", &text);
    let rule: Value = serde_saphyr::from_str(&text).unwrap();
    let plain: Value = serde_saphyr::from_str(&rules).unwrap();
    assert_eq!(rule["spec"]["groups"], plain["groups"]);
}

/// Reads the object as `T` and back: a field that the type does not know would be lost on the way.
fn is_a<T: Serialize + DeserializeOwned>(value: &Value, file: &str) {
    let typed: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut back = serde_json::to_value(&typed).unwrap();
    let mut wanted = value.clone();
    // Types write out what is empty; the API server takes both for the same.
    strip(&mut back);
    strip(&mut wanted);
    assert_eq!(
        back, wanted,
        "{file}: {} {} has a field of another kind",
        value["kind"], value["metadata"]["name"]
    );
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(strip);
            map.retain(|_, inner| !inner.is_null());
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        // 1 and 1.0.
        Value::Number(number) => *value = number.as_f64().into(),
        _ => {}
    }
}

#[test]
fn every_object_is_what_its_kind_says() {
    let rendered =
        requests().iter().flat_map(|request| install::render(request).unwrap()).collect::<Vec<_>>();
    let rendered = rendered.into_iter().map(|value| ("rendered".to_owned(), value));
    let mut kinds = BTreeSet::new();
    for (file, value) in all_documents().into_iter().chain(rendered) {
        let kind = value["kind"].as_str().unwrap().to_owned();
        match kind.as_str() {
            "ClusterRole" => is_a::<ClusterRole>(&value, &file),
            "ClusterRoleBinding" => is_a::<ClusterRoleBinding>(&value, &file),
            "ConfigMap" => is_a::<ConfigMap>(&value, &file),
            "CustomResourceDefinition" => is_a::<CustomResourceDefinition>(&value, &file),
            "DaemonSet" => is_a::<DaemonSet>(&value, &file),
            "Deployment" => is_a::<Deployment>(&value, &file),
            "Namespace" => is_a::<Namespace>(&value, &file),
            "NetworkPolicy" => is_a::<NetworkPolicy>(&value, &file),
            "PodDisruptionBudget" => is_a::<PodDisruptionBudget>(&value, &file),
            "Role" => is_a::<Role>(&value, &file),
            "RoleBinding" => is_a::<RoleBinding>(&value, &file),
            "Service" => is_a::<Service>(&value, &file),
            "ServiceAccount" => is_a::<ServiceAccount>(&value, &file),
            // Of the Prometheus operator; no types here.
            "PodMonitor" | "PrometheusRule" | "ServiceMonitor" => {}
            other => panic!("{file}: nobody checks {other}"),
        }
        kinds.insert(kind);
    }
    assert!(kinds.len() >= 14, "{kinds:?}");
}

fn templates(objects: &[Value]) -> Vec<PodTemplateSpec> {
    let template = |object: &Value| object.pointer("/spec/template").cloned();
    objects.iter().filter_map(template).map(|value| serde_json::from_value(value).unwrap()).collect()
}

#[test]
fn every_pod_is_restricted_bounded_and_probed() {
    for request in requests() {
        let templates = templates(&install::render(&request).unwrap());
        assert_eq!(templates.len(), 2);
        for template in templates {
            let pod = template.spec.unwrap();
            let context = pod.security_context.clone().unwrap();
            assert_eq!(context.run_as_non_root, Some(true));
            assert!(context.run_as_user.is_some_and(|user| user >= 10_000));
            assert_eq!(context.seccomp_profile.unwrap().type_, "RuntimeDefault");
            assert!(pod.host_network.is_none() && pod.host_pid.is_none() && pod.host_ipc.is_none());
            let no_host = pod.volumes.iter().flatten().all(|volume| volume.host_path.is_none());
            assert!(no_host, "a folder of the node");
            for container in &pod.containers {
                let context = container.security_context.clone().unwrap();
                assert_eq!(context.allow_privilege_escalation, Some(false));
                assert_eq!(context.read_only_root_filesystem, Some(true));
                assert_eq!(context.capabilities.unwrap().drop, Some(vec!["ALL".to_owned()]));
                let limits = container.resources.clone().unwrap().limits.unwrap();
                assert!(limits.contains_key("memory"));
                assert!(container.liveness_probe.is_some() && container.readiness_probe.is_some());
            }
        }
    }
}

#[test]
fn versions_and_images_are_those_of_this_version() {
    for object in install::render(&Request::default()).unwrap() {
        if let Some(said) = object.pointer("/metadata/labels/app.kubernetes.io~1version") {
            assert_eq!(said, VERSION);
        }
        for container in
            object.pointer("/spec/template/spec/containers").and_then(Value::as_array).into_iter().flatten()
        {
            assert_eq!(container["image"], format!("{IMAGE}:{VERSION}"));
        }
    }
    // What scripts/images.sh builds is what is asked for.
    let script = fs::read_to_string(deploy().join("../scripts/images.sh")).unwrap();
    assert!(script.contains(&format!("{IMAGE}:$version")));
    for language in ["python", "nodejs"] {
        let name = format!("docker.io/kubeless/runtime-{language}:");
        let tag = script.split_once(&name).unwrap().1.split('"').next().unwrap().replace("$version", VERSION);
        assert!(BUILT_IN.contains(&format!("\"{name}{tag}\"")), "the catalogue does not know {name}{tag}");
    }
}

#[test]
fn a_namespace_goes_everywhere_and_an_image_only_where_it_belongs() {
    let request = Request { namespace: Some("events".to_owned()), ..Request::default() };
    let text = install::to_yaml(&install::render(&request).unwrap()).unwrap();
    let left: Vec<&str> = text
        .lines()
        .filter(|line| {
            line.trim_start().trim_start_matches("- ").starts_with("namespace:")
                && !line.ends_with(": events")
        })
        .filter(|line| !line.ends_with("namespace:"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(
        text.contains("kubeless.io/namespace: events\n")
            && !text.contains("name: kubeless\n  labels:\n    pod-")
    );

    let request = Request { image: Some("host:5000/own:2".to_owned()), ..Request::default() };
    let text = install::to_yaml(&install::render(&request).unwrap()).unwrap();
    assert_eq!(text.matches("image: host:5000/own:2\n").count(), 2);
    assert!(text.contains("docker.io/kubeless/runtime-python:"), "runtimes keep theirs");
    assert!(!text.contains(&format!("image: {IMAGE}:")));
}

#[test]
fn the_daemonset_is_the_same_dispatcher_on_each_node() {
    let find = |objects: &[Value], kind: &str| {
        objects
            .iter()
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == "kubeless-dispatcher")
            .cloned()
    };
    let plain = install::render(&Request::default()).unwrap();
    let each = install::render(&Request { daemonset: true, ..Request::default() }).unwrap();
    assert!(find(&each, "Deployment").is_none() && find(&each, "PodDisruptionBudget").is_none());
    let (deployment, set) = (find(&plain, "Deployment").unwrap(), find(&each, "DaemonSet").unwrap());
    let containers = "/spec/template/spec/containers";
    assert_eq!(deployment.pointer(containers), set.pointer(containers));
    let variables = set.pointer(&format!("{containers}/0/env")).unwrap().to_string();
    assert!(variables.contains("NODE_NAME") && variables.contains("spec.nodeName"));
}

#[test]
fn objects_come_in_the_order_in_which_they_can_be_made() {
    let objects = install::render(&Request::default()).unwrap();
    let kinds: Vec<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    let at = |kind: &str| kinds.iter().position(|found| *found == kind).unwrap();
    assert!(
        at("Namespace") < at("CustomResourceDefinition")
            && at("CustomResourceDefinition") < at("ServiceAccount")
    );
    assert!(at("ClusterRole") < at("ClusterRoleBinding") && at("ClusterRoleBinding") < at("Deployment"));
    let crds = install::render(&Request { crds_only: true, ..Request::default() }).unwrap();
    assert!(crds.iter().all(|object| object["kind"] == "CustomResourceDefinition") && crds.len() >= 4);
}

#[test]
fn people_may_do_with_every_kind_what_they_may_do_with_the_rest() {
    let mut kinds: Vec<String> =
        kubeless::sources::crds().into_iter().map(|crd| crd.spec.names.plural).collect();
    kinds.sort_unstable();
    let mut seen = 0;
    for value in kustomize::documents(&read("kustomize/base/users.yaml")).unwrap() {
        let role: ClusterRole = serde_json::from_value(value).unwrap();
        for rule in role.rules.unwrap() {
            let mut named = rule.resources.unwrap();
            named.sort_unstable();
            assert_eq!(named, kinds);
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
}

#[test]
fn the_dispatchers_configuration_is_read_as_it_is_mounted() {
    let map: ConfigMap = serde_saphyr::from_str(&read("kustomize/programs/dispatcher-config.yaml")).unwrap();
    let data = map.data.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dispatcher.toml");
    fs::write(&file, &data["dispatcher.toml"]).unwrap();
    let none = |_: &str| None;
    let config =
        kubeless::config::load(Some(&file), none, Vec::new(), kubeless::config::Checks::All).unwrap();
    let deployment = kustomize::documents(&read("kustomize/programs/dispatcher.yaml")).unwrap().remove(0);
    let deployment: Deployment = serde_json::from_value(deployment).unwrap();
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    let patience = u64::try_from(pod.termination_grace_period_seconds.unwrap()).unwrap();
    assert!(config.shutdown.grace.as_secs() + 5 <= patience, "the kubelet would kill what still drains");
    let mounts = pod.containers[0].volume_mounts.clone().unwrap();
    let state = mounts.iter().find(|mount| mount.name == "state").unwrap();
    assert_eq!(Path::new(&state.mount_path), config.state_dir);
    assert!(
        pod.containers[0].args.as_ref().unwrap()[0].ends_with("=/etc/kubeless/dispatcher/dispatcher.toml")
    );
    assert_eq!(
        pod.containers[0].ports.as_ref().unwrap()[0].container_port,
        i32::from(config.admin.listen.port())
    );
}
