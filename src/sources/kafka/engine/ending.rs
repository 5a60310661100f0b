//! Endings: from a result, a judgement or a takeover to a journal line, counters and a dead letter. Must never tell
//! the protocol that an entry is settled or reported before its line is in the recorder's batch, which is written
//! before the next commit is planned (N1).

use super::Engine;
use crate::{
    dispatch::{Ended, flow::Waited, recorder::Ending},
    ledger::Outcome,
    sources::kafka::{
        item::Item,
        protocol::{Protocol, shard::Reportable},
    },
};
use std::time::Duration;

impl Engine {
    /// Takes all results that the workers have sent.
    pub(in super::super) fn drain_results(&mut self) {
        let protocol = &mut self.protocol;
        self.flow.collect(|_, ended| settle(protocol, &ended));
    }

    /// Waits for one result, `left` at most. False: none came.
    pub(in super::super) fn await_result(&mut self, left: Duration) -> bool {
        match self.flow.wait(left) {
            Waited::Ended(ended) => settle(&mut self.protocol, &ended),
            Waited::GivenUp => {}
            Waited::Nothing => return false,
        }
        true
    }

    /// The drain time is over: a call that still runs ends as `unanswered`, whatever it does later (N4).
    pub(in super::super) fn cancel(&mut self, shard: i32, offset: i64) {
        if let Some(ended) =
            self.flow.give_up((shard, offset), "the partition was revoked while the call ran")
        {
            settle(&mut self.protocol, &ended);
        }
    }

    /// A record ended without a call; its line was announced before the commit passed over it.
    pub(in super::super) fn passed(&mut self, item: &Item, outcome: Outcome, reason: &str) {
        self.flow.recorder.count(outcome, 1);
        self.flow.release(item.weight);
        self.flow.offer(item.original.as_ref(), &passing(item, outcome, reason));
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
        self.flow.inherited(known.and_then(|item| item.original.as_ref()), &ending);
        tracing::warn!(
            trigger = %self.subscription.trigger(), topic = %self.topic, partition = shard, offset = entry.offset,
            id = ending.id, outcome = entry.outcome.as_str(), owner, "Event of a predecessor has no outcome"
        );
        if let Some(state) = self.protocol.shard_mut(shard) {
            state.reported(entry.offset);
        }
    }

    /// Retention or compaction took records away before they were claimed.
    pub(in super::super) fn end_missed(&mut self, shard: i32, offset: i64, count: u64, reason: &'static str) {
        let (position, outcome) = (self.bare_position(shard, offset), Outcome::Missed);
        self.flow.unread(&position, outcome, reason, count);
        tracing::warn!(
            trigger = %self.subscription.trigger(), %position, count, outcome = outcome.as_str(), reason,
            "Events ended without being read"
        );
    }
}

/// The register may drop the entry: its line is in the batch, which is written before the next commit is planned (N1).
fn settle(protocol: &mut Protocol<Item>, ended: &Ended<()>) {
    let position = &ended.call.event.position;
    if let Some(shard) = protocol.shard_mut(position.shard) {
        shard.settled(position.sequence);
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
