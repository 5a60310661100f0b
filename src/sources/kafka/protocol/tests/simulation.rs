//! A run: the steps that anybody may take at any time, and how everything comes to rest afterwards. Must never depend on
//! anything but its input: the same steps are the same run.

use super::{
    member::{Bug, Member, Membership, Shape},
    world::{Made, SESSION, State, World},
};
use crate::sources::kafka::protocol::Mutations;
use proptest::{collection::vec, prelude::*};

/// One step of one party. `m`: a process, `p`: a partition; both are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Fair progress of everybody without faults; calls start, and end only with `work`.
    Rounds {
        n: u8,
        work: bool,
    },
    /// New records become visible.
    Write {
        p: u8,
        n: u8,
    },
    /// `late`: the library learns of the group's state in the middle of it.
    Turn {
        m: u8,
        n: u8,
        due: bool,
        late: bool,
    },
    Library(u8),
    Coordinator(u8),
    Work {
        m: u8,
        k: u8,
    },
    Time(u8),
    /// Metadata change: the group rebalances.
    Move,
    /// SIGTERM; later a new process takes its place.
    Stop(u8),
    Restart(u8),
    Retention {
        p: u8,
        n: u8,
    },
    // What follows are faults.
    Crash(u8),
    Freeze(u8),
    Resume(u8),
    /// The session of a member ends: dead, frozen or alive.
    Expire(u8),
    /// The request on the wire arrives; the answer is not there yet.
    Arrive(u8),
    /// The request waits in the library and takes the identity of the moment it leaves.
    Defer(u8),
    /// The coordinator refuses for a reason of its own.
    Refuse(u8),
    /// The request arrives, its answer does not.
    AnswerLost(u8),
    /// The client gives up; its request arrives later, or never.
    Delay(u8),
    /// The library sends a second copy; the first one arrives later, or never.
    Resend(u8),
    GhostArrives(u8),
    GhostIsGone(u8),
    /// The next LeaveGroup of this process does not arrive.
    LeaveLost(u8),
    /// Another client of the group commits an older offset (K8).
    Rewind(u8),
}

/// A whole run.
#[derive(Clone)]
pub struct Run {
    pub processes: usize,
    pub logs: Vec<Vec<Made>>,
    pub shape: (usize, usize, usize, usize),
    pub steps: Vec<Step>,
}

impl std::fmt::Debug for Run {
    /// One line a log and one line for all steps: a shrunk run has to be read by somebody.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} processes, entries, chars, window, depth = {:?}", self.processes, self.shape)?;
        for log in &self.logs {
            let records: Vec<_> = log.iter().map(|m| (m.key, m.id, m.step_ms)).collect();
            writeln!(f, "  log (key, id, step): {records:?}")?;
        }
        write!(f, "  steps: {:?}", self.steps)
    }
}

/// How much goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    None,
    Any,
    /// Two processes that die, stand still or are thrown out.
    Zombies,
    /// Commits and their answers only.
    Wire,
    /// One process, a foreign client, no keys.
    Rewinds,
}

/// A step from a process or partition, a number below 8 and two coins.
type Make = fn(u8, u8, bool, bool) -> Step;

const CALM: [(usize, Make); 10] = [
    (6, |_, k, work, _| Step::Rounds { n: 1 + 2 * k, work }),
    (6, |p, k, _, _| Step::Write { p, n: 1 + k % 5 }),
    (24, |m, n, due, late| Step::Turn { m, n, due, late }),
    (8, |m, _, _, _| Step::Library(m)),
    (4, |_, k, _, _| Step::Coordinator(k)),
    (16, |m, k, _, _| Step::Work { m, k }),
    (1, |_, k, _, _| Step::Time(10 + 25 * k)),
    (2, |_, _, _, _| Step::Move),
    (1, |m, _, _, _| Step::Stop(m)),
    (1, |m, _, _, _| Step::Restart(m)),
];

/// Processes that die, stand still or are thrown out.
const ZOMBIES: [(usize, Make); 7] = [
    (2, |m, _, _, _| Step::Crash(m)),
    (3, |m, _, _, _| Step::Freeze(m)),
    (4, |m, _, _, _| Step::Resume(m)),
    (4, |m, _, _, _| Step::Expire(m)),
    (1, |m, _, _, _| Step::LeaveLost(m)),
    (2, |m, _, _, _| Step::Restart(m)),
    (1, |m, _, _, _| Step::Stop(m)),
];

/// What a network and a library do to commits.
const WIRE: [(usize, Make); 8] = [
    (4, |m, _, _, _| Step::Arrive(m)),
    (1, |m, _, _, _| Step::Defer(m)),
    (2, |m, _, _, _| Step::Refuse(m)),
    (2, |m, _, _, _| Step::AnswerLost(m)),
    (3, |m, _, _, _| Step::Delay(m)),
    (3, |m, _, _, _| Step::Resend(m)),
    (4, |_, k, _, _| Step::GhostArrives(k)),
    (1, |_, k, _, _| Step::GhostIsGone(k)),
];

const RETENTION: [(usize, Make); 1] = [(1, |p, k, _, _| Step::Retention { p, n: 1 + k % 3 })];
const REWINDS: [(usize, Make); 1] = [(5, |p, _, _, _| Step::Rewind(p))];

fn made(faults: Faults) -> Vec<Make> {
    let tables: &[&[(usize, Make)]] = match faults {
        Faults::None => &[&CALM],
        Faults::Any => &[&CALM, &CALM, &ZOMBIES, &WIRE, &RETENTION],
        Faults::Zombies => &[&CALM, &ZOMBIES, &ZOMBIES],
        Faults::Wire => &[&CALM, &WIRE],
        // A new process remembers nothing: that is the limit, not the rule.
        Faults::Rewinds => &[&CALM.as_slice()[..8], &REWINDS],
    };
    let all = tables.iter().flat_map(|table| table.iter());
    all.flat_map(|(weight, make)| std::iter::repeat_n(*make, *weight)).collect()
}

/// One number makes a step: a tree of strategies would take longer than the whole run.
fn step(faults: Faults) -> impl Strategy<Value = Step> {
    let made = made(faults);
    (0..u32::MAX).prop_map(move |x| {
        let [kind, more, m, k] = x.to_be_bytes();
        let kind = usize::from(kind) * 256 + usize::from(more);
        made[kind % made.len()](m % 3, k % 8, k & 16 > 0, k & 32 > 0)
    })
}

/// Runs of at most `length` steps.
pub fn runs(faults: Faults, length: usize) -> BoxedStrategy<Run> {
    let keyed = |p: f64, n: u8| proptest::option::weighted(p, 0..n);
    let (keys, ids) = match faults {
        Faults::Rewinds => (Just(None).boxed(), Just(None).boxed()),
        _ => (keyed(0.8, 3).boxed(), keyed(0.5, 5).boxed()),
    };
    let made = (keys, ids, -20..40_i64).prop_map(|(key, id, step_ms)| Made { key, id, step_ms });
    let shape = (
        prop_oneof![Just(3_usize), Just(16), Just(256)],
        prop_oneof![1 => Just(44_usize), 4 => Just(2048)],
        1..12_usize,
        1..4_usize,
    );
    let (fewest, most) = match faults {
        Faults::Rewinds => (1_usize, 1_usize),
        Faults::Zombies => (2, 2),
        _ => (1, 3),
    };
    (fewest..=most, vec(vec(made, 3..14), 1..=3), shape, vec(step(faults), 1..length))
        .prop_map(|(processes, logs, shape, steps)| Run { processes, logs, shape, steps })
        .boxed()
}

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
