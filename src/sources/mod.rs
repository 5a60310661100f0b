//! Sources of events: one folder each and one line in [`KINDS`] and [`TRIGGERS`]. Must never know claims, router or invoker: a source
//! hands what it reads to a [`Subscription`](crate::dispatch::Subscription).

pub mod cron;
pub mod custom;
pub mod http;
pub mod kafka;
pub mod kinesis;
pub mod manager;
pub mod nats;
mod push;

use crate::{
    api::{
        command::{self, TriggerCommand},
        conditions::{Fact, reasons, types},
        cronjob_trigger, function, http_trigger,
        kind::{TriggerKind, TriggerObject},
    },
    cluster::secrets::SecretData,
    config::DispatcherConfig,
    dispatch::{
        Route, Router, Settings, Subscription, SubscriptionParts, Window, WindowConfig, Workers,
        store::shared::Rows,
    },
    event::headers::HeaderTemplate,
    ledger::journal::Journal,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use std::{
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicUsize, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// Generations of a deduplication window: each expires as a whole.
const GENERATIONS: usize = 8;

/// The list: one line per source.
pub static KINDS: &[&dyn SourceKind] =
    &[&kafka::Kafka, &nats::Nats, &kinesis::Kinesis, &cron::Clock, &http::Http, &custom::Custom];
/// Every trigger kind that is read and checked. One without a source in [`KINDS`] is accepted and not served: its status
/// says so.
pub static TRIGGERS: &[TriggerKind] = &[
    kafka::spec::KIND,
    nats::spec::KIND,
    kinesis::spec::KIND,
    cronjob_trigger::KIND,
    http_trigger::KIND,
    custom::spec::KIND,
];

/// The command line of each trigger kind that has one.
pub static COMMANDS: &[TriggerCommand] = &[
    kafka::command::COMMAND,
    nats::command::COMMAND,
    kinesis::command::COMMAND,
    command::cronjob::COMMAND,
    command::http::COMMAND,
];

/// Every custom resource definition of the product, Function first.
pub fn crds() -> Vec<CustomResourceDefinition> {
    std::iter::once(function::crd()).chain(TRIGGERS.iter().map(|kind| (kind.crd)())).collect()
}

/// An error of a source on its way to a person.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Describes one source to everybody else.
pub trait SourceKind: Send + Sync {
    /// Name: metric label, configuration section, folder.
    fn name(&self) -> &'static str;

    /// Its trigger kind: CRD and decoder.
    fn trigger(&self) -> TriggerKind;

    /// Reads the source's section of the configuration and its environment.
    ///
    /// # Errors
    /// Says which key or variable is wrong and what is allowed.
    fn open(&self, config: &DispatcherConfig) -> Result<Box<dyn Source>, Error>;

    /// A client that publishes to this source, for `kubeless send`. `address`: where the server is.
    ///
    /// # Errors
    /// The address is missing or malformed.
    fn publisher(&self, address: &str) -> Result<Box<dyn Publisher>, Error>;

    /// A client that makes, lists and deletes topics of this source.
    ///
    /// # Errors
    /// The address is missing or malformed, or the source has no such thing.
    fn topics(&self, _address: &str) -> Result<Box<dyn Topics>, Error> {
        Err(format!("{} has nothing that is made before it is used", self.name()).into())
    }

    /// Whether an address can only be this source's: by its scheme.
    fn is_address(&self, _address: &str) -> bool {
        false
    }

    /// Rows for claims on the servers at `address`, which [`Self::is_address`] knows; `credentials`: folder of one file a
    /// value. Connects later, as often as it must.
    ///
    /// # Errors
    /// The address or the credentials make no sense, or the source keeps no claims of others.
    fn claim_store(&self, _address: &str, _credentials: Option<&Path>) -> Result<Arc<dyn Rows>, Error> {
        Err(format!("{} keeps no claims of requests", self.name()).into())
    }

    /// Starts a server that speaks the source's protocol inside this process, for local mode; `None`: there is none.
    ///
    /// # Errors
    /// It cannot listen.
    fn embed(&self) -> Result<Option<Box<dyn Embedded>>, Error>;

    /// Whether a trigger names its own server and so needs no embedded one.
    fn names_server(&self, trigger: &TriggerObject) -> bool;

    /// Why the embedded server cannot serve a trigger that names none, and what to do; `None`: it can.
    fn beyond_embedded(&self, _trigger: &TriggerObject) -> Option<&'static str> {
        None
    }

    /// Where the trigger's events come from, for people: the topic or subject.
    fn address_of(&self, trigger: &TriggerObject) -> String;

    /// Sets the server address in a configuration, so that triggers which name none use the embedded one.
    fn point_at(&self, config: &mut DispatcherConfig, address: &str);
}

/// A source with its configuration, able to serve triggers.
pub trait Source: Send + Sync {
    /// Equal for two versions of a trigger unless the change needs the running source to be restarted.
    fn restart_key(&self, trigger: &TriggerObject) -> String;

    /// Name of the Secret (or mounted folder) of the trigger's own namespace that holds its credentials; `None`: it needs
    /// none.
    fn credentials(&self, _trigger: &TriggerObject) -> Option<String> {
        None
    }

    /// The word of [`reasons`] for what a running source says is wrong.
    fn reason_of(&self, _status: &str) -> &'static str {
        reasons::SOURCE_ERROR
    }

    /// Whether no event of the trigger reaches a function twice, and why: its condition `AtMostOnce`.
    fn promise(&self, _trigger: &TriggerObject) -> Fact {
        Fact::new(types::AT_MOST_ONCE, true, reasons::CLAIMED_AT_SOURCE, "")
    }

    /// Starts serving one subscription.
    ///
    /// # Errors
    /// Says what is wrong with the trigger (credentials missing, no server known).
    fn start(
        &self,
        trigger: &TriggerObject,
        route: &Route,
        environment: &Environment,
    ) -> Result<Running, Error>;
}

/// What every source needs from the process.
#[derive(Clone)]
pub struct Environment {
    /// Where outcomes go.
    pub journal: Arc<Journal>,
    /// Who calls functions.
    pub workers: Arc<Workers>,
    /// Permits of the function, over all subscriptions.
    pub permits: Arc<Semaphore>,
    /// Bytes of events held by all subscriptions.
    pub memory: Arc<AtomicUsize>,
    /// Added to timeouts that a trigger overrides.
    pub timeout_margin: Duration,
    /// What the Secret of [`Source::credentials`] holds; `None`: credentials are mounted as files.
    pub secret: Option<Arc<SecretData>>,
    /// Which functions a trigger is for now, for events that all of them must be offered.
    pub router: Router,
    /// The API server and the namespace of this process, for registers that have no other place; `None`: objects come from
    /// folders.
    pub cluster: Option<(kube::Client, Arc<str>)>,
}

impl Environment {
    /// The subscription of `trigger` and `route`, for the source called `source`. Requests carry what `headers` makes of the
    /// name of this program.
    pub fn subscription(
        &self,
        source: &'static str,
        trigger: &TriggerObject,
        route: &Route,
        headers: impl FnOnce(&'static str) -> HeaderTemplate,
    ) -> Subscription {
        let core = &trigger.core;
        let window = WindowConfig {
            span_ms: i64::try_from(core.dedup.window.as_millis()).unwrap_or(i64::MAX),
            max_entries: core.dedup.max_entries,
            generations: GENERATIONS,
        };
        Subscription::new(SubscriptionParts {
            trigger: route.key.trigger.object.clone(),
            uid: Arc::clone(&core.uid),
            function: route.key.function.clone(),
            source,
            settings: Settings::of(core, self.timeout_margin),
            target: Arc::clone(&route.target),
            function_permits: Arc::clone(&self.permits),
            template: headers(concat!("kubeless-dispatcher/", env!("CARGO_PKG_VERSION"))),
            window: Window::new(window),
            journal: Arc::clone(&self.journal),
            workers: Arc::clone(&self.workers),
        })
    }
}

/// What a source's thread is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Claim nothing more, finish what runs until the instant, leave.
    Stop(Instant),
}

/// How a source's thread ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was told to.
    Stopped,
    /// It failed with this reason and must not come back before the pause is over.
    Failed(String, Duration),
}

/// A source that serves a subscription, on a thread of its own.
pub struct Running {
    /// What it serves.
    pub subscription: Arc<Subscription>,
    /// Orders to the thread.
    pub orders: mpsc::Sender<Order>,
    /// The thread.
    pub thread: JoinHandle<Exit>,
    /// Why it is not consuming; empty when it is.
    pub status: Arc<Mutex<String>>,
}

/// A message to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// Topic or subject.
    pub topic: String,
    /// Key.
    pub key: Option<String>,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// Body; `None` is null data.
    pub data: Option<Vec<u8>>,
}

/// Publishes messages. Blocking.
pub trait Publisher: Send {
    /// Publishes all and waits until the server has them; returns where each one went, in order.
    ///
    /// # Errors
    /// The first message that the server did not take.
    fn publish(&self, messages: &[Outgoing]) -> Result<Vec<String>, Error>;
}

/// A topic or stream, as far as its server tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Partitions or shards; 0 if that is not known.
    pub partitions: usize,
    /// Copies of each; 0 if that is not known.
    pub replicas: usize,
}

/// Makes, lists and deletes topics or streams. Blocking.
pub trait Topics: Send {
    /// Makes one with so many partitions (shards) and copies of each (0: as the server likes it).
    ///
    /// # Errors
    /// The server refuses, or does not answer.
    fn create(&self, name: &str, parts: i32, copies: i32) -> Result<(), Error>;

    /// Deletes one.
    ///
    /// # Errors
    /// The server refuses, or does not answer.
    fn delete(&self, name: &str) -> Result<(), Error>;

    /// All of them.
    ///
    /// # Errors
    /// The server does not answer.
    fn list(&self) -> Result<Vec<TopicInfo>, Error>;
}

/// A server inside this process; stops when dropped.
pub trait Embedded: Send {
    /// Where it listens.
    fn address(&self) -> String;

    /// What it is and what it does not prove, for the banner.
    fn notice(&self) -> &'static str;

    /// Makes a topic with `shards` partitions, if it is not there yet.
    ///
    /// # Errors
    /// The server refuses.
    fn ensure_topic(&self, topic: &str, shards: i32) -> Result<(), Error>;
}
