//! The watched cache against a real API server: what it knows while objects, servers and rights come and go. In
//! process, through the library. Must never wait for time to pass: it waits for what the cache knows.

use super::support::{
    apiserver::{self, ApiServer, Part},
    kubectl::Access,
    wait,
};
use kubeless::{
    cluster::{
        client::Connect,
        index::Index as _,
        target::{ObjectRef, TriggerRef},
        watch::{Batch, Health, Phase, Subject, WatchSettings, Watches, unsynced},
    },
    router::{Router, RouterOptions, index::Index},
    sources::{KINDS, TRIGGERS},
    telemetry::Registry,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// An API server that comes back is found after at most the longest pause and its spread.
const PATIENCE: Duration = Duration::from_secs(90);

/// What is known of one object: faults, and whether a version of it is in force.
type Known = BTreeMap<(&'static str, String), Vec<String>>;

/// A running cache with everything it said, applied.
struct Cache {
    known: Arc<Mutex<Known>>,
    topics: Arc<Mutex<BTreeMap<String, String>>>,
    router: Router,
    health: Vec<Health>,
    registry: Registry,
    stop: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Cache {
    fn start(kubeconfig: &Path, settings: &WatchSettings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let connect = Connect { kubeconfig: Some(kubeconfig.to_owned()), ..Connect::default() };
        let registry = Registry::new();
        let (mut index, router) = Router::new(RouterOptions::default());
        let (known, topics) = (Arc::<Mutex<Known>>::default(), Arc::<Mutex<BTreeMap<_, _>>>::default());
        let stop = CancellationToken::new();
        let connection = runtime.block_on(connect.open("kubeless-test")).expect("a connection");
        let mut watches = {
            let _entered = runtime.enter();
            registry.scope(|| Watches::start(&connection, settings))
        };
        let health = watches.health().to_vec();
        let (task_known, task_topics, task_stop) = (Arc::clone(&known), Arc::clone(&topics), stop.clone());
        let task = runtime.spawn(async move {
            loop {
                tokio::select! {
                    () = task_stop.cancelled() => break,
                    batch = watches.next() => match batch {
                        Some(batch) => apply(&mut index, &task_known, &task_topics, batch),
                        None => break,
                    }
                }
            }
            watches.stop().await;
        });
        Self { known, topics, router, health, registry, stop, runtime: Some(runtime), task: Some(task) }
    }

    fn faults(&self, kind: &str, name: &str) -> Option<Vec<String>> {
        let known = self.known.lock().expect("not poisoned");
        known.iter().find(|((k, n), _)| *k == kind && n == name).map(|(_, faults)| faults.clone())
    }

    fn topic(&self, name: &str) -> Option<String> {
        self.topics.lock().expect("not poisoned").get(name).cloned()
    }

    #[track_caller]
    fn until_synced(&self) {
        wait::until("every list read once", PATIENCE, || unsynced(&self.health).is_empty().then_some(()));
    }

    fn watch(&self, kind: &str) -> &Health {
        self.health.iter().find(|health| health.kind == kind).expect("it is watched")
    }

    fn metric(&self, name: &str) -> f64 {
        let page = self.registry.render();
        let line =
            page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {page}"));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.stop.cancel();
        let (Some(runtime), Some(task)) = (self.runtime.take(), self.task.take()) else { return };
        let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), task).await });
        if !std::thread::panicking() {
            ended.expect("watches end at once").expect("no panic");
        }
    }
}

fn apply(index: &mut Index, known: &Mutex<Known>, topics: &Mutex<BTreeMap<String, String>>, batch: Batch) {
    let mut topics = topics.lock().expect("not poisoned");
    for trigger in batch.changes.triggers.apply {
        let kind = KINDS.iter().find(|kind| kind.trigger().kind == trigger.kind);
        let topic = kind.map(|kind| kind.address_of(&trigger)).unwrap_or_default();
        topics.insert(trigger.core.reference.name.to_string(), topic);
        index.apply(Arc::clone(&trigger.core));
    }
    for (_, reference) in batch.changes.triggers.delete {
        topics.remove(&*reference.name);
    }
    for function in batch.changes.functions.apply {
        index.apply(Arc::unwrap_or_clone(function));
    }
    let mut known = known.lock().expect("not poisoned");
    for seen in batch.seen {
        let key = (seen.kind, seen.reference.name.to_string());
        match seen.present {
            Some(present) => known.insert(key, present.faults.iter().map(ToString::to_string).collect()),
            None => known.remove(&key),
        };
    }
}

fn settings(namespace: &str) -> WatchSettings {
    let mut subjects =
        vec![Subject::Functions, Subject::Services(String::new()), Subject::Slices(String::new())];
    subjects.extend(TRIGGERS.iter().map(|kind| Subject::Triggers(*kind)));
    let namespaces = if namespace.is_empty() { Vec::new() } else { vec![namespace.to_owned()] };
    WatchSettings { subjects, namespaces, silence: Duration::from_secs(90) }
}

fn trigger_kind() -> &'static str {
    KINDS[0].trigger().kind
}

fn trigger(name: &str, topic: &str) -> String {
    json!({
        "apiVersion": "kubeless.io/v1beta1", "kind": trigger_kind(), "metadata": {"name": name},
        "spec": {"topic": topic, "functionSelector": {"matchLabels": {"app": "a"}}},
    })
    .to_string()
}

fn delete(api: &Access, namespace: &str, name: &str) {
    let plural = Subject::Triggers(KINDS[0].trigger()).resource().plural;
    api.kubectl(&["delete", "-n", namespace, &format!("{plural}.kubeless.io/{name}")]);
}

#[test]
fn objects_appear_change_and_vanish_and_a_malformed_one_hides_nothing() {
    let api = &ApiServer::start();
    api.install_crds();
    // As an older definition: the server takes what our own checks do not.
    let rules = r#"[{"op":"remove","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations"}]"#;
    api.kubectl(&["patch", "crd", "kafkatriggers.kubeless.io", "--type=json", "-p", rules]);
    let namespace = api.namespace("seen");
    api.apply(&namespace, &trigger("early", "orders"));
    let cache = Cache::start(&api.kubeconfig(), &settings(&namespace));
    cache.until_synced();
    assert_eq!(cache.topic("early").as_deref(), Some("orders"), "what was there is known once synced");
    let bad = trigger("bad", "orders").replacen(
        "\"topic\"",
        "\"delivery\":{\"deadLetter\":{\"topic\":\"orders\"}},\"topic\"",
        1,
    );
    // The server puts an edited definition into force a moment later.
    let applied = || api.try_kubectl(&["apply", "-n", &namespace, "-f", "-"], &bad).ok();
    wait::until("the server takes the bad one", PATIENCE, applied);
    api.apply(&namespace, &trigger("late", "invoices"));
    wait::until("the one after the bad one", PATIENCE, || cache.topic("late"));
    let faults = wait::until("the bad one is told", PATIENCE, || cache.faults(trigger_kind(), "bad"));
    assert!(faults.len() == 1 && faults[0].contains("deadLetter"), "{faults:?}");
    assert_eq!(cache.topic("bad"), None, "and not in force");
    assert_eq!(cache.metric(&format!("kubeless_watch_malformed_objects{{kind=\"{}\"", trigger_kind())), 1.0);
    api.apply(&namespace, &trigger("bad", "payments"));
    wait::until("the mended one", PATIENCE, || cache.topic("bad").filter(|topic| topic == "payments"));
    assert_eq!(cache.faults(trigger_kind(), "bad"), Some(Vec::new()));
    delete(api, &namespace, "early");
    wait::until("the deleted one is gone", PATIENCE, || cache.topic("early").is_none().then_some(()));
    assert_eq!(cache.watch("Function").phase().0, Phase::Running);
}

#[test]
fn an_api_server_that_dies_takes_nothing_with_it_and_is_found_again() {
    let mut api = ApiServer::start();
    api.install_crds();
    let namespace = api.namespace("outage");
    api.apply(&namespace, &trigger("a", "orders"));
    api.apply(&namespace, &trigger("b", "orders"));
    let cache = Cache::start(&api.kubeconfig(), &settings(""));
    cache.until_synced();
    // Other writes carry the server's version beyond what the watches were told.
    for n in 0..20 {
        api.kubectl(&["create", "configmap", &format!("m{n}"), "-n", &namespace]);
    }
    api.kill9(Part::ApiServer);
    let watch = cache.watch(trigger_kind());
    wait::until("the outage is noticed", PATIENCE, || {
        matches!(watch.phase().0, Phase::Unreachable(_)).then_some(())
    });
    assert_eq!(cache.topic("a").as_deref(), Some("orders"), "what is known stays");
    assert!(unsynced(&cache.health).is_empty(), "and so does readiness");
    let age = watch.age();
    wait::until("the age grows", PATIENCE, || (watch.age() > age + Duration::from_millis(500)).then_some(()));
    // A server that starts anew remembers no history: the position is too old, and the list begins again.
    api.start_again(Part::ApiServer);
    delete(&api, &namespace, "a");
    api.apply(&namespace, &trigger("c", "invoices"));
    wait::until("what changed meanwhile", PATIENCE, || {
        (cache.topic("a").is_none() && cache.topic("c").is_some()).then_some(())
    });
    wait::until("all watches run", PATIENCE, || {
        cache.health.iter().all(|watch| watch.phase().0 == Phase::Running).then_some(())
    });
    assert_eq!(cache.topic("b").as_deref(), Some("orders"));
}

#[test]
fn a_compacted_history_makes_the_list_begin_again() {
    let mut api = ApiServer::start();
    api.install_crds();
    let namespace = api.namespace("compact");
    api.apply(&namespace, &trigger("a", "orders"));
    let cache = Cache::start(&api.kubeconfig(), &settings(""));
    cache.until_synced();
    for n in 0..5 {
        api.kubectl(&["create", "configmap", &format!("m{n}"), "-n", &namespace]);
    }
    api.kill9(Part::ApiServer);
    api.compact();
    api.start_again(Part::ApiServer);
    let expired = || {
        let page = cache.registry.render();
        let ended = |line: &&str| {
            line.starts_with("kubeless_watch_ended_total") && line.contains("reason=\"expired\"")
        };
        page.lines()
            .filter(ended)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>()
    };
    wait::until("410 Gone", PATIENCE, || (expired() > 0.0).then_some(()));
    api.apply(&namespace, &trigger("b", "invoices"));
    wait::until("it goes on", PATIENCE, || cache.topic("b"));
    assert_eq!(cache.topic("a").as_deref(), Some("orders"));
}

#[test]
fn a_connection_that_is_half_open_is_given_up() {
    let mut api = ApiServer::start();
    api.install_crds();
    let namespace = api.namespace("frozen");
    api.apply(&namespace, &trigger("a", "orders"));
    // No bookmark comes that fast: watches begin again and again, and lose nothing by it.
    let quick = WatchSettings { silence: Duration::from_secs(2), ..settings("") };
    let cache = Cache::start(&api.kubeconfig(), &quick);
    cache.until_synced();
    api.apply(&namespace, &trigger("b", "orders"));
    wait::until("a change", PATIENCE, || cache.topic("b"));
    api.suspend(Part::ApiServer);
    let frozen = Instant::now();
    let watch = cache.watch(trigger_kind());
    wait::until("silence is noticed", PATIENCE, || {
        matches!(watch.phase().0, Phase::Unreachable(_)).then_some(())
    });
    println!("half-open connection given up after {:.1?}", frozen.elapsed());
    assert_eq!(cache.topic("a").as_deref(), Some("orders"));
    api.resume(Part::ApiServer);
    api.apply(&namespace, &trigger("c", "orders"));
    wait::until("it is watched again", PATIENCE, || cache.topic("c"));
}

#[test]
fn an_etcd_that_is_restarted_is_waited_for() {
    let mut api = ApiServer::start();
    api.install_crds();
    let namespace = api.namespace("etcd");
    api.apply(&namespace, &trigger("a", "orders"));
    let cache = Cache::start(&api.kubeconfig(), &settings(""));
    cache.until_synced();
    api.kill9(Part::Etcd);
    api.start_again(Part::Etcd);
    api.apply(&namespace, &trigger("b", "invoices"));
    wait::until("the next change", PATIENCE, || cache.topic("b"));
    assert_eq!(cache.topic("a").as_deref(), Some("orders"));
}

#[test]
fn a_crd_that_is_missing_is_told_and_looked_for() {
    let api = ApiServer::start();
    let cache = Cache::start(&api.kubeconfig(), &settings(""));
    let watch = cache.watch(trigger_kind());
    wait::until("the missing kind", PATIENCE, || matches!(watch.phase().0, Phase::Missing(_)).then_some(()));
    // There are no such objects: that is a complete answer.
    cache.until_synced();
    api.install_crds();
    let namespace = api.namespace("crd");
    api.apply(&namespace, &trigger("a", "orders"));
    wait::until("the new kind", PATIENCE, || cache.topic("a"));
    assert_eq!(watch.phase().0, Phase::Running);
}

#[test]
fn rights_in_one_namespace_are_enough_and_missing_ones_are_told() {
    let api = apiserver::shared();
    api.install_crds();
    let (namespace, other) = (api.namespace("mine"), api.namespace("theirs"));
    api.kubectl(&["create", "serviceaccount", "dispatcher", "-n", &namespace]);
    let cache = Cache::start(&api.service_account(&namespace, "dispatcher"), &settings(&namespace));
    let watch = cache.watch("Function");
    wait::until("the refusal", PATIENCE, || matches!(watch.phase().0, Phase::Refused(_)).then_some(()));
    assert!(
        unsynced(&cache.health).iter().any(|line| line.contains("refused")),
        "{:?}",
        unsynced(&cache.health)
    );
    let mut rules = vec![
        json!({"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]}),
        json!({"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}),
    ];
    let mut ours: Vec<String> =
        TRIGGERS.iter().map(|kind| Subject::Triggers(*kind).resource().plural).collect();
    ours.push("functions".to_owned());
    rules.push(json!({"apiGroups": ["kubeless.io"], "resources": ours, "verbs": ["list", "watch"]}));
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"}, "rules": rules,
    });
    api.apply(&namespace, &role.to_string());
    let account = format!("--serviceaccount={namespace}:dispatcher");
    api.kubectl(&["create", "rolebinding", "reader", "--role=reader", &account, "-n", &namespace]);
    api.apply(&other, &trigger("not-mine", "orders"));
    api.apply(&namespace, &trigger("mine", "orders"));
    wait::until("the granted one", PATIENCE, || cache.topic("mine"));
    cache.until_synced();
    assert_eq!(cache.topic("not-mine"), None);
}

#[test]
fn a_thousand_triggers_and_five_hundred_functions_are_known_at_once() {
    const FUNCTIONS: usize = 500;
    const TRIGGERS: usize = 1000;
    let api = apiserver::shared();
    api.install_crds();
    let namespace = api.namespace("many");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = api.client().await;
        let functions = (0..FUNCTIONS).map(|n| {
            json!({"apiVersion": "kubeless.io/v1beta1", "kind": "Function",
                "metadata": {"name": format!("f{n}"), "namespace": namespace, "labels": {"app": format!("a{n}")}},
                "spec": {"runtime": "python3.11", "handler": "h.h", "function": "x".repeat(10_000)}})
        });
        let triggers = (0..TRIGGERS).map(|n| {
            json!({"apiVersion": "kubeless.io/v1beta1", "kind": trigger_kind(),
                "metadata": {"name": format!("t{n}"), "namespace": namespace},
                "spec": {"topic": "t", "functionSelector": {"matchLabels": {"app": format!("a{}", n % FUNCTIONS)}}}})
        });
        let all: Vec<Value> = functions.chain(triggers).collect();
        let lanes = all.chunks(all.len().div_ceil(16)).map(|objects| create(client.clone(), objects.to_vec()));
        let lanes: Vec<_> = lanes.map(tokio::spawn).collect();
        for lane in lanes {
            lane.await.expect("no panic");
        }
    });
    let before = resident();
    let begun = Instant::now();
    let cache = Cache::start(&api.kubeconfig(), &settings(&namespace));
    cache.until_synced();
    wait::until("every route", PATIENCE, || (cache.router.load().iter().count() == TRIGGERS).then_some(()));
    let took = begun.elapsed();
    let memory = resident().saturating_sub(before);
    println!(
        "{TRIGGERS} triggers and {FUNCTIONS} functions known after {took:.2?}, {} KiB more resident",
        memory / 1024
    );
    let one = TriggerRef::new(trigger_kind(), ObjectRef::new(namespace.as_str(), "t999"));
    assert_eq!(cache.router.subscriptions(&one).len(), 1);
    // The mark is 2 s on a quiet machine; the bound here only tells a wrong order of growth.
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(memory < 200 << 20, "{memory} bytes");
}

async fn create(client: kube::Client, objects: Vec<Value>) {
    use kube::{Api, api::DynamicObject, api::PostParams};
    for object in objects {
        let function = object["kind"] == "Function";
        let subject = if function { Subject::Functions } else { Subject::Triggers(KINDS[0].trigger()) };
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let namespace = object.metadata.namespace.clone().expect("it has one");
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &subject.resource());
        api.create(&PostParams::default(), &object).await.expect("created");
    }
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * rustix::param::page_size()
}
