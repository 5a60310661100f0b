//! The configuration value: every option with its default. Must never read a file, a variable or a clock.

use super::quantity::{bytes, duration};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

const MIB: u64 = 1 << 20;

/// Everything that the dispatcher can be told. `config/dispatcher.toml` explains each option.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DispatcherConfig {
    /// Folders (or files) of manifests: Functions, triggers, Services, EndpointSlices. None: objects come from a cluster.
    pub manifests: Vec<PathBuf>,
    /// Folder that the dispatcher may write to: the journal lives here.
    pub state_dir: PathBuf,
    /// DNS suffix of Services.
    pub cluster_domain: String,
    /// The cluster that objects are read from, where no manifests are named.
    pub kubernetes: KubernetesConfig,
    /// Statuses of triggers in the cluster.
    pub status: StatusConfig,
    /// Address of /metrics, /livez, /readyz and /debug.
    pub admin: AdminConfig,
    /// The local record of outcomes.
    pub journal: JournalConfig,
    /// Calls to functions.
    pub invoker: InvokerConfig,
    /// Bytes held in memory.
    pub memory: MemoryConfig,
    /// Stopping.
    pub shutdown: ShutdownConfig,
    /// Settings of each source by its name; each source's own folder reads and checks its table.
    pub sources: BTreeMap<String, toml::Table>,
}

impl Default for DispatcherConfig {
    fn default() -> Self {
        Self {
            manifests: Vec::new(),
            state_dir: PathBuf::from("/var/lib/kubeless"),
            cluster_domain: "cluster.local".to_owned(),
            kubernetes: KubernetesConfig::default(),
            status: StatusConfig::default(),
            admin: AdminConfig::default(),
            journal: JournalConfig::default(),
            invoker: InvokerConfig::default(),
            memory: MemoryConfig::default(),
            shutdown: ShutdownConfig::default(),
            sources: BTreeMap::new(),
        }
    }
}

/// Which addresses of a function are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointsOption {
    /// Its ready pods.
    #[default]
    Pods,
    /// Its Service's own address.
    Service,
}

/// Where the credentials that triggers name are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CredentialsOption {
    /// In Secrets of the triggers' own namespaces.
    #[default]
    Secrets,
    /// In mounted folders.
    Files,
}

/// Section `kubernetes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesConfig {
    /// Namespaces whose objects are served; empty: all.
    pub functions_namespaces: Vec<String>,
    /// Label selector of functions' Services and EndpointSlices; empty: all of them.
    pub service_selector: String,
    /// Which addresses of a function are called.
    pub endpoints: EndpointsOption,
    /// Node that this process runs on; empty: `NODE_NAME`, if that is set.
    pub node: String,
    /// Topology zone of that node; empty: unknown.
    pub zone: String,
    /// Networks in which no function may be.
    pub forbidden_networks: Vec<String>,
    /// Where the credentials that triggers name are.
    pub credentials: CredentialsOption,
    /// How often a Secret that is in use is read again.
    #[serde(with = "duration")]
    pub secrets_interval: Duration,
    /// A watch on which nothing is heard for so long is begun again.
    #[serde(with = "duration")]
    pub watch_silence: Duration,
    /// The API server has refused to tell of triggers for so long: nothing more is claimed for them.
    #[serde(with = "duration")]
    pub refused_budget: Duration,
    /// The same for an API server that does not answer; zero: however long.
    #[serde(with = "duration")]
    pub unreachable_budget: Duration,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self {
            functions_namespaces: Vec::new(),
            service_selector: "created-by=kubeless".to_owned(),
            endpoints: EndpointsOption::default(),
            node: String::new(),
            zone: String::new(),
            forbidden_networks: Vec::new(),
            credentials: CredentialsOption::default(),
            secrets_interval: Duration::from_secs(60),
            watch_silence: Duration::from_secs(90),
            refused_budget: Duration::from_secs(300),
            unreachable_budget: Duration::ZERO,
        }
    }
}

/// Section `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatusConfig {
    /// Whether the statuses of triggers are written, by the one replica that is elected.
    pub enabled: bool,
    /// Name of the Lease by which it is elected, in this Pod's namespace.
    pub lease: String,
    /// Where the replicas' admin pages are, `host:port` separated by commas; empty: only what the writer knows is written.
    pub peers: String,
    /// Least time between two writes of one trigger of which only counters are new.
    #[serde(with = "duration")]
    pub counters_every: Duration,
}

impl Default for StatusConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            lease: "kubeless-dispatcher".to_owned(),
            peers: String::new(),
            counters_every: Duration::from_secs(30),
        }
    }
}

/// Section `admin`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0, 0, 0, 0], 9090)) }
    }
}

/// Section `journal`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Disk space for all segments; the oldest are deleted beyond it.
    #[serde(with = "bytes")]
    pub max_bytes: u64,
    /// Size at which a new segment begins.
    #[serde(with = "bytes")]
    pub segment_bytes: u64,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { max_bytes: 64 * MIB, segment_bytes: 8 * MIB }
    }
}

/// Section `invoker`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InvokerConfig {
    /// Threads that call functions. Two, because a woken function often lands on the core of the thread that woke it:
    /// the other thread then keeps the rest of the machine busy.
    pub workers: usize,
    /// Longest wait for a TCP connection to a function.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// A connection idle for longer is closed; below the shortest keep-alive of common servers.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Bytes of a response body that are read before the connection is dropped.
    #[serde(with = "bytes")]
    pub max_response_bytes: u64,
    /// Added to a function's own timeout: how much longer to wait for its answer.
    #[serde(with = "duration")]
    pub timeout_margin: Duration,
    /// Calls to one function that may run at once, over all subscriptions of this process.
    pub max_in_flight_per_function: usize,
    /// Longest pause of a subscription after a call that failed; zero: none. `BACKOFF_INTERVAL` sets it too, as in Kubeless.
    #[serde(with = "duration")]
    pub backoff_interval: Duration,
}

impl Default for InvokerConfig {
    fn default() -> Self {
        Self {
            workers: 2,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_millis(1500),
            max_response_bytes: 64 * 1024,
            timeout_margin: Duration::from_secs(5),
            max_in_flight_per_function: 64,
            backoff_interval: Duration::ZERO,
        }
    }
}

/// Section `memory`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Bytes of events over all subscriptions; sources pause when it is reached.
    #[serde(with = "bytes")]
    pub max_event_bytes: u64,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { max_event_bytes: 256 * MIB }
    }
}

/// Section `shutdown`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShutdownConfig {
    /// How long running calls may take after the first signal; keep it 5 s below terminationGracePeriodSeconds.
    #[serde(with = "duration")]
    pub grace: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { grace: Duration::from_secs(25) }
    }
}
