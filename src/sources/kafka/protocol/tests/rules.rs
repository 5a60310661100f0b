//! Single rules, each by the shortest sequence that needs it: what a random run meets too seldom. Must never reach into
//! a shard's fields.

use super::world::{Item, Log, Made};
use crate::{
    dispatch::{Judgement, Reason},
    ledger::Outcome,
    sources::kafka::{
        protocol::{
            Judge, Protocol,
            plan::{Limits, Part, Proposal},
            shard::{Polled, Taken},
            takeover::{Taken as TakenOver, Takeover},
        },
        register::{self, Decoded, OpenEntry, Register, Token},
    },
};

const ME: Token = Token(1);
const OTHER: Token = Token(2);

/// Starts everything but the offsets it knows as duplicates.
struct All(Vec<i64>);

impl Judge<Item> for All {
    fn judge(&mut self, _: i32, offset: i64, _: i64, _: &Item) -> Judgement {
        if self.0.contains(&offset) {
            return Judgement::Pass(Outcome::Duplicate, Reason::Text("known"));
        }
        Judgement::Start
    }
}

struct Bench {
    protocol: Protocol<Item>,
    log: Log,
}

fn bench(keys: &[Option<u8>], limits: Limits) -> Bench {
    let made: Vec<Made> = keys.iter().map(|key| Made { key: *key, id: None, step_ms: 1 }).collect();
    Bench { protocol: Protocol::new(ME, limits), log: Log::new(0, &made) }
}

fn takeover(offset: i64, open: &[(i64, Token)], parked: &[i64], log_end: i64) -> Takeover {
    let open = open.iter().map(|(offset, owner)| OpenEntry { offset: *offset, owner: *owner }).collect();
    let register = Register { owner: OTHER, seq: 1, log_time_ms: 0, open, parked: parked.to_vec() };
    Takeover { committed: true, offset, register, log_start: 0, log_end, rebuild_from: None }
}

impl Bench {
    fn assign(&mut self, shard: i32, takeover: &Takeover) -> TakenOver {
        self.protocol.next_epoch();
        self.protocol.assign(shard, takeover)
    }

    fn fetch(&mut self, shard: i32, offsets: std::ops::Range<i64>) -> Vec<Taken> {
        let epoch = self.protocol.epoch();
        let polled = |offset| Polled { offset, time_ms: offset, record: Item(self.log.at(offset).clone()) };
        let records: Vec<_> = offsets.map(polled).collect();
        records.into_iter().map(|record| self.protocol.fetched(shard, epoch, record)).collect()
    }

    fn plan(&mut self, budget: usize) -> Option<Proposal> {
        self.protocol.plan(budget, 1, &mut All(Vec::new()))
    }

    /// Grants everything; offsets that may start, per shard of the proposal.
    fn grant(&mut self, proposal: Proposal) -> Vec<(i32, Vec<i64>)> {
        let granted = |p: Part| {
            let (shard, granted) = (p.shard, self.protocol.granted(p)?);
            Some((shard, granted.starts.iter().map(|s| s.offset).collect()))
        };
        proposal.parts.into_iter().filter_map(granted).collect()
    }

    fn flush(&mut self) -> Register {
        let proposal = self.protocol.plan_flush(None, false).expect("something to say");
        let part = &proposal.parts[0];
        let Decoded::Register(register) = register::decode(&part.metadata, part.offset) else {
            panic!("a register of ours: {}", part.metadata);
        };
        self.grant(proposal);
        register
    }

    fn open(&self, shard: i32) -> usize {
        self.protocol.shard(shard).map_or(0, super::super::shard::Shard::entries)
    }
}

fn wide() -> Limits {
    Limits::default()
}

#[test]
fn k4_records_of_an_earlier_epoch_are_dropped() {
    let mut b = bench(&[None; 3], wide());
    b.assign(0, &takeover(0, &[], &[], 3));
    let stale = b.protocol.epoch();
    b.protocol.revoked(&[0], true);
    b.assign(0, &takeover(0, &[], &[], 3));
    let record = Polled { offset: 0, time_ms: 0, record: Item(b.log.at(0).clone()) };
    assert_eq!(b.protocol.fetched(0, stale, record), Taken::Dropped);
    assert_eq!(b.fetch(0, 0..1), [Taken::Waiting]);
}

#[test]
fn k4_an_answer_of_an_earlier_epoch_moves_the_position_and_starts_nothing() {
    let mut b = bench(&[None; 3], wide());
    b.assign(0, &takeover(0, &[], &[], 3));
    b.fetch(0, 0..3);
    let proposal = b.plan(2).expect("a claim");
    b.protocol.lost();
    assert!(b.grant(proposal).is_empty());
    // 1.1 step 7: and never below what was accepted, though the register that is read says so.
    let taken = b.assign(0, &takeover(0, &[], &[], 3));
    assert_eq!((taken.regressed_from, taken.fetch_from), (Some(0), 2));
}

#[test]
fn k4_an_assignment_without_a_revocation_forgets_what_waited() {
    let mut b = bench(&[None; 3], wide());
    b.assign(0, &takeover(0, &[], &[], 3));
    b.fetch(0, 0..3);
    let lease = b.protocol.shard(0).expect("owned").lease().clone();
    lease.extend(u64::MAX);
    b.assign(0, &takeover(0, &[], &[], 3));
    assert!(!lease.may_start(0), "calls of the forgotten assignment do not start");
    b.fetch(0, 0..3);
    let proposal = b.plan(9).expect("a claim");
    assert_eq!(b.grant(proposal), [(0, vec![0, 1, 2])], "each record once");
}

#[test]
fn a_refused_plan_leaves_no_trace() {
    let mut b = bench(&[Some(1); 4], wide());
    b.assign(0, &takeover(0, &[], &[], 4));
    b.fetch(0, 0..4);
    let first = b.plan(9).expect("a claim");
    let second = b.plan(9).expect("the same claim");
    assert_eq!(first.parts[0].actions, second.parts[0].actions);
    assert_eq!((b.open(0), b.protocol.shard(0).expect("owned").position()), (0, 0));
}

#[test]
fn l1_parked_records_come_first_and_in_order_after_a_takeover() {
    let mut b = bench(&[Some(1), Some(1), Some(2), Some(1)], wide());
    let taken = b.assign(0, &takeover(3, &[(0, OTHER)], &[1, 2], 4));
    assert_eq!(taken.fetch_from, 0);
    assert!(b.plan(9).is_none(), "nothing is claimed while parked records are read back");
    b.fetch(0, 0..4);
    let proposal = b.plan(9).expect("a claim");
    let mut starts = b.grant(proposal).remove(0).1;
    starts.sort_unstable();
    assert_eq!(starts, [1, 2], "the new record of key 1 waits behind the parked one");
    assert!(b.protocol.shard_mut(0).expect("owned").settled(1));
    let proposal = b.plan(9).expect("a claim");
    assert_eq!(b.grant(proposal), [(0, vec![3])]);
}

#[test]
fn l1_what_was_read_back_in_the_poll_that_met_the_end_is_not_taken_for_compacted() {
    let mut b = bench(&[Some(1); 3], wide());
    b.assign(0, &takeover(3, &[], &[1, 2], 3));
    let epoch = b.protocol.epoch();
    b.fetch(0, 1..2);
    b.protocol.read_to_end(0, epoch - 1);
    assert!(b.protocol.shard(0).expect("owned").is_replaying(), "an end of an earlier epoch says nothing");
    b.protocol.read_to_end(0, epoch);
    let shard = b.protocol.shard_mut(0).expect("owned");
    assert_eq!(shard.vanished_parked(3), [2], "the one that never came");
    let proposal = b.plan(9).expect("a claim");
    assert_eq!(b.grant(proposal), [(0, vec![1])]);
}

#[test]
fn n7_a_take_over_may_be_longer_than_what_may_be_claimed() {
    let narrow = Limits { entries: 256, metadata_chars: 44 };
    let mut b = bench(&[Some(1); 9], narrow);
    let open: Vec<_> = (0..8).map(|o| (o, OTHER)).collect();
    b.assign(0, &takeover(8, &open, &[], 9));
    assert_eq!(b.flush().open.len(), 8, "carried, whatever the budget says");
    let named = b.protocol.shard(0).expect("owned").reportable(ME, false);
    assert_eq!(named.len(), 8);
    b.fetch(0, 0..9);
    assert!(b.plan(9).is_none(), "but nothing is claimed on top");
    for entry in named {
        b.protocol.shard_mut(0).expect("owned").reported(entry.offset);
    }
    assert!(b.plan(9).is_some());
}

#[test]
fn n7_a_register_full_of_parked_records_still_moves() {
    let mut b = bench(&[Some(1); 40], Limits { entries: 16, metadata_chars: 2048 });
    b.assign(0, &takeover(0, &[], &[], 40));
    b.fetch(0, 0..40);
    for expected in 0..40 {
        let mut starts = Vec::new();
        while let Some(proposal) = b.plan(9) {
            starts.extend(b.grant(proposal).remove(0).1);
            assert!(b.open(0) <= 16);
        }
        assert_eq!(starts, [expected], "one call at a time, and always the next");
        assert!(b.protocol.shard_mut(0).expect("owned").settled(expected));
    }
}

#[test]
fn n7_a_budget_of_one_parks_fewer_when_the_register_is_full() {
    // One claim is allowed; many records of a busy key stand before it.
    let keys: Vec<_> = std::iter::once(Some(1)).chain([Some(1); 60]).chain([Some(2)]).collect();
    let mut b = bench(&keys, Limits { entries: 256, metadata_chars: 64 });
    b.assign(0, &takeover(0, &[], &[], 62));
    b.fetch(0, 0..1);
    let proposal = b.plan(1).expect("the first");
    b.grant(proposal);
    b.fetch(0, 1..62);
    let proposal = b.plan(1).expect("some are parked");
    assert!(!proposal.parts[0].actions.is_empty() && proposal.parts[0].metadata.len() <= 64);
}

#[test]
fn n3_a_truncated_log_does_not_make_a_process_name_its_own_call() {
    let mut b = bench(&[None; 3], wide());
    b.assign(0, &takeover(0, &[], &[], 3));
    b.fetch(0, 0..3);
    let proposal = b.plan(9).expect("a claim");
    b.grant(proposal);
    b.protocol.lost();
    let taken = b.assign(0, &takeover(3, &[(0, OTHER), (1, ME), (2, OTHER)], &[], 2));
    assert!(taken.truncated);
    let cut: Vec<_> = taken.cut.iter().map(|r| (r.offset, r.outcome)).collect();
    assert_eq!(cut, [(2, Outcome::InDoubt)], "no register can carry what lies beyond its offset");
    assert_eq!(b.flush().open.len(), 2);
    let named: Vec<_> =
        b.protocol.shard(0).expect("owned").reportable(ME, false).iter().map(|r| r.offset).collect();
    assert_eq!(named, [0], "1 is running here");
}

#[test]
fn plan_serves_shards_in_turn_whatever_is_committed_between() {
    let mut b = bench(&[None; 9], wide());
    let mut served = Vec::new();
    for shard in [0, 1] {
        b.assign(shard, &takeover(0, &[], &[], 9));
    }
    // The second assignment began a new epoch; both count as assigned in it.
    b.fetch(0, 0..9);
    b.fetch(1, 0..9);
    for _ in 0..6 {
        let proposal = b.plan(1).expect("a claim");
        for (shard, starts) in b.grant(proposal) {
            // The other shard only says that it took over, and keeps its lease.
            for offset in starts {
                served.push(shard);
                b.protocol.shard_mut(shard).expect("owned").settled(offset);
            }
        }
        b.flush();
    }
    assert_eq!(served, [0, 1, 0, 1, 0, 1]);
}

#[test]
fn passes_need_no_entry_and_are_not_listed() {
    let mut b = bench(&[None; 3], wide());
    b.assign(0, &takeover(0, &[], &[], 3));
    b.fetch(0, 0..3);
    let proposal = b.protocol.plan(9, 1, &mut All(vec![0, 2])).expect("a claim");
    assert_eq!((proposal.claims(), proposal.parts[0].offset), (1, 3));
    b.grant(proposal);
    assert_eq!(b.open(0), 1);
}
