//! One partition as this process sees it: position, fetched, parked, open and inherited entries. Must never forget
//! an open entry before its outcome is recorded (N1), nor list one again that another owner has closed (N3).

use super::{
    Record,
    plan::{Action, Context, Part},
};
use crate::{
    dispatch::{Reason, StartLease, lanes::Lanes},
    event::Lane,
    ledger::Outcome,
    sources::kafka::register::{OpenEntry, Token},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// A record as polled.
#[derive(Debug)]
pub struct Polled<R> {
    /// Offset.
    pub offset: i64,
    /// Record timestamp in ms, -1 where it has none.
    pub time_ms: i64,
    /// What will be judged and started.
    pub record: R,
}

/// What became of a polled record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// New: it waits for its turn.
    Waiting,
    /// A parked one was read back: its id belongs in the window, too.
    ParkedAgain {
        /// Log time of the record.
        log_time_ms: i64,
    },
    /// Read back below the position: claimed by somebody before, so its id belongs in the window at this log time.
    Claimed {
        /// Log time of the record.
        log_time_ms: i64,
        /// It is open in the register and will be named: the original record is at hand now.
        in_doubt: bool,
    },
    /// Not ours, seen before, or of an earlier epoch.
    Dropped,
}

#[derive(Debug)]
struct Waiting<R> {
    offset: i64,
    log_time_ms: i64,
    record: R,
}

/// State of a claim of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// Queued or running. `listed`: in the register; false once another owner closed it (N3).
    Running { lane: Option<Lane>, listed: bool },
    /// The outcome is recorded; the entry leaves the register with the next accepted commit (N1).
    Settled,
}

/// An open entry taken over with the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inherited {
    owner: Token,
    reported: bool,
}

/// A parked entry: its record may still have to be read back after a takeover.
#[derive(Debug)]
enum Parked<R> {
    Unread,
    Read { log_time_ms: i64, record: R },
}

/// A record that may start, in its chain.
#[derive(Debug)]
pub struct Start<R> {
    /// Chain number inside the part.
    pub chain: usize,
    /// Offset.
    pub offset: i64,
    /// Log time, for the deduplication window (D2: entered now that the claim is granted).
    pub log_time_ms: i64,
    /// The record.
    pub record: R,
}

/// What an accepted commit lets happen.
#[derive(Debug)]
pub struct Granted<R> {
    /// To start, grouped by chain in order.
    pub starts: Vec<Start<R>>,
    /// Below the offset and not claimed: its id counts from now on (D1).
    pub parked: Vec<i64>,
    /// Log time at the new offset.
    pub log_time_ms: i64,
    /// Ended without a call, with the log time.
    pub passed: Vec<(i64, i64, Outcome, Reason, R)>,
}

/// An entry that a successor may name now (N2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reportable {
    /// Offset.
    pub offset: i64,
    /// Who claimed it.
    pub owner: Token,
    /// `in_doubt`, or `unreachable` for a claim of our own whose answer was lost (N3).
    pub outcome: Outcome,
}

/// One partition.
#[derive(Debug)]
pub struct Shard<R> {
    owned: bool,
    was_owned: bool,
    epoch: u64,
    position: i64,
    high_water: i64,
    next_fetch: i64,
    log_time_ms: i64,
    position_log_time_ms: i64,
    waiting: VecDeque<Waiting<R>>,
    parked: BTreeMap<i64, Parked<R>>,
    open: BTreeMap<i64, Open>,
    inherited: BTreeMap<i64, Inherited>,
    lanes: Lanes,
    confirmed: bool,
    dirty: bool,
    wake: bool,
    lease: Arc<StartLease>,
}

impl<R> Default for Shard<R> {
    fn default() -> Self {
        Self {
            owned: false,
            was_owned: false,
            epoch: 0,
            position: 0,
            high_water: 0,
            next_fetch: 0,
            log_time_ms: -1,
            position_log_time_ms: -1,
            waiting: VecDeque::new(),
            parked: BTreeMap::new(),
            open: BTreeMap::new(),
            inherited: BTreeMap::new(),
            lanes: Lanes::default(),
            confirmed: false,
            dirty: false,
            wake: false,
            lease: Arc::new(StartLease::new(0)),
        }
    }
}

mod access;
mod assign;

impl<R: Record> Shard<R> {
    /// Takes a polled record: new ones wait, those below the position serve the rebuild.
    pub(super) fn fetched(&mut self, polled: Polled<R>) -> Taken {
        if polled.offset < self.next_fetch {
            return Taken::Dropped;
        }
        self.next_fetch = polled.offset + 1;
        // D1: log time is the record time made monotone; a record without time keeps the one before.
        self.log_time_ms = self.log_time_ms.max(polled.time_ms);
        if polled.offset >= self.position {
            // What was read back may have begun after the record that set the clock.
            self.log_time_ms = self.log_time_ms.max(self.position_log_time_ms);
            self.waiting.push_back(Waiting {
                offset: polled.offset,
                log_time_ms: self.log_time_ms,
                record: polled.record,
            });
            return Taken::Waiting;
        }
        if let Some(slot) = self.parked.get_mut(&polled.offset) {
            if let Some(lane) = polled.record.lane() {
                self.lanes.park(lane, polled.offset);
            }
            self.wake = true;
            *slot = Parked::Read { log_time_ms: self.log_time_ms, record: polled.record };
            return Taken::ParkedAgain { log_time_ms: self.log_time_ms };
        }
        Taken::Claimed {
            log_time_ms: self.log_time_ms,
            in_doubt: self.inherited.get(&polled.offset).is_some_and(|e| !e.reported),
        }
    }

    /// Parked records that were read back become startable once the reading back is over.
    pub(super) fn wake_parked(&mut self) {
        if std::mem::take(&mut self.wake) {
            self.lanes.wake_idle();
        }
    }

    /// Applies an accepted commit. Only called in the part's own epoch.
    pub(super) fn granted(&mut self, part: Part) -> Granted<R> {
        let mut granted = Granted {
            starts: Vec::with_capacity(part.claims),
            parked: Vec::new(),
            log_time_ms: 0,
            passed: Vec::new(),
        };
        // N1: what was settled or reported when the commit was built is no longer in the register.
        self.open.retain(|_, o| !matches!(o, Open::Settled));
        self.inherited.retain(|_, e| !e.reported);
        for (offset, action) in part.unpark {
            let Some(Parked::Read { log_time_ms, record }) = self.parked.remove(&offset) else { continue };
            if let Some(lane) = record.lane() {
                self.lanes.unpark(lane, offset);
            }
            self.apply(action, Waiting { offset, log_time_ms, record }, &mut granted);
        }
        for action in part.actions {
            let Some(record) = self.waiting.pop_front() else { break };
            self.position_log_time_ms = record.log_time_ms;
            self.apply(action, record, &mut granted);
        }
        granted.starts.sort_by_key(|s| s.chain);
        self.position = self.position.max(part.offset);
        self.high_water = self.high_water.max(self.position);
        self.confirmed = true;
        self.dirty = false;
        granted.log_time_ms = self.position_log_time_ms;
        granted
    }

    fn apply(&mut self, action: Action, record: Waiting<R>, granted: &mut Granted<R>) {
        let Waiting { offset, log_time_ms, record } = record;
        let lane = record.lane();
        match action {
            Action::Start(chain) => {
                if let Some(lane) = lane {
                    self.lanes.run(lane);
                }
                self.open.insert(offset, Open::Running { lane, listed: true });
                granted.starts.push(Start { chain, offset, log_time_ms, record });
            }
            Action::Park => {
                if let Some(lane) = lane {
                    self.lanes.park(lane, offset);
                }
                granted.parked.push(offset);
                self.parked.insert(offset, Parked::Read { log_time_ms, record });
            }
            Action::Pass(outcome, reason) => {
                granted.passed.push((offset, log_time_ms, outcome, reason, record));
            }
        }
    }

    /// The outcome of a call of this process is recorded durably. False: the call is not known (cancelled before).
    pub fn settled(&mut self, offset: i64) -> bool {
        let Some(Open::Running { lane, listed }) = self.open.get(&offset).copied() else { return false };
        if let Some(lane) = lane
            && self.owned
        {
            self.lanes.finished(lane);
        }
        if listed {
            self.open.insert(offset, Open::Settled);
            self.dirty = true;
        } else {
            self.open.remove(&offset);
        }
        true
    }

    /// An inherited entry was reported durably: it leaves the register with the next accepted commit.
    pub fn reported(&mut self, offset: i64) {
        if let Some(e) = self.inherited.get_mut(&offset) {
            e.reported = true;
            self.dirty = true;
        }
    }

    /// Entries that may be reported: only once a commit of this epoch, carrying them, was accepted (N2).
    pub fn reportable(&self, own: Token, early: bool) -> Vec<Reportable> {
        if !self.owned || !(self.confirmed || early) {
            return Vec::new();
        }
        let open = self.inherited.iter().filter(|(_, e)| !e.reported);
        open.map(|(offset, e)| Reportable {
            offset: *offset,
            owner: e.owner,
            // N3: ours and unknown to our memory: the claim with the lost answer took effect, never sent.
            outcome: if e.owner == own { Outcome::Unreachable } else { Outcome::InDoubt },
        })
        .collect()
    }

    /// What a register written now lists as open.
    pub(super) fn listed(&self, ctx: Context) -> Vec<OpenEntry> {
        let mut listed = Vec::with_capacity(self.open.len() + self.inherited.len());
        for (offset, open) in &self.open {
            let list = match open {
                Open::Running { listed, .. } => {
                    (*listed || ctx.mutations.reopen) && !ctx.mutations.early_close
                }
                Open::Settled => false,
            };
            if list && *offset < self.position {
                listed.push(OpenEntry { offset: *offset, owner: ctx.token });
            }
        }
        if !ctx.mutations.no_carry {
            let carried = self.inherited.iter().filter(|(o, e)| !e.reported && !self.open.contains_key(o));
            listed.extend(carried.map(|(o, e)| OpenEntry { offset: *o, owner: e.owner }));
        }
        listed
    }
}
