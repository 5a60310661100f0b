//! The polling thread's loop, its commits and its callbacks. Must never take two steps of the protocol at once that
//! something from outside could come between.

use super::{
    member::{Bug, Flight, Line, Member, Membership as M, Taint},
    world::{Reply, Request, State, World},
};
use crate::sources::kafka::protocol::plan::{Action, Proposal};

impl Member {
    /// One step of the client library's own threads.
    pub fn library(&mut self, world: &mut World) {
        if !self.alive || self.frozen {
            return;
        }
        let group = &mut world.group;
        let lib = &mut self.lib;
        if lib.id.is_some_and(|id| !group.members.contains_key(&id)) {
            (lib.id, lib.generation) = (None, -1);
            (lib.assign, lib.revoke) = (None, false);
            lib.lost = !lib.assigned.is_empty() || lib.state == M::Unassigning;
            lib.state = if lib.lost { M::Unassigning } else { M::Out };
            return;
        }
        let callbacks = lib.lost || lib.revoke || lib.assign.is_some();
        match lib.state {
            M::Out if !callbacks && !self.leaving && lib.assigned.is_empty() => {
                lib.id = Some(group.join(self.slot, lib.id));
                lib.state = M::Joining;
            }
            M::Joining if matches!(group.state, State::Completing | State::Stable) => {
                (lib.generation, lib.state) = (group.generation, M::Syncing);
            }
            M::Syncing if group.state == State::Stable && group.generation == lib.generation => {
                let member = lib.id.and_then(|id| group.members.get(&id));
                lib.assign = Some(member.map(|m| m.assigned.clone()).unwrap_or_default());
                lib.state = M::Stable;
            }
            // An answered join does not count for the next round.
            M::Joining | M::Syncing if group.state == State::Preparing => {
                let counts = lib.id.and_then(|id| group.members.get(&id)).is_some_and(|m| m.joined);
                if !counts {
                    lib.state = M::Out;
                }
            }
            M::Stable if group.state == State::Preparing && !callbacks => {
                (lib.state, lib.revoke) = (M::Unassigning, true);
            }
            _ => {}
        }
    }

    /// One round of the polling thread, up to a commit that has to be answered. `due`: calls finish in a drain,
    /// the flush interval is over, a stop is at its deadline. `late`: the library learns something before the commit.
    pub fn turn(&mut self, world: &mut World, most: usize, due: bool, late: bool) {
        if !self.alive || self.frozen {
            return;
        }
        if self.flight.is_some() && self.bug != Bug::AsyncCommit {
            self.arrive(world);
            return self.answer(world);
        }
        let in_range = self.poll(world, most);
        let late_loss = self.bug == Bug::GenerationMinusOne && !due;
        if self.lib.lost && !late_loss {
            return self.lost();
        }
        if self.lib.revoke {
            return self.revoke(world, due);
        }
        if let Some(shards) = self.lib.assign.take() {
            return self.assigned(world, shards);
        }
        self.take(world);
        self.drain_results();
        self.name_inherited();
        self.vanished();
        self.journal(world);
        if late {
            self.library(world);
        }
        let stopped = self.stopping && (self.running.is_empty() || due);
        if stopped || !in_range || self.taint == Some(Taint::Rejoin) {
            return self.leave(world, due);
        }
        if std::mem::take(&mut self.held) && self.bug == Bug::HoldUntilAssign {
            self.held = true;
        }
        if self.taint.is_some() && self.bug != Bug::GenerationMinusOne || self.held || self.flight.is_some() {
            return;
        }
        if let Some(proposal) = self.plan_claim(world) {
            self.announce(&proposal);
            self.journal(world);
            return self.send(world, proposal, false);
        }
        let urgent = self.protocol.owned().any(|(_, s)| s.is_dirty() && !s.is_confirmed());
        let queued = self.protocol.running() > 0 && world.now - self.last_commit >= Self::HALF / 4;
        if (urgent || due || queued)
            && let Some(proposal) = self.protocol.plan_flush(None, queued)
        {
            self.send(world, proposal, false);
        }
    }

    /// `Engine::write_passes`: lines of what ends without a call, before the commit passes over it.
    fn announce(&mut self, proposal: &Proposal) {
        for part in &proposal.parts {
            let Some(shard) = self.protocol.shard(part.shard) else { continue };
            let written = self.announced.entry(part.shard).or_default();
            for ((offset, _, _), action) in shard.unclaimed().zip(&part.actions) {
                if let Action::Pass(outcome, _) = action
                    && offset >= *written
                {
                    *written = offset + 1;
                    self.unwritten.push(Line::Own(part.shard, offset, *outcome));
                }
            }
        }
    }

    fn vanished(&mut self) {
        let mut gone = Vec::new();
        for (number, shard) in self.protocol.owned_mut() {
            if !shard.is_replaying() {
                gone.extend(shard.vanished_parked(shard.position()).into_iter().map(|o| (number, o)));
            }
        }
        for (shard, offset) in gone {
            self.missed(shard, offset);
        }
    }

    /// `commit::write`, up to the wait.
    pub fn send(&mut self, world: &World, proposal: Proposal, last: bool) {
        let known = self.lib.id.is_some() && self.lib.generation >= 0 && !self.lib.lost;
        if !known && self.bug != Bug::GenerationMinusOne {
            // K3: refused before it is sent.
            self.taint = Some(Taint::UntilAssign);
            if last {
                self.revoked(false);
            }
            return;
        }
        let parts = proposal.parts.iter().map(|p| (p.shard, p.offset, p.metadata.clone())).collect();
        let (member, generation) = (self.lib.id.unwrap_or(0), self.lib.generation);
        let request = Request { member, generation, parts };
        let chains = self.pending(&proposal);
        if self.bug == Bug::InvokeFirst {
            for call in chains.iter().flatten() {
                call.lease.extend(world.now + Self::HALF);
            }
            self.chains.extend(self.pending(&proposal).into_iter().filter(|c| !c.is_empty()));
        }
        self.flight = Some(Flight {
            request,
            proposal,
            chains,
            sent: world.now,
            deferred: false,
            reply: None,
            unknown: false,
            twice: false,
            last,
        });
    }

    /// The request reaches the coordinator, which decides.
    pub fn arrive(&mut self, world: &mut World) {
        let Some(flight) = self.flight.as_mut().filter(|f| f.reply.is_none() && !f.unknown) else { return };
        if std::mem::take(&mut flight.deferred) {
            flight.request.member = self.lib.id.unwrap_or(0);
            flight.request.generation = self.lib.generation;
            if self.lib.generation < 0 && self.bug != Bug::GenerationMinusOne {
                // K3: the library sends nothing with generation -1 (what is left of that race is a named limit).
                flight.reply = Some(Reply::NotYours);
                return;
            }
        }
        flight.reply = Some(world.commit(&flight.request));
    }

    /// The commit call returns: `commit::read`, then `Engine::apply`.
    pub fn answer(&mut self, world: &mut World) {
        if !self.alive || self.frozen || self.flight.as_ref().is_none_or(|f| f.reply.is_none() && !f.unknown)
        {
            return;
        }
        let Some(flight) = self.flight.take() else { return };
        let reply = flight.reply.filter(|r| !flight.unknown && (!flight.twice || *r == Reply::Accepted));
        let granted = reply == Some(Reply::Accepted) || reply.is_none() && self.bug == Bug::UnknownIsGranted;
        let too_late = self.lib.lost;
        self.last_commit = world.now;
        if granted && !too_late {
            for part in &flight.proposal.parts {
                if let Some(shard) = self.protocol.shard(part.shard) {
                    shard.lease().extend(flight.sent + Self::HALF);
                }
            }
            if self.bug != Bug::InvokeFirst {
                self.chains.extend(flight.chains.into_iter().filter(|c| !c.is_empty()));
            }
        }
        for part in flight.proposal.parts {
            let shard = part.shard;
            if granted && too_late {
                if let Some(state) = self.protocol.shard_mut(shard) {
                    state.advance_only(part.offset);
                }
            } else if granted {
                let passes = part.actions.iter().filter(|a| matches!(a, Action::Pass(..))).count();
                let claims = part.claims;
                let Some(granted) = self.protocol.granted(part) else { continue };
                if (granted.passed.len(), granted.starts.len()) != (passes, claims) {
                    world.oracle.broken("I3", "a grant does not do what its plan said");
                }
                self.started(shard, granted);
            }
        }
        let taint = match reply {
            None if self.bug == Bug::RetrySameIdentity => None,
            None => Some(Taint::Rejoin),
            Some(Reply::Accepted) if flight.twice && self.bug != Bug::NoTaintOnResend => Some(Taint::Rejoin),
            Some(Reply::NotYours) => Some(Taint::UntilAssign),
            Some(_) => None,
        };
        self.held |= matches!(reply, Some(Reply::NotNow | Reply::NotYours));
        self.taint = taint.or(self.taint);
        self.journal(world);
        if flight.last {
            self.revoked(granted && !too_late);
            if self.leaving {
                self.gone(world);
            }
        }
    }
}
