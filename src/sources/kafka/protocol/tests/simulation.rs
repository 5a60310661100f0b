//! A run: the steps that anybody may take at any time, and how everything comes to rest afterwards. Must never depend on
//! anything but its input: the same steps are the same run.

use super::{
    member::{Bug, Member, Membership, Shape},
    steps::{Run, Step},
    world::{SESSION, State, World},
};
use crate::sources::kafka::protocol::Mutations;

/// The world and its processes.
pub struct Simulation {
    pub world: World,
    members: Vec<Member>,
}

impl Simulation {
    pub fn new(run: &Run, bug: Bug, mutations: Mutations) -> Self {
        let (entries, chars, window, depth) = run.shape;
        let mut world = World::new(&run.logs, (entries, chars));
        let shape = Shape { entries, chars, window, depth };
        let members =
            (0..run.processes).map(|slot| Member::new(slot, shape, bug, mutations, &mut world)).collect();
        Self { world, members }
    }

    /// Runs to the end, or to the first violation.
    pub fn play(&mut self, run: &Run) -> Result<(), String> {
        for (at, step) in run.steps.iter().enumerate() {
            self.step(*step);
            if let Some(violation) = self.world.oracle.violation.take() {
                return Err(format!("step {at} ({step:?}): {violation}"));
            }
        }
        self.rest();
        self.world.oracle.violation.take().map_or(Ok(()), |v| Err(format!("at the end: {v}")))
    }

    fn step(&mut self, step: Step) {
        use Step as S;
        let count = self.members.len();
        let at = |m: u8| usize::from(m) % count;
        let partition = |p: u8, world: &World| usize::from(p) % world.logs.len();
        match step {
            S::Rounds { n, work } => (0..n).for_each(|turn| self.round(usize::from(turn), work, true)),
            S::Write { p, n } => {
                let p = partition(p, &self.world);
                let log = &mut self.world.logs[p];
                log.end = (log.end + i64::from(n)).min(log.len());
            }
            S::Turn { m, n, due, late } => {
                self.members[at(m)].turn(&mut self.world, usize::from(n), due, late);
            }
            S::Library(m) => self.members[at(m)].library(&mut self.world),
            S::Coordinator(x) => self.coordinate(usize::from(x)),
            S::Work { m, k } => self.members[at(m)].work(&mut self.world, usize::from(k), k < 6),
            S::Time(ms) => self.world.now += u64::from(ms),
            S::Move if self.world.group.state == State::Stable => self.world.group.prepare(),
            S::Move => {}
            S::Stop(m) => self.members[at(m)].stopping = true,
            S::Restart(m) if !self.members[at(m)].alive => self.restart(at(m)),
            S::Restart(_) => {}
            S::Retention { p, n } => {
                let p = partition(p, &self.world);
                let log = &mut self.world.logs[p];
                log.start = (log.start + i64::from(n)).min(log.end);
                self.world.oracle.truncated = true;
            }
            S::GhostArrives(k) | S::GhostIsGone(k) if !self.world.ghosts.is_empty() => {
                let ghost = self.world.ghosts.remove(usize::from(k) % self.world.ghosts.len());
                if matches!(step, S::GhostArrives(_)) {
                    self.world.commit(&ghost);
                }
            }
            S::GhostArrives(_) | S::GhostIsGone(_) => {}
            S::Rewind(p) => {
                let p = partition(p, &self.world);
                if let Some((offset, text)) = &mut self.world.registers[p] {
                    (*offset, *text) = ((*offset - 2).max(0), String::new());
                    self.world.oracle.foreign = true;
                }
            }
            S::Crash(m) => self.crash(at(m)),
            S::Expire(m) => self.expire(at(m)),
            S::Freeze(m) => self.fault(at(m), |m, _| m.frozen = true),
            S::Resume(m) => self.members[at(m)].frozen = false,
            S::LeaveLost(m) => self.fault(at(m), |m, _| m.leave_lost = true),
            S::Arrive(m) => self.members[at(m)].arrive(&mut self.world),
            S::Defer(m) | S::Refuse(m) | S::AnswerLost(m) | S::Delay(m) | S::Resend(m) => {
                self.fault(at(m), |member, world| member.on_the_wire(world, step));
            }
        }
    }

    fn fault(&mut self, at: usize, what: impl FnOnce(&mut Member, &mut World)) {
        self.world.oracle.faulty = true;
        what(&mut self.members[at], &mut self.world);
    }

    /// `kill -9`: a request on the wire survives, memory and unwritten lines do not.
    fn crash(&mut self, at: usize) {
        if !self.members[at].alive {
            return;
        }
        self.fault(at, |member, world| {
            member.alive = false;
            if let Some(flight) = member.flight.take().filter(|f| f.reply.is_none() && !f.unknown) {
                world.ghosts.push(flight.request);
            }
        });
    }

    fn restart(&mut self, at: usize) {
        let old = &self.members[at];
        let (shape, bug, mutations) = (old.shape, old.bug, old.mutations);
        self.members[at] = Member::new(at, shape, bug, mutations, &mut self.world);
    }

    fn expire(&mut self, at: usize) {
        let held = self.world.group.members.iter().find(|(_, m)| m.process == at).map(|(id, _)| *id);
        if let Some(id) = held {
            // A session has passed since its last word, and with it every start deadline (L2).
            self.world.now += SESSION;
            self.world.oracle.faulty = true;
            self.world.group.remove(id);
        }
    }

    /// The coordinator's step; identities that nobody uses any more do not hold a rebalance up.
    fn coordinate(&mut self, turn: usize) {
        if self.world.group.state == State::Preparing {
            let used: Vec<Option<u64>> = self.members.iter().map(|m| m.lib.id.filter(|_| m.alive)).collect();
            let phantom =
                self.world.group.members.iter().find(|(id, m)| !m.joined && used[m.process] != Some(**id));
            if let Some((&id, _)) = phantom {
                self.world.now += SESSION;
                self.world.group.members.remove(&id);
            }
        }
        self.world.group.advance(i32::try_from(self.world.logs.len()).unwrap_or(0), turn);
    }

    fn round(&mut self, turn: usize, work: bool, patient: bool) {
        // Partitions change hands with every generation.
        self.coordinate(usize::try_from(self.world.group.generation).unwrap_or(0));
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            if !member.alive && member.stopping && turn > 2 {
                self.restart(at);
            }
            let member = &mut self.members[at];
            member.library(&mut self.world);
            member.arrive(&mut self.world);
            member.answer(&mut self.world);
            member.turn(&mut self.world, 3, work, false);
            for k in (0..member.chains.len())
                .rev()
                .filter(|k| work || !member.chains[*k][0].begun)
                .collect::<Vec<_>>()
            {
                member.work(&mut self.world, k, patient);
            }
        }
    }

    /// Faults stop, everybody comes back, every record becomes visible: now everything has to end (I2, I8).
    fn rest(&mut self) {
        for at in 0..self.members.len() {
            self.members[at].frozen = false;
            if !self.members[at].alive {
                self.restart(at);
            }
        }
        self.world.ghosts.clear();
        self.members.iter_mut().for_each(|m| m.leave_lost = false);
        self.world.logs.iter_mut().for_each(|l| l.end = l.len());
        for turn in 0..400 {
            self.world.now += 10;
            self.expire_phantoms();
            self.round(turn, true, false);
            if turn > 20 && self.members.iter().all(Self::quiet) {
                break;
            }
        }
        if self.world.oracle.foreign {
            return;
        }
        for shard in 0..i32::try_from(self.world.logs.len()).unwrap_or(0) {
            let register = self.world.read(shard);
            self.world.oracle.rest(shard, register);
        }
    }

    fn expire_phantoms(&mut self) {
        let used: Vec<u64> = self.members.iter().filter_map(|m| m.lib.id).collect();
        let phantom = self.world.group.members.keys().find(|id| !used.contains(id)).copied();
        if let Some(id) = phantom {
            self.world.group.remove(id);
        }
    }

    fn quiet(member: &Member) -> bool {
        let idle = |s: &super::super::shard::Shard<_>| {
            s.is_confirmed() && !s.is_dirty() && s.entries() + s.waiting() == 0
        };
        member.lib.state == Membership::Stable
            && member.flight.is_none()
            && member.chains.is_empty()
            && member.results.is_empty()
            && !member.leaving
            && member.protocol.owned().all(|(_, s)| idle(s))
    }
}

impl Member {
    /// What a network and a library do to a request that has not been decided.
    fn on_the_wire(&mut self, world: &mut World, step: Step) {
        let generation = self.lib.generation;
        let Some(flight) = self.flight.as_mut().filter(|f| f.reply.is_none() && !f.unknown) else { return };
        match step {
            Step::Defer(_) => flight.deferred = true,
            Step::Refuse(_) => flight.reply = Some(super::world::Reply::NotNow),
            Step::AnswerLost(_) => {
                world.commit(&flight.request);
                flight.unknown = true;
            }
            Step::Delay(_) => {
                world.ghosts.push(flight.request.clone());
                flight.unknown = true;
            }
            Step::Resend(_) => {
                world.ghosts.push(flight.request.clone());
                (flight.twice, flight.request.generation) = (true, generation);
            }
            _ => {}
        }
    }
}
