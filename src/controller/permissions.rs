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

/// Rights that a user's whole way on a cluster does not show in the API server's audit log.
#[derive(Clone, Copy, Debug)]
pub struct Reserved {
    /// Service account.
    pub account: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// `group/resource`, the core group being empty; `*` is every resource that the verb is granted for.
    pub resources: &'static [&'static str],
    /// Why they are granted all the same.
    pub why: &'static str,
}

const CONTROLLER: &str = "kubeless-controller";
/// What the controller makes with what every cluster has.
const MADE: &[&str] = &[
    "/configmaps",
    "/services",
    "apps/deployments",
    "autoscaling/horizontalpodautoscalers",
    "batch/cronjobs",
    "networking.k8s.io/ingresses",
];

const fn controller(
    verbs: &'static [&'static str],
    resources: &'static [&'static str],
    why: &'static str,
) -> Reserved {
    Reserved { account: CONTROLLER, verbs, resources, why }
}

/// All of them, of both programs: a test holds them against what was granted and never asked for.
pub const RESERVED: &[Reserved] = &[
    controller(&["create"], MADE, "a new object is applied: the log says `patch`, the server asks for both"),
    controller(&["update"], MADE, "an object that Kubeless made is taken over: replaced, then applied"),
    controller(
        &["delete"],
        &["/services", "apps/deployments", "batch/cronjobs", "networking.k8s.io/ingresses"],
        "it belongs to an earlier object of the same name, or its trigger asks for something else now; the rest Kubernetes collects",
    ),
    controller(
        OPTIONAL,
        &["gateway.networking.k8s.io/httproutes"],
        "triggers with `gateway: gateway-api`, where the Gateway API is installed",
    ),
    controller(
        OPTIONAL,
        &["traefik.io/middlewares"],
        "triggers with `gateway: traefik`, where traefik is installed",
    ),
    controller(
        OPTIONAL,
        &["monitoring.coreos.com/servicemonitors"],
        "functions scaled by calls, where the operator of Prometheus is installed",
    ),
    controller(
        &["update"],
        &[
            "kubeless.io/functions/finalizers",
            "kubeless.io/httptriggers/finalizers",
            "kubeless.io/cronjobtriggers/finalizers",
        ],
        "asked for by OpenShift's admission at owner references, and by no request",
    ),
    Reserved {
        account: "kubeless-dispatcher",
        verbs: &["list"],
        resources: &["*"],
        why: "the first list of a watch, from API servers that do not stream it",
    },
    Reserved {
        account: "kubeless-dispatcher",
        verbs: &["get"],
        resources: &["kubeless.io/cronjobtriggers/status"],
        why: "triggers with `executor: Dispatcher`: the last instant that was claimed",
    },
    Reserved {
        account: "kubeless-dispatcher",
        verbs: &["delete"],
        resources: &["coordination.k8s.io/leases"],
        why: "registers of sources that have none of their own: what is no more, and a replica that leaves",
    },
];

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
    page.push_str(
        "\n## Granted and seldom used\n\nWhat the walk of `tests/real/cluster_walk` (install, deploy, trigger, edit, delete; Kubernetes 1.34) \
         does not ask for in so many words. Everything else that is granted was seen in the API server's audit log, and nothing was \
         refused.\n\n| account | verbs | resources | why |\n|---|---|---|---|\n",
    );
    for reserved in RESERVED {
        let resources: Vec<&str> =
            reserved.resources.iter().map(|name| name.trim_start_matches('/')).collect();
        page.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            reserved.account,
            reserved.verbs.join(", "),
            resources.join(", ").replace('*', "all that are granted"),
            reserved.why
        ));
    }
    page
}
