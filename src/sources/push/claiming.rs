//! What a subscription's thread does with its claim store: claims before a call, keeps the end after it, frees what was never
//! called and names what the dead left open. Must never start a call for any answer but a granted one.

use super::{
    offer::{Reply, SOON, Verdict, position},
    thread::{Note, PushThread, Waiting},
};
use crate::{
    clock,
    dispatch::{
        Answer, Ended, InFlight, StartLease, recorder,
        store::{Claim, End, How, Kept, Refusal, Reply as Stored},
        subscription::Pending,
    },
    event::exchange::Answer as Answered,
    ledger::Outcome,
    testkit,
};
use bytes::Bytes;
use http::HeaderValue;
use std::sync::Arc;

/// Shards that calls are spread over, so that every worker has its share.
const SPREAD: u64 = 1024;

const FULL: &str = "the claim store is full";
const AWAY: &str = "the claim store does not answer; the function was not called";

/// An answer of the store to a claim.
pub(super) struct Decided {
    waiting: Waiting,
    claim: Claim,
    reply: Stored,
}

/// An end on its way to the store, and the caller who is told then.
pub(super) struct Ending {
    pub(super) claim: Claim,
    pub(super) how: How,
    pub(super) reply: Option<(Reply, Verdict)>,
}

/// What the store said to an end.
pub(super) struct Settled {
    ending: Ending,
    result: Result<(), String>,
}

impl PushThread {
    /// Asks the store.
    pub(super) fn claim(&mut self, waiting: Waiting) {
        let (ask, holding) = (&waiting.ask, &self.parts.holding);
        let made_ms = clock::unix_ms();
        let longest =
            holding.start_window + self.parts.flow.subscription().call_timeout() + holding.doubt_margin;
        let claim = Claim {
            key: ask.key,
            content: ask.content,
            owner: self.parts.numbers.owner,
            number: ask.number,
            id: ask.event.attributes.id.to_string(),
            made_ms,
            until_ms: made_ms.saturating_add(i64::try_from(longest.as_millis()).unwrap_or(i64::MAX)),
        };
        let store = Arc::clone(&self.parts.store);
        testkit::point("before_claim");
        self.claiming.push(Box::pin(async move {
            let reply = store.claim(claim.clone()).await;
            Decided { waiting, claim, reply }
        }));
    }

    /// The store answered.
    pub(super) fn decided(&mut self, decided: Decided) {
        let Decided { waiting, claim, reply } = decided;
        let metrics = self.parts.flow.subscription().metrics();
        match &reply {
            Stored::Granted => metrics.claims_granted.increment(1),
            Stored::Refused(_) => metrics.claims_refused.increment(1),
            Stored::Unknown(_) => metrics.claims_unknown.increment(1),
        }
        match reply {
            Stored::Granted => self.granted(waiting, claim),
            Stored::Refused(Refusal::Held(held)) => {
                let same = held.claim.content == claim.content;
                let (outcome, reason) = match (same, &held.end) {
                    (false, _) => (Outcome::Rejected, "the id was used with another content"),
                    (true, None) => (Outcome::Duplicate, "an event with this id is being worked on"),
                    (true, Some(_)) => (Outcome::Duplicate, "an event with this id has ended"),
                };
                self.pass(&waiting.ask, outcome, reason);
                waiting.reply.tell(if same { Verdict::Repeat(held) } else { Verdict::Mismatch });
            }
            Stored::Refused(Refusal::Full(after)) => {
                self.parts.flow.release(waiting.ask.event.weight);
                self.say("the claim store is full: raise dedup.maxEntries or shorten dedup.window");
                self.refuse_for(waiting.reply, Verdict::Later { why: FULL, after, unknown: false });
            }
            Stored::Refused(Refusal::Away(why)) => self.away(waiting, &why, false),
            Stored::Unknown(why) => {
                // It may stand and is never called: without this its id would be in doubt for nothing.
                self.loose.push((claim, How::Freed));
                self.away(waiting, &why, true);
            }
        }
    }

    fn away(&mut self, waiting: Waiting, why: &str, unknown: bool) {
        self.parts.flow.release(waiting.ask.event.weight);
        self.say(&format!("the claim store does not answer: {why}"));
        self.refuse_for(waiting.reply, Verdict::Later { why: AWAY, after: SOON, unknown });
    }

    fn refuse_for(&mut self, reply: Reply, verdict: Verdict) {
        if let Verdict::Later { why, .. } = &verdict {
            self.count_refused(why);
        }
        reply.tell(verdict);
    }

    fn granted(&mut self, waiting: Waiting, claim: Claim) {
        testkit::point("after_claim");
        self.say("");
        let Waiting { ask, mut reply, .. } = waiting;
        if reply.is_closed() {
            self.pass(&ask, Outcome::Rejected, "the caller went away before the call");
            self.unwritten.push(Ending { claim, how: How::Freed, reply: None });
            return;
        }
        reply.claimed();
        let window_ms = u64::try_from(self.parts.holding.start_window.as_millis()).unwrap_or(0);
        let spent_ms = u64::try_from(clock::unix_ms().saturating_sub(claim.made_ms)).unwrap_or(0);
        let lease = StartLease::new(clock::boot_ms() + window_ms.saturating_sub(spent_ms));
        let pending = Pending {
            shard: i32::try_from(ask.number % SPREAD).unwrap_or(0),
            chain: 0,
            event: Arc::clone(&ask.event),
            lease: Arc::new(lease),
        };
        let weight = ask.event.weight;
        let note = Note { reply, claim, named: ask.named };
        let call = InFlight { event: ask.event, original: None, weight, note };
        // The store has answered already: this hands its word on.
        self.parts.flow.claim(vec![(pending, call)], |_| vec![Answer::Granted]);
    }

    /// Takes what the workers brought back; ends go to the store once their lines are in the journal.
    pub(super) fn collect(&mut self) {
        let mut ended = Vec::new();
        self.parts.flow.collect(|_, call| ended.push(call));
        for call in ended {
            self.ended(call);
        }
        if self.parts.flow.write_journal() {
            for ending in std::mem::take(&mut self.unwritten) {
                self.keep(ending);
            }
        }
    }

    /// A call ended: its line is in the batch.
    pub(super) fn ended(&mut self, ended: Ended<Note>) {
        let Ended { call, outcome, settled } = ended;
        let answer = call.event.exchange.as_ref().and_then(|exchange| exchange.answer());
        let reason = settled.as_ref().and_then(|settled| settled.reason);
        let Note { reply, claim, named } = call.note;
        // One that was never sent may come again; one without an id never does.
        let how = if outcome == Outcome::Unreachable || !named {
            How::Freed
        } else {
            How::Ended(Box::new(end(outcome, answer, self.parts.holding.kept_answer_bytes)))
        };
        let verdict = Verdict::Ended { event: Arc::clone(&call.event), outcome, reason };
        self.unwritten.push(Ending { claim, how, reply: Some((reply, verdict)) });
    }

    fn keep(&mut self, ending: Ending) {
        let store = Arc::clone(&self.parts.store);
        self.ending.push(Box::pin(async move {
            let result = store.end(&ending.claim, ending.how.clone()).await;
            Settled { ending, result }
        }));
    }

    /// The caller is told once a repeat would be told the same; if the store does not take the end, now.
    pub(super) fn settled(&mut self, settled: Settled) {
        let Settled { ending, result } = settled;
        if let Err(why) = result {
            self.say(&format!("the claim store does not answer: {why}"));
            self.loose.push((ending.claim, ending.how));
        }
        if let Some((reply, verdict)) = ending.reply {
            reply.tell(verdict);
        }
    }

    /// Offers again what the store did not take, and looks for what the dead left.
    pub(super) fn look_at_store(&mut self) {
        for (claim, how) in std::mem::take(&mut self.loose) {
            self.keep(Ending { claim, how, reply: None });
        }
        if self.inheriting.is_none() && !self.parts.flow.is_journal_broken() {
            let (store, by) = (Arc::clone(&self.parts.store), self.parts.numbers.owner);
            let margin = i64::try_from(self.parts.holding.doubt_margin.as_millis()).unwrap_or(0);
            let until_ms = clock::unix_ms() + margin.max(1000);
            self.inheriting = Some(Box::pin(async move { store.inherit(by, until_ms).await }));
        }
    }

    /// Names what the dead left open.
    pub(super) fn inherited(&mut self, found: Result<Vec<Claim>, String>) {
        let claims = match found {
            Ok(claims) => claims,
            Err(why) => return self.say(&format!("the claim store does not answer: {why}")),
        };
        if self.loose.is_empty() && self.claiming.is_empty() {
            self.say("");
        }
        for claim in claims {
            let number = i64::try_from(claim.number).unwrap_or(i64::MAX);
            let position = position(&self.parts.numbers.uid, claim.owner, number, claim.made_ms);
            let owner = format!("{:016x}", claim.owner);
            let trigger = &self.parts.trigger;
            tracing::warn!(%trigger, id = claim.id, owner, "Event of a predecessor has no outcome");
            self.parts.flow.inherited(
                None,
                &recorder::Ending {
                    id: &claim.id,
                    position: &position,
                    outcome: Outcome::InDoubt,
                    reason: Some("claimed by a process that ended before it recorded an outcome"),
                    settled: None,
                    owner: Some(&owner),
                    count: 1,
                },
            );
            let end = End { outcome: Outcome::InDoubt, answer: None };
            self.unwritten.push(Ending { claim, how: How::Ended(Box::new(end)), reply: None });
        }
    }
}

/// What is kept of an answer for repeats.
fn kept(answer: &Answered, most: usize) -> Kept {
    let text = |v: &HeaderValue| v.to_str().ok().map(str::to_owned);
    let headers = answer.headers.iter().filter_map(|(n, v)| Some((n.to_string(), text(v)?)));
    let whole = answer.whole && answer.body.len() <= most;
    Kept {
        status: answer.status.as_u16(),
        headers: headers.collect(),
        body: if whole { answer.body.clone() } else { Bytes::new() },
        whole,
    }
}

/// How a call ended, as it is kept.
fn end(outcome: Outcome, answer: Option<&Answered>, most: usize) -> End {
    let complete = matches!(outcome, Outcome::Delivered | Outcome::Failed);
    End { outcome, answer: answer.filter(|_| complete).map(|answer| kept(answer, most)) }
}
