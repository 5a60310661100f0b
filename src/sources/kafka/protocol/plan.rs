//! What a commit says: per shard an offset and the register text, and what will be done once it is accepted.
//! Must never change a shard: a refused plan leaves no trace.

use super::{Judge, Mutations, Record, shard::Shard};
use crate::{
    dispatch::{Judgement, Reason},
    event::{Lane, hasher::Plain},
    ledger::Outcome,
    sources::kafka::register::{self, Register, Token},
};
use std::collections::HashMap;

/// What a commit that adds no entry may use: Kafka's own default bound. A take-over is longer than what it takes over
/// (owner table and indexes), and a register that cannot be rewritten would never get shorter (N7, I8).
const REWRITE_CHARS: usize = 2 * register::DEFAULT_MAX_CHARS;

/// Bounds of a register (N7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open + inherited + parked entries per shard. Default 256.
    pub entries: usize,
    /// Characters of metadata. Default 2048; Kafka's own bound is 4096.
    pub metadata_chars: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 256, metadata_chars: 2048 }
    }
}

/// What planning needs from the consumer.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Own token.
    pub token: Token,
    /// Sequence number of this commit.
    pub seq: u64,
    /// Bounds.
    pub limits: Limits,
    /// Seeded bugs.
    pub mutations: Mutations,
}

/// What happens to a record once the commit is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Claimed: starts in the chain with this number.
    Start(usize),
    /// Below the offset and not claimed (L1).
    Park,
    /// Ends without a call.
    Pass(Outcome, Reason),
}

/// The part of a commit that concerns one shard.
#[derive(Debug)]
pub struct Part {
    /// Partition number.
    pub shard: i32,
    /// Epoch the plan was made in (K4).
    pub epoch: u64,
    /// Offset to commit: everything below it is claimed, parked or passed.
    pub offset: i64,
    /// Register text.
    pub metadata: String,
    /// Actions for the first records at or above the old position, in order.
    pub actions: Vec<Action>,
    /// Parked records that leave their place.
    pub unpark: Vec<(i64, Action)>,
    /// Chains to start: offsets of one lane, to be run one after another.
    pub chains: usize,
    /// Records that would be claimed.
    pub claims: usize,
}

/// One commit over all shards: group commit.
#[derive(Debug)]
pub struct Proposal {
    /// Sequence number, in every part's register.
    pub seq: u64,
    /// Parts, one per shard.
    pub parts: Vec<Part>,
}

impl Proposal {
    pub(super) fn new(seq: u64) -> Self {
        Self { seq, parts: Vec::new() }
    }

    /// Records claimed by this proposal.
    pub fn claims(&self) -> usize {
        self.parts.iter().map(|p| p.claims).sum()
    }
}

/// Chains by lane while a plan is made: the number and length of the chain, or `None`: the lane is blocked.
type PlannedLanes = HashMap<Lane, Option<(usize, usize)>, Plain>;

struct Draft {
    actions: Vec<Action>,
    unpark: Vec<(i64, Action)>,
    lanes: PlannedLanes,
    chains: usize,
    claims: usize,
    parks: usize,
}

impl<R: Record> Shard<R> {
    /// Plans this shard's part of a claim commit, or `None` if it has nothing to claim, park or pass.
    pub(super) fn plan<J: Judge<R>>(
        &mut self,
        number: i32,
        budget: usize,
        depth: usize,
        ctx: Context,
        judge: &mut J,
    ) -> Option<Part> {
        if self.is_replaying() {
            return None;
        }
        self.wake_parked();
        let mut room = ctx.limits.entries.saturating_sub(self.entries());
        let mut budget = budget;
        loop {
            let draft = self.draft(number, budget, room, depth.max(1), judge);
            if draft.actions.is_empty() && draft.unpark.is_empty() {
                return None;
            }
            let offset = self.offset_after(draft.actions.len());
            match self.encode(offset, &draft, ctx) {
                Ok(metadata) => {
                    return Some(Part {
                        shard: number,
                        epoch: self.epoch(),
                        offset,
                        metadata,
                        actions: draft.actions,
                        unpark: draft.unpark,
                        chains: draft.chains,
                        claims: draft.claims,
                    });
                }
                // N7: too long => claim fewer; not even one fits => only parked records move, or the shard waits.
                // Never truncate the set. The budget stays above zero: parked records in front of the one claim
                // that it allows need room, not budget.
                Err(_) if room == 0 => return None,
                Err(_) => (budget, room) = (budget.div_ceil(2), room / 2),
            }
        }
    }

    fn draft<J: Judge<R>>(
        &self,
        number: i32,
        budget: usize,
        room: usize,
        depth: usize,
        judge: &mut J,
    ) -> Draft {
        let mut draft = Draft {
            actions: Vec::new(),
            unpark: Vec::new(),
            lanes: PlannedLanes::default(),
            chains: 0,
            claims: 0,
            parks: 0,
        };
        self.draft_unpark(budget, depth, &mut draft);
        for (offset, log_time, record) in self.unclaimed() {
            if draft.claims >= budget || draft.claims + draft.parks >= room {
                break;
            }
            // D1: judged at first sight, in log order, so that the verdict is a function of the log; a parked record
            // is not judged again when its turn comes.
            match judge.judge(number, offset, log_time, record) {
                Judgement::Wait => break,
                Judgement::Pass(outcome, reason) => draft.actions.push(Action::Pass(outcome, reason)),
                Judgement::Start => match record.lane() {
                    Some(lane) if !self.may_chain(lane, depth, &draft) => {
                        draft.lanes.insert(lane, None);
                        draft.parks += 1;
                        draft.actions.push(Action::Park);
                    }
                    lane => {
                        let chain = draft.chain_for(lane);
                        draft.actions.push(Action::Start(chain));
                    }
                },
            }
        }
        draft
    }

    fn may_chain(&self, lane: Lane, depth: usize, draft: &Draft) -> bool {
        match draft.lanes.get(&lane) {
            Some(Some((_, length))) => *length < depth,
            Some(None) => false,
            None => self.lanes().is_free(lane),
        }
    }

    fn draft_unpark(&self, budget: usize, depth: usize, draft: &mut Draft) {
        for (lane, parked) in self.lanes().ready() {
            let mut waiting = parked.len();
            for offset in parked {
                if draft.claims >= budget
                    || draft.lane_length(lane) >= depth
                    || self.parked_record(*offset).is_none()
                {
                    break;
                }
                let chain = draft.chain_for(Some(lane));
                waiting -= 1;
                draft.unpark.push((*offset, Action::Start(chain)));
            }
            if waiting > 0 {
                draft.lanes.insert(lane, None);
            }
        }
    }

    fn encode(&self, offset: i64, draft: &Draft, ctx: Context) -> Result<String, register::EncodeError> {
        let mut open = self.listed(ctx);
        let mut parked: Vec<i64> = self.parked_offsets().collect();
        parked.retain(|o| !draft.unpark.iter().any(|(u, _)| u == o));
        for (at, action) in &draft.unpark {
            if matches!(action, Action::Start(_)) {
                open.push(register::OpenEntry { offset: *at, owner: ctx.token });
            }
        }
        for ((at, _, _), action) in self.unclaimed().zip(&draft.actions) {
            match action {
                Action::Start(_) => open.push(register::OpenEntry { offset: at, owner: ctx.token }),
                Action::Park => parked.push(at),
                Action::Pass(..) => {}
            }
        }
        let most = if draft.actions.is_empty() { rewrite_bound(ctx) } else { ctx.limits.metadata_chars };
        self.write(offset, self.log_time_after(draft.actions.len()), open, parked, ctx, most)
    }

    fn write(
        &self,
        offset: i64,
        log_time_ms: i64,
        mut open: Vec<register::OpenEntry>,
        parked: Vec<i64>,
        ctx: Context,
        most: usize,
    ) -> Result<String, register::EncodeError> {
        open.sort_unstable_by_key(|e| e.offset);
        let register = Register { owner: ctx.token, seq: ctx.seq, log_time_ms, open, parked };
        register::encode(&register, offset, most)
    }

    /// A commit at the same offset: take-over (N2) or flush (N1). Never removes a parked entry (L1).
    pub(super) fn plan_flush(&self, number: i32, ctx: Context) -> Option<Part> {
        let parked = if ctx.mutations.flush_unparks { Vec::new() } else { self.parked_offsets().collect() };
        let offset = self.offset_after(0);
        let (log_time, most) = (self.log_time_after(0), rewrite_bound(ctx));
        let metadata = self.write(offset, log_time, self.listed(ctx), parked, ctx, most).ok()?;
        Some(Part {
            shard: number,
            epoch: self.epoch(),
            offset,
            metadata,
            actions: Vec::new(),
            unpark: Vec::new(),
            chains: 0,
            claims: 0,
        })
    }
}

fn rewrite_bound(ctx: Context) -> usize {
    ctx.limits.metadata_chars.max(REWRITE_CHARS)
}

impl Draft {
    fn lane_length(&self, lane: Lane) -> usize {
        self.lanes.get(&lane).and_then(|c| c.map(|(_, n)| n)).unwrap_or(0)
    }

    fn chain_for(&mut self, lane: Option<Lane>) -> usize {
        self.claims += 1;
        if let Some(lane) = lane {
            if let Some(Some((chain, length))) = self.lanes.get_mut(&lane) {
                *length += 1;
                return *chain;
            }
            self.lanes.insert(lane, Some((self.chains, 1)));
        }
        self.chains += 1;
        self.chains - 1
    }
}
