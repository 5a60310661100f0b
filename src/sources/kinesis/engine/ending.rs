//! Endings: results of calls, what a predecessor left open, what is given up when time is over. Must never close an entry
//! before its line is in the journal (N1).

use super::{Engine, Note, SWEEP, claiming::ending};
use crate::{
    dispatch::recorder::Ending,
    event::Position,
    ledger::Outcome,
    sources::kinesis::{decode::coordinates, item::Item, protocol::shard::Inherited},
};
use std::{sync::Arc, time::Instant};

/// Why an entry of a predecessor has no other outcome.
const LEFT_OPEN: &str = "its dispatcher ended before it recorded an outcome";
/// Why an own entry that was never started is in the register.
const NEVER_SENT: &str = "the answer to its claim was lost, so it was never called";
/// Why a parked record is not called.
const GONE: &str = "the stream does not hold it any more";
/// Why a call is not waited for.
const GIVEN_UP: &str = "still running when its dispatcher had to let go";

impl Engine {
    /// Takes the results of calls.
    pub(super) fn collect(&mut self) {
        let mut ended = std::mem::take(&mut self.ended);
        self.parts.flow.collect(|_, call| ended.push(call.call.note));
        self.ended = ended;
    }

    /// Writes the journal; what it holds may leave the register.
    pub(super) fn write_journal(&mut self) -> bool {
        if !self.parts.flow.write_journal() {
            return false;
        }
        for note in self.ended.drain(..) {
            let Some(slot) = self.slots.get_mut(&note.shard) else { continue };
            match slot.held.as_mut() {
                Some(held) => held.shard.settled(&note.at),
                None => {
                    if let Some(mine) = slot.memory.get_mut(&note.at) {
                        *mine = crate::sources::kinesis::protocol::shard::Mine::Ended;
                    }
                }
            }
        }
        for note in self.naming.drain(..) {
            if let Some(held) = self.slots.get_mut(&note.shard).and_then(|slot| slot.held.as_mut()) {
                held.shard.named(&note.at);
            }
        }
        true
    }

    /// Names what predecessors left open (N2, N3).
    pub(super) fn name(&mut self) {
        if self.parts.flow.is_journal_broken() || !self.naming.is_empty() {
            return;
        }
        let patience = self.parts.options.naming_patience;
        let mut named = Vec::new();
        for (id, slot) in &self.slots {
            let Some(held) = &slot.held else { continue };
            let impatient = held.since.elapsed() >= patience;
            let list = held.shard.nameable(impatient);
            named.extend(list.into_iter().map(|inherited| (id.clone(), slot.number, inherited)));
        }
        for (id, number, inherited) in named {
            self.name_one(&id, number, &inherited);
            self.naming.push(Note { shard: id, at: inherited.at });
        }
    }

    fn name_one(&mut self, id: &str, number: i32, inherited: &Inherited<Item>) {
        let bare = Position {
            stream: Arc::clone(&self.parts.stream),
            shard: number,
            sequence: -1,
            coordinates: Some(coordinates(id, &inherited.at)),
            epoch: -1,
            time_ms: inherited.ms,
        };
        let flow = &mut self.parts.flow;
        if inherited.parked {
            return flow.unread(&bare, Outcome::Missed, GONE, 1);
        }
        if inherited.by == self.parts.token && !crate::testkit::bug("name_own") {
            return flow.unread(&bare, Outcome::Unreachable, NEVER_SENT, 1);
        }
        let owner = inherited.by.to_string();
        let item = inherited.read.as_ref().map(|read| &read.record);
        let plain = match item {
            Some(item) => ending(item, Outcome::InDoubt, LEFT_OPEN),
            None => Ending {
                id: "",
                position: &bare,
                outcome: Outcome::InDoubt,
                reason: Some(LEFT_OPEN),
                settled: None,
                owner: None,
                count: 1,
            },
        };
        flow.inherited(
            item.and_then(|item| item.original.as_ref()),
            &Ending { owner: Some(&owner), ..plain },
        );
        flow.release(item.map_or(0, |item| item.weight));
    }

    /// Lets go of calls that are not waited for any longer.
    pub(super) fn overdue(&mut self) {
        let now = Instant::now();
        let mut late = Vec::new();
        for (id, slot) in &self.slots {
            let Some(held) = &slot.held else { continue };
            let limits = [self.stopping, held.giving];
            let Some(limit) = limits.into_iter().flatten().min().filter(|limit| now >= *limit) else {
                continue;
            };
            // What is queued comes back as never sent; what still runs after that has left us already.
            held.lease.stop();
            if now >= limit + SWEEP {
                late.push(id.clone());
            }
        }
        // Calls of shards that were lost end by themselves, or with the process.
        let deadline = self.stopping.is_some_and(|deadline| now >= deadline + SWEEP);
        if late.is_empty() && !deadline {
            return;
        }
        let given_up =
            self.parts.flow.give_up_where(|note: &Note| deadline || late.contains(&note.shard), GIVEN_UP);
        self.ended.extend(given_up);
    }
}
