//! A register, a wire and dispatchers that drive the production protocol, judged at every write and every call. Must
//! never know more of a member than its steps and answers.

use super::super::{Answer, Mutations, Protocol, Purpose, Step, plan::Wish};
use crate::sources::cron::{
    due::due,
    register::{Open, Register, Token, View, Write},
};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Seconds between two instants.
const EVERY: i64 = 60;
/// After its claim was planned a call may start for so long.
const START: i64 = 20;
/// A call runs at most for so long.
const CALL: i64 = 20;
/// Added to both before others may name it.
const MARGIN: i64 = 10;
/// Instants of one run.
const INSTANTS: i64 = 6;
/// Steps after the last instant within which everything must have ended.
const PATIENCE: usize = 4000;

/// What may go wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    pub(super) lost: bool,
    pub(super) crashes: bool,
    pub(super) refusals: bool,
}

impl Faults {
    pub(super) const NONE: Self = Self { lost: false, crashes: false, refusals: false };
}

struct Member {
    protocol: Protocol,
    /// Until when what was planned last may start.
    may_start: i64,
    /// Calls that run, and when they end at the latest.
    running: BTreeMap<i64, i64>,
}

fn next(after: i64) -> Option<i64> {
    Some(after - after.rem_euclid(EVERY) + EVERY).filter(|instant| *instant <= EVERY * INSTANTS)
}

/// See the module.
pub(super) struct World {
    rng: Rng,
    faults: Faults,
    mutations: Mutations,
    now: i64,
    /// Seconds that pass at once: a slow world races, a fast one misses instants.
    pace: i64,
    version: u64,
    register: Register,
    members: Vec<Option<Member>>,
    tokens: u64,
    /// Writes whose sender got no answer, and which may still arrive.
    late: Vec<Write>,
    wish: Wish,
    claimed: BTreeMap<i64, Token>,
    called: BTreeSet<i64>,
    ended: BTreeSet<i64>,
    reported: BTreeSet<(i64, Token)>,
    skipped: BTreeSet<i64>,
    pub(super) calls: u64,
    pub(super) named: u64,
    pub(super) passed_over: u64,
    pub(super) resolved: u64,
}

type Judged = Result<(), String>;

impl World {
    pub(super) fn new(seed: u64, mutations: Mutations, faults: Faults) -> Self {
        let mut rng = Rng::with_seed(seed);
        let wish = Wish {
            now_ms: 0,
            since: 0,
            watched_from: 0,
            suspended_until: i64::MIN,
            patience: rng.bool().then_some(45),
            catch_up: rng.usize(0..4),
            forbid: rng.u8(0..4) == 0,
            room: rng.usize(1..4),
            deadline: 0,
        };
        let (members, pace) = (rng.usize(2..4), rng.choice([5, 15, 45, 90]).unwrap_or(5));
        let mut world = Self {
            rng,
            faults,
            mutations,
            now: 0,
            pace,
            version: 1,
            register: Register::default(),
            members: Vec::new(),
            tokens: 0,
            late: Vec::new(),
            wish,
            claimed: BTreeMap::new(),
            called: BTreeSet::new(),
            ended: BTreeSet::new(),
            reported: BTreeSet::new(),
            skipped: BTreeSet::new(),
            calls: 0,
            named: 0,
            passed_over: 0,
            resolved: 0,
        };
        world.members = (0..members).map(|_| Some(world.member())).collect();
        world
    }

    fn member(&mut self) -> Member {
        self.tokens += 1;
        let protocol = Protocol::new(Token(self.tokens), String::new()).with_mutations(self.mutations);
        Member { protocol, may_start: i64::MIN, running: BTreeMap::new() }
    }

    /// Plays until every instant has ended, or the first violation.
    pub(super) fn play(&mut self) -> Judged {
        let mut quiet = 0;
        while quiet < PATIENCE {
            self.step(quiet == 0)?;
            let over = self.now >= EVERY * INSTANTS + 40;
            quiet += usize::from(over);
            if over && self.is_at_rest() {
                return self.judge_end();
            }
        }
        Err(format!("it does not come to rest: {:?}", self.register))
    }

    fn is_at_rest(&self) -> bool {
        let idle = |member: &Option<Member>| {
            member.as_ref().is_some_and(|m| m.running.is_empty() && !m.protocol.is_unsure())
        };
        let all = self.register.last == Some(EVERY * INSTANTS);
        all && self.register.open.is_empty() && self.members.iter().all(idle) && self.late.is_empty()
    }

    fn step(&mut self, faulty: bool) -> Judged {
        let who = self.rng.usize(0..self.members.len());
        match self.rng.u8(0..20) {
            0 | 1 => self.pass_time()?,
            2 if faulty && self.faults.crashes && self.rng.u8(0..8) == 0 => {
                self.members[who] = None;
            }
            3 if self.members[who].is_none() => self.members[who] = Some(self.member()),
            4 if !self.late.is_empty() => {
                let at = self.rng.usize(0..self.late.len());
                let write = self.late.swap_remove(at);
                if !faulty || self.rng.bool() {
                    self.apply(&write)?;
                }
            }
            5..=7 => self.end_call(who),
            8 | 9 => self.name(who)?,
            _ => self.drive(who, faulty)?,
        }
        Ok(())
    }

    /// Time never passes the end of a call that runs: the invoker ends it then.
    fn pass_time(&mut self) -> Judged {
        self.now += self.pace;
        for who in 0..self.members.len() {
            let now = self.now;
            let over = |member: &Member| member.running.values().any(|end| *end < now);
            while self.members[who].as_ref().is_some_and(over) {
                self.end_call(who);
            }
        }
        Ok(())
    }

    fn end_call(&mut self, who: usize) {
        let Some(member) = &mut self.members[who] else { return };
        if let Some((instant, _)) = member.running.pop_first() {
            self.ended.insert(instant);
            member.protocol.ended(instant);
        }
    }

    fn name(&mut self, who: usize) -> Judged {
        let now = self.now;
        let view = self.view();
        let Some(member) = &mut self.members[who] else { return Ok(()) };
        if member.protocol.overdue(now).is_empty() {
            return Ok(());
        }
        // As the driver does: only what a fresh read still lists.
        member.protocol.forget_view();
        let granted = member.protocol.read(view);
        let overdue = member.protocol.overdue(now);
        let own = member.protocol.token();
        if let Some(purpose) = granted {
            self.start(who, &purpose)?;
        }
        for open in overdue {
            if open.token == own {
                return Err(format!("own claim of {} was not recognised", open.instant));
            }
            self.judge_name(&open)?;
            self.reported.insert((open.instant, open.token));
            self.named += 1;
            if let Some(member) = &mut self.members[who] {
                member.protocol.reported(&open);
            }
        }
        Ok(())
    }

    fn judge_name(&self, open: &Open) -> Judged {
        let alive = self.members.iter().flatten().find(|member| member.protocol.token() == open.token);
        let may = alive.is_some_and(|member| {
            member.running.contains_key(&open.instant)
                || (self.now <= member.may_start && !self.ended.contains(&open.instant))
        });
        // One whose owner was slow to take it out is named too: the key decides (N6). So is one whose owner still waits for
        // a certain answer. But an owner that waits for nothing has forgotten it.
        let forgotten = alive.is_some_and(|member| !member.protocol.is_unsure());
        if may {
            Err(format!("named the living: {}", open.instant))
        } else if forgotten && !self.ended.contains(&open.instant) {
            Err(format!("forgotten by its owner: {}", open.instant))
        } else {
            Ok(())
        }
    }

    fn view(&self) -> View {
        View { version: self.version.to_string(), register: self.register.clone() }
    }

    fn drive(&mut self, who: usize, faulty: bool) -> Judged {
        let view = self.view();
        let (now, mut wish) = (self.now, self.wish);
        (wish.now_ms, wish.deadline) = (now * 1000, now + START + CALL + MARGIN);
        let Some(member) = &mut self.members[who] else { return Ok(()) };
        match member.protocol.step() {
            Step::Read => match member.protocol.read(view) {
                Some(purpose) => {
                    self.resolved += 1;
                    self.start(who, &purpose)
                }
                None => Ok(()),
            },
            Step::Plan => {
                let after =
                    member.protocol.view().and_then(|view| view.register.settled_until()).unwrap_or(0);
                let due = due(next, after, now, wish.keep());
                if member.protocol.plan(&due, &wish, |_| None) {
                    member.may_start = now + START;
                }
                Ok(())
            }
            Step::Write(write) => self.send(who, &write, faulty),
        }
    }

    fn send(&mut self, who: usize, write: &Write, faulty: bool) -> Judged {
        let lossy = faulty && self.faults.lost;
        let answer = match self.rng.u8(0..10) {
            // Done, and the answer lost.
            0 if lossy => {
                self.apply(write)?;
                Answer::Unknown
            }
            // Lost, and it may arrive later.
            1 if lossy => {
                self.late.push(write.clone());
                Answer::Unknown
            }
            // Sent twice by a layer below: the second answer is told.
            2 if lossy => {
                self.apply(write)?;
                self.apply(write)?
            }
            3 if faulty && self.faults.refusals => Answer::Refused,
            _ => self.apply(write)?,
        };
        let Some(member) = &mut self.members[who] else { return Ok(()) };
        match member.protocol.answered(answer) {
            Some(purpose) => self.start(who, &purpose),
            None => Ok(()),
        }
    }

    /// The register's side of a conditional write.
    fn apply(&mut self, write: &Write) -> Result<Answer, String> {
        if !write.version.is_empty() && write.version != self.version.to_string() {
            return Ok(Answer::Conflict);
        }
        let (old, new) = (self.register.clone(), &write.register);
        if new.last < old.last {
            return Err(format!("the register went back from {:?} to {:?}", old.last, new.last));
        }
        for open in old.open.iter().filter(|open| !new.open.contains(open)) {
            let durable =
                self.ended.contains(&open.instant) || self.reported.contains(&(open.instant, open.token));
            if !durable {
                return Err(format!("an open instant vanished: {}", open.instant));
            }
        }
        for open in new.open.iter().filter(|open| !old.open.contains(open)) {
            if self.claimed.insert(open.instant, open.token).is_some() || Some(open.instant) <= old.last {
                return Err(format!("claimed twice: {}", open.instant));
            }
        }
        let mut missed = 0;
        let mut instant = old.last.unwrap_or(0) + EVERY;
        while Some(instant) <= new.last {
            if !new.open.iter().any(|open| open.instant == instant) {
                self.skipped.insert(instant);
                missed += 1;
            }
            instant += EVERY;
        }
        self.passed_over += missed;
        if new.missed != old.missed + missed {
            return Err(format!("{missed} missed, and {} counted", new.missed - old.missed));
        }
        self.version += 1;
        self.register = new.clone();
        Ok(Answer::Accepted(self.version.to_string()))
    }

    /// What a member does with a grant.
    fn start(&mut self, who: usize, purpose: &Purpose) -> Judged {
        let now = self.now;
        for instant in &purpose.claims {
            let Some(member) = &mut self.members[who] else { return Ok(()) };
            if now > member.may_start {
                // Too late to start: it ends as never sent.
                self.ended.insert(*instant);
                member.protocol.ended(*instant);
                continue;
            }
            if self.claimed.get(instant) != Some(&member.protocol.token()) {
                return Err(format!("called without a claim: {instant}"));
            }
            if !self.called.insert(*instant) {
                return Err(format!("called twice: {instant}"));
            }
            self.calls += 1;
            member.running.insert(*instant, now + CALL);
        }
        Ok(())
    }

    fn judge_end(&self) -> Judged {
        for instant in (1..=INSTANTS).map(|n| n * EVERY) {
            let ends = usize::from(self.skipped.contains(&instant))
                + usize::from(self.claimed.contains_key(&instant));
            let named = self.reported.iter().any(|(named, _)| *named == instant);
            if ends != 1 || (self.claimed.contains_key(&instant) && !self.ended.contains(&instant) && !named)
            {
                return Err(format!("unaccounted: {instant}"));
            }
        }
        Ok(())
    }
}
