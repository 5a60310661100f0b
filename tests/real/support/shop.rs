//! One trigger and one function in a namespace of a real API server, served by dispatchers, judged by the oracle. Must
//! never know how the product works inside.

use super::{
    kafka::KafkaCluster,
    kafka_client::Record,
    kubectl::Access,
    metrics,
    oracle::{self, Invoked, Produced, Report},
    process::{Dispatcher, Launch},
    wait,
    witness::Witness,
};
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path, time::Duration};

/// Longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(60);

/// One trigger and one function in a namespace of their own.
pub struct Shop {
    kafka: &'static KafkaCluster,
    /// Where the trigger finds its brokers.
    pub servers: String,
    pub namespace: String,
    pub topic: String,
    pub produced: Vec<Produced>,
    pub dir: tempfile::TempDir,
}

impl Shop {
    pub fn new(api: &Access, kafka: &'static KafkaCluster, witnesses: &[&Witness]) -> Self {
        api.install_crds();
        let namespace = api.namespace("shop");
        let topic = format!("cluster-{namespace}");
        kafka.client().create_topic(&topic, 1, 1);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let shop = Self {
            kafka,
            servers: kafka.bootstrap().to_owned(),
            namespace,
            topic,
            produced: Vec::new(),
            dir,
        };
        shop.apply(
            api,
            &json!({
                "apiVersion": "kubeless.io/v1beta1", "kind": "Function",
                "metadata": {"name": "witness", "labels": {"app": "witness"}},
                "spec": {"runtime": "python3.11", "handler": "witness.handler", "timeout": "5"},
            }),
        );
        shop.apply(api, &json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "witness", "labels": {"created-by": "kubeless"}},
            "spec": {"ports": [{"name": "http-function-port", "port": 8080}]},
        }));
        for witness in witnesses {
            shop.endpoint(api, witness, &json!({"ready": true}));
        }
        shop.trigger(api, "  ");
        shop
    }

    pub fn apply(&self, api: &Access, object: &Value) {
        api.apply(&self.namespace, &object.to_string());
    }

    /// Says how one pod of the function is.
    pub fn endpoint(&self, api: &Access, witness: &Witness, conditions: &Value) {
        let address = witness.address();
        self.apply(
            api,
            &json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": format!("witness-{}", address.port()),
                    "labels": {"created-by": "kubeless", "kubernetes.io/service-name": "witness"}},
                "ports": [{"name": "http-function-port", "port": address.port(), "protocol": "TCP"}],
                "endpoints": [{"addresses": [address.ip().to_string()], "conditions": conditions}],
            }),
        );
    }

    /// Writes the trigger with further lines of its spec (indented by two spaces).
    pub fn trigger(&self, api: &Access, lines: &str) {
        let bootstrap = &self.servers;
        api.apply(
            &self.namespace,
            &format!(
                "apiVersion: kubeless.io/v1beta1\nkind: KafkaTrigger\nmetadata: {{name: trigger}}\nspec:\n  \
                 topic: {}\n  bootstrapServers: \"{bootstrap}\"\n  startingPosition: earliest\n  \
                 functionSelector: {{matchLabels: {{app: witness}}}}\n{lines}\n",
                self.topic
            ),
        );
    }

    pub fn launch(&self, kubeconfig: &Path) -> Launch {
        self.launch_as(kubeconfig, "dispatcher", "state", 0)
    }

    /// One of several.
    pub fn launch_as(&self, kubeconfig: &Path, name: &str, state: &str, port: u16) -> Launch {
        let state = self.dir.path().join(state);
        let mut launch = Launch::dispatcher(self.dir.path(), name)
            .arg("--kubeconfig")
            .arg(kubeconfig.display().to_string())
            .arg("--state-dir")
            .arg(state.display().to_string())
            .arg(format!("--admin-listen=127.0.0.1:{port}"))
            .arg("--log-format=json");
        for set in [
            format!("kubernetes.functions_namespaces={}", self.namespace),
            // Other tests have dispatchers of their own on the same API server.
            format!("status.lease={}", self.namespace),
            "sources.kafka.session_timeout=6s".to_owned(),
            "sources.kafka.heartbeat_interval=1s".to_owned(),
        ] {
            launch = launch.arg("--set").arg(set);
        }
        launch
    }

    pub fn start(&self, kubeconfig: &Path) -> Dispatcher {
        let mut dispatcher = self.launch(kubeconfig).start();
        dispatcher.wait_ready(LIMIT);
        dispatcher
    }

    pub fn produce(&mut self, count: usize) {
        let first = self.produced.len();
        let records = (first..first + count)
            .map(|n| Record::new(format!("{{\"n\":{n}}}")).key(format!("k{}", n % 20)).partition(0));
        assert_eq!(self.kafka.client().produce_many(&self.topic, records), count);
        let produced = (first..first + count)
            .map(|n| Produced { at: (self.topic.clone(), 0, n as i64), business: None });
        self.produced.extend(produced);
    }

    pub fn committed(&self) -> i64 {
        let group = format!("{}_trigger_witness_{}", self.namespace, self.topic);
        self.kafka.client().committed(&group, &self.topic)[0].offset.unwrap_or(0)
    }

    /// Waits until every event has its outcome, and judges.
    #[track_caller]
    pub fn settle(&self, witnesses: &[&Witness]) -> Report {
        let judge = || {
            let journal = self.dir.path().join("state/journal");
            let lines = if journal.is_dir() {
                oracle::read_journal(&journal, "trigger", "witness")
            } else {
                Vec::new()
            };
            let seen = witnesses.iter().flat_map(|witness| witness.seen());
            let invoked: Vec<Invoked> = seen.map(|seen| Invoked::from(&seen)).collect();
            oracle::judge(&self.produced, &invoked, &lines)
        };
        let settled = wait::try_until(LIMIT, || {
            let report = judge();
            (report.outcomes.values().sum::<usize>() >= self.produced.len()).then_some(report)
        });
        settled.unwrap_or_else(|| panic!("not settled: produced {} {:?}", self.produced.len(), judge()))
    }
}

pub fn subscription(admin: SocketAddr) -> Option<Value> {
    let (_, page) = metrics::get(admin, "/debug/subscriptions").expect("the page answers");
    let list: Vec<Value> = serde_json::from_str(&page).expect("a list");
    list.into_iter().find(|one| one["trigger"].as_str().is_some_and(|name| name.ends_with("/trigger")))
}
