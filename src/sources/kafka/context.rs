//! The rebalance callback: runs on the polling thread, inside `poll`. Takes registers over after an assignment, drains
//! before a revocation is answered. Must never return from a revocation with a claim of that partition unsettled
//! unless the assignment was lost (N4).

use super::{
    engine::Engine,
    takeover::{self, Policy},
};
use crate::{clock, testkit};
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    types::RDKafkaRespErr,
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How long queued calls may take to come back as `unreachable` once their lease is stopped.
const QUEUE_RETURN: Duration = Duration::from_secs(2);

/// Shared by the polling thread and its own callbacks.
pub struct Context {
    engine: Arc<Mutex<Engine>>,
    epoch: AtomicU64,
    paused: Mutex<BTreeSet<i32>>,
    broken: Mutex<Option<String>>,
    reason: Mutex<String>,
    policy: Policy,
}

impl Context {
    /// A context for one member identity.
    pub fn new(engine: Arc<Mutex<Engine>>, policy: Policy) -> Self {
        let epoch = AtomicU64::new(lock(&engine).protocol.epoch());
        let (paused, broken, reason) = (Mutex::default(), Mutex::new(None), Mutex::default());
        Self { engine, epoch, paused, broken, reason, policy }
    }

    /// The engine. Never held across a poll: the callback needs it.
    pub fn engine(&self) -> MutexGuard<'_, Engine> {
        lock(&self.engine)
    }

    /// Epoch of records that a poll returns now (K4: every record carries the epoch it was polled in).
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Partitions whose fetching is paused by back-pressure; an assignment clears it.
    pub fn paused(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why an assignment could not be taken over, if so: the member has to leave and come back.
    pub fn take_broken(&self) -> Option<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What the client said about the error that it returns from `poll` right after.
    pub fn take_reason(&self) -> String {
        std::mem::take(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        testkit::point("before_assign");
        let mut engine = self.engine();
        self.paused().clear();
        self.epoch.store(engine.protocol.next_epoch(), Ordering::Release);
        let shards: Vec<i32> = list
            .elements()
            .iter()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
            .collect();
        let span = engine.subscription.settings().dedup.then(|| engine.subscription.window().span_ms());
        let (topic, mut known) = (Arc::clone(&engine.topic), engine.known_partitions);
        let read = takeover::read(consumer, &topic, &shards, &self.policy, span, &mut known);
        engine.known_partitions = known;
        match read {
            Ok(takeovers) => {
                let list = engine.take_over(takeovers);
                // K3: a new assignment clears "no commit until the next assign callback".
                engine.assigned_now();
                // A partition that was paused before it went is still paused when it comes back.
                match consumer.assign(&list).and_then(|()| consumer.resume(&list)) {
                    // Also without a partition: the group has answered, and others serve them.
                    Ok(()) => engine.subscription.set_connected(true),
                    Err(error) => self.break_off(&format!("cannot assign: {error}")),
                }
            }
            Err(error) => {
                engine.last_poll_boot_ms = clock::boot_ms();
                self.break_off(&format!("cannot read the registers: {error}"));
                let _ = consumer.unassign();
            }
        }
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        testkit::point("in_revoke");
        let mut engine = self.engine();
        let shards: Vec<i32> = list
            .elements()
            .iter()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
            .collect();
        engine.drain(consumer, &shards);
        // Under a tainted identity no commit with other content may follow (K1), so nothing is flushed; the drain may
        // have tainted it.
        let flushed = engine.taint.is_none() && engine.flush_revoked(consumer, &shards);
        self.epoch.store(engine.protocol.next_epoch(), Ordering::Release);
        engine.protocol.revoked(&shards, flushed);
        engine.forget(&shards);
        engine.last_poll_boot_ms = clock::boot_ms();
        // Whatever the flush said, the partitions go (an unknown answer has tainted the identity, K1).
        if let Err(error) = consumer.unassign() {
            self.break_off(&format!("cannot unassign: {error}"));
        }
        testkit::point("after_revoke");
    }

    fn lost(&self, consumer: &BaseConsumer<Self>) {
        testkit::point("lease_lost");
        let mut engine = self.engine();
        tracing::warn!(trigger = %engine.subscription.trigger(), "Assignment lost: another member may own it already");
        engine.protocol.lost();
        self.epoch.store(engine.protocol.epoch(), Ordering::Release);
        let gone: Vec<i32> = engine.lag.keys().copied().collect();
        engine.forget(&gone);
        engine.last_poll_boot_ms = clock::boot_ms();
        if let Err(error) = consumer.unassign() {
            self.break_off(&format!("cannot unassign: {error}"));
        }
    }

    fn break_off(&self, why: &str) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }
}

fn lock(engine: &Mutex<Engine>) -> MutexGuard<'_, Engine> {
    // A panic while it was held ends the thread; the supervisor starts a new engine.
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line of the client library: it repeats itself while a broker is away; only what an operator must see is above
/// debug.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    if matches!(level, RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical) {
        tracing::error!(facility, message, "Client");
    } else {
        tracing::debug!(facility, message, "Client");
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Client error");
        // The library never puts a password there; what follows the bracket is how long it took and how often.
        let told = reason.rsplit_once(" (after ").map_or(reason, |(told, _)| told);
        told.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assigned(consumer, list),
            _ if consumer.assignment_lost() => self.lost(consumer),
            _ => self.revoked(consumer, list),
        }
    }
}

impl Engine {
    fn assigned_now(&mut self) {
        if self.taint == Some(super::commit::Taint::UntilAssign) {
            self.taint = None;
        }
        self.hold_until = None;
        self.announced.clear();
        self.last_poll_boot_ms = clock::boot_ms();
        self.assigned_at = Instant::now();
    }

    fn take_over(&mut self, takeovers: Vec<(i32, takeover::Read)>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (shard, read) in takeovers {
            let taken = self.protocol.assign(shard, &read.takeover);
            self.report_takeover(shard, &taken, read.problem);
            // D1: the window is what the log says; what this process remembered is rebuilt too.
            self.subscription.window().forget_shard(shard);
            let offset = Offset::Offset(taken.fetch_from);
            // Only an offset below zero is refused, and none is.
            let _ = list.add_partition_offset(&self.topic, shard, offset);
            self.lag.insert(shard, self.subscription.metrics().lag(&self.topic, shard));
        }
        list
    }

    fn report_takeover(
        &mut self,
        shard: i32,
        taken: &super::protocol::takeover::Taken,
        problem: Option<&'static str>,
    ) {
        let trigger = self.subscription.trigger().to_string();
        if let Some(kind) = problem {
            tracing::error!(trigger, partition = shard, kind, "Register of a predecessor is unreadable");
            self.subscription.metrics().register_problem(kind).increment(1);
        }
        if let Some(offset) = taken.regressed_from {
            // K8: only ACLs on the group and this alarm defend against a foreign commit.
            tracing::error!(trigger, partition = shard, offset, "Register was rewound by somebody else");
            self.subscription.metrics().register_problem("regressed").increment(1);
        }
        if taken.truncated {
            tracing::error!(
                trigger,
                partition = shard,
                "Log ends below the position: truncated or recreated"
            );
            self.subscription.metrics().register_problem("truncated").increment(1);
        }
        if let Some(range) = &taken.missed {
            let count = u64::try_from(range.end - range.start).unwrap_or(0);
            self.end_missed(shard, range.start, count, "removed by retention before it was claimed");
        }
        for offset in &taken.missed_parked {
            self.end_missed(shard, *offset, 1, "parked, and removed by retention before it was claimed");
        }
        for entry in &taken.cut {
            self.end_inherited(shard, *entry, None);
        }
    }

    /// N4: no new claim; calls that were claimed may finish until the drain time is over, queued ones included (the
    /// partition is still ours); then queued calls end as `unreachable`, running ones as `unanswered`.
    fn drain(&mut self, consumer: &BaseConsumer<Context>, shards: &[i32]) {
        let longest = Instant::now() + self.options.revoke_drain;
        let deadline = self.stopping.map_or(longest, |stop| stop.min(longest));
        let refresh = self.half_session() / 4;
        while self.open_in(shards) > 0 && Instant::now() < deadline {
            self.await_results(shards, deadline.min(Instant::now() + refresh));
            self.flow.write_journal();
            // L2: what still waits for its start needs a fresh commit; the partitions are ours until we unassign.
            self.last_poll_boot_ms = clock::boot_ms();
            if self.open_in(shards) > 0 && self.may_commit() {
                self.flush(consumer, Some(shards), true);
            }
        }
        self.protocol.revoking(shards);
        if self.open_in(shards) > 0 {
            self.await_results(shards, Instant::now() + QUEUE_RETURN);
            for shard in shards {
                let left = self.protocol.shard(*shard).map(super::protocol::shard::Shard::running_offsets);
                for offset in left.unwrap_or_default() {
                    self.cancel(*shard, offset);
                }
            }
        }
        self.flow.write_journal();
    }

    /// Waits for calls that outlived their assignment, so that what is known of them is recorded.
    pub(super) fn finish_what_runs(&mut self, deadline: Instant) {
        let shards: Vec<i32> = self.flow.running().map(|(shard, _)| shard).collect();
        self.await_results(&shards, deadline);
        self.flow.write_journal();
    }

    fn open_in(&self, shards: &[i32]) -> usize {
        self.flow.running().filter(|(shard, _)| shards.contains(shard)).count()
    }

    fn await_results(&mut self, shards: &[i32], deadline: Instant) {
        self.drain_results();
        while self.open_in(shards) > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.await_result(left) {
                return;
            }
        }
    }

    fn flush_revoked(&mut self, consumer: &BaseConsumer<Context>, shards: &[i32]) -> bool {
        if self.flow.is_journal_broken() {
            return false;
        }
        let flushed = self.flush(consumer, Some(shards), false);
        self.flow.write_journal();
        flushed
    }

    fn forget(&mut self, shards: &[i32]) {
        for shard in shards {
            self.subscription.window().forget_shard(*shard);
            self.lag.remove(shard);
            self.doubtful.retain(|(s, _), _| s != shard);
        }
        self.forget_waiting();
    }
}
