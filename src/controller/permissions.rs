//! Every request that the controller makes of the API server, by resource and verb: what its role must grant and nothing
//! else. Must never list what is not used: a test compares it with the audit log of a server.

use std::borrow::Cow;

use super::{args::Role, release};
use crate::api::kind::TriggerKind;

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
#[derive(Clone, Debug)]
pub struct Permission {
    /// Who does it; empty: all.
    pub roles: &'static [Role],
    /// Where.
    pub place: Place,
    /// API group; empty: core.
    pub group: &'static str,
    /// Plural, with subresource.
    pub resource: Cow<'static, str>,
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
/// What stays as long as its owner does, and goes by its owner reference.
const LASTING: &[&str] = &["get", "list", "watch", "create", "patch"];
const CHILD: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
/// What stands in another namespace than its owner: nothing but us takes it away.
const ELSEWHERE: &[&str] = &["get", "list", "create", "patch", "delete"];
const OPTIONAL: &[&str] = &["get", "create", "patch", "delete"];

macro_rules! permissions {
    ($($roles:ident $place:ident $group:literal $resource:literal $verbs:expr, $why:literal;)*) => {
        const USED: &[Permission] = &[$(Permission {
            roles: $roles, place: Place::$place, group: $group, resource: Cow::Borrowed($resource), verbs: $verbs, why: $why,
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
    FUNCTION Functions "" "configmaps" CHILD, "code";
    FUNCTION Functions "" "services" LASTING, "where functions are called";
    FUNCTION Functions "apps" "deployments" LASTING, "Pods";
    FUNCTION Functions "apps" "replicasets" &["list"], "which code is still mounted";
    FUNCTION Functions "autoscaling" "horizontalpodautoscalers" CHILD, "autoscalers";
    FUNCTION Functions "monitoring.coreos.com" "servicemonitors" OPTIONAL, "scaling by calls";
    HTTP Functions "kubeless.io" "httptriggers" &["list", "watch", "patch"], "HTTP triggers, tied to their functions";
    HTTP Functions "kubeless.io" "httptriggers/status" &["patch"], "conditions";
    HTTP Functions "networking.k8s.io" "ingresses" CHILD, "ways from outside";
    HTTP Functions "gateway.networking.k8s.io" "httproutes" OPTIONAL, "ways from outside, Gateway API";
    HTTP Functions "traefik.io" "middlewares" OPTIONAL, "authentication and CORS of traefik";
    HTTP Own "networking.k8s.io" "ingresses" ELSEWHERE, "ways to the dispatcher";
    HTTP Own "gateway.networking.k8s.io" "httproutes" ELSEWHERE, "ways to the dispatcher, Gateway API";
    CRON Functions "kubeless.io" "cronjobtriggers" &["list", "watch", "patch"], "cron triggers, tied to their functions";
    CRON Functions "kubeless.io" "cronjobtriggers/status" &["patch"], "conditions";
    CRON Functions "batch" "cronjobs" CHILD, "calls by the clock";
}

/// All of them, `triggers` being every kind that the product knows.
pub fn used(triggers: &[TriggerKind]) -> Vec<Permission> {
    let released = release::unwatched(triggers).map(|kind| Permission {
        roles: FUNCTION,
        place: Place::Functions,
        group: crate::api::GROUP,
        resource: Cow::Owned(release::resource(kind).plural),
        verbs: &["list", "watch", "patch"],
        why: "Kubeless's finalizer is removed",
    });
    USED.iter().cloned().chain(released).collect()
}

/// What a platform asks for beside: one that guards owner references (admission plugin `OwnerReferencesPermissionEnforcement`,
/// always on in OpenShift) lets only those set them on an object who may delete it, and only those let them block a deletion who may
/// update the owner's finalizers. No request of ours says so.
pub const GUARDED_OWNERS: &[Permission] = &[
    guarded(
        FUNCTION,
        crate::api::GROUP,
        "functions/finalizers",
        &["update"],
        "objects of a function block its deletion",
    ),
    guarded(
        HTTP,
        crate::api::GROUP,
        "httptriggers/finalizers",
        &["update"],
        "objects of a trigger block its deletion",
    ),
    guarded(
        CRON,
        crate::api::GROUP,
        "cronjobtriggers/finalizers",
        &["update"],
        "objects of a trigger block its deletion",
    ),
    guarded(FUNCTION, "", "services", &["delete"], "Kubeless's are taken over"),
    guarded(FUNCTION, "apps", "deployments", &["delete"], "Kubeless's are taken over"),
    guarded(HTTP, crate::api::GROUP, "httptriggers", &["delete"], "they are tied to their functions"),
    guarded(CRON, crate::api::GROUP, "cronjobtriggers", &["delete"], "they are tied to their functions"),
];

const fn guarded(
    roles: &'static [Role],
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    why: &'static str,
) -> Permission {
    Permission { roles, place: Place::Functions, group, resource: Cow::Borrowed(resource), verbs, why }
}

/// The table as a page of the documentation.
pub fn page(triggers: &[TriggerKind]) -> String {
    let mut page = String::from(
        "# Permissions of the controller\n\nGenerated from `src/controller/permissions.rs`; `UPDATE=1 cargo test --test it` \
         rewrites it. Functions: where functions live, one namespace or the cluster. Own: the installation's namespace. \
         Cluster: only if `--namespace` or `--config-map` is not given. Nothing else is ever asked for, no secrets, no pods.\n\n",
    );
    table(&mut page, &used(triggers));
    page.push_str(
        "\nEach right that `deploy/kustomize/base` grants, to the controller and to the dispatcher, was seen in the API server's audit \
         log on the walk of `tests/real/cluster_walk` (install, take over, deploy, triggers of every kind, edit, delete), and nothing \
         was refused: what is granted and not used is nothing.\n\n\
         ## Where owner references are guarded\n\nOpenShift, and any API server with the admission plugin \
         `OwnerReferencesPermissionEnforcement`, lets only those set an owner reference who may delete the object, and only \
         those let it block a deletion who may update the owner's finalizers. No request of ours asks for these rights, so that \
         only `overlays/openshift` grants them.\n\n",
    );
    table(&mut page, GUARDED_OWNERS);
    page
}

fn table(page: &mut String, permissions: &[Permission]) {
    page.push_str("| controller | where | group | resource | verbs | why |\n|---|---|---|---|---|---|\n");
    for used in permissions {
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
}
