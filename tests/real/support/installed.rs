//! The product as its users install it: images from our Dockerfiles, `kubectl apply -k` as docs/install.md says, on a cluster of
//! its own with a Kafka that Pods reach. Must never change a manifest that users get.
//!
//! The controller serves every namespace, so that no other test may stand on this cluster. `KUBELESS_INSTALLED_CLUSTER=DIR` names
//! a cluster that is kept over many runs (`KUBELESS_CLUSTER=DIR scripts/cluster.sh up`).

use super::{
    cluster::{Cluster, test_image},
    kafka::{self, KafkaCluster},
    wait,
};
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What docs/install.md tells users to apply.
pub const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kustomize/base");
/// Where it goes.
pub const NAMESPACE: &str = "kubeless";
/// Its two Deployments.
pub const DEPLOYMENTS: [&str; 2] = ["deployment/kubeless-controller", "deployment/kubeless-dispatcher"];
/// Port of the admin pages.
const ADMIN: u16 = 9090;
/// Longest wait for what kubectl does.
const PATIENCE: Duration = Duration::from_secs(120);

/// Cluster and brokers. Both go away on drop.
pub struct Installation {
    pub cluster: Cluster,
    pub kafka: KafkaCluster,
}

impl Installation {
    /// Returns when both Deployments are available. Usually 30 s, with images that were built before.
    pub fn start() -> Self {
        let begun = Instant::now();
        let kept = std::env::var_os("KUBELESS_INSTALLED_CLUSTER");
        let cluster = kept.as_ref().map_or_else(Cluster::start, |dir| Cluster::attach(Path::new(dir)));
        let programs = Path::new(env!("CARGO_BIN_EXE_kubeless")).parent().expect("a file in a folder");
        cluster.load(&test_image(&["product", &programs.display().to_string()]));
        cluster.load(&test_image(&["python"]));
        cluster.kubectl(&["apply", "--server-side", "-k", BASE]);
        if kept.is_some() {
            // Pods of an earlier run hold earlier programs under the same name.
            cluster.kubectl(&[&["rollout", "restart", "-n", NAMESPACE], &DEPLOYMENTS[..]].concat());
        }
        let options = kafka::Options { address: cluster.machine(), ..kafka::Options::short_sessions() };
        let kafka = KafkaCluster::start(1, &options);
        for deployment in DEPLOYMENTS {
            cluster.rolled_out(NAMESPACE, deployment);
        }
        println!("installed and Ready after {:.1?}", begun.elapsed());
        Self { cluster, kafka }
    }

    /// For one that is never dropped: everything ends with this process.
    pub fn for_a_static(self) -> Self {
        Self { cluster: self.cluster, kafka: self.kafka.for_a_static() }
    }

    /// A namespace for functions that takes no Pod which is not *restricted*.
    pub fn strict_namespace(&self, prefix: &str) -> String {
        let namespace = self.cluster.namespace(prefix);
        let label = "pod-security.kubernetes.io/enforce=restricted";
        self.cluster.kubectl(&["label", "namespace", &namespace, label]);
        // Made by a controller; a listing that is compared later must hold both.
        for made in ["serviceaccount/default", "configmap/kube-root-ca.crt"] {
            let get = ["get", made, "-n", &namespace];
            wait::until(made, PATIENCE, || self.cluster.try_kubectl(&get, "").ok());
        }
        namespace
    }

    /// The admin pages of the dispatchers that run.
    pub fn dispatchers(&self) -> Vec<SocketAddr> {
        let list = self.cluster.get(NAMESPACE, "pods");
        let all = list["items"].as_array().into_iter().flatten();
        let ours = all.filter(|pod| {
            pod["metadata"]["labels"]["app.kubernetes.io/name"] == "kubeless-dispatcher"
                && pod["metadata"]["deletionTimestamp"].is_null()
        });
        let address =
            |pod: &Value| Some(SocketAddr::new(pod["status"]["podIP"].as_str()?.parse().ok()?, ADMIN));
        ours.filter_map(address).collect()
    }

    /// The journals of all dispatchers on the node, by Pod.
    pub fn journals(&self) -> Vec<(String, PathBuf)> {
        let pods = std::fs::read_dir(self.cluster.dir().join("kubelet/pods")).into_iter().flatten().flatten();
        let journal =
            |pod: &std::fs::DirEntry| pod.path().join("volumes/kubernetes.io~empty-dir/state/journal");
        pods.map(|pod| (pod.file_name().display().to_string(), journal(&pod)))
            .filter(|(_, journal)| journal.is_dir())
            .collect()
    }

    /// Takes it away as it came, and returns when everything is gone.
    pub fn remove(&self) {
        let limit = format!("--timeout={}s", PATIENCE.as_secs());
        self.cluster.kubectl(&["delete", "-k", BASE, "--wait", &limit]);
    }
}
