//! How events end: journaled, then acknowledged and closed in the register; those of others named; and how the thread itself
//! ends. Must never acknowledge or close what is not in the journal.

use super::{
    doubts::{Doubt, Doubts},
    holder::Holder,
    single::NOBODY,
    thread::{TICK, Work, next},
};
use crate::{dispatch::recorder::Ending, ledger::Outcome, testkit};
use async_nats::Message;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long queued calls may take to come back once they may not start any more.
const SWEEP: Duration = Duration::from_millis(500);
/// Pause before one of the last acknowledgements is sent again: nobody waits for the floor any more.
const LAST: Duration = Duration::from_millis(300);
/// How long the last acknowledgements may take to be confirmed.
const CONFIRM: Duration = Duration::from_secs(3);

impl Work {
    /// Journals what ended and acknowledges it.
    pub(super) async fn settle(&mut self) {
        let mut closed = Vec::new();
        self.thread.intake.settle(|note, outcome| closed.push((note, outcome)));
        let sound = !self.thread.intake.flow.is_journal_broken();
        let owed = if sound { std::mem::take(&mut self.owed) } else { Vec::new() };
        for (note, outcome) in closed {
            self.holder.iter_mut().for_each(|holder| holder.close(note.sequence));
            self.acks.close(self.thread.link.client(), note.reply, note.sequence, outcome).await;
        }
        for (reply, sequence, outcome) in owed {
            self.acks.close(self.thread.link.client(), reply, sequence, outcome).await;
        }
        if sound {
            for sequence in self.doubts.written(self.thread.link.client()) {
                self.holder.iter_mut().for_each(|holder| holder.close(sequence));
            }
        }
    }

    /// Another member names an event, or has done so.
    pub(super) fn heard(&mut self, message: Option<Message>) {
        let Some(message) = message else {
            self.named = None;
            return;
        };
        if let Some(sequence) = self.doubts.heard(&message.payload) {
            self.holder.iter_mut().for_each(|holder| holder.close(sequence));
        }
    }

    /// The server names an event whose time is over.
    pub(super) fn advised(&mut self, message: Option<Message>) {
        let Some(message) = message else {
            self.advisories = None;
            return;
        };
        let Some(sequence) = Doubts::read(&message.payload) else { return };
        let claiming =
            self.holder.iter().any(|holder| holder.waiting().any(|item| item.note.sequence == sequence));
        if !claiming && !self.acks.is_open(sequence) && !self.seen.has(sequence) {
            self.doubts.add(sequence);
        }
    }

    pub(super) fn name_doubts(&mut self) {
        for Doubt { position, event } in self.doubts.found(self.thread.link.client()) {
            let ending = Ending {
                id: event.as_ref().map_or("", |event| &event.attributes.id),
                position: &position,
                outcome: Outcome::InDoubt,
                reason: Some("delivered to a process that ended before it acknowledged"),
                settled: None,
                owner: Some(NOBODY),
                count: 1,
            };
            tracing::warn!(trigger = self.thread.voice.trigger, %position, id = ending.id, "Event has no outcome");
            testkit::point("before_named");
            self.thread.intake.flow.inherited(None, &ending);
            self.doubts.named(position.sequence);
            self.seen.insert(position.sequence, position.time_ms);
            if let Some(reply) = self.seen.owed(position.sequence) {
                self.owed.push((reply, position.sequence, Outcome::InDoubt));
            }
        }
    }

    /// The end: what could not start was never sent, what runs is not waited for any longer, and the server knows.
    pub(super) async fn leave(&mut self) {
        let until = Instant::now() + SWEEP;
        self.thread.intake.notes().for_each(|note| note.lease.stop());
        while self.thread.intake.flow.calls() > 0 && Instant::now() < until {
            let wake = Arc::clone(&self.thread.wake);
            let _ = tokio::time::timeout(TICK, wake.notified()).await;
            self.settle().await;
        }
        self.thread
            .intake
            .give_up(Outcome::Unreachable, "the dispatcher stopped before its call could start");
        if let Some(items) = self.holder.as_mut().map(Holder::give_up) {
            self.drop_claims(items);
        }
        self.settle().await;
        if let Some(client) = self.thread.link.client().filter(|_| self.thread.link.is_up()) {
            self.acks.repeat(client, Duration::ZERO).await;
        }
        let until = Instant::now() + CONFIRM;
        while !(self.acks.is_empty() && self.doubts.is_empty())
            && Instant::now() < until
            && self.thread.link.is_up()
        {
            if let Ok(message) = tokio::time::timeout(TICK, next(&mut self.inbox)).await {
                self.take_all(message);
            }
            self.name_doubts();
            self.settle().await;
            if let Some(client) = self.thread.link.client() {
                self.acks.repeat(client, LAST).await;
            }
        }
        self.let_go(CONFIRM).await;
        if let Some(client) = self.thread.link.client().filter(|_| self.thread.link.is_up()) {
            // What the others need not name any more.
            let _ = tokio::time::timeout(CONFIRM, client.flush()).await;
        }
        self.thread.intake.flow.publish();
        self.thread.intake.connected(false);
    }
}
