//! Kinds that a cluster may have or not: definitions without anybody who acts on them, so that the controller makes objects of them
//! under its own rights. Must never stay on a cluster that is kept.

use super::{LIMIT, Walk};
use crate::support::{cluster::Cluster, installed, wait};
use serde_json::{Value, json};

/// Group, version, plural and kind.
const OPTIONAL: [[&str; 4]; 3] = [
    ["gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute"],
    ["traefik.io", "v1alpha1", "middlewares", "Middleware"],
    ["monitoring.coreos.com", "v1", "servicemonitors", "ServiceMonitor"],
];

/// Before the controller looks for the first time.
pub fn define(cluster: &Cluster) {
    for [group, version, plural, kind] in OPTIONAL {
        let name = format!("{plural}.{group}");
        let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let versions =
            json!([{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": any}}]);
        let names = json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind});
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
            "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": versions}});
        cluster.apply("default", &definition.to_string());
        cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &format!("crd/{name}")]);
    }
}

pub fn undefine(cluster: &Cluster) {
    for [group, _, plural, _] in OPTIONAL {
        cluster.kubectl(&["delete", &format!("crd/{plural}.{group}"), "--timeout=120s"]);
    }
}

impl Walk<'_> {
    /// The trigger `web` moves from gateway to gateway, and nothing of the way that it had stays open.
    pub fn a_trigger_moves_between_gateways(&self) {
        let route = json!({"metadata": {"annotations": {"kubeless.io/gateway": "infra/outside"}},
            "spec": {"gateway": "gateway-api"}});
        self.patch("httptrigger/web", &route);
        self.becomes(&["httproute/web"], &["ingress/web"]);
        self.patch("httptrigger/web", &json!({"spec": {"gateway": "traefik", "cors-enable": true}}));
        self.becomes(&["ingress/web", "middleware/web-cors"], &["httproute/web"]);
        self.patch("httptrigger/web", &json!({"spec": {"gateway": "nginx", "cors-enable": null}}));
        self.becomes(&["ingress/web"], &["middleware/web-cors"]);
        // To the dispatcher and back: its way stands in the installation's namespace.
        let (routed, listed) =
            (format!("httproute/{}.web", self.cli.namespace), format!("ingress/{}.web", self.cli.namespace));
        let through = |gateway: &str, through: Value| {
            let spec = json!({"gateway": gateway, "delivery": {"through": through}});
            self.patch("httptrigger/web", &json!({ "spec": spec }));
        };
        through("gateway-api", json!("Dispatcher"));
        self.becomes(&[], &["ingress/web"]);
        self.becomes_in(installed::NAMESPACE, &[&routed], &[]);
        through("nginx", json!("Dispatcher"));
        self.becomes_in(installed::NAMESPACE, &[&listed], &[&routed]);
        through("nginx", Value::Null);
        self.becomes(&["ingress/web"], &[]);
        self.becomes_in(installed::NAMESPACE, &[], &[&listed]);
    }

    /// A CronJob goes when the dispatcher takes its trigger over, and comes back. In the end the dispatcher has it, and it goes with its
    /// function as it would otherwise.
    pub fn a_clock_changes_hands(&self) {
        for executor in ["Dispatcher", "CronJob", "Dispatcher"] {
            self.patch("cronjobtrigger/nightly", &json!({"spec": {"executor": executor}}));
            match executor {
                "CronJob" => self.becomes(&["cronjob/nightly"], &[]),
                _ => self.becomes(&[], &["cronjob/nightly"]),
            }
        }
    }

    fn patch(&self, what: &str, change: &Value) {
        let patch = ["patch", what, "-n", &self.cli.namespace, "--type=merge", "-p", &change.to_string()];
        self.cluster.kubectl(&patch);
    }

    pub fn becomes(&self, there: &[&str], gone: &[&str]) {
        self.becomes_in(&self.cli.namespace, there, gone);
    }

    fn becomes_in(&self, namespace: &str, there: &[&str], gone: &[&str]) {
        let get = |what: &str| self.cluster.try_kubectl(&["get", what, "-n", namespace], "");
        for what in there {
            wait::until(what, LIMIT, || get(what).ok());
        }
        for what in gone {
            let refused = wait::until(&format!("{what} to go"), LIMIT, || get(what).err());
            assert!(refused.contains("NotFound"), "{what}: {refused}");
        }
    }
}
