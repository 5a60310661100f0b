//! How a [`Shard`] comes and goes: takeover of a register, end of starts, release. Must never take an entry of this
//! process for a predecessor's (N3).

use super::{Inherited, Open, Parked, Record, Reportable, Shard};
use crate::{
    dispatch::StartLease,
    ledger::Outcome,
    sources::kafka::{
        protocol::takeover::{Taken, Takeover},
        register::Token,
    },
};
use std::{collections::BTreeMap, sync::Arc};

impl<R: Record> Shard<R> {
    /// Takes the partition over with what its register said *after* the assignment (D1).
    pub(in super::super) fn assign(
        &mut self,
        epoch: u64,
        own: Token,
        takeover: &Takeover,
        no_guard: bool,
        name_own: bool,
    ) -> Taken {
        let mut taken = Taken::default();
        if self.owned {
            // A client that went without a word (it was dropped, its callback never came): what it fetched and parked is
            // stale, and its records would be claimed a second time (K4).
            self.stop_starting();
            self.release(false, false);
        }
        // 1.1 step 7: never below what this process has seen committed, unless the log itself was cut (new topic).
        let guard = if no_guard || takeover.log_end < self.high_water { 0 } else { self.high_water };
        taken.truncated = takeover.log_end < self.high_water;
        if taken.truncated {
            self.high_water = 0;
        }
        if takeover.offset < guard {
            taken.regressed_from = Some(takeover.offset);
        }
        self.position = takeover.offset.max(guard);
        if !takeover.committed && self.was_owned && !taken.truncated && !no_guard {
            // The first commit did not come through: the start position that was chosen then still holds.
            self.position = guard;
        }
        if let Some(first) = self.waiting.front() {
            // Only a seeded bug keeps a batch over the end of its epoch.
            self.position = first.offset;
        }
        if self.position < takeover.log_start {
            taken.missed = Some(self.position..takeover.log_start);
            self.position = takeover.log_start;
        }
        if self.position > takeover.log_end {
            // The log was cut below what was claimed, or its topic was made anew: start at its end, the side on which
            // nothing is invoked twice.
            taken.truncated = true;
            self.position = takeover.log_end;
        }
        self.high_water = self.position.max(if taken.truncated { 0 } else { self.high_water });
        self.take_open(own, takeover, name_own, &mut taken);
        self.take_parked(takeover, &mut taken);
        self.log_time_ms = -1;
        self.position_log_time_ms = takeover.register.log_time_ms;
        (self.owned, self.was_owned, self.epoch) = (true, true, epoch);
        // N2: the first commit is a take-over with own token and all entries, even with nothing to claim.
        (self.confirmed, self.dirty) = (false, true);
        self.lease = Arc::new(StartLease::new(0));
        // Read back: parked records (L1), the window (D1), and the originals of what will be named (N1).
        let firsts =
            [self.parked.keys().next(), self.inherited.keys().next(), takeover.rebuild_from.as_ref()];
        let first = firsts.into_iter().flatten().copied().min().unwrap_or(self.position);
        self.next_fetch = first.max(takeover.log_start).min(self.position);
        taken.fetch_from = self.next_fetch;
        taken
    }

    fn take_open(&mut self, own: Token, takeover: &Takeover, name_own: bool, taken: &mut Taken) {
        self.inherited.clear();
        let listed: BTreeMap<i64, Token> =
            takeover.register.open.iter().map(|e| (e.offset, e.owner)).collect();
        if taken.truncated {
            self.forget_cut(own, &listed, taken);
        }
        let register_end = takeover.offset;
        self.open.retain(|offset, open| match (listed.get(offset), &mut *open) {
            // Ours and listed: running or settled here, keep, never name (N3).
            (Some(owner), _) if *owner == own => true,
            // Above the register's end: a foreign rewind; the call is still ours.
            (None, _) if *offset >= register_end => true,
            // Closed by another owner meanwhile: a running call finishes, but is never listed again (N3).
            (_, Open::Running { listed, .. }) => {
                *listed = false;
                true
            }
            (_, Open::Settled) => false,
        });
        for (offset, owner) in listed {
            let ours = owner == own && self.open.contains_key(&offset) && !name_own;
            if offset < self.position && !ours {
                self.inherited.insert(offset, Inherited { owner, reported: false });
            }
        }
        for open in self.open.values() {
            if let Open::Running { lane: Some(lane), .. } = open {
                self.lanes.run(*lane);
            }
        }
    }

    /// The log was cut: what lies at or above its end cannot be carried (N7: a register lists nothing beyond its offset),
    /// and offsets may be used again for other records. Own calls finish, and are known by what the register lists (N3).
    fn forget_cut(&mut self, own: Token, listed: &BTreeMap<i64, Token>, taken: &mut Taken) {
        for (offset, owner) in listed.range(self.position..) {
            if *owner != own || !self.open.contains_key(offset) {
                let outcome = if *owner == own { Outcome::Unreachable } else { Outcome::InDoubt };
                taken.cut.push(Reportable { offset: *offset, owner: *owner, outcome });
            }
        }
        let position = self.position;
        self.open.retain(|offset, _| *offset < position && listed.get(offset) == Some(&own));
    }

    fn take_parked(&mut self, takeover: &Takeover, taken: &mut Taken) {
        for offset in &takeover.register.parked {
            // L1: a parked record that retention (or a cut of the log) removed was never claimed and is gone.
            if *offset < takeover.log_start || *offset >= self.position {
                taken.missed_parked.push(*offset);
            } else {
                self.parked.insert(*offset, Parked::Unread);
            }
        }
    }

    /// Parked offsets below `before` that were not read back although the log went past them: compacted away.
    pub fn vanished_parked(&mut self, before: i64) -> Vec<i64> {
        let gone: Vec<i64> = self
            .parked
            .range(..before.min(self.next_fetch))
            .filter(|(_, p)| matches!(p, Parked::Unread))
            .map(|(o, _)| *o)
            .collect();
        for offset in &gone {
            self.parked.remove(offset);
            self.dirty = true;
        }
        gone
    }

    /// The log has been read up to `offset` (end of partition or a gap): what is below will not come any more.
    pub fn read_up_to(&mut self, offset: i64) {
        self.next_fetch = self.next_fetch.max(offset);
    }

    /// A commit of an earlier epoch was accepted: the position is where the register is, nothing starts (K4).
    pub fn advance_only(&mut self, offset: i64) {
        self.high_water = self.high_water.max(offset);
        if self.owned {
            while self.waiting.front().is_some_and(|w| w.offset < offset) {
                self.waiting.pop_front();
            }
            self.position = self.position.max(offset);
            self.dirty = true;
        }
    }

    /// No queued call starts from now on (N4); running ones may finish.
    pub(in super::super) fn stop_starting(&mut self) {
        self.lease.stop();
    }

    /// The partition is gone. Own calls stay known until their outcome is in and the register says so (N3).
    pub(in super::super) fn release(&mut self, flushed: bool, keep_batch: bool) {
        self.owned = false;
        if !keep_batch {
            self.waiting.clear();
        }
        self.parked.clear();
        self.inherited.clear();
        self.lanes = crate::dispatch::lanes::Lanes::default();
        // Nothing was flushed if there was no room to write it (N7): then the entries are still listed as ours.
        if flushed && !self.dirty {
            self.open.retain(|_, o| !matches!(o, Open::Settled));
        }
        (self.confirmed, self.dirty) = (false, false);
    }
}
