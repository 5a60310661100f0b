//! What comes and goes: assignment, revocation with its drain, loss, leaving the group. Must never skip the drain.

use super::{
    member::{Bug, Library, Member, Membership as M, Taint},
    world::{SPAN, World},
};
use crate::{
    ledger::Outcome,
    sources::kafka::{protocol::takeover::Takeover, register::Register},
};

impl Member {
    /// `Context::revoked`, up to the final flush.
    pub fn revoke(&mut self, world: &mut World, finish: bool) {
        let shards = self.lib.assigned.clone();
        if self.bug != Bug::NoDrain {
            self.drain(world, &shards, finish);
        } else {
            self.protocol.revoking(&shards);
        }
        self.journal(world);
        let quiet = self.taint.is_some() || self.flight.is_some();
        match self.protocol.plan_flush(Some(&shards), false).filter(|_| !quiet) {
            Some(proposal) => self.send(world, proposal, true),
            None => self.revoked(self.taint.is_none()),
        }
    }

    /// N4: calls of these shards end, one way or the other.
    pub fn drain(&mut self, world: &mut World, shards: &[i32], finish: bool) {
        let concerned = |m: &Self| m.chains.iter().position(|c| shards.contains(&c[0].shard));
        while finish && let Some(at) = concerned(self) {
            self.work(world, at, false);
        }
        self.drain_results();
        self.protocol.revoking(shards);
        while let Some(at) = self.chains.iter().position(|c| shards.contains(&c[0].shard) && !c[0].begun) {
            self.work(world, at, false);
        }
        self.drain_results();
        for shard in shards {
            let left = self.protocol.shard(*shard).map(super::super::shard::Shard::running_offsets);
            for offset in left.unwrap_or_default() {
                if self.running.remove(&(*shard, offset)) {
                    // A call behind a running one of its chain is not told apart from it.
                    self.end_call(*shard, offset, Outcome::Unanswered);
                }
            }
        }
    }

    /// `Context::revoked`, after the final flush, whatever it said.
    pub fn revoked(&mut self, flushed: bool) {
        let shards = std::mem::take(&mut self.lib.assigned);
        self.protocol.next_epoch();
        self.protocol.revoked(&shards, flushed);
        self.unassigned(&shards);
    }

    pub fn lost(&mut self) {
        self.protocol.lost();
        let shards = std::mem::take(&mut self.lib.assigned);
        self.unassigned(&shards);
    }

    pub fn unassigned(&mut self, shards: &[i32]) {
        shards.iter().for_each(|s| self.window.forget_shard(*s));
        (self.lib.revoke, self.lib.lost, self.lib.assign) = (false, false, None);
        self.lib.fetch.clear();
        self.lib.state = M::Out;
    }

    /// `Context::assigned`.
    pub fn assigned(&mut self, world: &World, shards: Vec<i32>) {
        self.protocol.next_epoch();
        self.announced.clear();
        for shard in &shards {
            let read = world.read(*shard);
            let log = world.log(*shard);
            let (offset, register) = read.clone().unwrap_or((log.start, Register::empty()));
            let from = || match self.bug {
                Bug::RebuildByWallClock => log.end,
                _ => log.at_time((register.log_time_ms - SPAN).max(0)).unwrap_or(log.start),
            };
            let timed = read.is_some() && offset > log.start && register.log_time_ms >= 0;
            let rebuild_from = timed.then(from);
            let (log_start, log_end) = (log.start, log.end);
            let takeover = Takeover { committed: true, offset, register, log_start, log_end, rebuild_from };
            let taken = self.protocol.assign(*shard, &takeover);
            for offset in taken.missed.clone().into_iter().flatten().chain(taken.missed_parked) {
                self.missed(*shard, offset);
            }
            self.window.forget_shard(*shard);
            self.lib.fetch.insert(*shard, taken.fetch_from);
        }
        self.taint = self.taint.filter(|t| *t == Taint::Rejoin);
        self.held = false;
        self.lib.assigned = shards;
        self.lib.clear_ends();
    }

    /// The consumer is dropped: revocation, then the member leaves the group.
    pub fn leave(&mut self, world: &mut World, finish: bool) {
        self.leaving = true;
        if !self.lib.assigned.is_empty() {
            self.revoke(world, finish);
        }
        if self.flight.is_none() {
            self.gone(world);
        }
    }

    pub fn gone(&mut self, world: &mut World) {
        if let Some(id) = self.lib.id.filter(|_| !self.leave_lost) {
            world.group.remove(id);
        }
        self.leave_lost = false;
        self.journal(world);
        self.lib = Library::default();
        (self.leaving, self.taint, self.held) = (false, None, false);
        // An order to stop ends the process; calls that still run end with it.
        self.alive = !self.stopping;
    }
}
