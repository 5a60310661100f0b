//! [`Objects`]: where objects come from, a folder or a cluster, behind one face. Must never hold an opinion about what
//! they mean.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    manifests::folders::Folders,
    target::TriggerRef,
    watch::{Batch, Health, Phase, Watches},
};

/// The inlet of everything the router and the sources know.
#[derive(Debug)]
pub enum Objects {
    /// Folders of manifests.
    Folders(Folders),
    /// An API server.
    Cluster(Cluster),
}

/// How long watches may be out of order before what they told is not acted on any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// The API server answers and refuses: rights were revoked, or the kind is gone.
    pub refused: Duration,
    /// The API server does not answer; zero: however long.
    pub unreachable: Duration,
}

/// Triggers that may not be served on what is known of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// Their kind.
    pub kind: &'static str,
    /// Their namespace; `None`: all.
    pub namespace: Option<Arc<str>>,
    /// Why, for people.
    pub why: String,
}

impl Stale {
    /// Whether it is about this trigger.
    pub fn covers(&self, trigger: &TriggerRef) -> bool {
        let namespace = self.namespace.as_deref();
        self.kind == trigger.kind && namespace.is_none_or(|own| own == &*trigger.object.namespace)
    }

    /// Whether both are about the same triggers.
    pub fn concerns_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.namespace == other.namespace
    }
}

/// The watches of an API server, and what they told that nobody has taken yet.
#[derive(Debug)]
pub struct Cluster {
    watches: Watches,
    waiting: VecDeque<Batch>,
}

impl Cluster {
    /// Takes running watches over.
    pub fn new(watches: Watches) -> Self {
        Self { watches, waiting: VecDeque::new() }
    }

    fn health(&self) -> &[Health] {
        self.watches.health()
    }

    /// Whether EndpointSlices cannot be seen: the right to do so is optional, and was not granted.
    fn is_blind(&self) -> bool {
        let mut slices = self.health().iter().filter(|watch| is_optional(watch));
        slices.any(|watch| !watch.is_synced() && matches!(watch.phase().0, Phase::Refused(_)))
    }
}

/// Without EndpointSlices a Service's own address is called.
fn is_optional(watch: &Health) -> bool {
    watch.kind == super::watch::Subject::Slices(String::new()).kind()
}

impl Objects {
    /// Resolves when there is something to read. Cancel-safe.
    pub async fn changed(&mut self) {
        match self {
            Self::Folders(folders) => folders.changed().await,
            Self::Cluster(cluster) if cluster.waiting.is_empty() => match cluster.watches.next().await {
                Some(batch) => cluster.waiting.push_back(batch),
                None => std::future::pending().await,
            },
            Self::Cluster(_) => {}
        }
    }

    /// What changed, in order.
    pub async fn read(&mut self) -> Vec<Batch> {
        match self {
            Self::Folders(folders) => vec![Batch { changes: folders.read().await, seen: Vec::new() }],
            Self::Cluster(cluster) => {
                let mut batches: Vec<Batch> = cluster.waiting.drain(..).collect();
                while let Some(batch) = cluster.watches.try_next() {
                    batches.push(batch);
                }
                batches
            }
        }
    }

    /// Objects that are skipped now because something is wrong with them.
    pub fn problems(&self) -> usize {
        match self {
            Self::Folders(folders) => folders.problems(),
            Self::Cluster(cluster) => cluster.health().iter().map(Health::faulty).sum(),
        }
    }

    /// What keeps the picture from being whole; empty: everything has been read once. A folder is whole once read.
    pub fn unsynced(&self) -> Vec<String> {
        match self {
            Self::Folders(_) => Vec::new(),
            Self::Cluster(cluster) => {
                let blind = cluster.is_blind();
                let missing = cluster.health().iter().filter(|watch| !watch.is_synced());
                missing.filter(|watch| !(blind && is_optional(watch))).map(ToString::to_string).collect()
            }
        }
    }

    /// Whether functions' endpoints cannot be seen, so that only their Services' addresses are left.
    pub fn is_blind(&self) -> bool {
        matches!(self, Self::Cluster(cluster) if cluster.is_blind())
    }

    /// Triggers whose watch has been out of order for longer than the budgets allow.
    pub fn stale(&self, budgets: Budgets) -> Vec<Stale> {
        match self {
            Self::Folders(_) => Vec::new(),
            Self::Cluster(cluster) => {
                cluster.health().iter().filter_map(|watch| stale(watch, budgets)).collect()
            }
        }
    }

    /// How each watch is, for people.
    pub fn describe(&self) -> Vec<String> {
        match self {
            Self::Folders(_) => Vec::new(),
            Self::Cluster(cluster) => cluster.health().iter().map(ToString::to_string).collect(),
        }
    }

    /// Ends all watches and waits for them.
    pub async fn stop(self) {
        if let Self::Cluster(cluster) = self {
            cluster.watches.stop().await;
        }
    }
}

fn stale(watch: &Health, budgets: Budgets) -> Option<Stale> {
    let (phase, lasted) = watch.phase();
    let why = match phase {
        Phase::Refused(why) | Phase::Missing(why) if lasted > budgets.refused => {
            format!("the API server has refused the watch for {} s: {why}", lasted.as_secs())
        }
        // Rights may have been revoked meanwhile, which nobody can tell.
        Phase::Unreachable(why) if !budgets.unreachable.is_zero() && watch.age() > budgets.unreachable => {
            format!("the API server has not answered for {} s: {why}", watch.age().as_secs())
        }
        _ => return None,
    };
    Some(Stale { kind: watch.kind, namespace: watch.namespace.clone(), why })
}
