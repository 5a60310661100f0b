//! What arrives: messages, confirmations, what the server says of its requests. Must never take in what was delivered before:
//! what is known here has its outcome, and what is not known is in doubt.

use super::{
    consumer::Last,
    delivery::{self, Handle, Numbers},
    pulls::Answer,
    row::At,
    thread::{Stage, Work},
};
use crate::{
    clock,
    dispatch::StartLease,
    event::Position,
    ledger::Outcome,
    sources::nats::{
        core::original,
        decode::Raw,
        intake::{Body, Item},
    },
    testkit,
};
use async_nats::Message;
use futures_util::{FutureExt as _, StreamExt as _};
use std::{sync::Arc, time::Instant};

/// Most messages that one round takes before it starts calls.
const ROUND: usize = 256;

impl Work {
    pub(super) fn take_all(&mut self, first: Option<Message>) {
        let Some(first) = first else { return self.lost() };
        self.take(&first);
        for _ in 1..ROUND {
            let Some(inbox) = self.inbox.as_mut() else { return };
            match inbox.next().now_or_never() {
                Some(Some(message)) => self.take(&message),
                Some(None) => return self.lost(),
                None => return,
            }
        }
    }

    /// The library gave the connection up.
    fn lost(&mut self) {
        (self.inbox, self.advisories, self.named) = (None, None, None);
        self.stage = Stage::Down(Instant::now());
        self.pulls.forget();
        self.thread.link.lost("the server refuses this client");
    }

    fn take(&mut self, message: &Message) {
        if self.acks.confirm(message) {
            return;
        }
        if let Some(status) = message.status {
            if let Answer::Broken(why) = self.pulls.answered(message, status) {
                self.again(&why);
            }
            return;
        }
        let Some(numbers) = message.reply.as_deref().and_then(delivery::numbers) else { return };
        testkit::point("after_poll");
        if let Some(took) = self.pulls.delivered(numbers.pending) {
            self.thread.intake.fetched(took);
        }
        let position = Position {
            stream: Arc::clone(&self.stream),
            shard: 0,
            sequence: numbers.sequence,
            epoch: -1,
            time_ms: numbers.time_ms,
            coordinates: None,
        };
        let reply = message.reply.as_deref().unwrap_or_default().to_owned();
        if self.is_repeat(numbers) {
            return self.repeated(numbers, reply, &position);
        }
        let newest = self.last.unwrap_or_default();
        self.last = Some(Last {
            sequence: newest.sequence.max(numbers.sequence),
            time_ms: newest.time_ms.max(numbers.time_ms),
        });
        let thread = &mut self.thread;
        let until = clock::boot_ms() + u64::try_from(thread.plan.ack_wait.as_millis()).unwrap_or(u64::MAX);
        let lease = Arc::new(StartLease::new(until));
        let fallback_id = format!("{}/{}", position.stream, position.sequence);
        let raw = Raw {
            position: position.clone(),
            fallback_id: &fallback_id,
            subject: &message.subject,
            headers: message.headers.as_ref(),
            payload: &message.payload,
        };
        let original = thread.dead_letters.is_some().then(|| Arc::new(original(message)));
        let (weight, body) = match thread.decoder.decode(raw) {
            Ok(event) => (event.weight, Body::Event(Arc::new(event))),
            Err(rejection) => (message.length, Body::Rejected(position, rejection)),
        };
        let Numbers { sequence, time_ms, .. } = numbers;
        let note = Handle { reply, sequence, time_ms, lease: Arc::clone(&lease) };
        self.admit(Item { body, original, weight, lease, note });
    }

    /// Whether a delivery is of something that was delivered before, by all that can be known here.
    fn is_repeat(&self, numbers: Numbers) -> bool {
        if testkit::bug("reserved_is_called") {
            return false;
        }
        let last = self.last.map_or(At(0, -1), |last| At(last.sequence, last.time_ms));
        let reserved = self.holder.as_ref().is_some_and(|holder| holder.is_repeat(numbers.at()));
        numbers.delivered > 1 || numbers.at().is_behind(last) || reserved
    }

    /// A server whose state fell back delivers again, and one that lost a client gives what it had sent it to another one.
    fn repeated(&mut self, numbers: Numbers, reply: String, position: &Position) {
        let trigger = &self.thread.voice.trigger;
        let Numbers { sequence, time_ms, .. } = numbers;
        self.thread.intake.flow.subscription().metrics().claims_refused.increment(1);
        let waits = |at| at == numbers.at();
        let claiming = self.holder.iter().any(|holder| holder.waiting().any(|item| waits(item.note.at())));
        if claiming || self.seen.is_known(sequence, time_ms) {
            tracing::warn!(trigger, %position, "Delivered again, and not called again");
            let open = claiming || self.thread.intake.notes().any(|note| note.sequence == sequence);
            if !open {
                self.owed.push((reply, sequence, Outcome::Duplicate));
            }
            return;
        }
        tracing::warn!(trigger, %position, "Delivered out of turn: who had it before is not known, so it is not called");
        self.seen.owe(sequence, reply);
        self.doubts.add(sequence);
    }

    /// A message is ours: the delivery was the claim, or the register will be.
    fn admit(&mut self, item: Item<Handle>) {
        match &mut self.holder {
            None => {
                self.seen.insert(item.note.sequence, item.note.time_ms);
                self.thread.intake.push(item);
            }
            Some(holder) => {
                self.thread.intake.flow.hold(item.weight);
                holder.hold(item);
            }
        }
    }
}
