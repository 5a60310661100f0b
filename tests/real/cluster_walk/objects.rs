//! What a namespace holds, over all kinds that the server knows: what was there before and after is compared. Must never leave a
//! kind out but Events, which are told about what is gone.

use super::super::support::{cluster::Cluster, installed};
use std::collections::BTreeSet;

/// Every object of a namespace, as `kind.group/name`.
pub fn of(cluster: &Cluster, namespace: &str) -> BTreeSet<String> {
    let kinds = cluster.kubectl(&["api-resources", "--namespaced=true", "--verbs=list", "-o", "name"]);
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let found = cluster.kubectl(&["get", &kinds.join(","), "-n", namespace, "-o", "name"]);
    found.lines().map(str::to_owned).collect()
}

/// What an installation leaves behind, anywhere.
pub fn of_the_installation(cluster: &Cluster) -> Vec<String> {
    let mut left = Vec::new();
    let own = ["get", "namespace", installed::NAMESPACE, "--ignore-not-found", "-o", "name"];
    left.extend(cluster.kubectl(&own).lines().map(str::to_owned));
    let kinds = "customresourcedefinitions,clusterroles,clusterrolebindings";
    for line in cluster.kubectl(&["get", kinds, "-o", "name"]).lines() {
        if line.contains("kubeless") {
            left.push(line.to_owned());
        }
    }
    let made = ["get", "deployments,services,configmaps", "-A", "-l", "created-by=kubeless", "-o", "name"];
    left.extend(cluster.kubectl(&made).lines().map(str::to_owned));
    left
}
