//! Every request that the controller makes of the API server, by resource and verb: what its role must grant and nothing
//! else. Must never list what is not used: a test compares it with the audit log of a server.

use super::args::Role;

/// Where a permission is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where functions live: one namespace, or the whole cluster.
    Functions,
    /// The installation's own namespace.
    Own,
    /// The cluster; only if namespace or ConfigMap are not given.
    Cluster,
}

/// One resource and what is done to it.
#[derive(Clone, Copy, Debug)]
pub struct Permission {
    /// Who does it; empty: all.
    pub roles: &'static [Role],
    /// Where.
    pub place: Place,
    /// API group; empty: core.
    pub group: &'static str,
    /// Plural, with subresource.
    pub resource: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// Why.
    pub why: &'static str,
}

const ALL: &[Role] = &[];
const FUNCTION: &[Role] = &[Role::Function];
const HTTP: &[Role] = &[Role::Http];
const CRON: &[Role] = &[Role::Cronjob];
const WATCH: &[&str] = &["list", "watch"];
const CHILD: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete"];
const OPTIONAL: &[&str] = &["get", "create", "update", "patch", "delete"];

macro_rules! permissions {
    ($($roles:ident $place:ident $group:literal $resource:literal $verbs:expr, $why:literal;)*) => {
        /// All of them.
        pub const USED: &[Permission] = &[$(Permission {
            roles: $roles, place: Place::$place, group: $group, resource: $resource, verbs: $verbs, why: $why,
        }),*];
    };
}

permissions! {
    ALL Own "" "configmaps" WATCH, "the configuration (may be restricted to its name)";
    ALL Own "coordination.k8s.io" "leases" &["get", "create", "update"], "one replica acts";
    ALL Own "events.k8s.io" "events" &["create", "patch"], "Events about the configuration";
    ALL Cluster "apiextensions.k8s.io" "customresourcedefinitions" &["get"], "where the configuration is (functions.kubeless.io only)";
    ALL Functions "events.k8s.io" "events" &["create", "patch"], "Events about functions and triggers";
    ALL Functions "kubeless.io" "functions" WATCH, "functions";
    FUNCTION Functions "kubeless.io" "functions" &["patch"], "Kubeless's finalizer is removed";
    FUNCTION Functions "kubeless.io" "functions/status" &["patch"], "conditions";
    FUNCTION Functions "kubeless.io" "functions/finalizers" &["update"], "owner references that block (OpenShift asks)";
    FUNCTION Functions "" "configmaps" CHILD, "code";
    FUNCTION Functions "" "services" CHILD, "where functions are called";
    FUNCTION Functions "apps" "deployments" CHILD, "Pods";
    FUNCTION Functions "apps" "replicasets" &["list"], "which code is still mounted";
    FUNCTION Functions "autoscaling" "horizontalpodautoscalers" CHILD, "autoscalers";
    FUNCTION Functions "monitoring.coreos.com" "servicemonitors" OPTIONAL, "scaling by calls";
    HTTP Functions "kubeless.io" "httptriggers" &["list", "watch", "patch"], "HTTP triggers, tied to their functions";
    HTTP Functions "kubeless.io" "httptriggers/status" &["patch"], "conditions";
    HTTP Functions "kubeless.io" "httptriggers/finalizers" &["update"], "owner references that block (OpenShift asks)";
    HTTP Functions "networking.k8s.io" "ingresses" CHILD, "ways from outside";
    HTTP Functions "gateway.networking.k8s.io" "httproutes" OPTIONAL, "ways from outside, Gateway API";
    HTTP Functions "traefik.io" "middlewares" OPTIONAL, "authentication and CORS of traefik";
    CRON Functions "kubeless.io" "cronjobtriggers" &["list", "watch", "patch"], "cron triggers, tied to their functions";
    CRON Functions "kubeless.io" "cronjobtriggers/status" &["patch"], "conditions";
    CRON Functions "kubeless.io" "cronjobtriggers/finalizers" &["update"], "owner references that block (OpenShift asks)";
    CRON Functions "batch" "cronjobs" CHILD, "calls by the clock";
}

/// The table as a page of the documentation.
pub fn page() -> String {
    let mut page = String::from(
        "# Permissions of the controller\n\nGenerated from `src/controller/permissions.rs`; `UPDATE=1 cargo test --test it` \
         rewrites it. Functions: where functions live, one namespace or the cluster. Own: the installation's namespace. \
         Cluster: only if `--namespace` or `--config-map` is not given. Nothing else is ever asked for, no secrets, no pods.\n\n\
         | controller | where | group | resource | verbs | why |\n|---|---|---|---|---|---|\n",
    );
    for used in USED {
        let roles = used.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ");
        page.push_str(&format!(
            "| {} | {:?} | {} | {} | {} | {} |\n",
            if roles.is_empty() { "all" } else { &roles },
            used.place,
            if used.group.is_empty() { "core" } else { used.group },
            used.resource,
            used.verbs.join(", "),
            used.why
        ));
    }
    page
}
