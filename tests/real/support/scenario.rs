//! One topic, one function, one trigger and as many dispatchers as a test wants, judged at the end by the oracle.
//! Must never know how the product works inside: it sees records, calls, journals and metrics.

use super::{
    kafka::KafkaCluster,
    kafka_client::Record,
    manifests::Manifests,
    metrics,
    oracle::{self, Invoked, Produced, Report},
    process::{Dispatcher, Launch},
    wait,
    witness::Witness,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// See the module. The function is called `witness`, the trigger `trigger`.
pub struct Scenario {
    pub dir: tempfile::TempDir,
    pub manifests: Manifests,
    pub witness: Witness,
    pub topic: String,
    pub bootstrap: String,
    pub partitions: i32,
    pub produced: Vec<Produced>,
    next_offset: Vec<i64>,
}

/// What a produced record should be.
pub struct Plan {
    /// Records.
    pub count: usize,
    /// Every n-th record repeats the business id (header `id`) of an earlier one of its partition; 0: none.
    pub repeat_every: usize,
    /// Different keys.
    pub keys: usize,
    /// How many records of the partition back the repeated one stands.
    pub back: usize,
}

impl Scenario {
    /// Makes topic, witness and manifests; `trigger` holds further lines of its spec (indented by two spaces).
    pub fn new(cluster: &KafkaCluster, partitions: i32, replication: i32, trigger: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temp folder");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let topic = format!("events-{}-{number}", std::process::id());
        cluster.client().create_topic(&topic, partitions, replication);
        let witness = Witness::start();
        let manifests = Manifests::new(dir.path());
        manifests.function("witness", &[("app", "witness")], &[witness.address()]);
        let bootstrap = cluster.bootstrap().to_owned();
        let spec = format!("  bootstrapServers: \"{bootstrap}\"\n  startingPosition: earliest\n{trigger}");
        manifests.kafka_trigger("trigger", &topic, ("app", "witness"), &spec);
        let next_offset = vec![0; usize::try_from(partitions).expect("a positive number")];
        Self { dir, manifests, witness, topic, bootstrap, partitions, produced: Vec::new(), next_offset }
    }

    /// The consumer group of the subscription, as Kubeless named it.
    pub fn group(&self) -> String {
        format!("default_trigger_witness_{}", self.topic)
    }

    /// Produces by `plan` (header `id` is the business id) and remembers what was produced.
    pub fn produce(&mut self, cluster: &KafkaCluster, plan: &Plan) {
        let mut records = Vec::with_capacity(plan.count);
        let mut ids: Vec<Vec<String>> = vec![Vec::new(); self.next_offset.len()];
        let base = self.produced.len();
        for n in 0..plan.count {
            let partition = n % self.next_offset.len();
            let known = &mut ids[partition];
            let repeat = plan.repeat_every > 0 && n % plan.repeat_every == plan.repeat_every - 1;
            let id = match known.iter().nth_back(plan.back.max(1) - 1) {
                Some(last) if repeat => last.clone(),
                _ => format!("event-{}", base + n),
            };
            known.push(id.clone());
            let at = (self.topic.clone(), partition as i32, self.next_offset[partition]);
            self.next_offset[partition] += 1;
            self.produced.push(Produced { at, business: Some(id.clone()) });
            let key = format!("key-{}", n % plan.keys.max(1));
            let body = format!("{{\"n\":{n},\"id\":\"{id}\",\"pad\":\"{}\"}}", "x".repeat(180));
            records.push(Record::new(body).key(key).header("id", id).partition(partition as i32));
        }
        assert_eq!(cluster.client().produce_many(&self.topic, records), plan.count);
    }

    /// State folder of a dispatcher.
    pub fn state(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("state-{name}"))
    }

    /// How to start a dispatcher called `name`.
    pub fn launch(&self, name: &str) -> Launch {
        Launch::dispatcher(self.dir.path(), name)
            .arg("--manifests")
            .arg(self.manifests.dir().display().to_string())
            .arg("--state-dir")
            .arg(self.state(name).display().to_string())
            .arg("--admin-listen")
            .arg("127.0.0.1:0")
            .arg("--log-format")
            .arg("json")
            .arg("--set")
            .arg("sources.kafka.session_timeout=3s")
            .arg("--set")
            .arg("sources.kafka.heartbeat_interval=500ms")
    }

    /// Starts a dispatcher and waits until it is ready.
    pub fn start(&self, name: &str) -> Dispatcher {
        let mut dispatcher = self.launch(name).start();
        dispatcher.wait_ready(Duration::from_secs(20));
        dispatcher
    }

    /// What the oracle says now.
    pub fn judge(&self) -> Report {
        // Journals first: whatever they say has happened must be with the witness by then.
        let mut journals = Vec::new();
        for entry in std::fs::read_dir(self.dir.path()).expect("the test's folder").flatten() {
            let journal = entry.path().join("journal");
            if journal.is_dir() {
                journals.extend(oracle::read_journal(&journal, "trigger", "witness"));
            }
        }
        let invoked: Vec<Invoked> = self.witness.seen().iter().map(Invoked::from).collect();
        oracle::judge(&self.produced, &invoked, &journals)
    }

    /// Events in doubt by the process that had claimed them (its owner token): what each crash left open.
    pub fn in_doubt_by_owner(&self) -> BTreeMap<String, BTreeSet<(i64, i64)>> {
        let mut owners: BTreeMap<String, BTreeSet<(i64, i64)>> = BTreeMap::new();
        let states = std::fs::read_dir(self.dir.path()).expect("the test's folder").flatten();
        let segments = states.filter_map(|s| std::fs::read_dir(s.path().join("journal")).ok()).flatten();
        for segment in segments.flatten() {
            let text = std::fs::read_to_string(segment.path()).expect("a segment");
            for line in text.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok()) {
                if line["outcome"] == "in_doubt" {
                    let at = (line["shard"].as_i64().unwrap_or(-1), line["sequence"].as_i64().unwrap_or(-1));
                    owners.entry(line["owner"].to_string()).or_default().insert(at);
                }
            }
        }
        owners
    }

    /// Waits until every produced record has an outcome, and judges. Panics at the limit with what is missing.
    #[track_caller]
    pub fn settle(&self, limit: Duration) -> Report {
        let settled = wait::try_until(limit, || {
            let report = self.judge();
            let ended: usize = report.outcomes.values().sum();
            (ended >= self.produced.len()).then_some(report)
        });
        settled.unwrap_or_else(|| {
            let report = self.judge();
            panic!("not settled after {limit:?}: produced {} {report:?}", self.produced.len())
        })
    }

    /// The conservation residual of a dispatcher.
    pub fn residual(dispatcher: &mut Dispatcher) -> f64 {
        let page = metrics::scrape(dispatcher.admin());
        page.get("kubeless_conservation_residual", &[("trigger", "trigger")])
            .expect("the residual is published")
    }
}
