//! One function, one trigger, and dispatchers over one source, with what they said and did. Must never take the product's
//! word for an invocation.

use super::Source;
use crate::support::{
    manifests::Manifests,
    metrics,
    process::{Dispatcher, Launch},
    wait,
    witness::Witness,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::Path,
    time::Duration,
};

/// Longest wait for anything; usually far less.
pub const LIMIT: Duration = Duration::from_secs(60);

const DELIVERY: &str = "  delivery:\n";

/// See the module.
pub struct Run<S: Source> {
    pub source: S,
    pub witness: Witness,
    pub published: usize,
    pub poisoned: usize,
    manifests: Manifests,
    further: Vec<String>,
    // Last: removed after the processes are gone.
    dir: tempfile::TempDir,
}

/// What the journals of all dispatchers say.
#[derive(Debug, Default)]
pub struct Books {
    /// Ids by their outcome; an own outcome stands before a doubt.
    pub by_id: BTreeMap<String, String>,
    /// Events by outcome, those without an id included.
    pub counts: BTreeMap<String, u64>,
}

impl Books {
    pub fn count(&self, outcome: &str) -> u64 {
        self.counts.get(outcome).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

impl<S: Source> Run<S> {
    /// With a trigger that has these further lines of its spec.
    pub fn new(source: S, lines: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let witness = Witness::start();
        let manifests = Manifests::new(dir.path());
        manifests.function("witness", &[("app", "witness")], &[witness.address()]);
        let run = Self { source, witness, published: 0, poisoned: 0, manifests, further: Vec::new(), dir };
        run.edit(lines);
        run
    }

    /// Further arguments of every dispatcher from now on.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.further.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Writes the trigger anew.
    pub fn edit(&self, lines: &str) {
        let (kind, own) = (S::KIND, self.source.spec());
        // A group that the source begins goes on.
        let lines =
            if own.contains(DELIVERY) { lines.strip_prefix(DELIVERY).unwrap_or(lines) } else { lines };
        let head = "metadata:\n  name: trigger\n  namespace: default\n";
        let text = format!("apiVersion: kubeless.io/v1beta1\nkind: {kind}\n{head}spec:\n{own}{lines}");
        self.manifests.write("trigger-trigger", &text);
    }

    pub fn delete(&self) {
        self.manifests.remove("trigger-trigger");
    }

    /// No pod is ready, or the witness is.
    pub fn ready(&self, ready: bool) {
        let all = [self.witness.address()];
        self.manifests.endpoints("witness", if ready { &all } else { &[] });
    }

    /// Starts a dispatcher; returns when its subscription is connected.
    pub fn start(&self, name: &str) -> Dispatcher {
        let mut dispatcher = self.launch(name);
        self.wait_connected(&mut dispatcher);
        dispatcher
    }

    /// Starts a dispatcher; returns when it is ready.
    pub fn launch(&self, name: &str) -> Dispatcher {
        let mut dispatcher = self.prepare(name).start();
        dispatcher.wait_ready(LIMIT);
        dispatcher
    }

    /// Starts a dispatcher that dies at a crash point, at the passage after the colon.
    pub fn launch_to_die(&self, name: &str, point: &str) -> Dispatcher {
        self.prepare(name).env("KUBELESS_POINT", point).start()
    }

    fn prepare(&self, name: &str) -> Launch {
        let own = || self.dir.path().join(format!("state-{name}"));
        let state = self.source.state().map_or_else(own, Path::to_path_buf);
        let launch = Launch::dispatcher(self.dir.path(), name)
            .arg("--manifests")
            .arg(self.manifests.dir().display().to_string())
            .arg("--state-dir")
            .arg(state.display().to_string())
            .args(["--admin-listen", "127.0.0.1:0", "--log-format", "json"]);
        let launch = launch.args(self.source.arguments()).args(self.further.clone());
        self.source.environment().into_iter().fold(launch, |launch, (name, value)| launch.env(name, value))
    }

    /// Returns when the subscription receives.
    pub fn wait_connected(&self, dispatcher: &mut Dispatcher) {
        let admin = dispatcher.admin();
        wait::until("the subscription is connected", LIMIT, || {
            (metrics::scrape(admin).get("kubeless_source_connected", &[])? >= 1.0).then_some(())
        });
    }

    /// Publishes `count` events more; returns their numbers.
    pub fn publish(&mut self, count: usize) -> Range<usize> {
        self.publish_with(count, 100)
    }

    pub fn publish_with(&mut self, count: usize, padding: usize) -> Range<usize> {
        let numbers = self.published..self.published + count;
        self.source.publish(numbers.clone(), padding);
        self.published += count;
        numbers
    }

    pub fn poison(&mut self) {
        self.source.poison();
        self.poisoned += 1;
    }

    /// Returns when `count` events more are kept for the subscription, if it is not to keep up.
    pub fn wait_room(&self, count: usize) {
        if S::HOLDS < self.published + count {
            let most = (self.published + count - S::HOLDS) as u64;
            wait::until("it keeps up", LIMIT, || (self.books().total() >= most).then_some(()));
        }
    }

    /// Waits until each of these events has ended.
    #[track_caller]
    pub fn wait_ended(&self, numbers: Range<usize>) {
        let ids: Vec<String> = numbers.map(|number| self.source.id(number)).collect();
        wait::until("what came last has ended", S::PATIENCE, || {
            let books = self.books();
            ids.iter().all(|id| books.by_id.contains_key(id)).then_some(())
        });
    }

    /// What the journals say now.
    pub fn books(&self) -> Books {
        let mut books = Books::default();
        let mut seen = BTreeSet::new();
        let states = fs::read_dir(self.dir.path()).expect("the test's own folder").flatten();
        let states = states.map(|state| state.path()).chain(self.source.state().map(Path::to_path_buf));
        let segments = states.filter_map(|state| fs::read_dir(state.join("journal")).ok()).flatten();
        let mut doubts = Vec::new();
        for segment in segments.flatten() {
            let text = String::from_utf8_lossy(&fs::read(segment.path()).expect("a segment")).into_owned();
            for line in text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
                let Some(outcome) = line["outcome"].as_str().filter(|_| !S::is_offer(&line)) else {
                    continue;
                };
                // Numbers of one process, where there are coordinates.
                let key = line["coordinates"].as_str().map_or_else(
                    || ["stream", "shard", "sequence"].map(|field| line[field].to_string()).join("/"),
                    str::to_owned,
                );
                let line = (key, outcome.to_owned(), line["id"].as_str().unwrap_or("").to_owned(), line);
                if outcome_is_doubt(&line.1) { doubts.push(line) } else { enter(&mut books, &mut seen, line) }
            }
        }
        for line in doubts {
            if !seen.contains(&line.0) {
                enter(&mut books, &mut seen, line);
            }
        }
        books
    }

    /// Waits until as many events as were published have ended.
    #[track_caller]
    pub fn settle(&self) -> Books {
        let wanted = (self.published + self.poisoned) as u64;
        let ended =
            wait::try_until(S::PATIENCE, || Some(self.books()).filter(|books| books.total() >= wanted));
        ended.unwrap_or_else(|| {
            let books = self.books();
            let (called, counts) = (self.witness.len(), &books.counts);
            assert!(books.total() >= wanted, "{wanted} published, {called} called, ended: {counts:?}");
            books
        })
    }

    /// Nothing was called twice, everything delivered was called, and the process says that its books balance.
    #[track_caller]
    pub fn assert_sound(&self, books: &Books, dispatcher: &mut Dispatcher) {
        self.assert_once(books);
        let admin = dispatcher.admin();
        wait::until("the books balance", LIMIT, || {
            (metrics::scrape(admin).get("kubeless_conservation_residual", &[]) == Some(0.0)).then_some(())
        });
    }

    #[track_caller]
    pub fn assert_once(&self, books: &Books) {
        let twice = self.witness.invoked_twice();
        let first = &twice[..twice.len().min(20)];
        assert!(twice.is_empty(), "{} events were called twice, the first: {first:?}", twice.len());
        let called = self.witness.counts();
        for (id, outcome) in &books.by_id {
            let seen = called.contains_key(id);
            assert!(seen || outcome != "delivered", "{id} is delivered, but the function never saw it");
            let silent = ["unreachable", "duplicate", "filtered", "expired", "rejected", "missed"];
            assert!(
                !seen || !silent.contains(&outcome.as_str()),
                "{id} is {outcome}, but the function saw it"
            );
        }
    }
}

fn outcome_is_doubt(outcome: &str) -> bool {
    outcome == "in_doubt"
}

fn enter(
    books: &mut Books,
    seen: &mut BTreeSet<String>,
    (key, outcome, id, line): (String, String, String, serde_json::Value),
) {
    // A count stands for several; the time tells a sequence that begins anew.
    *books.counts.entry(outcome.clone()).or_default() += line["count"].as_u64().unwrap_or(1);
    seen.insert(key);
    if !id.is_empty() {
        books.by_id.insert(id, outcome);
    }
}
