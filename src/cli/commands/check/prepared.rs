//! Whether a cluster can take an installation: version, permissions, what is there already. Must never change anything.

use super::{
    Finding,
    permissions::{Permission, may},
};
use crate::{
    cli::{
        session::{Session, explain},
        system::System,
    },
    cluster::client,
};

/// Oldest minor version of Kubernetes 1 whose API server evaluates the rules of our definitions (CEL, stable in 1.29).
const OLDEST_MINOR: u32 = 29;

/// What an installation creates, by API group.
const CREATED: &[(&str, &str)] = &[
    ("", "namespaces"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("", "serviceaccounts"),
    ("", "configmaps"),
    ("", "services"),
    ("apps", "deployments"),
];

/// Whether the API server answers, and is new enough.
pub async fn server(session: &Session) -> Vec<Finding> {
    let name = "API server";
    let info = match session.connection.client.apiserver_version().await {
        Ok(info) => info,
        Err(error) => {
            let text = match &error {
                kube::Error::Api(_) => client::explain(&error),
                other => format!("{:#}", explain::unreachable(&session.connection.server, other)),
            };
            let fix =
                "kubectl cluster-info shows whether it answers there; --context NAME chooses another cluster";
            return vec![Finding::problem(name, text, fix)];
        }
    };
    // Some providers write `28+`.
    let minor = info.minor.trim_end_matches('+').parse::<u32>().unwrap_or(OLDEST_MINOR);
    let detail = format!("{} Kubernetes {}", session.connection.server, info.git_version);
    if info.major == "1" && minor < OLDEST_MINOR {
        let fix = format!(
            "upgrade the cluster: Kubernetes 1.{OLDEST_MINOR} is the oldest that checks our resources"
        );
        return vec![Finding::problem(name, detail, fix)];
    }
    vec![Finding::ok(name, detail)]
}

/// Everything else.
pub async fn check(session: &Session) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut refused = Vec::new();
    for (group, resource) in CREATED {
        match may(session, &Permission { verb: "create", group, resource, subresource: "", namespace: "" })
            .await
        {
            Ok(true) => {}
            Ok(false) => refused.push(*resource),
            Err(error) => {
                let fix = "an administrator can say: kubectl auth can-i --list";
                findings.push(Finding::warning("permissions", client::explain(&error), fix));
                return findings;
            }
        }
    }
    findings.push(match refused.as_slice() {
        [] => Finding::ok("permissions", "all that an installation creates may be created"),
        refused => Finding::problem(
            "permissions",
            format!("may not create {}", refused.join(", ")),
            "let an administrator install, or ask for the role cluster-admin for the time of the installation",
        ),
    });
    let system = System::find(session).await;
    findings.push(existing(session, &system).await);
    findings
}

/// An installation that is there is upgraded; one of Kubeless itself has to give way first, or two controllers fight.
async fn existing(session: &Session, system: &System) -> Finding {
    let name = "installation";
    let programs = match system.programs(session).await {
        Ok(programs) => programs,
        Err(error) => {
            return Finding::warning(
                name,
                client::explain(&error),
                "ask for: list on deployments.apps and daemonsets.apps",
            );
        }
    };
    let old: Vec<&str> =
        programs.iter().filter(|found| found.is_old).map(|found| found.name.as_str()).collect();
    match (programs.as_slice(), old.as_slice()) {
        ([], _) => {
            Finding::ok(name, format!("none in namespace {}: this will be a new one", system.namespace))
        }
        (_, []) => {
            let version = programs.iter().find_map(|found| found.version.clone());
            let version = version.unwrap_or_else(|| "unknown".to_owned());
            Finding::ok(
                name,
                format!("version {version} in namespace {}: this will be an upgrade", system.namespace),
            )
        }
        (_, old) => Finding::warning(
            name,
            format!("Kubeless runs in namespace {}: {}", system.namespace, old.join(", ")),
            format!(
                "stop it before the new controller starts, functions go on meanwhile:\n\
                 kubectl -n {} scale deployment {} --replicas 0",
                system.namespace,
                old.join(" ")
            ),
        ),
    }
}
