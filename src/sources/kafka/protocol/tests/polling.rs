//! From a poll to a plan and from a grant to running calls, as `consumer`, `engine` and `claiming` do it. Must never start
//! anything.

use super::{
    member::{Bug, Call, FromPoll, Member},
    world::{Item, World},
};
use crate::{
    dispatch::{Judgement, Judging},
    event::Event,
    sources::kafka::protocol::{
        Judge,
        plan::{Action, Proposal},
        shard::{Granted, Polled, Taken},
    },
};
use std::{collections::VecDeque, sync::Arc};

struct Adapter<'a>(Judging<'a>);

impl Judge<Item> for Adapter<'_> {
    fn judge(&mut self, shard: i32, offset: i64, log_time_ms: i64, item: &Item) -> Judgement {
        self.0.judge(shard, offset, log_time_ms, &item.0)
    }
}

impl Member {
    /// `PollingThread::poll`: what the client hands over now, each with the epoch it was polled in (K4).
    pub fn poll(&mut self, world: &World, most: usize) -> bool {
        let epoch = self.protocol.epoch();
        for shard in self.lib.assigned.clone() {
            let log = world.log(shard);
            let from = self.lib.fetch.get(&shard).copied().unwrap_or(0);
            if from < log.start {
                return false;
            }
            let to = (from + i64::try_from(most).unwrap_or(0)).min(log.end).max(from);
            self.polled.extend((from..to).map(|o| FromPoll::Record(epoch, shard, o)));
            self.lib.fetch.insert(shard, to);
            if to < log.end {
                self.lib.at_end.remove(&shard);
            } else if self.lib.at_end.insert(shard) {
                if self.bug == Bug::EndOfPartitionFirst {
                    self.protocol.read_to_end(shard, epoch);
                }
                self.polled.push(FromPoll::End(epoch, shard));
            }
        }
        true
    }

    /// `Engine::take` for everything the polls returned.
    pub fn take(&mut self, world: &World) {
        for polled in std::mem::take(&mut self.polled) {
            match polled {
                FromPoll::End(epoch, shard) => self.protocol.read_to_end(shard, epoch),
                FromPoll::Record(epoch, shard, offset) => {
                    let event = Arc::clone(world.log(shard).at(offset));
                    let (time_ms, id) = (event.position.time_ms, event.business);
                    let record = Polled { offset, time_ms, record: Item(event) };
                    let taken = self.protocol.fetched(shard, epoch, record);
                    if let Taken::ParkedAgain { log_time_ms } | Taken::Claimed { log_time_ms, .. } = taken
                        && let Some(id) = id
                    {
                        self.window.shard(shard).enter(id, offset, log_time_ms);
                    }
                }
            }
        }
    }

    /// `Engine::claim`, up to the commit.
    pub fn plan_claim(&mut self, world: &World) -> Option<Proposal> {
        if self.stopping {
            return None;
        }
        let budget = self.shape.window.saturating_sub(self.protocol.running());
        if budget == 0 {
            return None;
        }
        let now_ms = i64::try_from(world.now).unwrap_or(0);
        let mut judge = Adapter(Judging::new(Arc::clone(&self.settings), &self.window, now_ms));
        let proposal = self.protocol.plan(budget, self.shape.depth, &mut judge)?;
        if self.bug == Bug::EnterBeforeGrant {
            for part in &proposal.parts {
                let Some(shard) = self.protocol.shard(part.shard) else { continue };
                for ((offset, time, item), _) in shard.unclaimed().zip(&part.actions) {
                    if let Some(id) = item.0.business {
                        self.window.shard(part.shard).enter(id, offset, time);
                    }
                }
            }
        }
        Some(proposal)
    }

    /// `Engine::pending`: the calls that an accepted commit lets start, chain by chain.
    pub fn pending(&self, proposal: &Proposal) -> Vec<VecDeque<Call>> {
        let mut chains: Vec<VecDeque<Call>> = Vec::new();
        for part in &proposal.parts {
            let Some(shard) = self.protocol.shard(part.shard) else { continue };
            let first = chains.len();
            chains.resize_with(first + part.chains, VecDeque::new);
            let mut add = |chain: usize, event: &Event| {
                let (offset, lease) = (event.position.sequence, Arc::clone(shard.lease()));
                chains[first + chain].push_back(Call { shard: part.shard, offset, lease, begun: false });
            };
            for (offset, action) in &part.unpark {
                if let (Action::Start(chain), Some((_, item))) = (action, shard.parked_record(*offset)) {
                    add(*chain, &item.0);
                }
            }
            for ((_, _, item), action) in shard.unclaimed().zip(&part.actions) {
                if let Action::Start(chain) = action {
                    add(*chain, &item.0);
                }
            }
        }
        chains
    }

    /// `Engine::started`.
    pub fn started(&mut self, number: i32, granted: Granted<Item>) {
        let window = self.window.shard(number);
        if let Some(shard) = self.protocol.shard(number) {
            for offset in &granted.parked {
                if let Some((time, item)) = shard.parked_record(*offset)
                    && let Some(id) = item.0.business
                {
                    window.enter(id, *offset, time);
                }
            }
        }
        for start in granted.starts {
            if let Some(id) = start.record.0.business {
                window.enter(id, start.offset, start.log_time_ms);
            }
            self.residual -= 1;
            self.running.insert((number, start.offset));
        }
        for (offset, time, _, _, item) in granted.passed {
            if let Some(id) = item.0.business {
                window.enter(id, offset, time);
            }
        }
        window.advance(granted.log_time_ms);
    }
}
