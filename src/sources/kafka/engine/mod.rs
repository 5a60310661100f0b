//! The state that one consumer's polling thread and its rebalance callback share: protocol, outcomes, calls that
//! run. Everything happens on that one thread; the lock around it is never contended. Must never commit or start
//! anything by itself: `claiming` and `context` do, in the order the protocol allows.

use super::{
    commit::Taint,
    item::{Body, Item},
    options::Options,
    protocol::{
        Protocol,
        plan::Limits,
        shard::{Polled, Taken},
    },
    register::Token,
};
use crate::{
    clock,
    dispatch::{Flow, FlowParts, Reason, Subscription, dead_letter::DeadLetterSink},
    event::{BusinessId, Position},
    ledger::Outcome,
};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

mod ending;
mod publishing;
mod waiting;

pub(super) use ending::passing;

/// See the module.
pub struct Engine {
    pub(super) topic: Arc<str>,
    pub(super) options: Arc<Options>,
    pub(super) protocol: Protocol<Item>,
    pub(super) subscription: Arc<Subscription>,
    pub(super) flow: Flow<()>,
    pub(super) doubtful: HashMap<(i32, i64), Item>,
    pub(super) taint: Option<Taint>,
    pub(super) hold_until: Option<Instant>,
    pub(super) last_poll_boot_ms: u64,
    pub(super) last_commit: Instant,
    pub(super) assigned_at: Instant,
    pub(super) stopping: Option<Instant>,
    pub(super) trouble: Option<String>,
    /// By shard, its position and when it last moved.
    pub(super) moved: HashMap<i32, (i64, Instant)>,
    /// Partitions the topic had at the last take-over.
    pub(super) known_partitions: Option<i32>,
    /// Endings without a call that are in the journal while their commit is not accepted yet: the verdict stays.
    pub(super) announced: HashMap<(i32, i64), (Outcome, Reason)>,
    pub(super) lag: HashMap<i32, metrics::Gauge>,
}

impl Engine {
    /// An engine for `subscription` on `topic`. `memory` counts event bytes over all subscriptions of the process.
    pub fn new(
        topic: Arc<str>,
        options: Arc<Options>,
        subscription: Arc<Subscription>,
        token: Token,
        dead_letters: Option<Arc<dyn DeadLetterSink>>,
        memory: Arc<AtomicUsize>,
    ) -> Self {
        let limits = Limits { entries: options.register_entries, metadata_chars: options.metadata_chars };
        let owner = format!("{:016x}", token.0);
        let flow =
            Flow::new(FlowParts { subscription: Arc::clone(&subscription), owner, dead_letters, memory });
        Self {
            topic,
            options,
            protocol: protocol(token, limits),
            subscription,
            flow,
            doubtful: HashMap::new(),
            taint: None,
            hold_until: None,
            last_poll_boot_ms: clock::boot_ms(),
            last_commit: Instant::now(),
            assigned_at: Instant::now(),
            stopping: None,
            trouble: None,
            moved: HashMap::new(),
            known_partitions: None,
            announced: HashMap::new(),
            lag: HashMap::new(),
        }
    }

    /// A poll that began at `began_boot_ms` returned. One that took as long as half a session means that the process
    /// stood still meanwhile: another member may own the partitions, so the identity ends here (K3).
    pub(super) fn polled(&mut self, began_boot_ms: u64) {
        // A callback inside that poll (a drain, a take-over) has set it later: that time was not stood still.
        self.last_poll_boot_ms = self.last_poll_boot_ms.max(began_boot_ms);
        if !self.is_punctual() && self.taint.is_none() {
            self.taint = Some(Taint::Rejoin("the process stood still for half a session"));
        }
        self.last_poll_boot_ms = clock::boot_ms();
    }

    fn is_punctual(&self) -> bool {
        let late = clock::boot_ms().saturating_sub(self.last_poll_boot_ms);
        u128::from(late) <= self.half_session().as_millis()
    }

    /// Takes a polled record into the protocol; one read back below the position serves window and naming.
    pub(super) fn take(&mut self, epoch: u64, offset: i64, time_ms: i64, item: Item) {
        let shard = item.position().shard;
        let (weight, business, kept) = (item.weight, self.windowed(&item), self.keep_for_naming(&item));
        match self.protocol.fetched(shard, epoch, Polled { offset, time_ms, record: item }) {
            Taken::Waiting => self.flow.hold(weight),
            Taken::ParkedAgain { log_time_ms } => {
                self.flow.hold(weight);
                self.remember(shard, business, offset, log_time_ms);
            }
            Taken::Claimed { log_time_ms, in_doubt } => {
                self.remember(shard, business, offset, log_time_ms);
                if in_doubt && let Some(item) = kept {
                    self.doubtful.insert((shard, offset), item);
                }
            }
            Taken::Dropped => {}
        }
    }

    /// D1: the window is rebuilt from the log, in log time, up to the position.
    fn remember(&self, shard: i32, id: Option<BusinessId>, offset: i64, log_time_ms: i64) {
        if let Some(id) = id
            && !crate::testkit::bug("window_not_rebuilt")
        {
            self.subscription.window().shard(shard).enter(id, offset, log_time_ms);
        }
    }

    /// The business id of an item that counts in the window: not what the filter drops.
    pub(super) fn windowed(&self, item: &Item) -> Option<BusinessId> {
        let Body::Event(event) = &item.body else { return None };
        let id = event.business?;
        let settings = self.subscription.settings();
        settings.filter.check(event).is_ok().then_some(id)
    }

    fn keep_for_naming(&self, item: &Item) -> Option<Item> {
        let shard = self.protocol.shard(item.position().shard)?;
        shard.is_replaying().then(|| item.clone())
    }

    /// Drops what waits of shards that are gone: it stays unclaimed in the log.
    pub(super) fn forget_waiting(&mut self) {
        let kept = self.flow.running_bytes() + self.waiting_bytes();
        self.flow.release(self.flow.held_bytes().saturating_sub(kept));
    }

    fn waiting_bytes(&self) -> usize {
        self.protocol.owned().map(|(_, s)| s.waiting_weight()).sum()
    }

    /// Coordinates of `offset` in `shard`, where only those are known.
    pub(super) fn bare_position(&self, shard: i32, offset: i64) -> Position {
        Position {
            stream: Arc::clone(&self.topic),
            shard,
            sequence: offset,
            coordinates: None,
            epoch: -1,
            time_ms: -1,
        }
    }

    /// Half a session, the longest time a claim may wait for its start (L2) and a poll may be late (K3).
    pub(super) fn half_session(&self) -> Duration {
        self.options.session_timeout / 2
    }

    /// Whether the identity of this member may still commit (K1, K3, K7).
    pub(super) fn may_commit(&self) -> bool {
        self.taint.is_none()
            && !self.flow.is_journal_broken()
            && self.hold_until.is_none_or(|at| at <= Instant::now())
            && self.is_punctual()
    }

    /// Reports every inherited entry that may be named now (N2), with its id where the record was read back.
    pub(super) fn name_inherited(&mut self) {
        let token = self.protocol.token();
        let patience = self.assigned_at.elapsed() > self.options.naming_patience;
        let mut named = Vec::new();
        for (shard, state) in self.protocol.owned() {
            if state.is_replaying() && !patience {
                continue;
            }
            named.extend(state.reportable(token, false).into_iter().map(|r| (shard, r)));
        }
        for (shard, entry) in named {
            let known = self.doubtful.remove(&(shard, entry.offset));
            self.end_inherited(shard, entry, known.as_ref());
        }
    }
}

#[cfg(not(feature = "testkit"))]
fn protocol(token: Token, limits: Limits) -> Protocol<Item> {
    Protocol::new(token, limits)
}

#[cfg(feature = "testkit")]
fn protocol(token: Token, limits: Limits) -> Protocol<Item> {
    let no_epoch = crate::testkit::bug("no_epoch_check");
    let mutations = super::protocol::Mutations { no_epoch, ..Default::default() };
    Protocol::new(token, limits).with_mutations(mutations)
}
