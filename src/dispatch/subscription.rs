//! One (trigger, function) pair: the unit of claims, limits, order, outcomes and metrics. Shared between its
//! source's thread and readers. Must never be held up by another subscription.

use super::{
    backoff::Backoff,
    judge::Judging,
    recorder::Recorder,
    settings::Settings,
    worker::{Chain, DoneSender, Permits, Workers},
};
use crate::{
    claims::{self, Answer, Claimed, lease::StartLease, window::Window},
    clock,
    cluster::target::{ObjectRef, TargetCell},
    event::{Event, headers::HeaderTemplate},
    invoker::Call,
    ledger::{Outcome, conservation::Conservation, journal::Journal, line::Names},
    telemetry::SubscriptionMetrics,
};
use arc_swap::ArcSwap;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

/// What a subscription is made of.
pub struct SubscriptionParts {
    /// The trigger.
    pub trigger: ObjectRef,
    /// The trigger's uid.
    pub uid: Arc<str>,
    /// The function.
    pub function: ObjectRef,
    /// Name of the source kind, a metric label.
    pub source: &'static str,
    /// In-place settings.
    pub settings: Settings,
    /// The function's cell, kept by the router.
    pub target: TargetCell,
    /// Permits of the function over all subscriptions.
    pub function_permits: Arc<Semaphore>,
    /// Headers that every event carries.
    pub template: HeaderTemplate,
    /// Deduplication window.
    pub window: Window,
    /// Where outcomes go.
    pub journal: Arc<Journal>,
    /// Who runs the calls.
    pub workers: Arc<Workers>,
}

/// One subscription. See [`SubscriptionParts`].
pub struct Subscription {
    trigger: ObjectRef,
    uid: Arc<str>,
    function: ObjectRef,
    settings: ArcSwap<Settings>,
    permits: ArcSwap<Permits>,
    target: TargetCell,
    template: Arc<HeaderTemplate>,
    window: Window,
    journal: Arc<Journal>,
    workers: Arc<Workers>,
    conservation: Arc<Conservation>,
    metrics: SubscriptionMetrics,
    connected: AtomicBool,
    backoff: Backoff,
    pauses: AtomicU64,
}

/// An event that is about to be claimed, with its place in the plan.
#[derive(Debug)]
pub struct Pending {
    /// Shard it belongs to: index into the answers of the commit.
    pub shard: i32,
    /// Chain number, unique inside the batch and ascending.
    pub chain: u64,
    /// The event.
    pub event: Arc<Event>,
    /// Until when its call may start.
    pub lease: Arc<StartLease>,
}

impl Subscription {
    /// Puts the parts together; nothing runs yet.
    pub fn new(parts: SubscriptionParts) -> Self {
        let metrics = SubscriptionMetrics::new(
            &parts.trigger.namespace,
            &parts.trigger.name,
            &parts.function.name,
            parts.source,
            &Outcome::ALL.map(Outcome::as_str),
        );
        let subscription = Arc::new(Semaphore::new(parts.settings.max_in_flight));
        let limit = parts.settings.max_in_flight;
        let permits = Permits { subscription, function: parts.function_permits, limit };
        Self {
            trigger: parts.trigger,
            uid: parts.uid,
            function: parts.function,
            settings: ArcSwap::from_pointee(parts.settings),
            permits: ArcSwap::from_pointee(permits),
            target: parts.target,
            template: Arc::new(parts.template),
            window: parts.window,
            journal: parts.journal,
            backoff: Backoff::new(parts.workers.backoff_interval()),
            workers: parts.workers,
            conservation: Arc::new(Conservation::default()),
            metrics,
            connected: AtomicBool::new(false),
            pauses: AtomicU64::new(0),
        }
    }

    /// The trigger.
    pub fn trigger(&self) -> &ObjectRef {
        &self.trigger
    }

    /// The function.
    pub fn function(&self) -> &ObjectRef {
        &self.function
    }

    /// Current settings.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Replaces the settings in place. Calls that run keep the limit they started under.
    pub fn update(&self, settings: Settings) {
        if settings.max_in_flight != self.settings.load().max_in_flight {
            let subscription = Arc::new(Semaphore::new(settings.max_in_flight));
            let function = Arc::clone(&self.permits.load().function);
            let permits = Permits { subscription, function, limit: settings.max_in_flight };
            self.permits.store(Arc::new(permits));
        }
        if settings.paused && !self.settings.load().paused {
            self.pauses.fetch_add(1, Ordering::SeqCst);
        }
        self.settings.store(Arc::new(settings));
    }

    /// How often it was paused, for a source that must not overlook a pause that was over before it looked.
    pub fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::SeqCst)
    }

    /// The source says whether it is connected: it answers, and hands over whatever there is.
    pub fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// Whether the source is connected.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// The conservation equation of this subscription.
    pub fn conservation(&self) -> &Arc<Conservation> {
        &self.conservation
    }

    /// Metric handles.
    pub fn metrics(&self) -> &SubscriptionMetrics {
        &self.metrics
    }

    /// The deduplication window.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Longest wait for an answer of a call that starts now.
    pub fn call_timeout(&self) -> Duration {
        self.settings.load().call_timeout.unwrap_or_else(|| self.target.load().call_timeout)
    }

    /// Calls that run now.
    pub fn calls_running(&self) -> usize {
        let limit = self.settings.load().max_in_flight;
        limit.saturating_sub(self.permits.load().subscription.available_permits())
    }

    /// Calls that the function could take now, over all its subscriptions of this process.
    pub fn function_has_room_for(&self) -> usize {
        self.permits.load().function.available_permits()
    }

    /// A recorder for this subscription's outcomes.
    pub fn recorder(&self, owner: String) -> Recorder {
        Recorder::new(
            Arc::clone(&self.journal),
            Arc::clone(&self.conservation),
            &self.metrics,
            Names {
                trigger: self.trigger.to_string(),
                uid: self.uid.to_string(),
                function: self.function.to_string(),
                owner,
            },
        )
    }

    /// Whether anything may be claimed at all: not paused, no pause after a failure, and the function has a ready endpoint
    /// (rule 4: a function that is absent costs no event).
    pub fn may_claim(&self) -> bool {
        !self.settings.load().paused
            && !self.backoff.holds(clock::boot_ms())
            && !self.target.load().endpoints.is_empty()
    }

    /// A call ended, and its outcome may ask for a pause.
    pub fn ended(&self, outcome: Outcome) {
        self.backoff.ended(outcome, clock::boot_ms());
    }

    /// A judge for one batch.
    pub fn judging(&self, now_ms: i64) -> Judging<'_> {
        Judging::new(self.settings.load_full(), &self.window, now_ms)
    }

    /// Claims `batch` through `commit` (which writes the register durably and answers per item) and hands the granted
    /// calls to the workers; results come back over `done`. Returns what was not granted.
    ///
    /// Blocking: `commit` runs on the caller's thread, before any call starts.
    pub fn claim_and_start(
        &self,
        batch: Vec<Pending>,
        done: &DoneSender,
        commit: impl FnOnce(&[Pending]) -> Vec<Answer>,
    ) -> Vec<(Pending, Answer)> {
        let (granted, others) = claims::claim(batch, commit);
        self.conservation.started(i64::try_from(granted.len()).unwrap_or(i64::MAX));
        self.start(granted, done);
        others
    }

    fn start(&self, granted: Vec<Claimed<Pending>>, done: &DoneSender) {
        let permits = self.permits.load_full();
        let timeout = self.settings.load().call_timeout;
        let mut shards: Vec<(i32, Vec<Chain>)> = Vec::new();
        let mut last = None;
        for claimed in granted {
            let (shard, chain) = (claimed.get().shard, claimed.get().chain);
            let call = claimed.map(|pending| Call {
                event: pending.event,
                template: Arc::clone(&self.template),
                target: Arc::clone(&self.target),
                timeout,
                lease: pending.lease,
            });
            if last != Some((shard, chain)) {
                if shards.last().is_none_or(|(s, _)| *s != shard) {
                    shards.push((shard, Vec::new()));
                }
                let chain = Chain { calls: Vec::new(), permits: (*permits).clone(), done: done.clone() };
                if let Some((_, chains)) = shards.last_mut() {
                    chains.push(chain);
                }
            }
            last = Some((shard, chain));
            if let Some(chain) = shards.last_mut().and_then(|(_, c)| c.last_mut()) {
                chain.calls.push(call);
            }
        }
        for (shard, chains) in shards {
            self.workers.run(u64::from(shard.unsigned_abs()), chains);
        }
    }
}
