//! One user's whole way on a real cluster, as docs/install.md tells it: install, deploy functions from every kind of code, tie them
//! to a topic, send events, look at everything, delete everything, uninstall. Must never take the product's word for a call:
//! the functions' own logs are what counts.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

mod code;
mod gateways;
mod objects;
mod rights;
mod together;

use super::{
    status,
    support::{
        cli::Cli,
        cluster::Cluster,
        installed::{self, Installation},
        metrics, wait,
        web::Web,
    },
};
use code::{FUNCTIONS, Sources};
use kubeless::sources::TRIGGERS;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write, time::Duration};

/// Longest wait for anything. Usually seconds; a busy machine takes longer.
const LIMIT: Duration = Duration::from_secs(180);
const TOPIC: &str = "orders";
/// Different events, and how many of them are sent twice.
const EVENTS: usize = 120;
const REPEATED: usize = 20;

struct Walk<'a> {
    installed: &'a Installation,
    cluster: &'a Cluster,
    cli: Cli,
    dir: tempfile::TempDir,
}

#[test]
fn the_whole_way_of_a_user_on_a_cluster() {
    let begun = rights::Begun::now();
    let installed = Installation::start();
    let cluster = &installed.cluster;
    gateways::define(cluster);
    // Side by side: a clock is waited for there.
    std::thread::scope(|scope| {
        scope.spawn(|| together::run(&installed));
        walk(&installed);
    });
    rights::judge(cluster, &begun);
    gateways::undefine(cluster);
    installed.remove();
    assert_eq!(objects::of_the_installation(cluster), Vec::<String>::new());
}

/// From the first function to an empty namespace.
fn walk(installed: &Installation) {
    let cluster = &installed.cluster;
    let namespace = installed.strict_namespace("walk");
    let before = objects::of(cluster, &namespace);
    let cli = Cli::new(&cluster.kubeconfig(), &namespace);
    let walk = Walk { installed, cluster, cli, dir: tempfile::tempdir().unwrap() };
    let web = walk.deploy();
    walk.functions_are_ready(&web);
    walk.events_arrive_once();
    walk.the_other_triggers();
    walk.a_trigger_moves_between_gateways();
    walk.a_clock_changes_hands();
    walk.commands();
    walk.every_kind_is_spoken_of();
    walk.an_edit_and_its_leftovers();
    walk.delete_everything();
    wait::try_until(LIMIT, || (objects::of(cluster, &namespace) == before).then_some(())).unwrap_or_else(
        || {
            let left: Vec<_> = objects::of(cluster, &namespace).difference(&before).cloned().collect();
            panic!("left in the namespace: {left:?}")
        },
    );
    cluster.kubectl(&["delete", "namespace", &namespace, "--timeout=120s"]);
}

impl Walk<'_> {
    /// One function from each kind of code; the last one waits, so that `--wait` is walked too.
    fn deploy(&self) -> Web {
        // By file: the command line asks for the function first.
        let http = json!({"apiVersion": "kubeless.io/v1beta1", "kind": "HTTPTrigger", "metadata": {"name": "web"},
            "spec": {"function-name": "inline", "host-name": "walk.example.com", "path": "inline", "gateway": "nginx"}});
        self.cluster.apply(&self.cli.namespace, &http.to_string());
        wait::until("a trigger that waits for its function", LIMIT, || {
            (self.table("httptriggers")[0]["REASON"] == "FunctionMissing").then_some(())
        });
        let sources = Sources::write(self.dir.path(), self.cluster.machine());
        for name in FUNCTIONS {
            let handler = format!("{}.main", if name == "needy" { "needy" } else { "plain" });
            let from = sources.of(name);
            let mut arguments = vec!["function", "deploy", name, "--runtime", "python3.11"];
            arguments.extend(["--handler", &handler, "--from-file", &from, "--label", "app=walk"]);
            arguments.extend(["--image-pull-policy", "IfNotPresent", "--timeout", "20"]);
            if name == "needy" {
                arguments.extend(["--dependencies", &sources.requirements, "--wait"]);
            }
            self.cli.ok(&arguments);
        }
        sources.web
    }

    fn functions_are_ready(&self, web: &Web) {
        let ready = wait::try_until(LIMIT, || {
            let table = self.table("functions");
            table.iter().all(|row| row["READY"] == "True").then_some(table)
        });
        let table = ready.unwrap_or_else(|| {
            let pods = self.cluster.kubectl(&["describe", "pods,events", "-n", &self.cli.namespace]);
            panic!("not all Ready: {:#?}\n{pods}", self.table("functions"))
        });
        assert_eq!(table.len(), FUNCTIONS.len());
        for row in &table {
            let url = format!("http://{}.{}.svc.cluster.local:8080", row["NAME"], self.cli.namespace);
            let wanted = [("RUNTIME", "python3.11"), ("REPLICAS", "1"), ("URL", &url), ("REASON", "AllGood")];
            for (column, value) in wanted {
                assert_eq!(row[column], value, "{column} of {row:?}");
            }
        }
        let asked = web.asked();
        let downloads = asked.iter().filter(|path| *path == "linked/plain.py").count();
        assert!(downloads >= 1, "the Pod downloads what a URL names: {asked:?}");
        assert!(
            asked.iter().any(|path| path.ends_with(".whl")),
            "the package came from our index: {asked:?}"
        );
        for row in self.pods() {
            assert_eq!(row["metadata"]["labels"]["created-by"], "kubeless");
        }
    }

    /// One trigger for all of them, and every event once in each, the repeated ones too.
    fn events_arrive_once(&self) {
        let kafka = &self.installed.kafka;
        kafka.client().create_topic(TOPIC, 3, 1);
        let servers = kafka.bootstrap();
        let mut arguments = vec!["trigger", "kafka", "create", "orders", "--function-selector", "app=walk"];
        arguments.extend(["--trigger-topic", TOPIC, "--bootstrap-servers", servers]);
        arguments.extend(["--starting-position", "earliest"]);
        self.cli.ok(&arguments);
        let mut lines = String::new();
        for n in (0..EVENTS).chain(0..REPEATED) {
            writeln!(lines, "{}", json!({ "n": n, "id": format!("order-{n}") })).unwrap();
        }
        let file = self.dir.path().join("orders.jsonl");
        std::fs::write(&file, lines).unwrap();
        let file = file.display().to_string();
        self.send(&["send", TOPIC, "--file", &file, "--id-from", "id", "--broker", servers]);
        self.send(&["send", TOPIC, r#"{"n": "last"}"#, "--id", "order-last", "--broker", servers]);

        let total = |outcome: &str| self.dispatched("kubeless_events_total", &[("outcome", outcome)]);
        let wanted = ((EVENTS + 1) * FUNCTIONS.len()) as f64;
        wait::try_until(LIMIT, || {
            (total("delivered") == wanted && total("duplicate") == (REPEATED * FUNCTIONS.len()) as f64)
                .then_some(())
        })
        .unwrap_or_else(|| {
            let log = self.cluster.kubectl(&["logs", "-n", installed::NAMESPACE, installed::DEPLOYMENTS[1]]);
            panic!("delivered {} of {wanted}, duplicate {}\n{log}", total("delivered"), total("duplicate"))
        });
        assert_eq!(self.dispatched("kubeless_conservation_residual", &[]), 0.0);
        let expected: BTreeMap<String, usize> = (0..EVENTS)
            .map(|n| format!("order-{n}"))
            .chain(["order-last".to_owned()])
            .map(|id| (id, 1))
            .collect();
        for name in FUNCTIONS {
            let logs = self.cli.ok(&["function", "logs", name]);
            let mut seen: BTreeMap<String, usize> = BTreeMap::new();
            for id in logs.lines().filter_map(|line| line.split("walked ").nth(1)) {
                *seen.entry(id.trim().to_owned()).or_default() += 1;
            }
            assert_eq!(seen, expected, "what {name} was called with");
        }
    }

    /// An Ingress, a CronJob and an autoscaler, as far as this cluster has somebody who acts on them.
    fn the_other_triggers(&self) {
        let cron = ["trigger", "cronjob", "create", "nightly", "--function", "inline"];
        self.cli.ok(&[&cron[..], &["--schedule", "0 3 * * *"]].concat());
        self.cli.ok(&["autoscale", "create", "inline", "--min", "1", "--max", "2", "--value", "80"]);
        let by_calls = ["autoscale", "create", "zipped", "--metric", "qps", "--value", "100"];
        self.cli.ok(&[&by_calls[..], &["--min", "1", "--max", "2"]].concat());
        let scalers =
            ["horizontalpodautoscaler/inline", "horizontalpodautoscaler/zipped", "servicemonitor/zipped"];
        self.becomes(&["ingress/web", "cronjob/nightly"], &[]);
        self.becomes(&scalers, &[]);
        for kind in ["httptriggers", "cronjobtriggers"] {
            wait::until(kind, LIMIT, || {
                self.table(kind).iter().all(|row| row["READY"] == "True").then_some(())
            });
        }
    }

    /// One of each kind that the dispatcher acts on, or would act on, has a status of its own.
    fn every_kind_is_spoken_of(&self) {
        let namespace = &self.cli.namespace;
        for (kind, spec) in status::SPECS {
            let spec: Value = serde_json::from_str(spec).unwrap();
            let mut object = status::trigger(kind, "spoken-of", &spec);
            // As Kubeless left it on objects that it stored: they could not be deleted.
            let known = TRIGGERS.iter().find(|known| known.kind == *kind).expect("registered");
            object["metadata"]["finalizers"] = json!(Vec::from_iter(known.finalizer));
            self.cluster.apply(namespace, &object.to_string());
        }
        for (kind, _) in status::SPECS {
            let object = format!("{}/spoken-of", status::plural(kind));
            wait::until(&object, LIMIT, || {
                let conditions = self.cluster.get(namespace, &object)["status"]["conditions"].clone();
                conditions.as_array()?.iter().any(|one| one["type"] == "Ready").then_some(())
            });
            self.cluster.kubectl(&["delete", &object, "-n", namespace]);
        }
    }

    fn commands(&self) {
        let answer = self.cli.ok(&["function", "call", "needy", "--data", r#"{"x": 1}"#]);
        assert_eq!(
            serde_json::from_str::<Value>(&answer).unwrap(),
            json!({"word": "from the index", "data": {"x": 1}})
        );
        let list = self.cli.ok(&["function", "list"]);
        let ready = list.lines().filter(|line| line.contains("1/1 READY")).count();
        assert_eq!(ready, FUNCTIONS.len(), "{list}");
        let described = self.cli.ok(&["function", "describe", "needy"]);
        for part in ["1/1 READY", "Running", "walkgreeting==1.0"] {
            assert!(described.contains(part), "{part:?} is missing in\n{described}");
        }
        let list = self.cli.ok(&["trigger", "kafka", "list"]);
        assert!(list.contains("orders") && list.contains("app=walk"), "{list}");
        let rows = self.table("kafkatriggers");
        assert_eq!((rows.len(), rows[0]["TOPIC"].as_str()), (1, TOPIC), "{rows:?}");
        // Both replicas answer the one that writes: they reach one another by the Service and past the NetworkPolicy.
        wait::until("a status that both replicas stand for", LIMIT, || {
            let row = self.table("kafkatriggers").remove(0);
            let status = &self.cluster.get(&self.cli.namespace, "kafkatriggers.kubeless.io/orders")["status"];
            let said = (&*row["READY"], &*row["REASON"], status["events"]["replicas"].as_u64());
            (said == ("True", "AllGood", Some(2))).then_some(())
        });
    }

    /// New code takes the place of the old one, in the Pods and among the ConfigMaps.
    fn an_edit_and_its_leftovers(&self) {
        let file = self.dir.path().join("plain.py");
        std::fs::write(&file, "def main(event, context):\n    return 'edited'\n").unwrap();
        let file = file.display().to_string();
        self.cli.ok(&["function", "update", "inline", "--from-file", &file, "--wait"]);
        assert_eq!(self.cli.ok(&["function", "call", "inline"]), "edited");
        for name in ["inline", "zipped"] {
            self.cli.ok(&["autoscale", "delete", name]);
        }
        let gone =
            ["horizontalpodautoscaler/inline", "horizontalpodautoscaler/zipped", "servicemonitor/zipped"];
        self.becomes(&[], &gone);
    }

    fn delete_everything(&self) {
        // As Kubeless left it on objects that it stored.
        let finalizer = json!({"metadata": {"finalizers": ["kubeless.io/function"]}}).to_string();
        let migrated =
            ["patch", "functions.kubeless.io", "zipped", "-n", &self.cli.namespace, "--type=merge"];
        self.cluster.kubectl(&[&migrated[..], &["-p", &finalizer]].concat());
        self.cli.ok(&["trigger", "kafka", "delete", "orders"]);
        // Those for HTTP and by the clock go with their function.
        let mut arguments = vec!["function", "delete"];
        arguments.extend(FUNCTIONS);
        self.cli.ok(&arguments);
    }

    /// Outside a namespace: brokers have none.
    fn send(&self, arguments: &[&str]) {
        Cli { namespace: String::new(), ..self.cli.clone() }.ok(arguments);
    }

    fn pods(&self) -> Vec<Value> {
        let list = self.cluster.get(&self.cli.namespace, "pods");
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// A metric of this namespace, summed over the dispatchers.
    fn dispatched(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mut wanted = vec![("namespace", self.cli.namespace.as_str())];
        wanted.extend(labels);
        let found = self.installed.dispatchers();
        found.iter().filter_map(|address| metrics::scrape(*address).get(name, &wanted)).sum()
    }

    /// What `kubectl get` shows: rows by the names of their columns.
    fn table(&self, kind: &str) -> Vec<BTreeMap<String, String>> {
        let text = self.cluster.kubectl(&["get", kind, "-n", &self.cli.namespace]);
        let mut lines = text.lines();
        let head = lines.next().unwrap_or_default();
        let mut starts: Vec<usize> = Vec::new();
        for (at, _) in head.match_indices(|c: char| c != ' ') {
            if at == 0 || head[..at].ends_with("  ") {
                starts.push(at);
            }
        }
        let cells = |line: &str| -> Vec<String> {
            let end = |n: usize| starts.get(n + 1).map_or(line.len(), |next| (*next).min(line.len()));
            (0..starts.len()).map(|n| line[starts[n].min(line.len())..end(n)].trim().to_owned()).collect()
        };
        let names = cells(head);
        lines.map(|line| names.iter().cloned().zip(cells(line)).collect()).collect()
    }
}
