//! Composition root of the dispatcher: the only file that knows all parts. Must never contain a rule of its own.

use crate::{
    admin::{AdminContext, AdminServer, Readiness},
    cluster::{
        changes::Changes,
        index::Index as _,
        manifests::{self, Limits, Manifests},
        target::{ObjectRef, TriggerRef},
    },
    config::DispatcherConfig,
    dispatch::Workers,
    invoker::InvokerConfig,
    ledger::journal::{Journal, JournalConfig},
    router::{Router, RouterOptions, index::Index},
    shutdown::Shutdown,
    sources::{self, Environment, Source, SourceKind, manager::SourceManager},
    telemetry::{ProcessMetrics, Registry},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a folder must be quiet before it is read again.
const DEBOUNCE: Duration = Duration::from_millis(150);
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
}

impl Daemon {
    /// Binds the admin port, opens the journal, checks every source's section and starts the worker threads.
    ///
    /// # Errors
    /// Anything that would make the process useless, before it has claimed anything.
    pub async fn build(config: DispatcherConfig) -> Result<Self, sources::Error> {
        if config.manifests.is_empty() {
            return Err("no manifests: give --manifests DIR or set `manifests` in the configuration".into());
        }
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
            ..InvokerConfig::default()
        };
        let workers = Arc::new(Workers::start(config.invoker.workers, &invoker)?);
        let (index, router) = Router::new(RouterOptions {
            cluster_domain: config.cluster_domain.clone(),
            timeout_margin: config.invoker.timeout_margin,
            max_in_flight_per_function: config.invoker.max_in_flight_per_function,
        });
        let environment = Environment {
            journal,
            workers,
            permits: Arc::new(tokio::sync::Semaphore::new(0)),
            memory: Arc::default(),
            timeout_margin: config.invoker.timeout_margin,
        };
        let manager = SourceManager::new(opened, router.clone(), environment, config.shutdown.grace);
        Ok(Self { config, admin, registry, readiness: Readiness::new(), manager, index, router })
    }

    /// Runs until `shutdown`, drains, and returns once everything has ended.
    ///
    /// # Errors
    /// A manifest folder cannot be watched.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), sources::Error> {
        let admin_address = self.admin.address();
        tracing::info!(%admin_address, version = env!("CARGO_PKG_VERSION"), "Dispatcher started");
        let synced = self.readiness.check("manifests");
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
        let admin_stop = CancellationToken::new();
        let admin = tokio::spawn(self.admin.serve(context, admin_stop.clone()));
        let process = ProcessMetrics::new("kubeless-dispatcher");
        let mut folders = Folders::watch(&self.config.manifests)?;
        let mut routes = self.router.changes();
        let mut tick = tokio::time::interval(TICK);
        let changes = folders.read(&process).await;
        apply(&mut self.index, &mut self.manager, changes);
        self.manager.reconcile();
        synced.set_ok();
        accepting.set_ok();
        process.cache_synced.set(1.0);
        loop {
            tokio::select! {
                () = shutdown.draining() => break,
                () = folders.changed() => {
                    let changes = folders.read(&process).await;
                    apply(&mut self.index, &mut self.manager, changes);
                }
                // The index lives in this task, so its sender outlives the loop.
                _ = routes.changed() => {}
                _ = tick.tick() => {}
            }
            self.manager.reconcile();
        }
        accepting.set_failed("draining");
        let drained = drain(&mut self.manager, &shutdown, self.config.shutdown.grace).await;
        // Every source has recorded its outcomes: a call that still hangs on a worker is of no consequence.
        admin_stop.cancel();
        let _ = admin.await;
        tracing::info!(drained, "Dispatcher stopped");
        if drained { Ok(()) } else { Err("stopped at once: a successor names what was running".into()) }
    }
}

/// True when everything ended in order; false when it was given up.
async fn drain(manager: &mut SourceManager, shutdown: &Shutdown, grace: Duration) -> bool {
    manager.stop_all(Instant::now() + grace);
    while !manager.is_stopped() {
        tokio::select! {
            () = tokio::time::sleep(STOP_TICK) => {}
            () = shutdown.aborting() => {
                tracing::warn!("Stopping at once: what runs will be named in doubt by a successor");
                return false;
            }
        }
    }
    true
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

/// The manifest folders of the configuration, read as one.
struct Folders {
    paths: Vec<PathBuf>,
    watches: Vec<manifests::watch::Watch>,
    signals: Vec<watch::Receiver<u64>>,
    last: Vec<Manifests>,
}

impl Folders {
    fn watch(paths: &[PathBuf]) -> Result<Self, sources::Error> {
        let mut watches = Vec::new();
        for path in paths {
            let watch = manifests::watch::watch(path, DEBOUNCE)
                .map_err(|e| format!("cannot watch {}: {e}", path.display()))?;
            watches.push(watch);
        }
        let signals = watches.iter().map(manifests::watch::Watch::signals).collect();
        let last = vec![Manifests::default(); paths.len()];
        Ok(Self { paths: paths.to_owned(), watches, signals, last })
    }

    /// Resolves when any folder changed. Cancel-safe.
    async fn changed(&mut self) {
        debug_assert_eq!(self.watches.len(), self.signals.len());
        let waits = self.signals.iter_mut().map(|signal| {
            Box::pin(async move {
                // A watch that ended signals nothing any more; the others go on.
                if signal.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            })
        });
        futures_util::future::select_all(waits).await;
    }

    async fn read(&mut self, process: &ProcessMetrics) -> Changes {
        let paths = self.paths.clone();
        let load = |path: &Path| manifests::load(path, sources::TRIGGERS, &Limits::default());
        let loaded =
            tokio::task::spawn_blocking(move || paths.iter().map(|p| load(p)).collect::<Vec<_>>()).await;
        // A panic while reading keeps what is in force.
        let now = loaded.unwrap_or_else(|_| self.last.clone());
        let mut problems = 0;
        let mut before = Manifests::default();
        let mut after = Manifests::default();
        for (last, now) in self.last.iter_mut().zip(now) {
            for problem in &now.problems {
                tracing::error!(problem = %problem, "Manifest problem");
            }
            problems += now.problems.len() + now.more_problems;
            let now = now.keep_last_good(last);
            merge(&mut before, std::mem::replace(last, now.clone()));
            merge(&mut after, now);
        }
        process.manifest_problems.set(problems as f64);
        manifests::diff::diff(&before, &after)
    }
}

fn merge(into: &mut Manifests, from: Manifests) {
    into.functions.extend(from.functions);
    into.triggers.extend(from.triggers);
    into.services.extend(from.services);
    into.slices.extend(from.slices);
}
