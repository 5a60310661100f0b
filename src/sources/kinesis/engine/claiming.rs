//! Rows: which shard's is written now, with which claims, and what follows from the answer. Must never start a call whose
//! row was not accepted, nor write two rows of one shard at once.

use super::{Engine, LOOKS, Note, Purpose, Wrote, reading::windowed};
use crate::{
    clock,
    dispatch::{Answer, InFlight, Judgement, Judging, Reason, recorder::Ending, subscription::Pending},
    ledger::Outcome,
    register::Written,
    sources::kinesis::{
        item::{Body, Item},
        protocol::{
            Judge,
            plan::{Granted, Limits, Plan},
            shard::Read,
        },
    },
    testkit,
};
use std::{sync::Arc, time::Instant};

const FULL: &str = "the deduplication window is full of ids that still count: raise dedup.maxEntries or shorten dedup.window";

/// Judges the records of one shard.
struct Jury<'a> {
    judging: Judging<'a>,
    shard: i32,
}

impl Judge<Item> for Jury<'_> {
    fn judge(&mut self, number: i64, log_ms: i64, record: &Item) -> Judgement {
        match &record.body {
            Body::Event(event) => self.judging.judge(self.shard, number, log_ms, event),
            Body::Rejected(_, reason) => Judgement::Pass(Outcome::Rejected, Reason::Text(reason)),
        }
    }
}

impl Engine {
    /// Writes what is due of every shard, beginning after the one that was first the last time.
    pub(super) fn write_rows(&mut self) {
        let ids: Vec<String> =
            self.slots.iter().filter(|(_, s)| s.held.is_some()).map(|(id, _)| id.clone()).collect();
        let first = ids.iter().position(|id| *id > self.served).unwrap_or(0);
        for id in ids[first..].iter().chain(&ids[..first]) {
            if let Some((plan, purpose)) = self.next_row(id) {
                if plan.claims() > 0 {
                    self.served.clone_from(id);
                }
                let Some(held) = self.slots.get_mut(id).and_then(|slot| slot.held.as_mut()) else { continue };
                held.writing = true;
                let stored = held.stored.clone();
                self.send(id, plan, Some(stored), purpose);
            }
        }
    }

    fn next_row(&mut self, id: &str) -> Option<(Plan, Purpose)> {
        let stopping = self.stopping.is_some();
        let held = self.slots.get(id)?.held.as_ref().filter(|held| !held.writing)?;
        let leaving = stopping || held.giving.is_some();
        if (leaving && held.shard.running() == 0) || held.shard.is_finished() {
            return Some((held.shard.plan_release(), Purpose::Release));
        }
        if !leaving && let Some(plan) = self.claim(id) {
            return Some((plan, Purpose::Keep));
        }
        let held = self.slots.get(id)?.held.as_ref()?;
        let since = held.written.elapsed();
        let renew = since >= self.parts.options.failover_time / LOOKS / 2;
        let flush = held.shard.has_closed() && since >= self.parts.options.flush_interval;
        let finishes = held.reader.ended && held.shard.has_closed() && held.shard.waiting() == 0;
        (renew || flush || finishes).then(|| {
            testkit::point("before_done_flush");
            (held.shard.plan_flush(), Purpose::Keep)
        })
    }

    /// A row that claims, if anything may be claimed; its passes are in the journal then.
    fn claim(&mut self, id: &str) -> Option<Plan> {
        let flow = &self.parts.flow;
        let budget = flow.budget(flow.calls() + self.planned);
        if budget == 0 {
            return None;
        }
        let (depth, subscription) = (flow.pace.depth(), Arc::clone(&self.parts.subscription));
        let entries = self.parts.options.register_entries;
        let limits = Limits { budget, depth, entries, in_order: self.parts.in_order };
        let slot = self.slots.get_mut(id)?;
        let held = slot.held.as_mut()?;
        testkit::point("before_dedup");
        let mut jury = Jury { judging: subscription.judging(clock::unix_ms()), shard: slot.number };
        let plan = held.shard.plan(limits, &mut jury);
        let full = jury.judging.window_was_full();
        let window = full_window(id);
        if full != self.troubles.contains_key(&window) {
            self.trouble(&window, if full { FULL } else { "" });
        }
        let plan = plan?;
        let held = self.slots.get_mut(id)?.held.as_mut()?;
        // A crash between the line and the row repeats the line; the other order would lose it.
        for pass in &plan.passes {
            if held.announced.insert(pass.at.clone())
                && let Some(item) = held.shard.waiting_at(&pass.at)
            {
                let ending = ending(item, pass.outcome, pass.reason.as_str());
                self.parts.flow.recorder.announce(&ending);
                self.parts.flow.offer(item.original.as_ref(), &ending);
            }
        }
        self.write_journal().then_some(plan)
    }

    /// A row was answered.
    pub(super) fn wrote(&mut self, wrote: Wrote) {
        self.planned = self.planned.saturating_sub(wrote.claims());
        if wrote.purpose == Purpose::Take {
            return self.took_over(wrote);
        }
        let answer = match &wrote.written {
            Written::Granted(_) => Answer::Granted,
            Written::Refused => Answer::Refused,
            Written::Unknown(_) if testkit::bug("unknown_invokes") => Answer::Granted,
            Written::Unknown(_) => Answer::Unknown,
        };
        if answer != Answer::Granted {
            let why = match &wrote.written {
                Written::Unknown(why) => why.as_str(),
                _ => "another dispatcher has it",
            };
            return self.lose(&wrote.shard, why);
        }
        let until = wrote.sent_ms + self.failover_ms() / 2;
        let Some(held) = self.slots.get_mut(&wrote.shard).and_then(|slot| slot.held.as_mut()) else { return };
        held.writing = false;
        held.written = Instant::now();
        held.lease.extend(until);
        if let Written::Granted(stored) = &wrote.written {
            held.stored = stored.clone();
        }
        if wrote.claims() > 0 {
            testkit::point("after_claim");
            self.parts.flow.pace.committed(wrote.took, wrote.took);
        }
        let Some(held) = self.slots.get_mut(&wrote.shard).and_then(|slot| slot.held.as_mut()) else { return };
        let granted = held.shard.granted(wrote.plan);
        self.began_calls(&wrote.shard, granted, answer);
        if wrote.purpose == Purpose::Release {
            self.lose(&wrote.shard, "");
        }
    }

    /// What the accepted row claims is called, what it passes over is counted.
    fn began_calls(&mut self, id: &str, granted: Granted<Item>, answer: Answer) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let Some(held) = slot.held.as_mut() else { return };
        let subscription = Arc::clone(&self.parts.subscription);
        let (number, lease) = (slot.number, Arc::clone(&held.lease));
        let window = subscription.window().shard(number);
        let enter = |read: &Read<Item>| {
            if let Some(id) = windowed(&subscription, &read.record) {
                window.enter(id, read.number, read.log_ms);
            }
        };
        let flow = &mut self.parts.flow;
        for (pass, read) in granted.passes {
            enter(&read);
            held.announced.remove(&pass.at);
            flow.received(1);
            flow.recorder.count(pass.outcome, 1);
            flow.release(read.record.weight);
        }
        granted.parks.iter().for_each(enter);
        let mut batch = Vec::with_capacity(granted.starts.len());
        for (chain, at, read) in granted.starts {
            enter(&read);
            let Body::Event(event) = read.record.body else { continue };
            let note = Note { shard: id.to_owned(), at };
            batch.push(Pending {
                shard: number,
                chain,
                event: Arc::clone(&event),
                lease: Arc::clone(&lease),
            });
            flow.begin(InFlight { event, original: read.record.original, weight: read.record.weight, note });
        }
        window.advance(granted.log_ms);
        flow.received(batch.len() as u64);
        let left = subscription.claim_and_start(batch, flow.done(), |batch| vec![answer; batch.len()]);
        debug_assert!(left.is_empty(), "only granted rows come here");
    }
}

/// What is in trouble when there is no room for a shard's ids.
pub(super) fn full_window(id: &str) -> String {
    format!("window of {id}")
}

/// How a record that is not called ends.
pub(super) fn ending<'a>(item: &'a Item, outcome: Outcome, reason: &'a str) -> Ending<'a> {
    let (id, position) = (item.id(), item.position());
    Ending { id, position, outcome, reason: Some(reason), settled: None, owner: None, count: 1 }
}
