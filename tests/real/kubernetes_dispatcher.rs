//! The dispatcher with its objects from a real API server, its events from a real Kafka, and a function that stands
//! behind EndpointSlices: what is served, what an outage costs (nothing), when claiming stops.

use super::support::{
    apiserver::{self, ApiServer, Part},
    kafka,
    kafka_client::Record,
    kubectl::Access,
    metrics,
    oracle::{self, Invoked, Produced, Report},
    ports,
    process::{Dispatcher, Launch},
    wait,
    witness::Witness,
};
use kubeless::{cluster::access, sources::TRIGGERS};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(60);

/// One trigger and one function in a namespace of their own.
struct Shop {
    namespace: String,
    topic: String,
    produced: Vec<Produced>,
    dir: tempfile::TempDir,
}

impl Shop {
    fn new(api: &Access, witnesses: &[&Witness]) -> Self {
        api.install_crds();
        let namespace = api.namespace("shop");
        let topic = format!("cluster-{namespace}");
        kafka::shared().client().create_topic(&topic, 1, 1);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let shop = Self { namespace, topic, produced: Vec::new(), dir };
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

    fn apply(&self, api: &Access, object: &Value) {
        api.apply(&self.namespace, &object.to_string());
    }

    /// Says how one pod of the function is.
    fn endpoint(&self, api: &Access, witness: &Witness, conditions: &Value) {
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
    fn trigger(&self, api: &Access, lines: &str) {
        let bootstrap = kafka::shared().bootstrap();
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

    fn launch(&self, kubeconfig: &Path) -> Launch {
        let state = self.dir.path().join("state");
        let mut launch = Launch::dispatcher(self.dir.path(), "dispatcher")
            .arg("--kubeconfig")
            .arg(kubeconfig.display().to_string())
            .arg("--state-dir")
            .arg(state.display().to_string())
            .arg("--admin-listen=127.0.0.1:0")
            .arg("--log-format=json");
        for set in [
            format!("kubernetes.functions_namespaces={}", self.namespace),
            "sources.kafka.session_timeout=6s".to_owned(),
            "sources.kafka.heartbeat_interval=1s".to_owned(),
        ] {
            launch = launch.arg("--set").arg(set);
        }
        launch
    }

    fn start(&self, kubeconfig: &Path) -> Dispatcher {
        let mut dispatcher = self.launch(kubeconfig).start();
        dispatcher.wait_ready(LIMIT);
        dispatcher
    }

    fn produce(&mut self, count: usize) {
        let first = self.produced.len();
        let records = (first..first + count)
            .map(|n| Record::new(format!("{{\"n\":{n}}}")).key(format!("k{}", n % 20)).partition(0));
        assert_eq!(kafka::shared().client().produce_many(&self.topic, records), count);
        let produced = (first..first + count)
            .map(|n| Produced { at: (self.topic.clone(), 0, n as i64), business: None });
        self.produced.extend(produced);
    }

    fn committed(&self) -> i64 {
        let group = format!("{}_trigger_witness_{}", self.namespace, self.topic);
        kafka::shared().client().committed(&group, &self.topic)[0].offset.unwrap_or(0)
    }

    /// Waits until every event has its outcome, and judges.
    #[track_caller]
    fn settle(&self, witnesses: &[&Witness]) -> Report {
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

fn subscription(admin: SocketAddr) -> Option<Value> {
    let (_, page) = metrics::get(admin, "/debug/subscriptions").expect("the page answers");
    let list: Vec<Value> = serde_json::from_str(&page).expect("a list");
    list.into_iter().next()
}

#[test]
fn a_function_without_ready_pods_and_a_rollout_cost_no_event() {
    let api = apiserver::shared();
    let (old, new) = (Witness::start_on(ports::own_address()), Witness::start_on(ports::own_address()));
    let mut shop = Shop::new(api, &[&old]);
    let mut dispatcher = shop.start(&api.kubeconfig());
    shop.produce(200);
    shop.settle(&[&old, &new]).assert_clean();
    // No pod is ready: nothing is claimed.
    shop.endpoint(api, &old, &json!({"ready": false}));
    let admin = dispatcher.admin();
    wait::until("it claims nothing", LIMIT, || (subscription(admin)?["claiming"] == false).then_some(()));
    shop.produce(100);
    assert_eq!(shop.committed(), 200);
    // A rollout under load: the new pod is ready, the old one leaves and then is gone.
    shop.endpoint(api, &old, &json!({"ready": true}));
    shop.endpoint(api, &new, &json!({"ready": true}));
    for _ in 0..10 {
        shop.produce(50);
    }
    shop.endpoint(api, &old, &json!({"ready": false, "serving": true, "terminating": true}));
    let before = new.len();
    shop.produce(300);
    new.wait_for(before + 100, LIMIT);
    old.refuse();
    shop.produce(300);
    let report = shop.settle(&[&old, &new]);
    report.assert_clean();
    assert_eq!(report.outcome("delivered"), shop.produced.len(), "{report:?}");
    // Deleted: nothing is claimed any more.
    let begun = Instant::now();
    api.kubectl(&["delete", "-n", &shop.namespace, "kafkatriggers.kubeless.io/trigger"]);
    wait::until("the subscription is gone", LIMIT, || subscription(admin).is_none().then_some(()));
    println!("a deleted trigger was let go after {:.2?} (kubectl included)", begun.elapsed());
}

#[test]
fn events_go_on_while_the_api_server_is_down() {
    let mut api = ApiServer::start();
    let witness = Witness::start_on(ports::own_address());
    let mut shop = Shop::new(&api, &[&witness]);
    let mut dispatcher = shop.start(&api.kubeconfig());
    shop.produce(100);
    shop.settle(&[&witness]).assert_clean();
    let admin = dispatcher.admin();
    for part in [Part::Etcd, Part::ApiServer] {
        api.kill9(part);
    }
    let watch = |name: &str| metrics::scrape(admin).get(name, &[("kind", "KafkaTrigger")]);
    wait::until("the outage is seen", LIMIT, || (watch("kubeless_watch_up") == Some(0.0)).then_some(()));
    let heard = watch("kubeless_watch_last_heard_timestamp_seconds").expect("a watch was heard");
    shop.produce(500);
    shop.settle(&[&witness]).assert_clean();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    assert!(now.as_secs_f64() > heard, "the age of the cache is told");
    assert_eq!(metrics::get(admin, "/readyz").expect("it answers").0, 200, "and it stays ready");
    api.start_again(Part::Etcd);
    api.start_again(Part::ApiServer);
    shop.trigger(&api, "  paused: true");
    wait::until("an edit arrives again", LIMIT, || (subscription(admin)?["claiming"] == false).then_some(()));
    shop.trigger(&api, "  paused: false");
    shop.produce(50);
    shop.settle(&[&witness]).assert_clean();
}

#[test]
fn revoked_rights_stop_claiming_and_granted_ones_let_it_go_on() {
    let api = apiserver::shared();
    let witness = Witness::start_on(ports::own_address());
    let mut shop = Shop::new(api, &[&witness]);
    let namespace = shop.namespace.clone();
    api.kubectl(&["create", "serviceaccount", "dispatcher", "-n", &namespace]);
    let grant = |on: bool| {
        let account = format!("--serviceaccount={namespace}:dispatcher");
        if on {
            api.kubectl(&[
                "create",
                "rolebinding",
                "dispatcher",
                "--role=dispatcher",
                &account,
                "-n",
                &namespace,
            ]);
        } else {
            api.kubectl(&["delete", "rolebinding", "dispatcher", "-n", &namespace]);
        }
    };
    let rules = access::dispatcher(TRIGGERS);
    let written = rules
        .iter()
        .map(|rule| json!({"apiGroups": [rule.group], "resources": rule.resources, "verbs": rule.verbs}));
    let written: Vec<Value> = written.collect();
    shop.apply(
        api,
        &json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "dispatcher"},
            "rules": written,
        }),
    );
    grant(true);
    let config = api.service_account(&namespace, "dispatcher");
    let mut launch = shop.launch(&config);
    for set in ["kubernetes.watch_silence=2s", "kubernetes.refused_budget=1s"] {
        launch = launch.arg("--set").arg(set);
    }
    let mut dispatcher = launch.start();
    dispatcher.wait_ready(LIMIT);
    shop.produce(50);
    shop.settle(&[&witness]).assert_clean();
    grant(false);
    let admin = dispatcher.admin();
    let held = wait::until("claiming stops", LIMIT, || {
        subscription(admin).filter(|page| page["claiming"] == false && page["held"].is_string())
    });
    assert!(held["held"].as_str().is_some_and(|why| why.contains("refused")), "{held}");
    shop.produce(20);
    assert_eq!(shop.committed(), 50);
    assert_eq!(metrics::get(admin, "/readyz").expect("it answers").0, 200);
    grant(true);
    shop.settle(&[&witness]).assert_clean();
    // What the list grants and nothing else was asked for.
    let granted: BTreeSet<String> = rules
        .iter()
        .flat_map(|rule| rule.resources.iter().map(move |resource| format!("{}/{resource}", rule.group)))
        .collect();
    let used = api.used_by(&format!("system:serviceaccount:{namespace}:dispatcher"));
    let used: BTreeSet<String> =
        used.iter().map(|line| line.split_once(' ').expect("verb and resource").1.to_owned()).collect();
    assert_eq!(used, granted);
}
