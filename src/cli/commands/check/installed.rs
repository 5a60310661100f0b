//! Whether an installation is whole: definitions, programs, configuration, permissions, functions. Must never stop at
//! the first problem.

use super::{
    Finding,
    permissions::{Permission, may},
};
use crate::{
    api::{
        GROUP, VERSION,
        conditions::{find, types},
    },
    cli::{
        Wiring,
        session::{
            Session, explain,
            objects::{FUNCTIONS, conditions},
        },
        system::{self, Program, System},
    },
    cluster::client,
    telemetry,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use std::collections::BTreeSet;

/// Functions that a finding names.
const MAX_NAMED: usize = 5;
const INSTALL_CRDS: &str = "kubeless install --crds-only";

/// What the commands of a developer need in their namespace: group, resource, subresource, verbs.
const NEEDED: &[(&str, &str, &str, &[&str], &str)] = &[
    (
        GROUP,
        "functions",
        "",
        &["get", "list", "watch", "create", "patch", "delete"],
        "function deploy, update, list",
    ),
    ("", "services", "proxy", &["get", "create"], "function call, top"),
    ("", "pods", "", &["list", "watch"], "function logs, describe"),
    ("", "pods", "log", &["get"], "function logs"),
    ("", "events", "", &["list"], "function describe, --wait"),
];

/// All checks of an installation.
pub async fn check(session: &Session, wiring: &dyn Wiring) -> Vec<Finding> {
    let mut findings = definitions(session, wiring).await;
    let system = System::find(session).await;
    findings.extend(programs(session, &system).await);
    findings.push(configuration(session, &system).await);
    findings.extend(permissions(session).await);
    findings.push(metrics(session).await);
    findings.extend(functions(session).await);
    findings
}

/// Each definition: there, of our version, and made by this version of the program.
async fn definitions(session: &Session, wiring: &dyn Wiring) -> Vec<Finding> {
    let served = match session.connection.client.list_api_group_resources(&format!("{GROUP}/{VERSION}")).await
    {
        Ok(list) => list.resources.into_iter().map(|resource| resource.name).collect(),
        Err(error) if explain::is_missing_kind(&error) => BTreeSet::new(),
        Err(error) => {
            let fix = "kubectl get --raw /apis shows what the API server serves";
            return vec![Finding::problem("definitions", client::explain(&error), fix)];
        }
    };
    let mut findings = Vec::new();
    for ours in wiring.definitions() {
        let name = format!("definition {}", ours.metadata.name.as_deref().unwrap_or_default());
        if !served.contains(&ours.spec.names.plural) {
            findings.push(Finding::problem(name, format!("{GROUP}/{VERSION} is not served"), INSTALL_CRDS));
            continue;
        }
        findings.push(match is_same(session, &ours).await {
            Some(false) => Finding::warning(name, "made by another version than this program", INSTALL_CRDS),
            Some(true) => Finding::ok(name, format!("{VERSION}, as this program makes it")),
            // Definitions are the cluster's; developers often may not read them, and need not.
            None => Finding::ok(name, format!("{VERSION} is served")),
        });
    }
    findings
}

/// Whether the cluster's definition has the fields of ours; `None` if it may not be read.
async fn is_same(session: &Session, ours: &CustomResourceDefinition) -> Option<bool> {
    let api: Api<CustomResourceDefinition> = Api::all(session.connection.client.clone());
    let theirs = api.get(ours.metadata.name.as_deref()?).await.ok()?;
    let schema = |crd: &CustomResourceDefinition| {
        let version = crd.spec.versions.iter().find(|version| version.name == VERSION)?;
        let schema = serde_json::to_value(version.schema.as_ref()?).ok()?;
        Some(without_defaults_of_the_server(&schema["openAPIV3Schema"]["properties"]["spec"]))
    };
    Some(schema(&theirs) == schema(ours))
}

/// What the API server writes into a schema that did not say it.
fn without_defaults_of_the_server(schema: &serde_json::Value) -> serde_json::Value {
    match schema {
        serde_json::Value::Object(map) => {
            let kept =
                map.iter().filter(|(key, value)| !(*key == "x-kubernetes-map-type" && *value == "granular"));
            kept.map(|(key, value)| (key.clone(), without_defaults_of_the_server(value))).collect()
        }
        serde_json::Value::Array(items) => items.iter().map(without_defaults_of_the_server).collect(),
        other => other.clone(),
    }
}

async fn programs(session: &Session, system: &System) -> Vec<Finding> {
    let namespace = &system.namespace;
    let found = match system.programs(session).await {
        Ok(found) => found,
        Err(error) => {
            let fix =
                format!("an administrator sees them: kubectl -n {namespace} get deployments,daemonsets");
            return vec![Finding::warning("programs", client::explain(&error), fix)];
        }
    };
    if found.is_empty() {
        let detail = format!(
            "nothing of Kubeless runs in namespace {namespace}: functions are stored and nobody acts on them"
        );
        let fix = "kubeless install (or set KUBELESS_NAMESPACE if it runs elsewhere)";
        return vec![Finding::problem("programs", detail, fix)];
    }
    found.iter().map(|found| program(found, namespace)).collect()
}

fn program(found: &Program, namespace: &str) -> Finding {
    let (kind, name, ready, wanted) = (found.kind, &found.name, found.ready, found.wanted);
    let version = found.version.clone().unwrap_or_else(|| "unknown version".to_owned());
    let detail = format!("{ready}/{wanted} ready, {version}, namespace {namespace}");
    let check = format!("program {name}");
    match () {
        () if wanted == 0 && kind == "daemonset" => Finding::warning(
            check,
            format!("{detail}: no node takes it"),
            format!("kubectl -n {namespace} describe {kind} {name}"),
        ),
        () if wanted == 0 => Finding::warning(
            check,
            format!("{detail}: it is scaled to zero"),
            format!("kubectl -n {namespace} scale deployment {name} --replicas 1"),
        ),
        () if ready < wanted => Finding::problem(
            check,
            detail,
            format!(
                "kubectl -n {namespace} describe {kind} {name}; kubectl -n {namespace} logs {kind}/{name}"
            ),
        ),
        () if version.trim_start_matches('v') != telemetry::VERSION => Finding::warning(
            check,
            format!("{detail}; this program is {}", telemetry::VERSION),
            "use the same version on both sides",
        ),
        () => Finding::ok(check, detail),
    }
}

async fn configuration(session: &Session, system: &System) -> Finding {
    let name = format!("configuration {}/{}", system.namespace, system.config);
    match system.settings(session).await {
        Ok(Some(Ok(config))) => match config.unread.as_slice() {
            [] => Finding::ok(name, format!("{} runtimes", config.runtimes.names().len())),
            unread => Finding::warning(
                name,
                system::sentences(unread),
                "correct or remove the key: it does nothing",
            ),
        },
        Ok(Some(Err(violations))) => Finding::problem(
            name,
            system::sentences(&violations),
            format!("kubectl -n {} edit configmap {}", system.namespace, system.config),
        ),
        Ok(None) => Finding::ok(name, "there is none: the built-in runtimes are in force"),
        Err(error) => {
            let fix = "ask for: get on configmaps in that namespace; only get-server-config and deploy's check of the runtime need it";
            Finding::warning(name, client::explain(&error), fix)
        }
    }
}

async fn permissions(session: &Session) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (group, resource, subresource, verbs, used_by) in NEEDED {
        let whole =
            if subresource.is_empty() { (*resource).to_owned() } else { format!("{resource}/{subresource}") };
        let name = format!("permission {whole}");
        let mut refused = Vec::new();
        for verb in *verbs {
            let permission = Permission { verb, group, resource, subresource, namespace: &session.namespace };
            // Whoever cannot ask will be told by the command that needs it.
            if !may(session, &permission).await.unwrap_or(true) {
                refused.push(*verb);
            }
        }
        findings.push(match refused.as_slice() {
            [] => Finding::ok(name, format!("{} in namespace {}", verbs.join(", "), session.namespace)),
            refused => Finding::warning(
                name,
                format!("not {} in namespace {}; {used_by} need it", refused.join(", "), session.namespace),
                format!(
                    "kubectl -n {} create role NAME --verb={} --resource={whole}{}, and a rolebinding to it",
                    session.namespace,
                    refused.join(","),
                    if group.is_empty() { String::new() } else { format!(".{group}") },
                ),
            ),
        });
    }
    findings
}

async fn metrics(session: &Session) -> Finding {
    let name = "metrics.k8s.io";
    match session.connection.client.list_api_group_resources("metrics.k8s.io/v1beta1").await {
        Ok(_) => Finding::ok(name, "CPU and memory of functions can be read"),
        Err(_) => Finding::warning(
            name,
            "not served: function top has no CPU and memory, and autoscaling by CPU does nothing",
            "install metrics-server (https://github.com/kubernetes-sigs/metrics-server)",
        ),
    }
}

/// The functions of the namespace that are not ready.
async fn functions(session: &Session) -> Option<Finding> {
    let found = session.quiet_list(&FUNCTIONS).await.ok()?;
    let ready = |function: &serde_json::Value| {
        find(&conditions(function), types::READY).is_some_and(|condition| condition.status == "True")
    };
    let not_ready: Vec<&str> = found
        .iter()
        .filter(|function| !ready(function))
        .filter_map(|function| function["metadata"]["name"].as_str())
        .collect();
    let name = format!("functions of namespace {}", session.namespace);
    if found.is_empty() {
        return Some(Finding::ok(name, "there are none"));
    }
    if not_ready.is_empty() {
        return Some(Finding::ok(name, format!("{} of {} are ready", found.len(), found.len())));
    }
    let named = not_ready[..not_ready.len().min(MAX_NAMED)].join(", ");
    let more = if not_ready.len() > MAX_NAMED { ", …" } else { "" };
    Some(Finding::warning(
        name,
        format!("{} of {} are not ready: {named}{more}", not_ready.len(), found.len()),
        format!("kubeless function describe {}", not_ready[0]),
    ))
}
