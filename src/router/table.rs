//! [`RouteTable`]: the published answer to "which functions, for this trigger". Must never change after it was
//! published: a change makes a new table that shares every untouched shard with the old one.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher},
    sync::{Arc, LazyLock},
};

use crate::{
    api::trigger::TriggerCore,
    cluster::target::{ObjectRef, TargetCell, TriggerRef},
};

// 10,000 triggers make 40 a shard: a change copies 256 pointers and one small map.
const SHARDS: usize = 256;

static NO_ROUTES: LazyLock<Arc<[Arc<Route>]>> = LazyLock::new(|| Arc::new([]));

/// One (trigger, function) pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionKey {
    /// The trigger.
    pub trigger: TriggerRef,
    /// The function, in the trigger's namespace.
    pub function: ObjectRef,
}

impl std::fmt::Display for SubscriptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}->{}", self.trigger, self.function.name)
    }
}

/// One subscription as the hot path needs it.
#[derive(Clone, Debug)]
pub struct Route {
    /// The pair.
    pub key: SubscriptionKey,
    /// The trigger's checked settings, as of this table.
    pub trigger: Arc<TriggerCore>,
    /// The function's target: the cell stays the same while the function exists, its content is current.
    pub target: TargetCell,
}

type Shard = HashMap<TriggerRef, Arc<[Arc<Route>]>, Fixed>;

/// All subscriptions, immutable.
#[derive(Clone, Debug)]
pub struct RouteTable {
    shards: Vec<Arc<Shard>>,
}

impl Default for RouteTable {
    fn default() -> Self {
        let empty = Arc::new(Shard::default());
        Self { shards: vec![empty; SHARDS] }
    }
}

impl RouteTable {
    /// The subscriptions of one trigger, sorted by function.
    pub fn subscriptions(&self, trigger: &TriggerRef) -> &[Arc<Route>] {
        self.shards[shard_of(trigger)].get(trigger).map_or(&[], |routes| routes)
    }

    /// As [`Self::subscriptions`], to keep.
    pub fn shared_subscriptions(&self, trigger: &TriggerRef) -> Arc<[Arc<Route>]> {
        Arc::clone(self.shards[shard_of(trigger)].get(trigger).unwrap_or(&NO_ROUTES))
    }

    /// The route of one subscription.
    pub fn route(&self, key: &SubscriptionKey) -> Option<&Arc<Route>> {
        let routes = self.subscriptions(&key.trigger);
        routes
            .binary_search_by(|route| route.key.function.cmp(&key.function))
            .ok()
            .map(|found| &routes[found])
    }

    /// Every subscription, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.shards.iter().flat_map(|shard| shard.values()).flat_map(|routes| routes.iter())
    }

    /// A table in which each listed trigger has these routes (sorted by function); none: the trigger is gone.
    pub(super) fn with(&self, changes: Vec<(TriggerRef, Vec<Arc<Route>>)>) -> Self {
        let mut next = self.clone();
        for (trigger, routes) in changes {
            let shard = Arc::make_mut(&mut next.shards[shard_of(&trigger)]);
            if routes.is_empty() {
                shard.remove(&trigger);
            } else {
                shard.insert(trigger, routes.into());
            }
        }
        next
    }
}

fn shard_of(trigger: &TriggerRef) -> usize {
    // The map inside the shard uses the low bits; the shard takes high ones.
    (Fixed.hash_one(trigger) >> 48) as usize % SHARDS
}

/// Names come from a cluster's own API server, not from strangers: a fixed fast hash is safe and stable.
#[derive(Clone, Copy, Debug, Default)]
struct Fixed;

impl BuildHasher for Fixed {
    type Hasher = Short;

    fn build_hasher(&self) -> Short {
        Short(0)
    }
}

#[derive(Debug)]
struct Short(u64);

impl Hasher for Short {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, self.0);
    }

    // The separator that a text hashes after itself: not worth a whole round.
    fn write_u8(&mut self, byte: u8) {
        self.0 = self.0.rotate_left(5) ^ u64::from(byte);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
