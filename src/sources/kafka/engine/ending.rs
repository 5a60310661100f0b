//! Endings: from a result, a judgement or a takeover to a journal line, counters and a dead letter. Must never tell
//! the protocol that an entry is settled or reported before its line is in the recorder's batch, which is written
//! before the next commit is planned (N1).

use super::{Engine, Running};
use crate::{
    dispatch::{Done, dead_letter::Original, recorder::Ending},
    event::Position,
    ledger::Outcome,
    sources::kafka::{item::Item, protocol::shard::Reportable},
};
use std::sync::Arc;

impl Engine {
    /// `n` events were taken over from the source.
    pub(in super::super) fn received(&mut self, n: u64) {
        self.subscription.conservation().received(n);
        self.subscription.metrics().received.increment(n);
    }

    /// Takes all results that the workers have sent.
    pub(in super::super) fn drain_results(&mut self) {
        while let Ok(done) = self.results.try_recv() {
            self.finished(&done);
        }
    }

    /// A call ended. One that was cancelled before has its outcome already.
    pub(in super::super) fn finished(&mut self, done: &Done) {
        let position = &done.event.position;
        let at = (position.shard, position.sequence);
        // After a cut log the same position may hold another event: its entry is not this call's.
        if !self.running.get(&at).is_some_and(|r| Arc::ptr_eq(&r.event, &done.event)) {
            return;
        }
        let Some(running) = self.running.remove(&at) else { return };
        self.pace.called(done.settled.took);
        self.observe(done);
        let ending = Ending {
            id: &done.event.attributes.id,
            position,
            outcome: done.settled.outcome,
            reason: done.settled.reason,
            settled: Some(&done.settled),
            owner: None,
            count: 1,
        };
        self.recorder.end(&ending);
        self.settle(position, &running);
        self.offer(running.original.as_ref(), &ending);
    }

    fn observe(&self, done: &Done) {
        let metrics = self.subscription.metrics();
        metrics.invocation_duration.record(done.settled.took);
        if done.settled.attempts > 1 {
            metrics.retries.increment(u64::from(done.settled.attempts) - 1);
        }
        let (sent, written) = (done.settled.sent_unix_ms, done.event.position.time_ms);
        if sent > 0 && written >= 0 {
            let late = u64::try_from(sent - written).unwrap_or(0);
            metrics.dispatch_latency.record(std::time::Duration::from_millis(late));
        }
    }

    fn settle(&mut self, position: &Position, running: &Running) {
        if let Some(shard) = self.protocol.shard_mut(position.shard) {
            shard.settled(position.sequence);
        }
        self.release(running.weight);
        self.subscription.conservation().finished(1);
    }

    /// The drain time is over: a call that still runs ends as `unanswered`, whatever it does later (N4).
    pub(in super::super) fn cancel(&mut self, shard: i32, offset: i64) {
        let Some(running) = self.running.remove(&(shard, offset)) else { return };
        let position = running.event.position.clone();
        let ending = Ending {
            id: &running.event.attributes.id,
            position: &position,
            outcome: Outcome::Unanswered,
            reason: Some("the partition was revoked while the call ran"),
            settled: None,
            owner: None,
            count: 1,
        };
        self.recorder.end(&ending);
        self.settle(&position, &running);
        self.offer(running.original.as_ref(), &ending);
    }

    /// A record ended without a call; its line was announced before the commit passed over it.
    pub(in super::super) fn passed(&mut self, item: &Item, outcome: Outcome, reason: &str) {
        self.recorder.count(outcome, 1);
        self.release(item.weight);
        self.offer(item.original.as_ref(), &passing(item, outcome, reason));
    }

    /// Names an entry of a dead or fenced predecessor (or a claim of our own whose answer was lost, N3).
    pub(in super::super) fn end_inherited(&mut self, shard: i32, entry: Reportable, known: Option<&Item>) {
        let bare = self.bare_position(shard, entry.offset);
        let owner = format!("{:016x}", entry.owner.0);
        let reason = match entry.outcome {
            Outcome::InDoubt => "claimed by a process that ended before it recorded an outcome",
            _ => "claimed by an answer that was lost; never sent",
        };
        let ending = Ending {
            id: known.map_or("", |item| item.id()),
            position: known.map_or(&bare, |item| item.position()),
            outcome: entry.outcome,
            reason: Some(reason),
            settled: None,
            owner: Some(&owner),
            count: 1,
        };
        self.recorder.end(&ending);
        tracing::warn!(
            trigger = %self.subscription.trigger(), topic = %self.topic, partition = shard, offset = entry.offset,
            id = ending.id, outcome = entry.outcome.as_str(), owner, "Event of a predecessor has no outcome"
        );
        if let Some(state) = self.protocol.shard_mut(shard) {
            state.reported(entry.offset);
        }
        self.subscription.conservation().inherited(1);
        self.subscription.metrics().inherited.increment(1);
        self.offer(known.and_then(|item| item.original.as_ref()), &ending);
    }

    /// Something ended of which no record was read.
    pub(in super::super) fn end_unread(
        &mut self,
        position: &Position,
        outcome: Outcome,
        reason: &'static str,
        count: u64,
    ) {
        let ending =
            Ending { id: "", position, outcome, reason: Some(reason), settled: None, owner: None, count };
        self.recorder.end(&ending);
        tracing::warn!(
            trigger = %self.subscription.trigger(), %position, count, outcome = outcome.as_str(), reason,
            "Events ended without being read"
        );
    }

    /// A dead letter is offered once its line is in the journal.
    fn offer(&mut self, original: Option<&Arc<Original>>, ending: &Ending<'_>) {
        if let Some(original) = original
            && self.subscription.settings().dead_letter.contains(&ending.outcome)
        {
            self.letters.push((Arc::clone(original), self.recorder.line(ending)));
        }
    }

    /// Writes the batch of endings. Until that succeeds nothing is claimed and nothing is flushed.
    pub(in super::super) fn write_journal(&mut self) {
        if self.recorder.is_pending() {
            crate::testkit::point("before_outcome");
        }
        match self.recorder.flush() {
            Ok(()) => {
                if let Some(sink) = &self.dead_letters {
                    for (original, line) in self.letters.drain(..) {
                        sink.offer(&original, &line);
                    }
                }
                if std::mem::take(&mut self.journal_broken) {
                    tracing::info!(trigger = %self.subscription.trigger(), "Journal is writable again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.journal_broken, true) {
                    tracing::error!(trigger = %self.subscription.trigger(), %error, "Claiming stopped");
                }
            }
        }
        crate::testkit::point("after_outcome");
    }
}

/// The ending of a record that is judged and not called.
pub(in super::super) fn passing<'a>(item: &'a Item, outcome: Outcome, reason: &'a str) -> Ending<'a> {
    Ending {
        id: item.id(),
        position: item.position(),
        outcome,
        reason: Some(reason),
        settled: None,
        owner: None,
        count: 1,
    }
}
