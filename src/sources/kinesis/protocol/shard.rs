//! One shard in the hands of this process: what is read and waits, what is parked, what is open, its last accepted row.
//! Must never close an entry whose outcome is not recorded, nor forget one of a predecessor that is not named (N1).

use super::{Mutations, Record};
use crate::{
    dispatch::lanes::Lanes,
    event::Lane,
    sources::kinesis::{
        place::Place,
        register::{Row, Token},
    },
};
use std::collections::{BTreeMap, HashMap};

/// A record that was read.
#[derive(Clone, Debug)]
pub struct Read<R> {
    /// Its number in the order of reading, local to this thread.
    pub number: i64,
    /// When it arrived (Unix ms), -1 if unknown.
    pub ms: i64,
    /// The same made monotone.
    pub log_ms: i64,
    /// The record.
    pub record: R,
}

/// What became of a record that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It waits to be claimed.
    Waiting,
    /// It stands at or before the checkpoint: the window learns its id, and it is kept if it is parked or to be named.
    Back {
        /// Whether it is kept.
        kept: bool,
    },
    /// It was read before.
    Dropped,
}

/// What this thread knows of a call it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mine {
    /// It runs or waits for a permit, in this lane.
    Runs(Option<Lane>),
    /// Its outcome is recorded.
    Ended,
}

/// Calls that this thread started in one shard, remembered when the shard is lost.
pub type Memory = BTreeMap<Place, Mine>;

#[derive(Clone, Debug)]
pub(super) enum State<R> {
    Mine(Mine),
    /// Left open by the owner `by`: to be named.
    Inherited {
        by: Token,
        read: Option<Read<R>>,
        named: bool,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Open<R> {
    pub(super) ms: i64,
    pub(super) by: Token,
    pub(super) state: State<R>,
}

#[derive(Clone, Debug)]
pub(super) struct Parked<R> {
    pub(super) ms: i64,
    pub(super) by: Token,
    pub(super) read: Option<Read<R>>,
    /// Named as `missed`: the service does not hold it any more.
    pub(super) gone: bool,
}

/// An entry whose owner left it without an outcome, or a parked record that is no more.
#[derive(Clone, Debug)]
pub struct Inherited<R> {
    /// Where.
    pub at: Place,
    /// When it arrived (Unix ms), -1 if unknown.
    pub ms: i64,
    /// Who claimed or parked it.
    pub by: Token,
    /// The record, if it was read back.
    pub read: Option<Read<R>>,
    /// Whether it was parked, that is never claimed.
    pub parked: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Shard<R> {
    pub(super) token: Token,
    pub(super) row: Row,
    pub(super) waiting: BTreeMap<Place, Read<R>>,
    pub(super) parked: BTreeMap<Place, Parked<R>>,
    pub(super) numbers: HashMap<i64, Place>,
    pub(super) open: BTreeMap<Place, Open<R>>,
    pub(super) lanes: Lanes,
    read_to: Option<Place>,
    /// Everything at or before the checkpoint has been read back, as far as it is still there.
    is_back: bool,
    is_complete: bool,
    confirmed: bool,
    pub(super) tip_ms: Option<i64>,
    pub(super) mutations: Mutations,
}

impl<R: Record> Shard<R> {
    /// The shard that `row` tells of, about to be taken over by `token`; `memory` is what that token's thread knows of it.
    pub fn of(token: Token, row: Row, memory: &Memory, mutations: Mutations) -> Self {
        let mut lanes = Lanes::default();
        let open = row.open.iter().filter(|_| !mutations.no_carry).map(|entry| {
            let inherited = State::Inherited { by: entry.by, read: None, named: false };
            // N3: own entries are never a predecessor's; one that the memory does not know was never sent.
            let known = memory.get(&entry.at).filter(|_| entry.by == token && !mutations.name_own);
            if let Some(Mine::Runs(Some(lane))) = known {
                lanes.run(*lane);
            }
            let state = known.map_or(inherited, |mine| State::Mine(*mine));
            (entry.at.clone(), Open { ms: entry.ms, by: entry.by, state })
        });
        let open = open.collect();
        let parked = row.parked.iter();
        let parked =
            parked.map(|e| (e.at.clone(), Parked { ms: e.ms, by: e.by, read: None, gone: false })).collect();
        Self {
            token,
            is_back: row.checkpoint.is_none(),
            row,
            waiting: BTreeMap::new(),
            parked,
            numbers: HashMap::new(),
            open,
            lanes,
            read_to: None,
            is_complete: false,
            confirmed: false,
            tip_ms: None,
            mutations,
        }
    }

    /// The last accepted row; before the take-over is accepted, the one that was read.
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// The own write of `row` was accepted.
    pub fn accepted(&mut self, row: Row) {
        self.row = row;
        self.confirmed = true;
    }

    /// Whether an own write was accepted: nothing is claimed or named before (N2).
    pub fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// A record was read, in log order.
    pub fn read(&mut self, at: Place, read: Read<R>) -> Taken {
        if self.read_to.as_ref().is_some_and(|last| *last >= at) {
            return Taken::Dropped;
        }
        self.read_to = Some(at.clone());
        self.tip_ms = None;
        if self.row.checkpoint.as_ref().is_none_or(|checkpoint| at > *checkpoint) {
            self.read_back_ended();
            self.waiting.insert(at, read);
            return Taken::Waiting;
        }
        if let Some(parked) = self.parked.get_mut(&at) {
            self.numbers.insert(read.number, at);
            if let Some(lane) = read.record.lane() {
                self.lanes.park(lane, read.number);
            }
            parked.read = Some(read);
            return Taken::Back { kept: true };
        }
        if let Some(Open { state: State::Inherited { read: kept, named: false, .. }, .. }) =
            self.open.get_mut(&at)
        {
            *kept = Some(read);
            return Taken::Back { kept: true };
        }
        Taken::Back { kept: false }
    }

    /// Nothing more is there to be read now; `unix_ms` is when the service was asked.
    pub fn at_tip(&mut self, unix_ms: i64) {
        self.read_back_ended();
        self.tip_ms = Some(unix_ms);
    }

    /// The shard was split or merged, and its last record has been read.
    pub fn complete(&mut self) {
        self.read_back_ended();
        self.is_complete = true;
    }

    fn read_back_ended(&mut self) {
        if !self.is_back {
            self.is_back = true;
            self.lanes.wake_idle();
        }
    }

    /// Whether everything at or before the checkpoint was read back: records beyond it may be claimed.
    pub fn is_back(&self) -> bool {
        self.is_back
    }

    /// The last record that was read.
    pub fn read_to(&self) -> Option<&Place> {
        self.read_to.as_ref()
    }

    /// The earliest record that must be read back: parked or to be named, and when it arrived.
    pub fn needed(&self) -> Option<(&Place, i64)> {
        let open = self.open.iter().filter(|(_, o)| matches!(o.state, State::Inherited { named: false, .. }));
        let open = open.map(|(at, o)| (at, o.ms)).next();
        let parked = self.parked.iter().map(|(at, p)| (at, p.ms)).next();
        open.into_iter().chain(parked).min_by(|a, b| a.0.cmp(b.0))
    }

    /// A call ended and its outcome is recorded.
    pub fn settled(&mut self, at: &Place) {
        if let Some(open) = self.open.get_mut(at)
            && let State::Mine(mine @ Mine::Runs(_)) = &mut open.state
        {
            if let Mine::Runs(Some(lane)) = *mine {
                self.lanes.finished(lane);
            }
            *mine = Mine::Ended;
        }
    }

    /// What may be named now (N2): read back, surely gone, or, if `impatient`, whatever is left.
    pub fn nameable(&self, impatient: bool) -> Vec<Inherited<R>> {
        if !self.confirmed && !self.mutations.name_early {
            return Vec::new();
        }
        let passed = |at: &Place| self.is_back || self.read_to.as_ref().is_some_and(|last| last >= at);
        let open = self.open.iter().filter_map(|(at, open)| match &open.state {
            State::Inherited { by, read, named: false } if read.is_some() || passed(at) || impatient => {
                let (at, by, read) = (at.clone(), *by, read.clone());
                Some(Inherited { at, ms: open.ms, by, read, parked: false })
            }
            _ => None,
        });
        // A parked record is given up only when the log has provably gone past it.
        let gone = self.parked.iter().filter(|(at, p)| p.read.is_none() && !p.gone && passed(at));
        let gone =
            gone.map(|(at, p)| Inherited { at: at.clone(), ms: p.ms, by: p.by, read: None, parked: true });
        open.chain(gone).collect()
    }

    /// What [`Shard::nameable`] gave is in the journal.
    pub fn named(&mut self, at: &Place) {
        if let Some(Open { state: State::Inherited { named, .. }, .. }) = self.open.get_mut(at) {
            *named = true;
        } else if let Some(parked) = self.parked.get_mut(at) {
            parked.gone = true;
        }
    }

    /// Whether an entry could leave the row.
    pub fn has_closed(&self) -> bool {
        self.leaving().next().is_some() || self.parked.values().any(|p| p.gone)
    }

    /// Entries that the next row leaves out.
    pub(super) fn leaving(&self) -> impl Iterator<Item = &Place> {
        let early = self.mutations.early_close;
        let leaves = move |state: &State<R>| match state {
            State::Mine(Mine::Ended) => true,
            State::Mine(Mine::Runs(_)) => early,
            State::Inherited { named, .. } => *named,
        };
        self.open.iter().filter(move |(_, open)| leaves(&open.state)).map(|(at, _)| at)
    }

    /// Whether everything in it has been read and has ended.
    pub fn is_finished(&self) -> bool {
        self.is_complete && self.waiting.is_empty() && self.parked.is_empty() && self.open.is_empty()
    }

    /// Records that wait unclaimed.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A record that waits.
    pub fn waiting_at(&self, at: &Place) -> Option<&R> {
        self.waiting.get(at).map(|read| &read.record)
    }

    /// Own calls that have not ended.
    pub fn running(&self) -> usize {
        self.open.values().filter(|o| matches!(o.state, State::Mine(Mine::Runs(_)))).count()
    }

    /// Open and parked entries.
    pub fn entries(&self) -> usize {
        self.open.len() + self.parked.len()
    }

    /// Records that are held and would be forgotten with the shard, and what its thread must remember of its calls.
    pub fn dissolve(self) -> (Vec<R>, Memory) {
        let mine = |(at, open): (Place, Open<R>)| match open.state {
            State::Mine(mine) => Ok((at, mine)),
            State::Inherited { read, .. } => Err(read),
        };
        let (memory, inherited): (Vec<_>, Vec<_>) = self.open.into_iter().map(mine).partition(Result::is_ok);
        let reads = inherited.into_iter().filter_map(Result::err).flatten();
        let parked = self.parked.into_values().filter_map(|p| p.read);
        let held = self.waiting.into_values().chain(parked).chain(reads).map(|read| read.record).collect();
        (held, memory.into_iter().flatten().collect())
    }
}
