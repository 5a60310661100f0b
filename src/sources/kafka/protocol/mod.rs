//! The claim protocol of one consumer as a pure state machine: which offset and metadata a commit carries, which
//! records may start once it is accepted, and what a new owner takes over. No I/O, no clock, no thread; the
//! polling thread drives it. Must never let a record start that no accepted commit of the current epoch claims.
//!
//! Rules are cited by their codes: K (register), N (naming), L (lanes), D (window); docs/ARCHITECTURE.md states each.

pub mod plan;
pub mod shard;
pub mod takeover;
#[cfg(test)]
mod tests;

use super::register::Token;
use crate::dispatch::Judgement;
use plan::{Limits, Proposal};
use shard::{Granted, Shard};
use std::collections::BTreeMap;

/// What the protocol needs to know of a record.
pub trait Record {
    /// The lane it runs in; `None` when it may run beside any other.
    fn lane(&self) -> Option<crate::event::Lane>;

    /// Bytes it holds in memory.
    fn weight(&self) -> usize {
        0
    }
}

/// Decides about records in log order. An overlay inside the implementation serves a batch that is being planned.
pub trait Judge<R> {
    /// Judges the record at `offset` whose monotone log time is `log_time_ms`.
    fn judge(&mut self, shard: i32, offset: i64, log_time_ms: i64, record: &R) -> Judgement;
}

/// Seeded protocol bugs, for tests that prove that the tests can see. All off outside of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutations {
    /// K4: an answer of an earlier epoch starts calls.
    pub no_epoch: bool,
    /// N1: entries taken over are not carried.
    pub no_carry: bool,
    /// N2: reports before an own commit was accepted.
    pub report_early: bool,
    /// N3: names its own entries.
    pub name_own: bool,
    /// N3: lists an entry again that another owner has closed.
    pub reopen: bool,
    /// L1: a flush drops parked entries.
    pub flush_unparks: bool,
    /// 1.1 step 7: no high-water guard.
    pub no_guard: bool,
    /// N1: an open entry is dropped from the register before its outcome is recorded.
    pub early_close: bool,
    /// N5: commits for shards that are not owned.
    pub late_flush: bool,
}

/// All shards that this consumer owns or remembers.
#[derive(Debug)]
pub struct Protocol<R> {
    token: Token,
    seq: u64,
    epoch: u64,
    served: i32,
    limits: Limits,
    shards: BTreeMap<i32, Shard<R>>,
    mutations: Mutations,
}

impl<R: Record> Protocol<R> {
    /// A protocol with no shard. `token` is new for every protocol: N3 asks what this memory knows.
    pub fn new(token: Token, limits: Limits) -> Self {
        Self {
            token,
            seq: 0,
            epoch: 0,
            served: -1,
            limits,
            shards: BTreeMap::new(),
            mutations: Mutations::default(),
        }
    }

    /// Switches seeded bugs on.
    #[cfg(any(test, feature = "testkit"))]
    pub fn with_mutations(mut self, mutations: Mutations) -> Self {
        self.mutations = mutations;
        self
    }

    /// This protocol's owner token.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Sequence number of the last commit that was planned.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The assignment epoch: rises with every assign, revoke and loss (K4).
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Bounds, changeable while running.
    pub fn limits_mut(&mut self) -> &mut Limits {
        &mut self.limits
    }

    /// The shard, owned or remembered.
    pub fn shard(&self, shard: i32) -> Option<&Shard<R>> {
        self.shards.get(&shard)
    }

    /// The shard, owned or remembered.
    pub fn shard_mut(&mut self, shard: i32) -> Option<&mut Shard<R>> {
        self.shards.get_mut(&shard)
    }

    /// Shards owned now, by number.
    pub fn owned(&self) -> impl Iterator<Item = (i32, &Shard<R>)> {
        self.shards.iter().filter(|(_, s)| s.is_owned()).map(|(n, s)| (*n, s))
    }

    /// Shards owned now, by number.
    pub fn owned_mut(&mut self) -> impl Iterator<Item = (i32, &mut Shard<R>)> {
        self.shards.iter_mut().filter(|(_, s)| s.is_owned()).map(|(n, s)| (*n, s))
    }

    /// Calls running or queued over all shards, remembered ones included.
    pub fn running(&self) -> usize {
        self.shards.values().map(Shard::running).sum()
    }

    /// Starts a new epoch for a change of assignment and returns it.
    pub fn next_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    /// A record was polled in `epoch`. Records of an earlier epoch are dropped (K4, first half).
    pub fn fetched(&mut self, shard: i32, epoch: u64, record: shard::Polled<R>) -> shard::Taken {
        match self.shards.get_mut(&shard) {
            Some(s) if s.is_owned() && s.epoch() <= epoch => s.fetched(record),
            _ => shard::Taken::Dropped,
        }
    }

    /// The end of the log was polled in `epoch`, after every record before it: what was not read back by now will not
    /// come. To be told only after the records of the same poll were taken, or they are dropped as seen before.
    pub fn read_to_end(&mut self, shard: i32, epoch: u64) {
        if let Some(s) = self.shards.get_mut(&shard).filter(|s| s.is_owned() && s.epoch() <= epoch) {
            s.read_up_to(s.position());
        }
    }

    /// Plans the next claim commit over all owned shards: `None` when nothing can be claimed or parked.
    ///
    /// `budget` is the number of events that may be claimed; shards are served in turn, starting after the one
    /// that was served last, so that a full shard does not starve the others.
    pub fn plan<J: Judge<R>>(&mut self, budget: usize, depth: usize, judge: &mut J) -> Option<Proposal> {
        let mut proposal = Proposal::new(self.seq + 1);
        let mut left = budget;
        // Shards with nothing to claim must not take a share: records arrive by partition, many of one at a time.
        let busy: Vec<i32> = self.owned().filter(|(_, s)| s.has_work()).map(|(n, _)| n).collect();
        let count = busy.len();
        // Not by `seq`: with a flush between two claims the same one of two shards would always be first.
        let first = busy.iter().position(|n| *n > self.served).unwrap_or(0);
        for i in 0..count {
            let number = busy[(first + i) % count];
            let Some(shard) = self.shards.get_mut(&number) else { continue };
            // A fair share first; what others leave is used by the next round, one commit later.
            let share = left.div_ceil(count - i);
            let ctx = plan::Context {
                token: self.token,
                seq: self.seq + 1,
                limits: self.limits,
                mutations: self.mutations,
            };
            if let Some(part) = shard.plan(number, share, depth, ctx, judge) {
                left = left.saturating_sub(part.claims);
                self.served = number;
                proposal.parts.push(part);
            }
        }
        if proposal.parts.is_empty() {
            return None;
        }
        self.seq += 1;
        self.join_flushes(&mut proposal);
        Some(proposal)
    }

    /// Group commit: shards that claim nothing now ride along when they have something to say (N1, N2) or calls whose
    /// start leases are to be extended (L2), so that busy shards never starve them of commits.
    fn join_flushes(&self, proposal: &mut Proposal) {
        let ctx = plan::Context {
            token: self.token,
            seq: self.seq,
            limits: self.limits,
            mutations: self.mutations,
        };
        let claiming: Vec<i32> = proposal.parts.iter().map(|p| p.shard).collect();
        let others = self.owned().filter(|(n, s)| !claiming.contains(n) && (s.is_dirty() || s.running() > 0));
        proposal.parts.extend(others.filter_map(|(n, s)| s.plan_flush(n, ctx)));
    }

    /// Plans a commit that claims nothing: take-over (N2), removal of settled and reported entries (N1).
    /// `only`: these shards (revoke callback); else every owned shard that has something to say. `refresh`: also
    /// shards with calls that wait for their start, so that their leases are extended (L2).
    pub fn plan_flush(&mut self, only: Option<&[i32]>, refresh: bool) -> Option<Proposal> {
        let seq = self.seq + 1;
        let ctx = plan::Context { token: self.token, seq, limits: self.limits, mutations: self.mutations };
        let late = self.mutations.late_flush;
        let parts: Vec<_> = self
            .shards
            .iter()
            .filter(|(n, s)| only.is_none_or(|o| o.contains(n)) && (s.is_owned() || late && s.was_owned()))
            .filter(|(_, s)| s.is_dirty() || refresh && s.running() > 0)
            .filter_map(|(n, s)| s.plan_flush(*n, ctx))
            .collect();
        if parts.is_empty() {
            return None;
        }
        self.seq = seq;
        Some(Proposal { seq, parts })
    }

    /// The commit was accepted for the shard of `part`. Returns what may start now and what has ended, or `None`
    /// if the epoch is over: then the position still advances but nothing starts (K4, second half).
    pub fn granted(&mut self, part: plan::Part) -> Option<Granted<R>> {
        let no_epoch = self.mutations.no_epoch;
        let shard = self.shards.get_mut(&part.shard)?;
        if (!shard.is_owned() || shard.epoch() != part.epoch) && !no_epoch {
            shard.advance_only(part.offset);
            return None;
        }
        Some(shard.granted(part))
    }

    /// Shards that go: no claim, no start from now on (N4). Calls that run are waited for by the caller.
    pub fn revoking(&mut self, shards: &[i32]) {
        self.next_epoch();
        for n in shards {
            if let Some(s) = self.shards.get_mut(n) {
                s.stop_starting();
            }
        }
    }

    /// The shards are gone. `flushed`: the final flush was accepted, so the register holds all this process knew.
    pub fn revoked(&mut self, shards: &[i32], flushed: bool) {
        for n in shards {
            if let Some(s) = self.shards.get_mut(n) {
                s.release(flushed, self.mutations.no_epoch);
            }
        }
    }

    /// Everything is gone without a word (kicked out, fenced, left): running calls finish, queued ones never start.
    pub fn lost(&mut self) {
        self.next_epoch();
        for s in self.shards.values_mut().filter(|s| s.is_owned()) {
            s.stop_starting();
            s.release(false, self.mutations.no_epoch);
        }
    }
}
