//! The manifests on a real API server: kubectl makes of them what the program makes, the server takes every overlay, `kubeless
//! install` installs and can be repeated, and the Pods pass Pod Security *restricted*. Must never look into a manifest
//! by itself: tests/it/install.rs does.

use super::support::{
    apiserver::{self, ApiServer},
    kubectl::Access,
};
use kubeless::cli::install::{self, Request, kustomize};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Definitions of the Prometheus operator, as far as a dry run asks for them.
const MONITORING: [(&str, &str); 3] = [
    ("podmonitors", "PodMonitor"),
    ("servicemonitors", "ServiceMonitor"),
    ("prometheusrules", "PrometheusRule"),
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize").join(name)
}

fn kustomized(api: &Access, folder: &Path) -> Vec<Value> {
    let text = api.kubectl(&["kustomize", &folder.display().to_string()]);
    let mut objects = kustomize::documents(&text).expect("kubectl prints YAML");
    install::sort(&mut objects);
    objects
}

fn kubeless(api: &Access, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubeless"))
        .args(arguments)
        .env("KUBECONFIG", api.kubeconfig())
        .output()
        .expect("the program starts")
}

#[track_caller]
fn done(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {told}", output.status);
    told
}

/// Compares object by object: all of them at once nobody can read.
#[track_caller]
fn same(ours: &[Value], theirs: &[Value]) {
    let names = |list: &[Value]| -> Vec<String> {
        list.iter().map(|object| format!("{} {}", object["kind"], object["metadata"]["name"])).collect()
    };
    assert_eq!(names(ours), names(theirs));
    ours.iter().zip(theirs).for_each(|(one, other)| assert_eq!(one, other));
}

/// A path from one folder to another, as kustomize wants it.
fn relative(from: &Path, to: &Path) -> String {
    let up = from.components().skip(1).map(|_| "..").collect::<Vec<_>>().join("/");
    format!("{up}{}", to.display())
}

#[test]
fn kubectl_makes_of_the_manifests_what_the_program_makes() {
    let api = apiserver::shared();
    let plain = kustomized(api, &folder("base"));
    same(&install::render(&Request::default()).expect("our manifests"), &plain);
    let printed = kubeless(api, &["install", "--dry-run"]);
    done(&printed);
    assert!(printed.stdout == install::to_yaml(&plain).expect("YAML").as_bytes(), "the same bytes");

    let daemonset = Request { daemonset: true, ..Request::default() };
    same(
        &install::render(&daemonset).expect("our manifests"),
        &kustomized(api, &folder("overlays/daemonset")),
    );

    let request = Request {
        namespace: Some("events".to_owned()),
        image: Some("registry.example:5000/own:2".to_owned()),
        ..daemonset
    };
    let own = tempfile::tempdir().expect("a temporary folder");
    let overlay = relative(own.path(), &folder("overlays/daemonset"));
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [overlay],
        "namespace": "events",
        "images": [{"name": install::IMAGE, "newName": "registry.example:5000/own", "newTag": "2"}],
        // What kustomize does not know to follow.
        "patches": [
            {
                "target": {"kind": "CustomResourceDefinition", "name": "functions.kubeless.io"},
                "patch": r#"[{"op": "replace", "path": "/metadata/annotations/kubeless.io~1namespace", "value": "events"}]"#,
            },
            {
                "target": {"kind": "Deployment", "name": "kubeless-controller"},
                "patch": r#"[{"op": "replace", "path": "/spec/template/spec/containers/0/env/0/value", "value": "registry.example:5000/own:2"}]"#,
            },
        ],
    });
    std::fs::write(own.path().join("kustomization.yaml"), kustomization.to_string()).expect("written");
    same(&install::render(&request).expect("our manifests"), &kustomized(api, own.path()));
}

#[test]
fn an_api_server_takes_every_overlay() {
    let api = apiserver::shared();
    api.install_crds();
    let _ = api.try_kubectl(&["create", "namespace", "kubeless"], "");
    for (plural, kind) in MONITORING {
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
            "spec": {
                "group": "monitoring.coreos.com",
                "scope": "Namespaced",
                "names": {"plural": plural, "kind": kind},
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                }],
            },
        });
        api.apply("default", &definition.to_string());
        let name = format!("crd/{plural}.monitoring.coreos.com");
        api.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &name]);
    }
    for name in
        ["base", "overlays/daemonset", "overlays/namespaced", "overlays/openshift", "overlays/podmonitor"]
    {
        let path = folder(name).display().to_string();
        let told =
            api.kubectl(&["apply", "--server-side", "--dry-run=server", "--validate=strict", "-k", &path]);
        assert!(told.lines().count() > 8 && !told.contains("Warning"), "{name}: {told}");
    }
}

#[test]
fn installing_can_be_repeated_and_takes_nothing_over_unasked() {
    // Its own: definitions and cluster roles are changed.
    let api = ApiServer::start();
    let told = done(&kubeless(&api, &["install"]));
    assert!(told.contains("Deployment kubeless-dispatcher applied"), "{told}");
    assert_eq!(
        api.get("", "crd/functions.kubeless.io")["metadata"]["annotations"]["kubeless.io/namespace"],
        "kubeless"
    );
    let before = api.get("kubeless", "deployment/kubeless-dispatcher");
    done(&kubeless(&api, &["install"]));
    let after = api.get("kubeless", "deployment/kubeless-dispatcher");
    assert_eq!(
        before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"],
        "nothing to change"
    );

    api.kubectl(&["-n", "kubeless", "scale", "deployment", "kubeless-dispatcher", "--replicas=5"]);
    let refused = kubeless(&api, &["install"]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && told.contains("replicas") && told.contains("--force-conflicts"),
        "{told}"
    );
    done(&kubeless(&api, &["install", "--force-conflicts"]));
    assert_eq!(api.get("kubeless", "deployment/kubeless-dispatcher")["spec"]["replicas"], 2);

    pods_pass_restricted(&api);
}

/// Creates a Pod from each template in the namespace that enforces it. What is not restricted is refused there.
fn pods_pass_restricted(api: &Access) {
    for deployment in ["kubeless-dispatcher", "kubeless-controller"] {
        let mut template =
            api.get("kubeless", &format!("deployment/{deployment}"))["spec"]["template"].clone();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "spec": template["spec"].take(),
            "metadata": {"name": deployment, "labels": template["metadata"]["labels"]},
        });
        api.try_kubectl(&["create", "-n", "kubeless", "-f", "-"], &pod.to_string())
            .unwrap_or_else(|error| panic!("{deployment}: {error}"));
        let mut loose = pod.clone();
        loose["metadata"]["name"] = "loose".into();
        loose["spec"]["securityContext"]["runAsNonRoot"] = false.into();
        let refused = api.try_kubectl(&["create", "-n", "kubeless", "-f", "-"], &loose.to_string());
        let refused = refused.expect_err("the namespace enforces nothing");
        assert!(refused.contains("PodSecurity \"restricted"), "{refused}");
    }
}
