//! From what waits to the next row: which records it claims, passes over or parks, and what its acceptance starts.
//! Must never change the shard before the row is accepted: a refused plan leaves no trace.

use super::{
    Judge, Record,
    shard::{Mine, Open, Parked, Read, Shard, State},
};
use crate::{
    dispatch::{Judgement, Reason},
    event::Lane,
    ledger::Outcome,
    sources::kinesis::{
        place::Place,
        register::{Entry, Row},
    },
};
use std::collections::{BTreeSet, HashMap};

/// What a plan may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records that may be claimed.
    pub budget: usize,
    /// Longest chain of one lane.
    pub depth: usize,
    /// Open and parked entries of the row.
    pub entries: usize,
    /// Whether a busy lane holds up what follows, in place of being parked: all records are of one lane.
    pub in_order: bool,
}

/// The next row, and what it means.
#[derive(Debug)]
pub struct Plan {
    /// To be written on condition that the row is still the last accepted one.
    pub row: Row,
    /// What is claimed: chain and place, by ascending chain.
    starts: Vec<(u64, Place)>,
    /// What ends without a call.
    pub passes: Vec<Pass>,
    parks: Vec<Place>,
    leaves: BTreeSet<Place>,
}

/// A record that ends without a call.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Where.
    pub at: Place,
    /// How.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
}

/// What an accepted row started and ended.
#[derive(Debug)]
pub struct Granted<R> {
    /// Claimed: chain, place, record.
    pub starts: Vec<(u64, Place, Read<R>)>,
    /// Ended without a call.
    pub passes: Vec<(Pass, Read<R>)>,
    /// Parked: number, log time and record, for the window.
    pub parks: Vec<Read<R>>,
    /// Log time at the checkpoint.
    pub log_ms: i64,
}

/// A walk over what waits.
struct Walk {
    limits: Limits,
    starts: Vec<(u64, Place)>,
    passes: Vec<Pass>,
    parks: Vec<Place>,
    /// Chain and length of lanes that this plan starts; `None` as a chain: it parks one of them.
    lanes: HashMap<Lane, (Option<u64>, usize)>,
    entries: usize,
    chains: u64,
}

impl Walk {
    fn has_room(&self) -> bool {
        self.starts.len() < self.limits.budget && self.entries < self.limits.entries
    }

    fn start(&mut self, chain: Option<u64>, at: &Place) -> u64 {
        let chain = chain.unwrap_or_else(|| {
            self.chains += 1;
            self.chains
        });
        self.starts.push((chain, at.clone()));
        chain
    }
}

impl Plan {
    /// How many records it claims.
    pub fn claims(&self) -> usize {
        self.starts.len()
    }
}

impl<R: Record> Shard<R> {
    /// Plans the next claim; `None` when there is nothing to claim, park or pass.
    pub fn plan(&self, limits: Limits, judge: &mut impl Judge<R>) -> Option<Plan> {
        if !self.is_confirmed() {
            return None;
        }
        let leaves: BTreeSet<Place> = self.leaving().cloned().collect();
        let (starts, passes, parks) = (Vec::new(), Vec::new(), Vec::new());
        let entries = self.entries() - leaves.len();
        let mut walk = Walk { limits, starts, passes, parks, lanes: HashMap::new(), entries, chains: 0 };
        self.unpark(&mut walk);
        let mut upto = None;
        if self.is_back() {
            for (at, read) in &self.waiting {
                if !self.step(&mut walk, at, read, judge) {
                    break;
                }
                upto = Some((at.clone(), read.log_ms));
            }
        }
        if walk.starts.is_empty() && upto.is_none() {
            return None;
        }
        // Chains lie together: a batch starts in their order.
        walk.starts.sort_by_key(|(chain, _)| *chain);
        let Walk { starts, passes, parks, .. } = walk;
        let mut plan = Plan { row: self.row.clone(), starts, passes, parks, leaves };
        self.fill(&mut plan, upto);
        Some(plan)
    }

    /// Parked records whose lane is free again go first: they are the older ones.
    fn unpark(&self, walk: &mut Walk) {
        for (lane, numbers) in self.lanes.ready() {
            let mut chain = None;
            for (n, number) in numbers.iter().enumerate().take(walk.limits.depth.max(1)) {
                if walk.starts.len() >= walk.limits.budget {
                    break;
                }
                let Some(at) = self.numbers.get(number) else { break };
                chain = Some(walk.start(chain, at));
                // What follows of this lane comes after all that is parked of it.
                walk.lanes.insert(lane, (chain.filter(|_| n + 1 == numbers.len()), n + 1));
            }
        }
        // Without a lane nothing holds them: parked by a version or an order that was another one.
        for (at, parked) in &self.parked {
            let free = parked.read.as_ref().is_some_and(|read| read.record.lane().is_none());
            if free && walk.starts.len() < walk.limits.budget {
                walk.start(None, at);
            }
        }
    }

    /// False where the walk ends.
    fn step(&self, walk: &mut Walk, at: &Place, read: &Read<R>, judge: &mut impl Judge<R>) -> bool {
        if !walk.has_room() {
            return false;
        }
        match judge.judge(read.number, read.log_ms, &read.record) {
            Judgement::Wait => return false,
            Judgement::Pass(outcome, reason) => {
                walk.passes.push(Pass { at: at.clone(), outcome, reason });
                return true;
            }
            Judgement::Start => {}
        }
        let lane = read.record.lane();
        let begun = lane.and_then(|lane| walk.lanes.get(&lane).copied());
        let chain = match (lane, begun) {
            (None, _) => None,
            (Some(lane), None) if self.lanes.is_free(lane) => None,
            (Some(_), Some((Some(chain), length))) if length < walk.limits.depth => Some(chain),
            (Some(_), _) if walk.limits.in_order => return false,
            (Some(lane), _) => {
                walk.lanes.insert(lane, (None, 0));
                walk.parks.push(at.clone());
                walk.entries += 1;
                return true;
            }
        };
        walk.entries += 1;
        let chain = walk.start(chain, at);
        if let Some(lane) = lane {
            walk.lanes.insert(lane, (Some(chain), begun.map_or(0, |(_, length)| length) + 1));
        }
        true
    }

    /// A row that claims nothing: a renewal, and what has ended leaves it.
    pub fn plan_flush(&self) -> Plan {
        let leaves = self.leaving().cloned().collect();
        let (starts, passes, parks) = (Vec::new(), Vec::new(), Vec::new());
        let mut plan = Plan { row: self.row.clone(), starts, passes, parks, leaves };
        self.fill(&mut plan, None);
        if self.mutations.flush_unparks {
            plan.row.parked.clear();
        }
        plan
    }

    /// A row that gives the shard back, or ends it where everything in it has ended.
    pub fn plan_release(&self) -> Plan {
        let mut plan = self.plan_flush();
        plan.row.owner = None;
        plan.row.ended = self.is_finished();
        plan
    }

    /// Everything of the row that follows from the shard and the plan (P1, N1).
    fn fill(&self, plan: &mut Plan, upto: Option<(Place, i64)>) {
        let row = &mut plan.row;
        row.version = row.version.wrapping_add(1);
        row.owner = Some(self.token);
        let whole = upto.as_ref().map_or(0, |(upto, _)| self.waiting.range(..=upto.clone()).count());
        if let Some((at, log_ms)) = upto {
            row.checkpoint = Some(at);
            row.time_ms = row.time_ms.max(log_ms);
        }
        let tip = self.tip_ms.filter(|_| whole == self.waiting.len());
        row.seen_ms = row.seen_ms.max(row.time_ms).max(tip.unwrap_or(-1));
        let started: BTreeSet<&Place> = plan.starts.iter().map(|(_, at)| at).collect();
        let kept = self.open.iter().filter(|(at, _)| !plan.leaves.contains(at));
        let mut open: Vec<Entry> =
            kept.map(|(at, open)| Entry { at: at.clone(), ms: open.ms, by: open.by }).collect();
        open.extend(plan.starts.iter().map(|(_, at)| self.entry(at)));
        open.sort_by(|a, b| a.at.cmp(&b.at));
        row.open = open;
        let kept = self.parked.iter().filter(|(at, parked)| !parked.gone && !started.contains(at));
        let mut parked: Vec<Entry> =
            kept.map(|(at, parked)| Entry { at: at.clone(), ms: parked.ms, by: parked.by }).collect();
        parked.extend(plan.parks.iter().map(|at| self.entry(at)));
        row.parked = parked;
    }

    fn entry(&self, at: &Place) -> Entry {
        let waiting = self.waiting.get(at).map(|read| read.ms);
        let ms = waiting.or_else(|| self.parked.get(at).map(|parked| parked.ms)).unwrap_or(-1);
        Entry { at: at.clone(), ms, by: self.token }
    }

    /// The row of `plan` was accepted: what it claims is this process's to start, once.
    pub fn granted(&mut self, plan: Plan) -> Granted<R> {
        for at in &plan.leaves {
            self.open.remove(at);
        }
        let mut starts = Vec::with_capacity(plan.starts.len());
        for (chain, at) in plan.starts {
            let Some(read) = self.taken(&at) else { continue };
            let lane = read.record.lane();
            if let Some(lane) = lane {
                self.lanes.run(lane);
            }
            let state = State::Mine(Mine::Runs(lane));
            self.open.insert(at.clone(), Open { ms: read.ms, by: self.token, state });
            starts.push((chain, at, read));
        }
        let passes = plan.passes.into_iter();
        let passes = passes.filter_map(|pass| Some((pass.clone(), self.waiting.remove(&pass.at)?))).collect();
        let mut parks = Vec::with_capacity(plan.parks.len());
        for at in plan.parks {
            let Some(read) = self.waiting.remove(&at) else { continue };
            if let Some(lane) = read.record.lane() {
                self.lanes.park(lane, read.number);
            }
            self.numbers.insert(read.number, at.clone());
            let parked = Parked { ms: read.ms, by: self.token, read: Some(read.clone()), gone: false };
            self.parked.insert(at, parked);
            parks.push(read);
        }
        self.parked.retain(|_, parked| !parked.gone);
        // A lane that became free while the row was on its way was told to nobody.
        self.lanes.wake_idle();
        let log_ms = plan.row.time_ms;
        self.accepted(plan.row);
        Granted { starts, passes, parks, log_ms }
    }

    /// A record that starts leaves the place where it waited.
    fn taken(&mut self, at: &Place) -> Option<Read<R>> {
        if let Some(read) = self.waiting.remove(at) {
            return Some(read);
        }
        let read = self.parked.remove(at)?.read?;
        self.numbers.remove(&read.number);
        if let Some(lane) = read.record.lane() {
            self.lanes.unpark(lane, read.number);
        }
        Some(read)
    }
}
