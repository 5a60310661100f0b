//! Lanes of one shard: events of a lane run one at a time, in log order; a busy lane parks what comes next
//! (rule L1). Pure bookkeeping. Must never claim or start anything.

use crate::event::{Lane, hasher::Plain};
use std::collections::{HashMap, VecDeque};

#[derive(Debug, Default)]
struct State {
    running: u32,
    parked: VecDeque<i64>,
}

/// Which lanes of a shard are busy, and what is parked behind them. Bounded by the register's capacity: every
/// running or parked event is an entry there.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: HashMap<Lane, State, Plain>,
    ready: VecDeque<Lane>,
}

impl Lanes {
    /// Whether a new event of `lane` could start now: nothing runs and nothing is parked before it.
    pub fn is_free(&self, lane: Lane) -> bool {
        !self.lanes.contains_key(&lane)
    }

    /// A claimed event of `lane` starts.
    pub fn run(&mut self, lane: Lane) {
        self.lanes.entry(lane).or_default().running += 1;
    }

    /// A running event of `lane` ended; a lane that is idle with something parked becomes ready.
    pub fn finished(&mut self, lane: Lane) {
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        state.running = state.running.saturating_sub(1);
        self.settle_lane(lane);
    }

    /// `sequence` waits behind its lane. Sequences of a lane must be parked in ascending order.
    pub fn park(&mut self, lane: Lane, sequence: i64) {
        self.lanes.entry(lane).or_default().parked.push_back(sequence);
    }

    /// `sequence` left the parking place (claimed, passed or gone). It starts by a separate [`Lanes::run`].
    pub fn unpark(&mut self, lane: Lane, sequence: i64) {
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        if let Some(at) = state.parked.iter().position(|s| *s == sequence) {
            state.parked.remove(at);
        }
        self.settle_lane(lane);
    }

    /// Lanes with parked events and nothing running, oldest readiness first.
    pub fn ready(&self) -> impl Iterator<Item = (Lane, &VecDeque<i64>)> {
        self.ready.iter().filter_map(|lane| {
            let state = self.lanes.get(lane)?;
            (state.running == 0 && !state.parked.is_empty()).then_some((*lane, &state.parked))
        })
    }

    fn settle_lane(&mut self, lane: Lane) {
        let Some(state) = self.lanes.get(&lane) else { return };
        match (state.running, state.parked.is_empty()) {
            (0, true) => {
                self.lanes.remove(&lane);
                self.ready.retain(|l| *l != lane);
            }
            (0, false) if !self.ready.contains(&lane) => self.ready.push_back(lane),
            (0, false) => {}
            _ => self.ready.retain(|l| *l != lane),
        }
    }

    /// Marks lanes as ready that were filled by parking alone (after a takeover nothing runs in them).
    pub fn wake_idle(&mut self) {
        let idle: Vec<Lane> = self
            .lanes
            .iter()
            .filter(|(lane, s)| s.running == 0 && !s.parked.is_empty() && !self.ready.contains(lane))
            .map(|(lane, _)| *lane)
            .collect();
        self.ready.extend(idle);
    }

    /// Nothing runs and nothing is parked.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }
}
