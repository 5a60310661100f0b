//! Streams with fewer than three copies: who reads, and what is claimed in the register before it may start. Must never pull
//! from such a stream while another process reads it, nor let anything of it start without an accepted row.

use super::{
    consumer::{self, Last, REPLICAS},
    delivery::Handle,
    holder::{Claimable, Done, Holder, News},
    row::At,
    thread::{Stage, Work},
};
use crate::{
    dispatch::recorder::Ending, event::Position, ledger::Outcome, register::MakeStore,
    sources::nats::intake::Item, testkit,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Owner of an event in doubt where nobody says who had it.
pub const NOBODY: &str = "0000000000000000";

/// Where the row of a subscription is, should it need one.
pub struct Register {
    /// Makes the store; taken once.
    pub store: Option<MakeStore>,
    /// Name of the subscription's register.
    pub folder: String,
    /// A holder whose row stood still for so long is gone.
    pub failover: Duration,
    /// Told how many copies the stream has: what the trigger can promise.
    pub copies: Arc<AtomicUsize>,
}

impl Claimable for Item<Handle> {
    fn at(&self) -> At {
        self.note.at()
    }
}

/// The register's next answer; never, where there is none.
pub async fn answer(holder: &mut Option<Holder<Item<Handle>>>) -> Done {
    match holder {
        Some(holder) => holder.done().await,
        None => std::future::pending().await,
    }
}

impl Work {
    /// Another process reads this stream, and this one is ready to go on for it.
    pub(super) fn stands_by(&self) -> bool {
        matches!(self.stage, Stage::StandingBy) && self.holder.as_ref().is_some_and(Holder::stands_by)
    }

    /// Looks at the stream, waits for its turn where one at a time reads, makes the consumer, pulls.
    pub(super) async fn ensure(&mut self) {
        match &mut self.stage {
            Stage::Down(until)
                if Instant::now() >= *until && self.inbox.is_some() && self.stopping.is_none() =>
            {
                let Some(client) = self.thread.link.client().filter(|_| self.thread.link.is_up()) else {
                    return;
                };
                let looking = consumer::look(client.clone(), self.thread.plan.clone());
                self.stage = Stage::Looking(tokio::spawn(looking));
            }
            Stage::Looking(task) if task.is_finished() => match task.await {
                Ok(Ok(facts)) => self.found(facts),
                Ok(Err(error)) => self.fail(&error.to_string()),
                Err(error) => self.fail(&error.to_string()),
            },
            Stage::Ensuring(task) if task.is_finished() => match task.await {
                Ok(Ok(())) => {
                    self.stage = Stage::Pulling;
                    self.attempts = 0;
                    self.pulls.forget();
                }
                Ok(Err(error)) => self.fail(&error.to_string()),
                Err(error) => self.fail(&error.to_string()),
            },
            _ => {}
        }
        if matches!(self.stage, Stage::StandingBy) {
            self.make_consumer();
        }
    }

    fn found(&mut self, facts: consumer::Facts) {
        self.thread.register.copies.store(facts.copies, Ordering::Relaxed);
        if facts.copies < REPLICAS {
            let Register { store, folder, failover, .. } = &mut self.thread.register;
            if let Some(store) = store.take() {
                self.holder = Some(Holder::new(store(), folder, *failover, facts.created_ms));
            }
        }
        // A stream that was given copies keeps its row: what it did not forget does no harm.
        if let Some(holder) = &mut self.holder {
            holder.stream_is(facts.created_ms);
        }
        self.stage = Stage::StandingBy;
    }

    /// The consumer begins behind all that is reserved.
    fn make_consumer(&mut self) {
        let last = match &self.holder {
            None => self.last,
            Some(holder) => match holder.row() {
                Some(row) => Some(Last { sequence: row.reserved, time_ms: row.time_ms }),
                None => return,
            },
        };
        let Some(client) = self.thread.link.client().filter(|_| self.thread.link.is_up()) else { return };
        let last = last.filter(|last| last.sequence > 0);
        let ensuring = consumer::ensure(client.clone(), self.thread.plan.clone(), last);
        self.stage = Stage::Ensuring(tokio::spawn(ensuring));
    }

    /// The next step of the register, where there is one.
    pub(super) fn hold(&mut self) {
        let writable = !self.thread.intake.flow.is_journal_broken();
        if let Some(holder) =
            self.holder.as_mut().filter(|_| writable && self.stopping.is_none_or(|at| Instant::now() < at))
        {
            // Whoever is leaving takes nothing over.
            if self.stopping.is_none() || holder.row().is_some() {
                holder.turn();
            }
        }
    }

    /// The register answered.
    pub(super) fn registered(&mut self, done: Done) {
        let Some(holder) = &mut self.holder else { return };
        let news = holder.take(done);
        let took = holder.took();
        match news {
            News::Nothing => {}
            News::Trouble(why) => self.thread.voice.say(&why),
            News::Claimed(items) => {
                testkit::point("after_claim");
                self.thread.intake.claimed(took);
                for item in items {
                    self.seen.insert(item.note.sequence, item.note.time_ms);
                    self.thread.intake.admit(item);
                }
            }
            News::Lost(items) => {
                tracing::warn!(
                    trigger = self.thread.voice.trigger,
                    "Another dispatcher reads, or the register is away"
                );
                self.drop_claims(items);
                // What is queued may have been named by whoever reads now.
                self.thread.intake.notes().for_each(|note| note.lease.stop());
                self.pulls.forget();
                self.stage = Stage::Down(Instant::now());
            }
            News::Taken { open, same_stream } => {
                let running: Vec<i64> = self.thread.intake.notes().map(|note| note.sequence).collect();
                for at in open.into_iter().filter(|at| !running.contains(&at.0)) {
                    self.take_over(at, same_stream);
                }
            }
        }
    }

    /// What was delivered here and is in no row: a later holder may have called it.
    pub(super) fn drop_claims(&mut self, items: Vec<Item<Handle>>) {
        for item in items {
            self.thread.intake.flow.release(item.weight);
            self.seen.owe(item.note.sequence, item.note.reply);
            self.doubts.add(item.note.sequence);
        }
    }

    /// One that a predecessor left open. What is known here has its own outcome.
    fn take_over(&mut self, at: At, same_stream: bool) {
        let holder = self.holder.iter_mut();
        if self.seen.is_known(at.0, at.1) {
            holder.for_each(|holder| holder.close(at.0));
        } else if same_stream {
            self.seen.insert(at.0, at.1);
            self.doubts.add_ours(at.0);
        } else {
            // Its number is another message's by now: it is named by number and time.
            let position = Position {
                stream: self.thread.plan.stream.as_str().into(),
                shard: 0,
                sequence: at.0,
                epoch: -1,
                time_ms: at.1,
                coordinates: None,
            };
            let ending = Ending {
                id: "",
                position: &position,
                outcome: Outcome::InDoubt,
                reason: Some("left open when its stream was made anew"),
                settled: None,
                owner: Some(NOBODY),
                count: 1,
            };
            self.thread.intake.flow.inherited(None, &ending);
            self.doubts.named(at.0);
        }
    }

    /// Lets the stream go, so that the next one need not wait: within `patience`.
    pub(super) async fn let_go(&mut self, patience: Duration) {
        let until = Instant::now() + patience;
        while Instant::now() < until && self.holder.as_mut().is_some_and(|holder| !holder.leave()) {
            let waited = tokio::time::timeout(super::thread::TICK, answer(&mut self.holder)).await;
            if let Ok(done) = waited {
                self.registered(done);
            }
        }
    }
}
