//! The controller process: configuration, leadership, and the controllers while it leads. Must never let two processes
//! act: what leads stops before it gives the Lease back, and as soon as it does not lead any more.

use std::{collections::BTreeSet, future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    args::{ControllerArgs, Role},
    drive::{Parts, drive},
    events::Announcer,
    location::locate,
    reconcile::{CronJobTriggers, Functions, HttpTriggers},
    release,
    settings::{Follower, Settings},
};
use crate::{
    admin::{AdminContext, AdminServer, CheckHandle, Readiness},
    api::kind::TriggerKind,
    cluster::{
        client::Connection,
        lease::{self, Leadership, LeaseSettings},
    },
    shutdown::Shutdown,
    telemetry::{LeaderMetrics, ProcessMetrics, Registry},
};

/// How long passes that are under way may take when the process stops; each is safe to cut off.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// What stops the process before it began.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The admin port.
    #[error("cannot listen on {0} (--admin-listen): {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
    /// A second recorder.
    #[error(transparent)]
    Metrics(#[from] crate::telemetry::AlreadyInstalled),
}

/// Opens the admin port and runs until `shutdown`. `triggers`: every kind that the product knows.
///
/// # Errors
/// Only before it has done anything.
pub async fn serve(
    arguments: &ControllerArgs,
    triggers: &'static [TriggerKind],
    connection: Connection,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let registry = Registry::new();
    registry.install()?;
    let listen = arguments.admin_listen;
    let server = AdminServer::bind(listen).await.map_err(|error| Error::Listen(listen, error))?;
    let readiness = Readiness::new();
    tracing::info!(admin_address = %server.address(), version = env!("CARGO_PKG_VERSION"), "Controller process started");
    let roles: Vec<_> = arguments.roles().iter().map(|role| role.as_str()).collect();
    let context = AdminContext {
        metrics: registry,
        readiness: readiness.clone(),
        subscriptions: Arc::new(move || serde_json::json!({ "controllers": roles })),
    };
    let admin_stop = CancellationToken::new();
    let admin = tokio::spawn(server.serve(context, admin_stop.clone()));
    let process = ProcessMetrics::new("kubeless-controller");
    run(arguments, triggers, connection, &readiness, shutdown).await;
    drop(process);
    admin_stop.cancel();
    let _ = admin.await;
    Ok(())
}

/// Runs until `shutdown` without a port of its own.
pub async fn run(
    arguments: &ControllerArgs,
    triggers: &'static [TriggerKind],
    connection: Connection,
    readiness: &Readiness,
    shutdown: Shutdown,
) {
    let ready = readiness.check("configuration");
    ready.set_failed("not read yet");
    let metrics = LeaderMetrics::new();
    let location =
        locate(&connection.client, arguments.namespace.clone(), arguments.config_map.clone()).await;
    let identity = identity();
    let announcer = Announcer::new(connection.client.clone(), &identity);
    let (sender, settings) = watch::channel(Arc::new(Settings::default()));
    let follower = Follower {
        watches: connection.watches.clone(),
        location: location.clone(),
        announcer: announcer.clone(),
        trouble: metrics.config_problem.clone(),
    };
    let election_stop = CancellationToken::new();
    let choices = arguments.choices(&location.namespace);
    let lease = LeaseSettings {
        namespace: location.namespace,
        name: arguments.lease_name(),
        identity,
        duration: arguments.lease_duration(),
    };
    let (leadership, election) = if arguments.leader_elect {
        let (leadership, election) = lease::elect(connection.client.clone(), lease);
        (leadership, Some(election))
    } else {
        (Leadership::always(), None)
    };
    let parts = Parts {
        client: connection.client,
        watches: connection.watches,
        scope: arguments.functions_namespace.clone(),
        settings,
        choices,
        announcer,
        workers: arguments.workers,
    };
    let lead = async {
        Shift {
            roles: arguments.roles(),
            triggers,
            leadership,
            parts,
            metrics,
            ready,
            shutdown: shutdown.clone(),
        }
        .all()
        .await;
        // Only now: nothing acts any more.
        election_stop.cancel();
    };
    let follow = async {
        tokio::select! {
            () = follower.run(sender) => {}
            () = election_stop.cancelled() => {}
        }
    };
    let elect = async {
        if let Some(election) = election {
            election.run(election_stop.clone()).await;
        }
    };
    tokio::join!(lead, follow, elect);
}

/// Who we are: a name that no other process, nor an earlier start of this one, has.
fn identity() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}_{:016x}", fastrand::u64(..))
}

/// The controllers, as long as this process leads.
struct Shift {
    roles: Vec<Role>,
    triggers: &'static [TriggerKind],
    leadership: Leadership,
    parts: Parts,
    metrics: LeaderMetrics,
    ready: CheckHandle,
    shutdown: Shutdown,
}

impl Shift {
    async fn all(mut self) {
        let mut settings = self.parts.settings.clone();
        loop {
            // A replica that waits for its turn is as ready as the one that leads.
            let known = settings.wait_for(|settings| settings.config.is_some() || settings.trouble.is_some());
            tokio::select! {
                () = self.shutdown.draining() => return,
                known = known => if known.is_err() { return },
            }
            let trouble = settings.borrow_and_update().trouble.clone();
            match trouble {
                Some(trouble) => self.ready.set_failed(trouble),
                None => self.ready.set_ok(),
            }
            tokio::select! {
                () = self.shutdown.draining() => return,
                () = self.leadership.held() => {}
                changed = settings.changed() => if changed.is_err() { return } else { continue },
            }
            self.one(&mut settings).await;
        }
    }

    /// Leads until leadership, scope or process end.
    async fn one(&mut self, settings: &mut watch::Receiver<Arc<Settings>>) {
        let fixed = self.parts.scope.clone();
        let scope = |settings: &Settings| {
            let named = settings.config.as_ref().and_then(|config| config.functions_namespace.clone());
            fixed.clone().or(named)
        };
        let now = scope(&settings.borrow_and_update());
        let stop = CancellationToken::new();
        let parts = Parts { scope: now.clone(), ..self.parts.clone() };
        let mut controllers = tokio::task::JoinSet::new();
        for role in self.roles.iter().copied().collect::<BTreeSet<_>>() {
            controllers.spawn(of_role(role, parts.clone(), stop.clone()));
        }
        if self.roles.contains(&Role::Function) {
            for kind in release::unwatched(self.triggers) {
                controllers.spawn(release::drive(parts.clone(), kind, stop.clone()));
            }
        }
        self.metrics.leading.set(1.0);
        let moved = async {
            loop {
                if settings.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                let settings = settings.borrow_and_update().clone();
                match &settings.trouble {
                    Some(trouble) => self.ready.set_failed(trouble.as_str()),
                    None => self.ready.set_ok(),
                }
                if scope(&settings) != now {
                    return;
                }
            }
        };
        let lost = tokio::select! {
            () = self.shutdown.draining() => false,
            () = self.leadership.lost() => true,
            () = moved => {
                tracing::info!("The namespace of functions changed");
                false
            }
        };
        self.metrics.leading.set(0.0);
        stop.cancel();
        if !lost {
            let ended = async { while controllers.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(STOP_PATIENCE, ended).await;
        }
        // Somebody else may act from now on: nothing of ours may be written any more.
        controllers.shutdown().await;
    }
}

fn of_role(role: Role, parts: Parts, stop: CancellationToken) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    match role {
        Role::Function => Box::pin(drive::<Functions>(parts, stop)),
        Role::Http => Box::pin(drive::<HttpTriggers>(parts, stop)),
        Role::Cronjob => Box::pin(drive::<CronJobTriggers>(parts, stop)),
    }
}
