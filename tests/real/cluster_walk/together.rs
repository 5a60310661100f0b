//! One Function that five kinds of trigger call at once, on a cluster with Pods and real servers, while its code changes, while the
//! triggers are edited and while they go. Must never take the product's word for a call: the function tells a witness
//! outside the cluster, and the journals on the node must say the same.

use super::{
    super::{
        http::rig::try_ask,
        support::{
            cli::Cli,
            installed::{self, Installation},
            kafka_client::{Client, Record},
            kinesis::Kinesis,
            metrics,
            nats::{Message, NatsCluster},
            wait,
            witness::Witness,
        },
    },
    LIMIT,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Source, plural of its trigger's kind; triggers are named after their source.
const SOURCES: [(&str, &str); 5] = [
    ("kafka", "kafkatriggers"),
    ("nats", "natstriggers"),
    ("kinesis", "kinesistriggers"),
    ("cron", "cronjobtriggers"),
    ("http", "httptriggers"),
];
/// Those that the test itself produces to.
const PRODUCED: [&str; 4] = ["kafka", "nats", "kinesis", "http"];
/// Calls of each of those between two steps.
const STEP: usize = 20;

/// Tells the witness which event came, from where and to which code, before it answers.
const CODE: &str = r#"
import http.client, json, os

def main(event, context):
    data = event["data"]
    data = json.loads(data) if isinstance(data, (str, bytes)) else data
    witness = http.client.HTTPConnection(os.environ["WITNESS"], timeout=10)
    witness.request("POST", "/", headers={"event-id": event["event-id"], "event-topic": data["mark"], "event-offset": "VERSION"})
    witness.getresponse().read()
    witness.close()
    return "seen"
"#;

pub struct Together<'a> {
    installed: &'a Installation,
    cli: Cli,
    witness: Witness,
    nats: NatsCluster,
    kinesis: Kinesis,
    dir: tempfile::TempDir,
    /// Marks that a source took, in any order.
    produced: Mutex<BTreeSet<String>>,
    next: Mutex<usize>,
    /// Whether a source that is not served any more is no fault.
    closing: AtomicBool,
}

/// Everything, from the first deployment to the last deletion.
pub fn run(installed: &Installation) {
    let machine = installed.cluster.machine();
    let namespace = installed.strict_namespace("together");
    let together = Together {
        installed,
        cli: Cli::new(&installed.cluster.kubeconfig(), &namespace),
        witness: Witness::start_on(machine),
        nats: NatsCluster::start_on(machine),
        kinesis: Kinesis::start(),
        dir: tempfile::tempdir().unwrap(),
        produced: Mutex::default(),
        next: Mutex::new(0),
        closing: false.into(),
    };
    together.deploy();
    together.bind();
    together.under_load(|| {
        together.goes_on("the first calls");
        together.new_code();
        together.edit_each();
        together.goes_on("calls after every trigger was edited");
        together.ticks();
    });
    together.everything_was_called_once();
    together.closing.store(true, Ordering::SeqCst);
    together.under_load(|| together.delete_each());
    together.nothing_was_called_twice_or_unsaid();
    together.cli.ok(&["function", "delete", "all"]);
    installed.cluster.kubectl(&["delete", "namespace", &namespace, "--timeout=120s"]);
}

impl Together<'_> {
    fn deploy(&self) {
        let (file, address) = (self.code("1"), format!("WITNESS={}", self.witness.address()));
        let mut arguments = vec!["function", "deploy", "all", "--runtime", "python3.11", "--wait=180s"];
        arguments.extend(["--handler", "all.main", "--from-file", &file, "--label", "app=all"]);
        arguments.extend(["--image-pull-policy", "IfNotPresent", "--timeout", "20", "--env", &address]);
        self.cli.ok(&arguments);
    }

    fn code(&self, version: &str) -> String {
        let file = self.dir.path().join("all.py");
        std::fs::write(&file, CODE.replace("VERSION", version)).unwrap();
        file.display().to_string()
    }

    /// All five, with what they need beside them.
    fn bind(&self) {
        let (cluster, machine) = (&self.installed.cluster, self.installed.cluster.machine());
        self.installed.kafka.client().create_topic("together", 3, 1);
        self.kinesis.create_stream("together", 2);
        let account = json!({"kind": "ServiceAccount", "name": "kubeless-dispatcher", "namespace": installed::NAMESPACE});
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "credentials"});
        let rule =
            json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["aws"], "verbs": ["get"]});
        // As docs/kubernetes.md says: by name, in the trigger's own namespace.
        let granted = [
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "aws"},
                "stringData": {"aws_access_key_id": "test", "aws_secret_access_key": "test"}}),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "credentials"}, "rules": [rule]}),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "credentials"},
                "roleRef": role, "subjects": [account]}),
        ];
        let selector = json!({"matchLabels": {"app": "all"}});
        let endpoint = format!("http://{machine}:{}", self.kinesis.port());
        let triggers = [
            (
                "KafkaTrigger",
                "kafka",
                json!({"topic": "together", "functionSelector": selector,
                "bootstrapServers": self.installed.kafka.bootstrap(), "startingPosition": "earliest"}),
            ),
            (
                "NATSTrigger",
                "nats",
                json!({"topic": "together", "functionSelector": selector, "url": self.nats.url()}),
            ),
            (
                "KinesisTrigger",
                "kinesis",
                json!({"stream": "together", "function-name": "all", "aws-region": "us-east-1",
                "endpoint": endpoint, "secret": "aws", "startingPosition": "TRIM_HORIZON"}),
            ),
            (
                "CronJobTrigger",
                "cron",
                json!({"schedule": "* * * * *", "function-name": "all", "executor": "Dispatcher",
                "payload": {"mark": "cron"}}),
            ),
            (
                "HTTPTrigger",
                "http",
                json!({"function-name": "all", "host-name": "any.example.com", "path": "together",
                "delivery": {"through": "Dispatcher"}}),
            ),
        ];
        let triggers = triggers.map(|(kind, name, spec)| {
            json!({"apiVersion": "kubeless.io/v1beta1", "kind": kind, "metadata": {"name": name}, "spec": spec})
        });
        for object in granted.iter().chain(&triggers) {
            cluster.apply(&self.cli.namespace, &object.to_string());
        }
        for (name, plural) in SOURCES {
            self.wait_served(plural, name);
        }
        // What a gateway reads: the way leads to the dispatcher's Service, in its namespace.
        let way = format!("ingress/{}.http", self.cli.namespace);
        let way = wait::until(&way, LIMIT, || {
            let found = ["get", way.as_str(), "-n", installed::NAMESPACE, "-o", "json"];
            serde_json::from_str::<Value>(&cluster.try_kubectl(&found, "").ok()?).ok()
        });
        let path = &way["spec"]["rules"][0]["http"]["paths"][0];
        let backend = json!({"service": {"name": "kubeless-dispatcher", "port": {"number": 80}}});
        assert_eq!((&path["path"], &path["backend"]), (&json!("/together"), &backend), "{way}");
    }

    /// Ready, by a status that describes the trigger as it is now.
    fn wait_served(&self, plural: &str, name: &str) {
        let object = format!("{plural}.kubeless.io/{name}");
        let mut last = Value::Null;
        let served = wait::try_until(LIMIT, || {
            last = self.installed.cluster.get(&self.cli.namespace, &object);
            let status = &last["status"];
            let ready = status["conditions"].as_array()?.iter().find(|one| one["type"] == "Ready")?;
            let now = status["observedGeneration"] == last["metadata"]["generation"];
            (now && ready["status"] == "True").then_some(())
        });
        assert!(served.is_some(), "{object}: {:#}", last["status"]);
    }

    /// Produces to the four without a pause while `steps` go on.
    fn under_load(&self, steps: impl FnOnce()) {
        let stop = AtomicBool::new(false);
        let door = SocketAddr::from((
            self.installed.cluster.cluster_ip(installed::NAMESPACE, "kubeless-dispatcher"),
            80,
        ));
        thread::scope(|scope| {
            scope.spawn(|| {
                let kafka = Client::new(self.installed.kafka.bootstrap().to_owned());
                let nats = self.nats.client();
                while !stop.load(Ordering::SeqCst) {
                    self.produce_one_each(&kafka, &nats, door);
                }
            });
            // Whatever happens in here, the load ends.
            let _end = Stop(&stop);
            steps();
        });
    }

    fn produce_one_each(&self, kafka: &Client, nats: &crate::support::nats::Client, door: SocketAddr) {
        let n = {
            let mut next = self.next.lock().unwrap();
            *next += 1;
            *next
        };
        let mark = |source: &str| format!("{source}-{n}");
        let body = |source: &str| json!({"mark": mark(source)}).to_string();
        kafka.produce_many("together", [Record::new(body("kafka")).key(format!("k{}", n % 10))]);
        nats.publish([Message::new("together", body("nats"))]);
        self.kinesis.put("together", &[(format!("k{}", n % 10), body("kinesis").into_bytes())]);
        let (key, json) = (mark("http"), ("content-type", "application/json"));
        let taken = wait::until("an answer to a request", LIMIT, || {
            let told =
                try_ask(door, "POST /together", &[("idempotency-key", &key), json], &body("http")).ok()?;
            match told.status {
                200 => Some(true),
                // Not called: the same request again is no second call.
                404 | 503 if self.closing.load(Ordering::SeqCst) => Some(false),
                404 | 503 => None,
                other => panic!("{other} for {key}: {}", told.body),
            }
        });
        let mut produced = self.produced.lock().unwrap();
        produced
            .extend(PRODUCED.iter().filter(|source| **source != "http" || taken).map(|source| mark(source)));
    }

    /// Returns once each of the four called some more.
    #[track_caller]
    fn goes_on(&self, what: &str) {
        let count = |seen: &[crate::support::witness::Seen], source: &str| {
            seen.iter().filter(|call| call.topic.starts_with(source)).count()
        };
        let before = self.witness.seen();
        let more = self.witness.wait_until(LIMIT, |seen| {
            PRODUCED.iter().all(|source| count(seen, source) >= count(&before, source) + STEP)
        });
        let now = self.witness.seen();
        let told: Vec<_> = PRODUCED.iter().map(|source| (source, count(&now, source))).collect();
        assert!(more, "{what}: {told:?}");
    }

    /// Under load, all of it in flight somewhere.
    fn new_code(&self) {
        let file = self.code("2");
        self.cli.ok(&["function", "update", "all", "--from-file", &file, "--wait=180s"]);
        self.goes_on("calls of the new code");
        let last = self.witness.seen().pop().expect("there were calls");
        assert_eq!(last.offset, 2, "the new code is called");
    }

    fn edit_each(&self) {
        let change = json!({"spec": {"delivery": {"timeout": "15s"}}}).to_string();
        for (name, plural) in SOURCES {
            let object = format!("{plural}.kubeless.io/{name}");
            let patch = ["patch", &object, "-n", &self.cli.namespace, "--type=merge", "-p", &change];
            self.installed.cluster.kubectl(&patch);
        }
        for (name, plural) in SOURCES {
            self.wait_served(plural, name);
        }
    }

    /// The clock called at least once; usually it did while the rest was going on.
    fn ticks(&self) {
        let ticked = self.witness.wait_until(LIMIT, |seen| seen.iter().any(|call| call.topic == "cron"));
        assert!(ticked, "no call by the clock");
    }

    /// Exactly once each, and nothing is open.
    fn everything_was_called_once(&self) {
        let produced = self.produced.lock().unwrap().clone();
        let all = self.witness.wait_until(LIMIT, |seen| {
            let marks: BTreeSet<&str> = seen.iter().map(|call| call.topic.as_str()).collect();
            produced.iter().all(|mark| marks.contains(mark.as_str()))
        });
        let calls = self.calls();
        let missing: Vec<_> = produced.iter().filter(|mark| !calls.contains_key(*mark)).collect();
        assert!(all, "produced and never called: {missing:?}");
        let mut last = Vec::new();
        let agreed = wait::try_until(LIMIT, || {
            last = self.disagreements();
            last.is_empty().then_some(())
        });
        assert!(agreed.is_some(), "{last:#?}");
        let outcomes = self.outcomes();
        let ends: BTreeSet<&str> = outcomes.values().flatten().map(String::as_str).collect();
        assert_eq!(ends, BTreeSet::from(["delivered"]), "nothing was lost");
        println!("five triggers on one function: {} produced, {} calls", produced.len(), self.witness.len());
        wait::until("conservation", LIMIT, || (self.residuals().iter().all(|one| *one == 0.0)).then_some(()));
        assert_eq!(self.residuals().len(), SOURCES.len() * self.installed.dispatchers().len());
    }

    /// Of every subscription on every dispatcher.
    fn residuals(&self) -> Vec<f64> {
        let all = self.installed.dispatchers();
        let labels = |name| [("namespace", self.cli.namespace.as_str()), ("trigger", name)];
        let pages: Vec<_> = all.iter().map(|address| metrics::scrape(*address)).collect();
        let of = |page: &metrics::Page| {
            SOURCES
                .iter()
                .filter_map(|(name, _)| page.get("kubeless_conservation_residual", &labels(name)))
                .collect::<Vec<_>>()
        };
        pages.iter().flat_map(of).collect()
    }

    /// One after another, each until no dispatcher knows it any more, while the others go on.
    fn delete_each(&self) {
        self.goes_on("calls before the triggers go");
        let cluster = &self.installed.cluster;
        for (name, plural) in SOURCES {
            let object = format!("{plural}.kubeless.io/{name}");
            cluster.kubectl(&["delete", &object, "-n", &self.cli.namespace, "--timeout=120s"]);
            let known = format!("{}/{name}\"", self.cli.namespace);
            wait::until(&format!("{object} to be let go"), LIMIT, || {
                let all = self.installed.dispatchers();
                let pages = all.iter().map(|address| metrics::get(*address, "/debug/subscriptions"));
                let mut pages = pages.map(|page| page.map_or(String::new(), |(_, page)| page));
                pages.all(|page| !page.is_empty() && !page.contains(&known)).then_some(())
            });
        }
        let way = format!("ingress/{}.http", self.cli.namespace);
        let gone = || cluster.try_kubectl(&["get", &way, "-n", installed::NAMESPACE], "").err();
        let refused = wait::until("the way to the dispatcher to go", LIMIT, gone);
        assert!(refused.contains("NotFound"), "{refused}");
    }

    /// What was produced to a trigger that was gone was not called; everything else has one end, and no call is without one.
    fn nothing_was_called_twice_or_unsaid(&self) {
        let mut last = Vec::new();
        let agreed = wait::try_until(LIMIT, || {
            last = self.disagreements();
            last.is_empty().then_some(())
        });
        assert!(agreed.is_some(), "{last:#?}");
        let mut ends: BTreeMap<String, usize> = BTreeMap::new();
        for end in self.outcomes().into_values().flatten() {
            *ends.entry(end).or_default() += 1;
        }
        println!("five triggers deleted under load: {ends:?}, {} calls", self.witness.len());
        let calls = self.calls();
        let produced = self.produced.lock().unwrap();
        let strange: Vec<_> =
            calls.keys().filter(|mark| *mark != "cron" && !produced.contains(*mark)).collect();
        assert!(strange.is_empty(), "called and never produced: {strange:?}");
    }

    /// How often the function was called, by mark.
    fn calls(&self) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        for call in self.witness.seen() {
            *calls.entry(call.topic).or_default() += 1;
        }
        calls
    }

    /// Ends by event id, over the journals of all dispatchers.
    fn outcomes(&self) -> BTreeMap<String, Vec<String>> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mine = format!("{}/", self.cli.namespace);
        for (_, journal) in self.installed.journals() {
            for segment in std::fs::read_dir(journal).into_iter().flatten().flatten() {
                let text = std::fs::read_to_string(segment.path()).unwrap_or_default();
                for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
                    let word = |name: &str| line[name].as_str().unwrap_or_default();
                    if word("trigger").starts_with(&mine) && !word("outcome").is_empty() {
                        let key = format!("{} {}", word("trigger"), word("id"));
                        found.entry(key).or_default().push(word("outcome").to_owned());
                    }
                }
            }
        }
        found
    }

    /// Where witness and journals do not say the same, once all is over.
    fn disagreements(&self) -> Vec<String> {
        let (outcomes, seen) = (self.outcomes(), self.witness.seen());
        let mut found = Vec::new();
        let mut called = BTreeSet::new();
        for call in &seen {
            let source = call.topic.split('-').next().unwrap_or_default();
            let key = format!("{}/{source} {}", self.cli.namespace, call.id);
            match outcomes.get(&key).map(Vec::as_slice) {
                Some([end]) if matches!(end.as_str(), "delivered" | "failed" | "unanswered") => {}
                other => found.push(format!("{key}: called, the journals say {other:?}")),
            }
            if !called.insert(key.clone()) {
                found.push(format!("{key}: called twice"));
            }
        }
        let marks = self.calls();
        found.extend(
            marks.iter().filter(|(mark, n)| *mark != "cron" && **n > 1).map(|m| format!("{m:?} calls")),
        );
        let unseen = outcomes
            .iter()
            .filter(|(key, ends)| ends.contains(&"delivered".to_owned()) && !called.contains(*key));
        found.extend(unseen.map(|(key, _)| format!("{key}: delivered, and never seen")));
        found
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
