//! Which functions a trigger's events go to, and where those stand: a pure [`index::Index`] that publishes an
//! immutable [`table::RouteTable`]. Must never call anything; readers must never take a lock or allocate.

pub mod endpoints;
pub mod index;
pub mod table;

use std::{sync::Arc, time::Duration};

use crate::cluster::{address::Reach, target::TriggerRef};
use table::{Route, RouteTable, SubscriptionKey};

/// What the router needs to know beside the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterOptions {
    /// Domain of the cluster, for the `Host` header. Default `cluster.local`.
    pub cluster_domain: String,
    /// Added to the function's timeout to get the longest wait for an answer. Default 5 s.
    pub timeout_margin: Duration,
    /// Calls of one function at once, over all subscriptions of this process. Default 1024.
    pub max_in_flight_per_function: usize,
    /// Addresses that functions may have. Default: any.
    pub reach: Reach,
    /// Where this process runs, to prefer endpoints nearby. Default: unknown.
    pub place: Place,
    /// Which addresses of a function are called. Default: its ready pods.
    pub endpoints: EndpointChoice,
}

/// Where something runs; what is unknown is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Name of the node.
    pub node: String,
    /// Topology zone of the node.
    pub zone: String,
}

/// Which addresses of a function are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointChoice {
    /// Its ready pods.
    #[default]
    Pods,
    /// Its Service's own address while a pod is ready: for meshes that route by Service.
    Service,
    /// Its Service's own address, ready or not: EndpointSlices cannot be seen.
    ServiceUnseen,
}

impl Default for RouterOptions {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".to_owned(),
            timeout_margin: Duration::from_secs(5),
            max_in_flight_per_function: 1024,
            reach: Reach::anywhere(),
            place: Place::default(),
            endpoints: EndpointChoice::default(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: arc_swap::ArcSwap<RouteTable>,
    pub(crate) version: tokio::sync::watch::Sender<u64>,
}

/// The reading side: clones freely, follows every change of the [`index::Index`] it came from.
#[derive(Clone, Debug)]
pub struct Router {
    shared: Arc<Shared>,
}

impl Router {
    /// An empty index and the router that reads it.
    pub fn new(options: RouterOptions) -> (index::Index, Self) {
        let shared = Arc::new(Shared {
            table: arc_swap::ArcSwap::from_pointee(RouteTable::default()),
            version: tokio::sync::watch::Sender::new(0),
        });
        (index::Index::new(options, Arc::clone(&shared)), Self { shared })
    }

    /// The current table: a consistent view for as long as the guard is held (hold it briefly).
    pub fn load(&self) -> arc_swap::Guard<Arc<RouteTable>> {
        self.shared.table.load()
    }

    /// The subscriptions of one trigger, sorted by function; empty if there are none.
    pub fn subscriptions(&self, trigger: &TriggerRef) -> Arc<[Arc<Route>]> {
        self.load().shared_subscriptions(trigger)
    }

    /// The route of one subscription. No lock, no allocation.
    pub fn route(&self, key: &SubscriptionKey) -> Option<Arc<Route>> {
        self.load().route(key).cloned()
    }

    /// Counts changes of the table or of any target; await `changed()` and look again.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared.version.subscribe()
    }
}
