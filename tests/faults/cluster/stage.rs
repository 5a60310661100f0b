//! One function in Pods, one trigger, one topic, and a load that goes on until it is told to stop. Must never count a call that
//! the witness did not see, nor know how the product works inside.

use crate::support::{
    cli::Cli,
    installed::{self, Installation},
    kafka_client::{Client, Record},
    metrics,
    oracle::{self, Invoked, Produced, Recorded, Report},
    wait,
    witness::Witness,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

/// Longest wait for anything. Usually seconds; a busy machine takes longer.
pub const LIMIT: Duration = Duration::from_secs(180);
const PARTITIONS: i32 = 4;
/// EndpointSlices of the function.
const OF_SERVICE: &str = "kubernetes.io/service-name=witness";
/// Records that a load produces together, and the pause before each such batch.
const BATCH: usize = 8;
const PACE: Duration = Duration::from_millis(400);

/// Tells the witness of each call before it answers, on a connection of its own.
const CODE: &str = r#"
import http.client, os

NAMES = ("event-id", "event-topic", "event-partition", "event-offset")

def main(event, context):
    asked = event["extensions"]["request"].headers
    witness = http.client.HTTPConnection(os.environ["WITNESS"], timeout=10)
    witness.request("POST", "/", headers={name: asked.get(name, "") for name in NAMES})
    witness.getresponse().read()
    witness.close()
    return "seen"
"#;

/// One for all tests here, which take turns.
pub fn installation() -> MutexGuard<'static, Installation> {
    static SHARED: LazyLock<Mutex<Installation>> =
        LazyLock::new(|| Mutex::new(Installation::start().for_a_static()));
    // A test that failed says so itself.
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module. The function is called `witness`.
pub struct Stage {
    pub installed: MutexGuard<'static, Installation>,
    pub cli: Cli,
    pub witness: Witness,
    pub topic: String,
    /// Unique, so that journals of other stages are told apart.
    pub trigger: String,
    pub dir: tempfile::TempDir,
    produced: Vec<Produced>,
    next: Vec<i64>,
    /// How many the load that runs has produced, for people.
    loaded: Arc<AtomicUsize>,
}

/// A load that runs. Ends when dropped.
pub struct Load {
    /// Closed: the load ends.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<(Vec<Produced>, Vec<i64>)>>,
}

impl Stage {
    /// Returns when the function is ready and its subscription has called it.
    pub fn set(name: &str) -> Self {
        let installed = installation();
        let namespace = installed.strict_namespace(&format!("fault-{name}"));
        let (topic, trigger) = (format!("topic-{namespace}"), format!("trigger-{namespace}"));
        installed.kafka.client().create_topic(&topic, PARTITIONS, 1);
        let witness = Witness::start_on(installed.cluster.machine());
        let cli = Cli::new(&installed.cluster.kubeconfig(), &namespace);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("witness.py");
        std::fs::write(&file, CODE).unwrap();
        let (file, address) = (file.display().to_string(), format!("WITNESS={}", witness.address()));
        let mut arguments = vec!["function", "deploy", "witness", "--runtime", "python3.11", "--wait=180s"];
        arguments.extend(["--handler", "witness.main", "--from-file", &file, "--label", "app=witness"]);
        arguments.extend(["--image-pull-policy", "IfNotPresent", "--timeout", "20", "--env", &address]);
        cli.ok(&arguments);
        let servers = installed.kafka.bootstrap();
        let mut arguments = vec!["trigger", "kafka", "create", &trigger, "--trigger-topic", &topic];
        arguments.extend(["--function-selector", "app=witness", "--bootstrap-servers", servers]);
        arguments.extend(["--starting-position", "earliest"]);
        cli.ok(&arguments);
        let next = vec![0; PARTITIONS as usize];
        let (produced, loaded) = (Vec::new(), Arc::default());
        let mut stage = Self { installed, cli, witness, topic, trigger, dir, produced, next, loaded };
        stage.produce(40);
        stage.witness.wait_for(40, LIMIT);
        stage
    }

    pub fn client(&self) -> &Client {
        self.installed.kafka.client()
    }

    /// How many were produced, without those of a load that runs.
    pub fn produced(&self) -> usize {
        self.produced.len()
    }

    /// Produces some more.
    pub fn produce(&mut self, count: usize) {
        let (records, produced) = batch(&self.topic, &mut self.next, count);
        assert_eq!(self.client().produce_many(&self.topic, records), count);
        self.produced.extend(produced);
    }

    /// Begins to produce without end.
    pub fn load(&self) -> Load {
        let (stop, ended) = mpsc::channel::<()>();
        let (topic, mut next, loaded) = (self.topic.clone(), self.next.clone(), Arc::clone(&self.loaded));
        let client = Client::new(self.client().bootstrap().to_owned());
        let run = move || {
            let (producer, mut all) = (client.producer(), Vec::new());
            while ended.recv_timeout(PACE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let (records, produced) = batch(&topic, &mut next, BATCH);
                producer.produce_many(&topic, records);
                all.extend(produced);
                loaded.store(all.len(), Ordering::SeqCst);
            }
            (all, next)
        };
        Load {
            stop: Some(stop),
            thread: Some(std::thread::Builder::new().name("load".into()).spawn(run).unwrap()),
        }
    }

    /// Ends a load and knows from then on what it produced.
    pub fn take(&mut self, mut load: Load) {
        load.stop = None;
        let (produced, next) = load.thread.take().unwrap().join().expect("the load does not panic");
        self.produced.extend(produced);
        self.next = next;
    }

    /// Returns once the witness saw `more` further calls.
    #[track_caller]
    pub fn goes_on(&self, more: usize) {
        self.keep_journals();
        let enough = self.witness.len() + more;
        let came = self.witness.wait_until(LIMIT, |seen| seen.len() >= enough);
        assert!(came, "the function saw {} of {enough}\n{}", self.witness.len(), self.show());
    }

    /// What there is to see of dispatchers and Pods, for people.
    fn show(&self) -> String {
        let produced = (self.produced.len(), self.loaded.load(Ordering::SeqCst));
        let mut shown = format!("produced before the load and by it: {produced:?}\n");
        for address in self.installed.dispatchers() {
            let page = metrics::get(address, "/debug/subscriptions");
            let page = page.map_or_else(|error| error.to_string(), |(_, page)| page);
            let lines = metrics::get(address, "/metrics").map(|(_, page)| page).unwrap_or_default();
            let ours = lines.lines().filter(|line| line.contains(&self.trigger) && !line.contains("_bucket"));
            shown += &format!("== {address}\n{page}{}\n", ours.collect::<Vec<_>>().join("\n"));
        }
        let namespace = ["-n", self.cli.namespace.as_str()];
        for what in [
            &["get", "pods", "-A", "-o", "wide"][..],
            &["get", "endpointslices", "-o", "yaml"],
            &["logs", "-l", "app=witness", "--all-containers", "--tail=20"],
            &["logs", "-n", "kubeless", "-l", "app.kubernetes.io/name=kubeless-dispatcher", "--tail=40"],
        ] {
            let at = if what.contains(&"-n") || what.contains(&"-A") { &[][..] } else { &namespace[..] };
            let said = self.installed.cluster.try_kubectl(&[what, at].concat(), "");
            shown += &format!("== {}\n{}\n", what.join(" "), said.unwrap_or_else(|error| error));
        }
        shown
    }

    /// Where the subscription stands, over all partitions.
    pub fn committed(&self) -> i64 {
        let group = format!("{}_{}_witness_{}", self.cli.namespace, self.trigger, self.topic);
        self.client().committed(&group, &self.topic).iter().filter_map(|one| one.offset).sum()
    }

    /// A second name for every segment of a journal: a Pod that goes takes its folder with it.
    fn keep_journals(&self) {
        for (pod, journal) in self.installed.journals() {
            for segment in std::fs::read_dir(&journal).into_iter().flatten().flatten() {
                let name = format!("{pod}-{}", segment.file_name().display());
                let kept = self.dir.path().join("journal");
                std::fs::create_dir_all(&kept).unwrap();
                match std::fs::hard_link(segment.path(), kept.join(name)) {
                    Ok(()) => {}
                    // Kept already, or gone since it was listed.
                    Err(error)
                        if [std::io::ErrorKind::AlreadyExists, std::io::ErrorKind::NotFound]
                            .contains(&error.kind()) => {}
                    Err(error) => panic!("{}: {error}", segment.path().display()),
                }
            }
        }
    }

    /// What the oracle says now.
    pub fn judge(&self) -> Report {
        self.keep_journals();
        let journal = self.dir.path().join("journal");
        // Journals first: whatever they say has happened must be with the witness by then.
        let lines: Vec<Recorded> = oracle::read_journal(&journal, &self.trigger, "witness");
        let invoked: Vec<Invoked> = self.witness.seen().iter().map(Invoked::from).collect();
        oracle::judge(&self.produced, &invoked, &lines)
    }

    /// Why events of this stage were not delivered, and how many.
    fn reasons(&self) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        for segment in std::fs::read_dir(self.dir.path().join("journal")).unwrap().flatten() {
            let text = std::fs::read_to_string(segment.path()).unwrap();
            for line in text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
                let of_stage = line["trigger"].as_str().is_some_and(|name| name.ends_with(&self.trigger));
                if let Some(reason) = line["reason"].as_str().filter(|_| of_stage) {
                    *found
                        .entry(format!("{}: {reason}", line["outcome"].as_str().unwrap_or_default()))
                        .or_default() += 1;
                }
            }
        }
        found
    }

    /// Waits until every event has an outcome, and prints what became of all.
    #[track_caller]
    pub fn settle(&self, what: &str) -> Report {
        let settled = wait::try_until(LIMIT, || {
            let report = self.judge();
            (report.outcomes.values().sum::<usize>() >= self.produced.len()).then_some(report)
        });
        let report = settled.unwrap_or_else(|| {
            let log = self.installed.cluster.kubectl(&[
                "logs",
                "-n",
                installed::NAMESPACE,
                "-l",
                "app.kubernetes.io/name=kubeless-dispatcher",
                "--tail=40",
                "--prefix",
            ]);
            panic!("not settled: {:?}\n{log}", self.judge())
        });
        println!("{what}: {} events, {:?}, {} lost", report.produced, report.outcomes, report.lost.len());
        println!("{:?}", self.reasons());
        report.assert_clean();
        report
    }

    /// Settles, and nothing else than one delivery of each event is accepted.
    #[track_caller]
    pub fn all_delivered(&self, what: &str) {
        let report = self.settle(what);
        assert_eq!(report.outcomes, BTreeMap::from([("delivered".to_owned(), self.produced.len())]));
    }

    /// The function's Pods that are not on their way out.
    pub fn pods(&self) -> Vec<Value> {
        let list = self.installed.cluster.get(&self.cli.namespace, "pods");
        let all = list["items"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect()
    }

    /// Asks for so many Pods, and returns when there are so many, all ready, and callers may know: a cluster whose API server was
    /// away takes its nodes for lost at first, and their Pods for not ready, which are not to be called then.
    pub fn scale(&self, replicas: usize) {
        let patch = json!({ "spec": { "replicas": replicas } }).to_string();
        let what = ["patch", "functions.kubeless.io", "witness", "-n", &self.cli.namespace, "--type=merge"];
        self.installed.cluster.kubectl(&[&what[..], &["-p", &patch]].concat());
        let ready = |pod: &Value| {
            let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
        };
        wait::until(&format!("{replicas} Pods"), LIMIT, || {
            self.keep_journals();
            let pods = self.pods();
            (pods.len() == replicas && pods.iter().all(ready)).then_some(())
        });
        wait::until(&format!("{replicas} endpoints"), LIMIT, || {
            let what = ["get", "endpointslices", "-n", &self.cli.namespace, "-l", OF_SERVICE, "-o", "json"];
            let slices: Value =
                serde_json::from_str(&self.installed.cluster.try_kubectl(&what, "").ok()?).ok()?;
            let slices = slices["items"].as_array().into_iter().flatten();
            let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
            (endpoints.filter(|one| one["conditions"]["ready"] == true).count() == replicas).then_some(())
        });
    }

    /// Returns when the dispatchers see no ready Pod, or one.
    pub fn claiming(&self, wanted: bool) {
        wait::until(&format!("claiming: {wanted}"), LIMIT, || {
            let mut found = Vec::new();
            for address in self.installed.dispatchers() {
                let (_, page) = metrics::get(address, "/debug/subscriptions").ok()?;
                let list: Vec<Value> = serde_json::from_str(&page).ok()?;
                found.extend(list.into_iter().filter(|one| one.to_string().contains(&self.trigger)));
            }
            (!found.is_empty() && found.iter().all(|one| one["claiming"] == wanted)).then_some(())
        });
    }

    /// Nothing of this stage stays for the next one.
    pub fn strike(self) {
        self.cli.ok(&["trigger", "kafka", "delete", &self.trigger]);
        self.cli.ok(&["function", "delete", "witness"]);
        self.installed.cluster.kubectl(&["delete", "namespace", &self.cli.namespace, "--wait=false"]);
    }
}
impl Drop for Load {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Records for all partitions in turn, and what they are.
fn batch(topic: &str, next: &mut [i64], count: usize) -> (Vec<Record>, Vec<Produced>) {
    let mut records = Vec::with_capacity(count);
    let mut produced = Vec::with_capacity(count);
    for n in 0..count {
        let partition = n % next.len();
        let at = (topic.to_owned(), partition as i32, next[partition]);
        let body = format!("{{\"at\":\"{partition}/{}\"}}", next[partition]);
        records.push(Record::new(body).key(format!("k{}", next[partition] % 50)).partition(partition as i32));
        produced.push(Produced { at, business: None });
        next[partition] += 1;
    }
    (records, produced)
}
