//! Judge of a run: sees only what the registers, the functions and the journals see. Must never ask the code under test
//! what it thinks.

use super::world::{Log, SPAN};
use crate::{
    event::{BusinessId, Lane},
    ledger::Outcome,
    sources::kafka::register::{Register, Token},
};
use std::collections::HashSet;

#[derive(Default)]
struct Seen {
    lane: Option<Lane>,
    id: Option<BusinessId>,
    log_time_ms: i64,
    claimed_by: Option<Token>,
    invoked: u32,
    /// Lines of whoever had it; a name given by a successor is not one.
    outcomes: Vec<Outcome>,
    named: bool,
    /// An accepted commit took it off the list after its outcome was durable.
    done: bool,
}

/// A record in a message.
struct Name(i32, i64);

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

/// See the module.
pub struct Oracle {
    shards: Vec<Vec<Seen>>,
    /// Entries and characters that a commit may fill with claims.
    limits: (usize, usize),
    carried: HashSet<(Token, i32, i64)>,
    /// Something was done to the system that a run without faults does not have.
    pub faulty: bool,
    /// Somebody else wrote the register: only what a process promises by itself still counts (K8).
    pub foreign: bool,
    /// Retention removed records, perhaps those that a window needs.
    pub truncated: bool,
    pub violation: Option<String>,
    pub calls: u64,
    pub names: u64,
}

impl Oracle {
    pub fn new(logs: &[Log], limits: (usize, usize)) -> Self {
        let mut shards = Vec::new();
        for log in logs {
            let mut time = -1;
            let seen = |event: &std::sync::Arc<crate::event::Event>| {
                time = time.max(event.position.time_ms);
                Seen { lane: event.lane, id: event.business, log_time_ms: time, ..Seen::default() }
            };
            shards.push(log.records.iter().map(seen).collect());
        }
        Self {
            shards,
            limits,
            carried: HashSet::new(),
            faulty: false,
            foreign: false,
            truncated: false,
            violation: None,
            calls: 0,
            names: 0,
        }
    }

    pub fn broken(&mut self, rule: &str, what: &str) {
        if self.violation.is_none() {
            self.violation = Some(format!("{rule}: {what}"));
        }
    }

    fn at(&mut self, shard: i32, offset: i64) -> &mut Seen {
        let shard = &mut self.shards[usize::try_from(shard).expect("a partition")];
        &mut shard[usize::try_from(offset).expect("an offset of the log")]
    }

    /// An accepted commit replaced `old`.
    pub fn written(
        &mut self,
        shard: i32,
        old: Option<&(i64, Register)>,
        end: i64,
        new: &Register,
        chars: usize,
    ) {
        if self.foreign {
            return;
        }
        let empty = (0, Register::empty());
        // Without a register a subscription starts where its policy says: what lies before is none of its events.
        let first = old.is_none() && self.truncated;
        let (old_end, old) = old.unwrap_or(&empty);
        if end < *old_end {
            self.broken("I7", &format!("committed offset went back ({shard}: {old_end} -> {end})"));
        }
        let (before, after) = (old.open.len() + old.parked.len(), new.open.len() + new.parked.len());
        let grown = after > before && (after > self.limits.0 || chars > self.limits.1);
        if chars > 4096 || grown {
            self.broken("N7", &format!("register does not fit ({shard}: {chars} chars)"));
        }
        for offset in 0..end {
            let open = new.open.iter().find(|e| e.offset == offset);
            let was_open = old.open.iter().any(|e| e.offset == offset);
            let was_parked = old.parked.contains(&offset);
            let parked = new.parked.contains(&offset);
            let record = Name(shard, offset);
            if offset < *old_end && !was_open && !was_parked && (open.is_some() || parked) {
                self.broken("I7m", &format!("metadata reopened the closed entry {record}"));
            }
            if was_open && parked {
                self.broken("I7m", &format!("a claimed record was parked again: {record}"));
            }
            let seen = self.at(shard, offset);
            let ended = !seen.outcomes.is_empty() || seen.named;
            if let Some(entry) = open
                && entry.owner == new.owner
            {
                seen.claimed_by = Some(new.owner);
            }
            if open.is_none() && was_open {
                seen.done |= !seen.outcomes.is_empty();
                if !ended {
                    self.broken("I6", &format!("open entry {record} vanished without outcome or report"));
                }
            } else if was_parked && open.is_none() && !parked && !ended {
                self.broken("L1", &format!("parked record {record} vanished without outcome"));
            } else if offset >= *old_end && open.is_none() && !parked && !ended && first {
                seen.outcomes.push(Outcome::Missed);
            } else if offset >= *old_end && open.is_none() && !parked && !ended {
                self.broken("I2", &format!("commit skipped {record}, which has no outcome"));
            }
            if open.is_some_and(|e| e.owner != new.owner) {
                self.carried.insert((new.owner, shard, offset));
            }
            // N3: ours by its token, though nobody here remembers it.
            if open.is_some_and(|e| e.owner == new.owner) && was_open {
                self.carried.insert((new.owner, shard, offset));
            }
        }
    }

    /// Rule D1, read off the whole log.
    fn is_duplicate(&self, shard: i32, offset: i64) -> bool {
        let all = &self.shards[usize::try_from(shard).expect("a partition")];
        let at = usize::try_from(offset).expect("an offset of the log");
        let near = |q: &Seen| q.id == all[at].id && all[at].log_time_ms - q.log_time_ms <= SPAN;
        all[at].id.is_some() && all[..at].iter().any(near)
    }

    /// A function sees the first byte of a call.
    pub fn invoked(&mut self, shard: i32, offset: i64, by: Token) {
        self.calls += 1;
        let record = Name(shard, offset);
        let seen = self.at(shard, offset);
        seen.invoked += 1;
        let (twice, claimed) = (seen.invoked > 1, seen.claimed_by == Some(by));
        if twice {
            self.broken("I1", &format!("record {record} invoked twice"));
        }
        if self.foreign {
            return;
        }
        if !claimed {
            self.broken("K0", &format!("{record} invoked without an accepted claim"));
        }
        let all = &self.shards[usize::try_from(shard).expect("a partition")];
        let at = usize::try_from(offset).expect("an offset of the log");
        let (lane, id, time) = (all[at].lane, all[at].id, all[at].log_time_ms);
        let later = lane.is_some() && all[at + 1..].iter().any(|s| s.lane == lane && s.invoked > 0);
        let mut others = all.iter().enumerate().filter(|(i, s)| *i != at && s.invoked > 0 && s.id == id);
        let twin = id.is_some() && others.any(|(_, s)| (s.log_time_ms - time).abs() <= SPAN);
        if later {
            self.broken("order", &format!("{record} invoked after a later record of its key"));
        }
        if twin && !self.truncated {
            self.broken("I1b", &format!("business id of {record} invoked twice inside the window"));
        }
    }

    /// A process's own outcome is durable.
    pub fn ended(&mut self, shard: i32, offset: i64, outcome: Outcome) {
        let record = Name(shard, offset);
        let seen = self.at(shard, offset);
        seen.outcomes.push(outcome);
        let (count, invoked) = (seen.outcomes.len(), seen.invoked);
        let duplicate = seen.outcomes.contains(&Outcome::Duplicate);
        // N6: what ended without a call may be written again by every owner that comes to pass over it.
        // Retention may shorten the window between a refused commit and the next: then a duplicate becomes an event.
        let passed = duplicate && self.truncated;
        let again = matches!(outcome, Outcome::Missed | Outcome::Duplicate) || passed;
        if count > 1 && !again && !self.foreign {
            self.broken("I3", &format!("{record} has {count} own outcomes"));
        }
        if outcome == Outcome::Duplicate && !self.is_duplicate(shard, offset) {
            self.broken("D1", &format!("{record} is no duplicate and was ended as one"));
        }
        if invoked > 0 && !passed && !matches!(outcome, Outcome::Delivered | Outcome::Unanswered) {
            self.broken("I3", &format!("{record} was invoked and ended as {}", outcome.as_str()));
        }
        if outcome == Outcome::Delivered && invoked == 0 {
            self.broken("I3", &format!("{record} was never invoked and ended as delivered"));
        }
    }

    /// A report of an entry of somebody else is durable. `stale`: the reporter has lost the partition meanwhile (N6).
    pub fn named(
        &mut self,
        shard: i32,
        offset: i64,
        outcome: Outcome,
        by: Token,
        stale: bool,
        runs_here: bool,
    ) {
        self.names += 1;
        let record = Name(shard, offset);
        let carried = self.carried.contains(&(by, shard, offset));
        let seen = self.at(shard, offset);
        seen.named = true;
        let (done, invoked) = (seen.done, seen.invoked > 0);
        if runs_here {
            self.broken("I6p", &format!("a process names its own call {record}"));
        }
        if done && !stale {
            self.broken("I6p", &format!("{record} named although its done flag was acknowledged"));
        }
        if !carried {
            self.broken("N2", &format!("{record} named before an accepted commit carried it"));
        }
        if outcome == Outcome::Unreachable && invoked {
            self.broken("N3", &format!("{record} reported as never sent although it was"));
        }
        if !self.faulty {
            self.broken("I9", &format!("{record} in doubt in a run without faults"));
        }
    }

    /// After everything came to rest with the register at `end`.
    pub fn rest(&mut self, shard: i32, register: Option<(i64, Register)>) {
        let (end, register) = register.unwrap_or((0, Register::empty()));
        let count = self.shards[usize::try_from(shard).expect("a partition")].len();
        let whole = end == i64::try_from(count).expect("small");
        if !whole || !register.parked.is_empty() {
            self.broken("I8", &format!("records of partition {shard} were never claimed: {end} of {count}"));
        }
        if let Some(entry) = register.open.first() {
            self.broken("I8", &format!("{shard}/{} stays open", entry.offset));
        }
        for offset in 0..end {
            let seen = self.at(shard, offset);
            if seen.outcomes.is_empty() && !seen.named {
                self.broken("I2", &format!("{shard}/{offset} has neither outcome nor name"));
            }
        }
    }
}
