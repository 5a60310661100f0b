//! One process around the protocol: the polling thread of `consumer`, `claiming`, `context` and `engine`, without
//! threads, clocks and brokers. Must never do anything in another order than they do.

use super::world::{Item, Reply, Request, SESSION, SPAN, World};
use crate::{
    dispatch::{Settings, StartLease, Window, WindowConfig},
    event::filter::Filter,
    ledger::Outcome,
    sources::kafka::{
        protocol::{
            Mutations, Protocol,
            plan::{Limits, Proposal},
        },
        register::Token,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// What makes one run differ from another beside its steps.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub entries: usize,
    pub chars: usize,
    pub window: usize,
    pub depth: usize,
}

/// Bugs of the thread that drives the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bug {
    #[default]
    None,
    UnknownIsGranted,
    RetrySameIdentity,
    NoTaintOnResend,
    GenerationMinusOne,
    NoDrain,
    InvokeFirst,
    AsyncCommit,
    HoldUntilAssign,
    EnterBeforeGrant,
    RebuildByWallClock,
    EndOfPartitionFirst,
    NoStartDeadline,
}

/// What the member must do before it may commit again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taint {
    Rejoin,
    UntilAssign,
}

/// The client library's side of the membership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Membership {
    #[default]
    Out,
    Joining,
    Syncing,
    Stable,
    /// Waits for the application to give its partitions back.
    Unassigning,
}

#[derive(Debug, Default)]
pub struct Library {
    pub id: Option<u64>,
    pub generation: i32,
    pub state: Membership,
    pub assigned: Vec<i32>,
    pub fetch: BTreeMap<i32, i64>,
    pub assign: Option<Vec<i32>>,
    pub revoke: bool,
    pub lost: bool,
    pub at_end: BTreeSet<i32>,
}

impl Library {
    /// A new fetch position says again when it is at the end.
    pub fn clear_ends(&mut self) {
        self.at_end.clear();
    }
}

pub enum FromPoll {
    Record(u64, i32, i64),
    End(u64, i32),
}

pub struct Call {
    pub shard: i32,
    pub offset: i64,
    pub lease: Arc<StartLease>,
    pub begun: bool,
}

pub enum Line {
    Own(i32, i64, Outcome),
    Named(i32, i64, Outcome, bool),
}

/// A commit call that has not returned.
pub struct Flight {
    pub request: Request,
    pub proposal: Proposal,
    pub chains: Vec<VecDeque<Call>>,
    pub sent: u64,
    /// Deferred by the library: gets the identity of the moment it leaves.
    pub deferred: bool,
    pub reply: Option<Reply>,
    pub unknown: bool,
    pub twice: bool,
    /// The final flush inside a revocation.
    pub last: bool,
}

/// See the module.
pub struct Member {
    pub slot: usize,
    pub shape: Shape,
    pub bug: Bug,
    pub mutations: Mutations,
    pub alive: bool,
    pub frozen: bool,
    pub protocol: Protocol<Item>,
    pub window: Window,
    pub settings: Arc<Settings>,
    pub lib: Library,
    pub polled: Vec<FromPoll>,
    pub chains: Vec<VecDeque<Call>>,
    pub results: Vec<(i32, i64, Outcome)>,
    pub running: BTreeSet<(i32, i64)>,
    pub unwritten: Vec<Line>,
    pub announced: BTreeMap<i32, i64>,
    pub flight: Option<Flight>,
    pub taint: Option<Taint>,
    pub held: bool,
    pub leaving: bool,
    pub stopping: bool,
    pub leave_lost: bool,
    pub last_commit: u64,
    /// ended - received of calls: what is in flight, negative.
    pub residual: i64,
}

impl Member {
    pub fn new(slot: usize, shape: Shape, bug: Bug, mutations: Mutations, world: &mut World) -> Self {
        world.processes += 1;
        let limits = Limits { entries: shape.entries, metadata_chars: shape.chars };
        let settings = Settings {
            max_in_flight: 64,
            claim_window: 256,
            call_timeout: None,
            expire_after: None,
            filter: Filter::default(),
            paused: false,
            dead_letter: Vec::new(),
            dedup: true,
        };
        Self {
            slot,
            shape,
            bug,
            mutations,
            alive: true,
            frozen: false,
            protocol: Protocol::new(Token(world.processes), limits).with_mutations(mutations),
            window: Window::new(WindowConfig { span_ms: SPAN, max_entries: 1000, generations: 4 }),
            settings: Arc::new(settings),
            lib: Library::default(),
            polled: Vec::new(),
            chains: Vec::new(),
            results: Vec::new(),
            running: BTreeSet::new(),
            unwritten: Vec::new(),
            announced: BTreeMap::new(),
            flight: None,
            taint: None,
            held: false,
            leaving: false,
            stopping: false,
            leave_lost: false,
            last_commit: 0,
            residual: 0,
        }
    }

    /// A step of a worker: the head of a chain starts, or ends. `patient`: every third call is slow and goes on.
    pub fn work(&mut self, world: &mut World, pick: usize, patient: bool) {
        if !self.alive || self.frozen || self.chains.is_empty() {
            return;
        }
        let at = pick % self.chains.len();
        let token = self.protocol.token();
        let Some(head) = self.chains[at].front_mut() else { return };
        let (shard, offset) = (head.shard, head.offset);
        if head.begun && patient && offset % 3 == 0 {
            return;
        }
        if !head.begun && (head.lease.may_start(world.now) || self.bug == Bug::NoStartDeadline) {
            head.begun = true;
            world.oracle.invoked(shard, offset, token);
            return;
        }
        let outcome = if head.begun { Outcome::Delivered } else { Outcome::Unreachable };
        self.results.push((shard, offset, outcome));
        self.chains[at].pop_front();
        self.chains.retain(|c| !c.is_empty());
    }

    /// `Engine::drain_results`.
    pub fn drain_results(&mut self) {
        for (shard, offset, outcome) in std::mem::take(&mut self.results) {
            if self.running.remove(&(shard, offset)) {
                self.end_call(shard, offset, outcome);
            }
        }
    }

    pub fn end_call(&mut self, shard: i32, offset: i64, outcome: Outcome) {
        self.unwritten.push(Line::Own(shard, offset, outcome));
        if let Some(state) = self.protocol.shard_mut(shard) {
            state.settled(offset);
        }
        self.residual += 1;
    }

    /// `Engine::name_inherited`.
    pub fn name_inherited(&mut self) {
        let (token, early) = (self.protocol.token(), self.mutations.report_early);
        let ready = self.protocol.owned().filter(|(_, s)| !s.is_replaying());
        let named: Vec<_> =
            ready.flat_map(|(n, s)| s.reportable(token, early).into_iter().map(move |r| (n, r))).collect();
        for (shard, entry) in named {
            let runs = self.running.contains(&(shard, entry.offset));
            self.unwritten.push(Line::Named(shard, entry.offset, entry.outcome, runs));
            if let Some(state) = self.protocol.shard_mut(shard) {
                state.reported(entry.offset);
            }
        }
    }

    /// `Engine::end_missed`.
    pub fn missed(&mut self, shard: i32, offset: i64) {
        self.unwritten.push(Line::Own(shard, offset, Outcome::Missed));
    }

    /// `Engine::write_journal`: from here on the lines are durable.
    pub fn journal(&mut self, world: &mut World) {
        let group = &world.group;
        let member = self.lib.id.filter(|id| group.members.contains_key(id));
        let stale = member.is_none() || self.lib.generation != group.generation;
        for line in std::mem::take(&mut self.unwritten) {
            match line {
                Line::Own(shard, offset, outcome) => world.oracle.ended(shard, offset, outcome),
                Line::Named(shard, offset, outcome, runs) => {
                    world.oracle.named(shard, offset, outcome, self.protocol.token(), stale, runs);
                }
            }
        }
        if self.residual != i64::try_from(self.running.len()).map_or(0, |n| -n) {
            world.oracle.broken("I3", "received + inherited is not ended + in flight");
        }
    }

    /// Half a session: the longest time between a commit and the start of its calls (L2).
    pub const HALF: u64 = SESSION / 2;
}
