//! Composition root of the dispatcher: the only file that knows all parts. Must never contain a rule of its own.

use crate::{
    admin::{AdminContext, AdminServer, Readiness},
    cluster::{
        address::Reach,
        changes::Changes,
        client::{Connect, Connection},
        index::Index as _,
        lease::{self, LeaseSettings},
        manifests::folders::Folders,
        objects::{Budgets, Cluster, Objects},
        secrets::Secrets,
        target::{ObjectRef, TriggerRef},
        watch::{Seen, Subject, WatchSettings, Watches},
    },
    config::{CredentialsOption, DispatcherConfig, EndpointsOption},
    dispatch::Workers,
    invoker::InvokerConfig,
    ledger::journal::{Journal, JournalConfig},
    router::{EndpointChoice, Place, Router, RouterOptions, index::Index},
    shutdown::Shutdown,
    sources::{self, Environment, Source, SourceKind, manager::SourceManager},
    status::{
        board::Board,
        writer::{Writer, WriterSettings},
    },
    telemetry::{ProcessMetrics, Registry},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often sources that ended are collected and failed ones tried again.
const TICK: Duration = Duration::from_millis(500);
/// How often the process looks whether draining sources have ended.
const STOP_TICK: Duration = Duration::from_millis(20);

/// Everything bound and opened, nothing running yet.
pub struct Daemon {
    config: DispatcherConfig,
    admin: AdminServer,
    registry: Registry,
    readiness: Readiness,
    manager: SourceManager,
    index: Index,
    router: Router,
    objects: Objects,
    /// The way to the cluster, where objects come from one.
    connection: Option<Connection>,
    secrets: Secrets,
}

impl Daemon {
    /// Binds the admin port, opens the journal, checks every source's section and starts the worker threads.
    ///
    /// # Errors
    /// Anything that would make the process useless, before it has claimed anything.
    pub async fn build(config: DispatcherConfig, connect: &Connect) -> Result<Self, sources::Error> {
        let registry = Registry::new();
        registry.install()?;
        let admin = AdminServer::bind(config.admin.listen)
            .await
            .map_err(|e| format!("cannot listen on {} (admin.listen): {e}", config.admin.listen))?;
        let journal = JournalConfig {
            max_bytes: config.journal.max_bytes,
            segment_bytes: config.journal.segment_bytes,
        };
        let journal = Arc::new(Journal::open(&config.state_dir.join("journal"), journal)?);
        let mut opened: Vec<(&'static dyn SourceKind, Box<dyn Source>)> = Vec::new();
        for kind in sources::KINDS {
            opened.push((*kind, kind.open(&config)?));
        }
        let invoker = InvokerConfig {
            connect_timeout: config.invoker.connect_timeout,
            idle_timeout: config.invoker.idle_timeout,
            max_response_bytes: usize::try_from(config.invoker.max_response_bytes).unwrap_or(usize::MAX),
            reach: reach(&config),
            ..InvokerConfig::default()
        };
        let workers = Workers::start(config.invoker.workers, &invoker)?;
        let workers = Arc::new(workers.pausing(config.invoker.backoff_interval));
        let (index, router) = Router::new(router_options(&config));
        let (objects, connection) = objects(&config, connect).await?;
        let environment = Environment {
            journal,
            workers,
            permits: Arc::new(tokio::sync::Semaphore::new(0)),
            memory: Arc::default(),
            timeout_margin: config.invoker.timeout_margin,
            secret: None,
            router: router.clone(),
            cluster: connection.as_ref().map(|c| (c.client.clone(), c.namespace.as_str().into())),
        };
        let mut manager = SourceManager::new(opened, router.clone(), environment, config.shutdown.grace);
        let secrets = Secrets::new();
        if connection.is_some() && config.kubernetes.credentials == CredentialsOption::Secrets {
            manager = manager.with_secrets(secrets.clone());
        }
        let readiness = Readiness::new();
        Ok(Self { config, admin, registry, readiness, manager, index, router, objects, connection, secrets })
    }

    /// Runs until `shutdown`, drains, and returns once everything has ended.
    ///
    /// # Errors
    /// A manifest folder cannot be watched, or no way leads to a cluster.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), sources::Error> {
        let admin_address = self.admin.address();
        tracing::info!(%admin_address, version = env!("CARGO_PKG_VERSION"), "Dispatcher started");
        let synced = self.readiness.check("objects");
        let accepting = self.readiness.check("accepting");
        synced.set_failed("not read yet");
        let snapshot = self.manager.snapshot();
        let context = AdminContext {
            metrics: self.registry.clone(),
            readiness: self.readiness.clone(),
            subscriptions: Arc::new(move || {
                snapshot.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
            }),
        };
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(self.admin.serve(context, stop.clone()));
        let mut secrets = self.secrets.changes();
        if let Some(connection) = &self.connection {
            let (client, every) = (connection.client.clone(), self.config.kubernetes.secrets_interval);
            tasks.spawn(self.secrets.run(client, every, stop.clone()));
        }
        let process = ProcessMetrics::new("kubeless-dispatcher");
        let kubernetes = &self.config.kubernetes;
        let budgets =
            Budgets { refused: kubernetes.refused_budget, unreachable: kubernetes.unreachable_budget };
        let board = Board::default();
        let drain = CancellationToken::new();
        if let Some(connection) = self.connection.as_ref().filter(|_| self.config.status.enabled) {
            let settings = writer_settings(&self.config, admin_address.port());
            let writer = Writer::new(connection.client.clone(), settings, board.clone(), self.manager.view());
            tasks.spawn(write_statuses(
                connection.clone(),
                self.config.status.lease.clone(),
                writer,
                drain.clone(),
            ));
        }
        let mut core = Core {
            index: self.index,
            manager: self.manager,
            objects: self.objects,
            budgets,
            board,
            seen: Vec::new(),
        };
        let mut routes = self.router.changes();
        let mut tick = tokio::time::interval(TICK);
        core.read().await;
        accepting.set_ok();
        let mut complete = false;
        loop {
            core.supervise();
            process.manifest_problems.set(core.objects.problems() as f64);
            if !complete {
                let missing = core.objects.unsynced();
                complete = missing.is_empty();
                if complete {
                    synced.set_ok();
                    process.cache_synced.set(1.0);
                } else {
                    synced.set_failed(missing.join("; "));
                }
            }
            tokio::select! {
                () = shutdown.draining() => break,
                () = core.objects.changed() => core.read().await,
                // The index lives in this task, so its sender outlives the loop.
                _ = routes.changed() => {}
                // Without a reader of Secrets nothing changes; the tick goes on.
                Ok(()) = secrets.changed() => {}
                _ = tick.tick() => {}
            }
        }
        accepting.set_failed("draining");
        // Another replica writes statuses from now on: this one will soon know nothing any more.
        drain.cancel();
        let drained = core.drain(&shutdown, self.config.shutdown.grace).await;
        core.objects.stop().await;
        // Every source has recorded its outcomes: a call that still hangs on a worker is of no consequence.
        stop.cancel();
        while tasks.join_next().await.is_some() {}
        tracing::info!(drained, "Dispatcher stopped");
        if drained { Ok(()) } else { Err("stopped at once: a successor names what was running".into()) }
    }
}

/// What the main task owns while it runs.
struct Core {
    index: Index,
    manager: SourceManager,
    objects: Objects,
    budgets: Budgets,
    board: Board,
    /// What the watches saw since the last round.
    seen: Vec<Seen>,
}

impl Core {
    /// Takes over what changed.
    async fn read(&mut self) {
        for batch in self.objects.read().await {
            apply(&mut self.index, &mut self.manager, batch.changes);
            self.seen.extend(batch.seen);
        }
    }

    /// Brings what runs to what is known.
    fn supervise(&mut self) {
        if self.objects.is_blind() {
            self.index.choose_endpoints(EndpointChoice::ServiceUnseen);
        }
        self.manager.hold(self.objects.stale(self.budgets));
        self.manager.reconcile();
        // Only now: what is said of a version of a trigger must have been found out from that version.
        let complete = self.objects.unsynced().is_empty();
        self.board.note(std::mem::take(&mut self.seen), sources::TRIGGERS, complete);
    }

    /// True when everything ended in order; false when it was given up. Endpoints are followed to the end: a call that
    /// was claimed must not go to a pod that is gone.
    async fn drain(&mut self, shutdown: &Shutdown, grace: Duration) -> bool {
        self.manager.stop_all(Instant::now() + grace);
        while !self.manager.is_stopped() {
            tokio::select! {
                () = tokio::time::sleep(STOP_TICK) => {}
                () = self.objects.changed() => {
                    self.read().await;
                    // Nobody writes statuses here any more.
                    self.seen.clear();
                }
                () = shutdown.aborting() => {
                    tracing::warn!("Stopping at once: what runs will be named in doubt by a successor");
                    return false;
                }
            }
        }
        true
    }
}

fn writer_settings(config: &DispatcherConfig, own_port: u16) -> WriterSettings {
    let peers = config.status.peers.split(',').map(str::trim).filter(|peer| !peer.is_empty());
    WriterSettings {
        kinds: sources::TRIGGERS,
        peers: peers.map(str::to_owned).collect(),
        own_port,
        counters_every: config.status.counters_every,
    }
}

/// Stands for election and writes while elected, until `stop`; then the Lease is given back.
async fn write_statuses(connection: Connection, lease: String, writer: Writer, stop: CancellationToken) {
    let host = std::env::var("HOSTNAME").unwrap_or_default();
    let settings = LeaseSettings {
        namespace: connection.namespace.clone(),
        name: lease,
        // New for each start: a process that comes back under its old name is another one.
        identity: format!("{host}_{:016x}", fastrand::u64(..)),
        duration: lease::DEFAULT_DURATION,
    };
    let (leadership, election) = lease::elect(connection.client, settings);
    let over = CancellationToken::new();
    let contending = tokio::spawn(election.run(over.clone()));
    writer.run(leadership, stop).await;
    over.cancel();
    let _ = contending.await;
}

/// Folders where some are named, else the cluster.
async fn objects(
    config: &DispatcherConfig,
    connect: &Connect,
) -> Result<(Objects, Option<Connection>), sources::Error> {
    if !config.manifests.is_empty() {
        return Ok((Objects::Folders(Folders::watch(&config.manifests, sources::TRIGGERS)?), None));
    }
    let connection = connect.open("kubeless-dispatcher").await;
    let connection = connection.map_err(|error| format!("{error}; or name manifests: --manifests DIR"))?;
    let options = &config.kubernetes;
    let selector = || options.service_selector.clone();
    let mut subjects = vec![Subject::Functions, Subject::Services(selector()), Subject::Slices(selector())];
    subjects.extend(sources::TRIGGERS.iter().map(|kind| Subject::Triggers(*kind)));
    let namespaces = options.functions_namespaces.clone();
    let settings = WatchSettings { subjects, namespaces, silence: options.watch_silence };
    tracing::info!(server = connection.server, "Objects come from the cluster");
    let watches = Watches::start(&connection, &settings);
    Ok((Objects::Cluster(Cluster::new(watches)), Some(connection)))
}

/// Manifests of a folder may name any address; objects of a cluster only those that a Pod can have.
fn reach(config: &DispatcherConfig) -> Reach {
    if !config.manifests.is_empty() {
        return Reach::anywhere();
    }
    let networks = config.kubernetes.forbidden_networks.iter();
    // Checked when the configuration was read.
    Reach::pods(networks.filter_map(|text| text.parse().ok()).collect::<Vec<_>>())
}

fn router_options(config: &DispatcherConfig) -> RouterOptions {
    let options = &config.kubernetes;
    let node = Some(options.node.clone()).filter(|node| !node.is_empty());
    RouterOptions {
        cluster_domain: config.cluster_domain.clone(),
        timeout_margin: config.invoker.timeout_margin,
        max_in_flight_per_function: config.invoker.max_in_flight_per_function,
        reach: reach(config),
        place: Place {
            node: node.or_else(|| std::env::var("NODE_NAME").ok()).unwrap_or_default(),
            zone: options.zone.clone(),
        },
        endpoints: match options.endpoints {
            EndpointsOption::Pods => EndpointChoice::Pods,
            EndpointsOption::Service => EndpointChoice::Service,
        },
    }
}

fn apply(index: &mut Index, manager: &mut SourceManager, changes: Changes) {
    for service in changes.services.apply {
        index.apply(Arc::unwrap_or_clone(service));
    }
    for slice in changes.slices.apply {
        index.apply(Arc::unwrap_or_clone(slice));
    }
    for function in changes.functions.apply {
        index.apply(Arc::unwrap_or_clone(function));
    }
    for trigger in changes.triggers.apply {
        index.apply(Arc::clone(&trigger.core));
        manager.apply(trigger);
    }
    let delete = |index: &mut Index, list: Vec<ObjectRef>, f: fn(&mut Index, &ObjectRef)| {
        for reference in list {
            f(index, &reference);
        }
    };
    for (kind, reference) in changes.triggers.delete {
        let trigger = TriggerRef::new(kind, reference);
        manager.delete(&trigger);
        crate::cluster::index::Index::<Arc<crate::api::trigger::TriggerCore>>::delete(index, &trigger);
    }
    delete(index, changes.functions.delete, |i, r| {
        crate::cluster::index::Index::<crate::api::function::Function>::delete(i, r);
    });
    delete(index, changes.slices.delete, |i, r| {
        crate::cluster::index::Index::<k8s_openapi::api::discovery::v1::EndpointSlice>::delete(i, r);
    });
    delete(index, changes.services.delete, |i, r| {
        crate::cluster::index::Index::<k8s_openapi::api::core::v1::Service>::delete(i, r);
    });
}
