//! The source inside the test process, with a clock of the test's own: one trigger every minute, one function, as many
//! dispatchers as a test wants. Must never use a way into the source that the daemon has not.

use super::{
    super::support::{apiserver::ApiServer, wait, witness::Witness},
    LIMIT,
};
use kubeless::{
    api::{cronjob_trigger, function, kind::TriggerObject},
    cluster::index::Index as _,
    dispatch::{Route, Router, Settings, Subscription, Workers},
    invoker::InvokerConfig,
    ledger::journal::{Journal, JournalConfig, Line, read_dir},
    router::{RouterOptions, index::Index},
    sources::{
        Environment, Order, Running, Source as _,
        cron::{CronSource, clocks::Clocks, options::Options},
    },
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

/// 2026-11-23T12:00:00Z.
pub const NOON: i64 = 1_795_435_200;

/// Where registers are.
pub enum Place<'a> {
    Cluster(&'a ApiServer),
    Folder(&'a Path),
}

/// A clock that stands until it is moved, or this machine's with an offset.
#[derive(Clone)]
pub struct SimulatedClock {
    real: bool,
    ms: Arc<AtomicI64>,
}

impl SimulatedClock {
    pub fn at(second: i64) -> Self {
        Self { real: false, ms: Arc::new(AtomicI64::new(second * 1000)) }
    }

    pub fn real() -> Self {
        Self { real: true, ms: Arc::default() }
    }

    /// Time passes: both clocks go on.
    pub fn advance(&self, ms: i64) {
        self.ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// The wall clock is set.
    pub fn step(&self, ms: i64) {
        assert!(self.real, "a clock that stands is advanced");
        self.advance(ms);
    }

    fn clocks(&self) -> Clocks {
        let (wall, boot, real) = (self.ms.clone(), self.ms.clone(), self.real);
        let now = move || if real { kubeless::clock::unix_ms() } else { 0 };
        Clocks {
            wall_ms: Arc::new(move || now() + wall.load(Ordering::SeqCst)),
            boot_ms: Arc::new(move || match real {
                true => kubeless::clock::boot_ms(),
                false => u64::try_from(boot.load(Ordering::SeqCst)).expect("after 1970"),
            }),
            look: Duration::from_millis(1),
        }
    }
}

/// One trigger and one function.
pub struct Rig<'a> {
    place: &'a Place<'a>,
    namespace: String,
    trigger: TriggerObject,
    endpoint: std::net::SocketAddr,
    runtime: Arc<tokio::runtime::Runtime>,
}

/// One dispatcher's part.
pub struct Dispatcher {
    running: Option<Running>,
    subscription: Arc<Subscription>,
    status: Arc<Mutex<String>>,
    index: Mutex<Index>,
    trigger: TriggerObject,
    route: Arc<Route>,
    dir: tempfile::TempDir,
    // The connections of its client live on it.
    _runtime: Arc<tokio::runtime::Runtime>,
}

impl<'a> Rig<'a> {
    /// `spec`: what the trigger has beside a schedule of every minute.
    pub fn new(place: &'a Place<'a>, witness: &Witness, spec: &Value) -> Self {
        let mut whole =
            json!({"schedule": "* * * * *", "function-name": "witness", "executor": "Dispatcher"});
        for (name, value) in spec.as_object().expect("fields") {
            whole[name] = value.clone();
        }
        let namespace = match place {
            Place::Cluster(api) => {
                api.install_crds();
                api.namespace("cron")
            }
            Place::Folder(_) => "default".to_owned(),
        };
        let mut object = json!({
            "apiVersion": "kubeless.io/v1beta1", "kind": "CronJobTrigger",
            "metadata": {"name": "minutes", "namespace": namespace}, "spec": whole,
        });
        if let Place::Cluster(api) = place {
            for object in [
                &object,
                &functions(&namespace)[0],
                &functions(&namespace)[1],
                &slice(&namespace, witness.address(), true),
            ] {
                api.apply(&namespace, &object.to_string());
            }
            object = api.get(&namespace, "cronjobtriggers/minutes");
        }
        let trigger = cronjob_trigger::decode(object).expect("a sound trigger");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = Arc::new(runtime.expect("a runtime"));
        Self { place, namespace, trigger, endpoint: witness.address(), runtime }
    }

    /// A dispatcher that takes a clock `skew_s` seconds off.
    pub fn start(&self, clock: &SimulatedClock, skew_s: u64) -> Dispatcher {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (mut index, router) = Router::new(RouterOptions::default());
        let [function, service] = functions(&self.namespace);
        index.apply(function::decode(function).expect("a sound function"));
        index.apply(
            serde_json::from_value::<k8s_openapi::api::core::v1::Service>(service).expect("a Service"),
        );
        index.apply(endpoints(&self.namespace, self.endpoint, true));
        index.apply(Arc::clone(&self.trigger.core));
        let route = Arc::clone(&router.subscriptions(&self.trigger.core.key())[0]);
        let config = JournalConfig { max_bytes: 64 << 20, segment_bytes: 8 << 20 };
        let cluster = match self.place {
            Place::Cluster(api) => {
                Some((self.runtime.block_on(api.client()), self.namespace.as_str().into()))
            }
            Place::Folder(_) => None,
        };
        let environment = Environment {
            journal: Arc::new(Journal::open(&dir.path().join("journal"), config).expect("a journal")),
            workers: Arc::new(Workers::start(1, &InvokerConfig::default()).expect("a worker")),
            permits: Arc::new(tokio::sync::Semaphore::new(64)),
            memory: Arc::default(),
            timeout_margin: Duration::from_secs(1),
            cluster,
            secret: None,
            router: router.clone(),
        };
        let mut options = Options { max_clock_skew: Duration::from_secs(skew_s), ..Options::default() };
        if !clock.real {
            // Its minutes pass while a call takes milliseconds, and the API server's clock is another.
            let ages = Duration::from_secs(1 << 31);
            options = Options { max_clock_skew: ages, doubt_margin: ages, ..options };
        }
        let folder: PathBuf = match self.place {
            Place::Cluster(_) => dir.path().join("unused"),
            Place::Folder(folder) => folder.to_path_buf(),
        };
        let source = CronSource::new(options, clock.clocks(), folder);
        let guard = self.runtime.enter();
        let running = source.start(&self.trigger, &route, &environment).expect("it starts");
        drop(guard);
        Dispatcher {
            subscription: Arc::clone(&running.subscription),
            status: Arc::clone(&running.status),
            running: Some(running),
            index: Mutex::new(index),
            trigger: self.trigger.clone(),
            route,
            dir,
            _runtime: Arc::clone(&self.runtime),
        }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn uid(&self) -> &str {
        &self.trigger.core.uid
    }

    /// Id of the event of an instant.
    pub fn id(&self, second: i64) -> String {
        format!("{}/{}", self.uid(), jiff::Timestamp::from_second(second).expect("in range"))
    }

    /// The register as it stands.
    fn register(&self) -> Value {
        match self.place {
            Place::Cluster(api) => api.get(&self.namespace, "cronjobtriggers/minutes")["status"].take(),
            Place::Folder(folder) => {
                let text = std::fs::read_to_string(folder.join("default_minutes.json")).unwrap_or_default();
                serde_json::from_str::<Value>(&text).map_or(Value::Null, |mut kept| kept["status"].take())
            }
        }
    }

    pub fn open(&self) -> usize {
        self.register()["claim"].as_array().map_or(0, Vec::len)
    }

    pub fn last(&self) -> Option<i64> {
        let text = self.register()["lastScheduledTime"].as_str()?.to_owned();
        Some(text.parse::<jiff::Timestamp>().expect("an instant").as_second())
    }

    pub fn wait_last(&self, second: i64) {
        wait::until("the instant is claimed or passed", LIMIT, || {
            (self.last() == Some(second)).then_some(())
        });
    }

    /// Instants count from now on.
    pub fn wait_since(&self) {
        wait::until("a first look", LIMIT, || self.register()["since"].as_str().map(drop));
    }

    /// As if all up to then had been served.
    pub fn set_last(&self, second: i64) {
        let Place::Cluster(api) = self.place else { panic!("a folder's register is written by the test") };
        let last = jiff::Timestamp::from_second(second).expect("in range").to_string();
        let patch = json!({"status": {"lastScheduledTime": last}}).to_string();
        let args = [
            "patch",
            "-n",
            &self.namespace,
            "cronjobtriggers/minutes",
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ];
        api.kubectl(&args);
    }

    /// Says whether the function has a ready pod.
    pub fn ready(&mut self, dispatcher: &Dispatcher, ready: bool) {
        let slice = endpoints(&self.namespace, self.endpoint, ready);
        dispatcher.index.lock().expect("no panic inside").apply(slice);
    }
}

impl Dispatcher {
    pub fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.orders.send(Order::Stop(Instant::now() + Duration::from_secs(10))).expect("it runs");
        running.thread.join().expect("it did not panic");
    }

    pub fn status(&self) -> String {
        self.status.lock().expect("no panic inside").clone()
    }

    pub fn outcome(&self, name: &str) -> u64 {
        let outcomes = kubeless::ledger::Outcome::ALL;
        let outcome = outcomes.into_iter().find(|outcome| outcome.as_str() == name).expect("an outcome");
        self.subscription.conservation().outcome(outcome)
    }

    pub fn residual(&self) -> i64 {
        self.subscription.conservation().residual()
    }

    pub fn granted(&self) -> u64 {
        self.journal().iter().filter(|line| line.outcome.as_str() == "delivered").count() as u64
    }

    pub fn pause(&self, paused: bool) {
        let settings = Settings::of(&self.trigger.core, Duration::from_secs(1));
        self.subscription.update(Settings { paused, ..settings });
        self.looked();
    }

    /// Returns when the thread has looked at clocks and settings again, which it does every millisecond.
    pub fn looked(&self) {
        let until = Instant::now() + Duration::from_millis(200);
        wait::until("it was looked at", LIMIT, || (Instant::now() > until).then_some(()));
    }

    /// Whether the function has a ready endpoint for it.
    pub fn is_ready(&self) -> bool {
        !self.route.target.load().endpoints.is_empty()
    }

    pub fn journal(&self) -> Vec<Line> {
        journal(self.dir.path())
    }
}

/// What a dispatcher with this state folder has recorded.
pub fn journal(state: &Path) -> Vec<Line> {
    read_dir(&state.join("journal")).map(|lines| lines.flatten().collect()).unwrap_or_default()
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.orders.send(Order::Stop(Instant::now()));
            let _ = running.thread.join();
        }
    }
}

fn functions(namespace: &str) -> [Value; 2] {
    let metadata = json!({"name": "witness", "namespace": namespace, "labels": {"created-by": "kubeless"}});
    let function = json!({
        "apiVersion": "kubeless.io/v1beta1", "kind": "Function", "metadata": metadata,
        "spec": {"runtime": "python3.11", "handler": "witness.handler", "timeout": "2"},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"ports": [{"name": "http-function-port", "port": 8080}]},
    });
    [function, service]
}

fn slice(namespace: &str, to: std::net::SocketAddr, ready: bool) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "witness-1", "namespace": namespace,
            "labels": {"created-by": "kubeless", "kubernetes.io/service-name": "witness"}},
        "ports": [{"name": "http-function-port", "port": to.port(), "protocol": "TCP"}],
        "endpoints": [{"addresses": [to.ip().to_string()], "conditions": {"ready": ready}}],
    })
}

fn endpoints(
    namespace: &str,
    to: std::net::SocketAddr,
    ready: bool,
) -> k8s_openapi::api::discovery::v1::EndpointSlice {
    serde_json::from_value(slice(namespace, to, ready)).expect("an EndpointSlice")
}
