//! One round of claims: plan, commit, start, record. Must never start a call before its commit was accepted, nor
//! commit before the outcomes it drops from the register are recorded (N1).

use super::{
    commit::{self, Report, Taint, Written},
    context::Context,
    engine::Engine,
    item::{Body, Item},
    protocol::{
        Judge,
        plan::{Action, Proposal},
        shard::Granted,
    },
};
use crate::{
    clock,
    dispatch::{Answer, InFlight, Judgement, Judging, Reason, subscription::Pending},
    ledger::Outcome,
    testkit,
};
use rdkafka::{consumer::BaseConsumer, error::RDKafkaErrorCode};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

/// K5: after a refusal that a rebalance explains, how long until the same batch is offered again.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

struct Adapter<'a>(Judging<'a>, &'a HashMap<(i32, i64), (Outcome, Reason)>);

impl Judge<Item> for Adapter<'_> {
    fn judge(&mut self, shard: i32, offset: i64, log_time_ms: i64, item: &Item) -> Judgement {
        if let Some((outcome, reason)) = self.1.get(&(shard, offset)) {
            return Judgement::Pass(*outcome, reason.clone());
        }
        match &item.body {
            Body::Event(event) => self.0.judge(shard, offset, log_time_ms, event),
            Body::Rejected(_, reason) => Judgement::Pass(Outcome::Rejected, Reason::Text(reason)),
        }
    }
}

impl Engine {
    /// Claims what may be claimed now. True when a commit was made.
    pub(super) fn claim(&mut self, consumer: &BaseConsumer<Context>) -> bool {
        if self.stopping.is_some() || !self.may_commit() {
            return false;
        }
        let budget = self.flow.budget(self.protocol.running());
        if budget == 0 {
            return false;
        }
        testkit::point("before_dedup");
        let subscription = Arc::clone(&self.subscription);
        let mut judge = Adapter(subscription.judging(clock::unix_ms()), &self.announced);
        let proposal = self.protocol.plan(budget, self.flow.pace.depth(), &mut judge);
        if judge.0.window_was_full() {
            let ids = self.subscription.window().len();
            self.trouble = Some(format!(
                "the deduplication window is full ({ids} ids inside dedup.window): raise dedup.maxEntries or shorten \
                 dedup.window; until then nothing more is claimed where it is needed"
            ));
        }
        let Some(proposal) = proposal else { return false };
        if !self.write_passes(&proposal) {
            return false;
        }
        self.commit_and_start(consumer, proposal);
        true
    }

    /// Writes the lines of what would end without a call *before* the commit passes over it: a crash in between repeats
    /// the line (same key, same outcome), where the other order would lose it. They are counted once it is accepted.
    fn write_passes(&mut self, proposal: &Proposal) -> bool {
        for part in &proposal.parts {
            let Some(shard) = self.protocol.shard(part.shard) else { continue };
            for ((offset, _, item), action) in shard.unclaimed().zip(&part.actions) {
                if let Action::Pass(outcome, reason) = action
                    && let Entry::Vacant(unwritten) = self.announced.entry((part.shard, offset))
                {
                    unwritten.insert((*outcome, reason.clone()));
                    self.flow.recorder.announce(&super::engine::passing(item, *outcome, reason.as_str()));
                }
            }
        }
        self.flow.write_journal()
    }

    fn commit_and_start(&mut self, consumer: &BaseConsumer<Context>, proposal: Proposal) {
        let batch = self.pending(&proposal);
        let mut report = None;
        let subscription = Arc::clone(&self.subscription);
        let (topic, wait) = (Arc::clone(&self.topic), self.options.commit_wait());
        let done = self.flow.done().clone();
        if testkit::bug("invoke_before_commit") {
            let granted = |batch: &[Pending]| vec![Answer::Granted; batch.len()];
            subscription.claim_and_start(self.pending(&proposal), &done, granted);
        }
        let leases = self.extendable(&proposal);
        let half = u64::try_from(self.half_session().as_millis()).unwrap_or(u64::MAX);
        let others = subscription.claim_and_start(batch, &done, |batch| {
            let answer = commit::write(consumer, &topic, &proposal, wait);
            // L2: no start later than half a session after the accepted commit was sent.
            for (shard, lease) in &leases {
                if answer.of(*shard) == Written::Granted {
                    lease.extend(answer.sent_boot_ms + half);
                } else if testkit::bug("unknown_invokes") {
                    lease.extend(clock::boot_ms() + half);
                }
            }
            testkit::point("after_claim");
            let answers = batch.iter().map(|p| to_answer(answer.of(p.shard))).collect();
            report = Some(answer);
            answers
        });
        drop(others);
        if let Some(report) = report {
            self.apply(proposal, &report);
        }
    }

    fn extendable(&self, proposal: &Proposal) -> Vec<(i32, Arc<crate::dispatch::StartLease>)> {
        let parts = proposal.parts.iter();
        parts.filter_map(|p| Some((p.shard, Arc::clone(self.protocol.shard(p.shard)?.lease())))).collect()
    }

    fn pending(&self, proposal: &Proposal) -> Vec<Pending> {
        let mut batch = Vec::with_capacity(proposal.claims());
        let mut first = 0;
        for part in &proposal.parts {
            let Some(shard) = self.protocol.shard(part.shard) else { continue };
            let from = batch.len();
            let mut add = |chain: usize, item: &Item| {
                if let Body::Event(event) = &item.body {
                    let (event, lease) = (Arc::clone(event), Arc::clone(shard.lease()));
                    batch.push(Pending { shard: part.shard, chain: (first + chain) as u64, event, lease });
                }
            };
            for (offset, action) in &part.unpark {
                if let (Action::Start(chain), Some((_, item))) = (action, shard.parked_record(*offset)) {
                    add(*chain, item);
                }
            }
            for ((_, _, item), action) in shard.unclaimed().zip(&part.actions) {
                if let Action::Start(chain) = action {
                    add(*chain, item);
                }
            }
            batch[from..].sort_by_key(|p| p.chain);
            first += part.chains;
        }
        batch
    }

    /// Brings the protocol to what the register now says, and judges what it means for this member.
    pub(super) fn apply(&mut self, proposal: Proposal, report: &Report) {
        self.count(report);
        for part in proposal.parts {
            match report.of(part.shard) {
                Written::Granted => {
                    let shard = part.shard;
                    if let Some(granted) = self.protocol.granted(part) {
                        self.started(shard, granted);
                    }
                }
                // K4: an OK always advances the local position, also when its calls are not started.
                Written::GrantedTooLate => {
                    if let Some(shard) = self.protocol.shard_mut(part.shard) {
                        shard.advance_only(part.offset);
                    }
                }
                Written::Refused(code) => self.refused(code),
                Written::Unknown => {}
            }
        }
        if report.metadata_too_large {
            let limits = self.protocol.limits_mut();
            limits.metadata_chars = (limits.metadata_chars / 2).max(256);
            tracing::error!(
                topic = %self.topic, metadata_chars = limits.metadata_chars,
                "Broker refuses the register; raise its offset.metadata.max.bytes to 4096"
            );
        }
        if report.taint.is_some() {
            tracing::warn!(trigger = %self.subscription.trigger(), taint = ?report.taint, "Identity must change");
            self.taint = report.taint;
        }
    }

    fn refused(&mut self, code: RDKafkaErrorCode) {
        if code != RDKafkaErrorCode::RebalanceInProgress {
            self.trouble = Some(format!("commit refused: {code}"));
        }
        self.hold_until = Some(Instant::now() + REFUSED_PAUSE);
    }

    fn count(&mut self, report: &Report) {
        let metrics = self.subscription.metrics();
        metrics.claim_commit_duration.record(report.took);
        let count = |f: fn(&Written) -> bool| report.parts.values().filter(|w| f(w)).count() as u64;
        metrics.claims_granted.increment(count(|w| matches!(w, Written::Granted | Written::GrantedTooLate)));
        metrics.claims_refused.increment(count(|w| matches!(w, Written::Refused(_))));
        if report.parts.is_empty() || report.parts.values().any(|w| *w == Written::Unknown) {
            metrics.claims_unknown.increment(1);
        }
        self.flow.pace.committed(report.took, self.last_commit.elapsed());
        self.last_commit = Instant::now();
    }

    fn started(&mut self, number: i32, granted: Granted<Item>) {
        self.flow.received((granted.starts.len() + granted.passed.len()) as u64);
        // D2: ids enter the window now that the commit that passes over them is accepted, with their positions.
        let window = self.subscription.window().shard(number);
        if let Some(shard) = self.protocol.shard(number) {
            for offset in &granted.parked {
                if let Some((log_time_ms, item)) = shard.parked_record(*offset)
                    && let Body::Event(event) = &item.body
                    && let Some(id) = event.business
                {
                    window.enter(id, *offset, log_time_ms);
                }
            }
        }
        for start in granted.starts {
            let Body::Event(event) = start.record.body else { continue };
            if let Some(id) = event.business {
                window.enter(id, start.offset, start.log_time_ms);
            }
            let (original, weight) = (start.record.original, start.record.weight);
            self.flow.begin(InFlight { event, original, weight, note: () });
        }
        for (offset, log_time_ms, outcome, reason, item) in granted.passed {
            self.announced.remove(&(number, offset));
            if let Some(id) = self.windowed(&item) {
                window.enter(id, offset, log_time_ms);
            }
            self.passed(&item, outcome, reason.as_str());
        }
        window.advance(granted.log_time_ms);
    }

    /// Take-over commits, and removal of settled and reported entries when no claim carried it.
    pub(super) fn flush_if_due(&mut self, consumer: &BaseConsumer<Context>) {
        let urgent = self.protocol.owned().any(|(_, s)| s.is_dirty() && !s.is_confirmed());
        let queued = self.protocol.running() > 0 && self.last_commit.elapsed() >= self.half_session() / 4;
        let due = self.last_commit.elapsed() >= self.options.flush_interval;
        if !(urgent || due || queued) || !self.may_commit() {
            return;
        }
        self.flush(consumer, None, queued);
    }

    /// Commits what is settled and reported, at the same offsets. True when the register holds all that is known.
    pub(super) fn flush(
        &mut self,
        consumer: &BaseConsumer<Context>,
        only: Option<&[i32]>,
        refresh: bool,
    ) -> bool {
        let Some(proposal) = self.protocol.plan_flush(only, refresh) else { return true };
        testkit::point("before_done_flush");
        let leases = self.extendable(&proposal);
        let report = commit::write(consumer, &self.topic, &proposal, self.options.commit_wait());
        let half = u64::try_from(self.half_session().as_millis()).unwrap_or(u64::MAX);
        let accepted = proposal.parts.iter().all(|p| report.of(p.shard) == Written::Granted);
        for (shard, lease) in leases {
            if report.of(shard) == Written::Granted {
                lease.extend(report.sent_boot_ms + half);
            }
        }
        self.apply(proposal, &report);
        accepted
    }

    /// Why this member must leave and come back, or stop.
    pub(super) fn must_leave(&self) -> Option<Taint> {
        match self.taint {
            Some(taint @ (Taint::Rejoin(_) | Taint::Fenced)) => Some(taint),
            // The next assign callback clears it; if none comes within a session the member is stuck: rejoin.
            Some(Taint::UntilAssign) if self.last_commit.elapsed() > self.options.session_timeout * 2 => {
                Some(Taint::Rejoin("kicked out and not assigned again"))
            }
            _ => None,
        }
    }
}

fn to_answer(written: Written) -> Answer {
    match written {
        Written::Granted => Answer::Granted,
        Written::Unknown if testkit::bug("unknown_invokes") => Answer::Granted,
        Written::GrantedTooLate | Written::Unknown => Answer::Unknown,
        Written::Refused(_) => Answer::Refused,
    }
}
