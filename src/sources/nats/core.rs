//! The thread of a core NATS subscription. The server gives a message to one member of the queue group and forgets it: the
//! delivery is the claim, and nothing comes again. What is lost on the way is counted (`missed`) or, where that is
//! impossible, told as an interval. Must never let a message go uncounted, and never wait while messages arrive.

use super::{
    decode::{self, Decoder, Raw},
    intake::{Body, Intake, Item},
    link::{Change, Link, Voice},
    options::Options,
    reply::ReplyTo,
};
use crate::{
    clock,
    dispatch::{StartLease, dead_letter::Original},
    event::Position,
    ledger::Outcome,
    sources::{Exit, Order},
    testkit,
};
use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How often orders, the connection and the counts are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Most messages that one round takes before it starts calls.
const ROUND: usize = 1024;
/// Losses are put into one journal line for so long.
const LOSS_INTERVAL: Duration = Duration::from_millis(250);
/// How long queued calls may take to come back once they may not start any more.
const SWEEP: Duration = Duration::from_millis(500);
/// Longest wait for the last commands to reach the server.
const FLUSH: Duration = Duration::from_secs(2);

/// What the thread needs.
pub struct CoreThread {
    /// The connection.
    pub link: Link,
    /// Says how it is.
    pub voice: Voice,
    /// Subject, wildcards included; the stream of every position.
    pub subject: Arc<str>,
    /// Queue group.
    pub group: String,
    /// Messages to events.
    pub decoder: Decoder,
    /// Waiting messages and calls.
    pub intake: Intake<Option<ReplyTo>>,
    /// Whether messages are answered on their reply subjects.
    pub replies: bool,
    /// Whether originals are kept for dead letters.
    pub dead_letters: Option<Arc<super::dead_letter::DeadLetterSubject>>,
    /// Bounds.
    pub options: Arc<Options>,
    /// Notified when a call ended.
    pub wake: Arc<Notify>,
    /// Orders.
    pub orders: mpsc::Receiver<Order>,
}

/// Counts of one thread.
struct Counts {
    /// Tells this thread's numbers from those of its predecessors: they count from 1 as well.
    epoch: i32,
    sequence: i64,
    /// Time of the last message; never runs backwards.
    time_ms: i64,
    /// Messages that the library handed over on this connection.
    handed: u64,
    overflow: u64,
    overlooked: u64,
    told: Instant,
}

/// A thread at work.
struct Work {
    thread: CoreThread,
    counts: Counts,
    subscriber: Option<Subscriber>,
    /// The subscription is ending: what the library still holds is taken.
    draining: bool,
    lease: Arc<StartLease>,
    stopping: Option<Instant>,
}

impl CoreThread {
    /// Runs until ordered to stop. Blocking: owns its thread.
    pub fn run(self) -> Exit {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return Exit::Failed(format!("no runtime: {error}"), Duration::ZERO),
        };
        let work = Work {
            thread: self,
            counts: Counts {
                epoch: fastrand::i32(1..),
                sequence: 0,
                time_ms: 0,
                handed: 0,
                overflow: 0,
                overlooked: 0,
                told: Instant::now(),
            },
            subscriber: None,
            draining: false,
            lease: Arc::new(StartLease::new(u64::MAX)),
            stopping: None,
        };
        runtime.block_on(work.serve())
    }
}

impl Work {
    async fn serve(mut self) -> Exit {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let wake = Arc::clone(&self.thread.wake);
        loop {
            let mut looked = false;
            // Cancel-safe: `next` takes a message only when it returns it.
            tokio::select! {
                message = next(&mut self.subscriber) => self.take_all(message),
                () = wake.notified() => {}
                _ = tick.tick() => looked = true,
            }
            if looked {
                self.look().await;
                self.thread.intake.flow.publish_slow();
            }
            self.count_losses(looked);
            self.settle();
            self.thread.intake.start();
            self.thread.intake.flow.publish();
            if self.thread.intake.is_window_full() {
                self.thread.voice.say(
                    "the deduplication window is full: raise dedup.maxEntries or shorten dedup.window; messages that \
                     do not fit into the buffer meanwhile end as missed",
                );
            }
            if self.is_done() {
                self.leave().await;
                return Exit::Stopped;
            }
        }
    }

    /// Whether it was told to stop and nothing more can come of waiting.
    fn is_done(&self) -> bool {
        let Some(deadline) = self.stopping else { return false };
        let intake = &self.thread.intake;
        // What waits for a paused trigger would wait for ever.
        let over =
            intake.is_idle() || (intake.flow.calls() == 0 && intake.flow.subscription().settings().paused);
        Instant::now() >= deadline || (self.subscriber.is_none() && over)
    }

    /// Takes what the library holds, at most a round.
    fn take_all(&mut self, first: Option<Message>) {
        let Some(first) = first else { return self.ended() };
        self.take(&first);
        for _ in 1..ROUND {
            match held(&mut self.subscriber) {
                Some(Some(message)) => self.take(&message),
                Some(None) => return self.ended(),
                None => return,
            }
        }
    }

    /// The stream of messages ended: as it was told to, or because the library gave the connection up.
    fn ended(&mut self) {
        self.subscriber = None;
        if !std::mem::take(&mut self.draining) {
            self.thread.link.lost("the server refuses this client");
        }
    }

    fn take(&mut self, message: &Message) {
        testkit::point("after_poll");
        self.counts.handed += 1;
        self.counts.sequence += 1;
        self.counts.time_ms = self.counts.time_ms.max(clock::unix_ms());
        let thread = &mut self.thread;
        let room = thread.intake.waiting() < thread.options.max_waiting
            && thread.intake.flow.memory() + message.length <= thread.options.memory_bytes;
        if !room && !testkit::bug("boundless") {
            self.counts.overflow += 1;
            return;
        }
        let position = self.counts.position(&thread.subject);
        let fallback_id = format!("{}/{:08x}/{}", message.subject, position.epoch, position.sequence);
        let raw = Raw {
            position: position.clone(),
            fallback_id: &fallback_id,
            subject: &message.subject,
            headers: message.headers.as_ref(),
            payload: &message.payload,
        };
        let original = thread.dead_letters.is_some().then(|| Arc::new(original(message)));
        // The event shares the body with the original.
        let most = usize::try_from(thread.options.max_reply_bytes).unwrap_or(usize::MAX);
        let reply = ReplyTo::of(message.reply.as_ref().filter(|_| thread.replies), most);
        let (weight, body) = match thread.decoder.decode(raw) {
            Ok(mut event) => {
                event.exchange = reply.as_ref().map(|reply| Arc::clone(reply.exchange()));
                (event.weight, Body::Event(Arc::new(event)))
            }
            Err(rejection) => (message.length, Body::Rejected(position, rejection)),
        };
        let lease = Arc::clone(&self.lease);
        thread.intake.push(Item { body, original, weight, lease, note: reply });
    }

    /// Journals what ended, and answers who waits for it.
    fn settle(&mut self) {
        let CoreThread { intake, link, .. } = &mut self.thread;
        intake.settle(|reply, outcome| {
            if let Some(reply) = reply {
                reply.send(link.client(), outcome);
            }
        });
    }

    /// Orders, the connection, and whether there should be a subscription at all.
    async fn look(&mut self) {
        match self.thread.orders.try_recv() {
            Ok(Order::Stop(deadline)) => {
                testkit::point("shutdown_drain");
                self.stopping.get_or_insert(deadline);
            }
            Err(mpsc::TryRecvError::Disconnected) => {
                self.stopping.get_or_insert_with(Instant::now);
            }
            Err(mpsc::TryRecvError::Empty) => {}
        }
        match self.thread.link.look().await {
            Change::Opened => {
                // The library counts anew with every client.
                self.counts.handed = 0;
                self.subscriber = None;
                self.draining = false;
                if let Some(dead_letters) = &self.thread.dead_letters {
                    dead_letters.connect(self.thread.link.client().cloned());
                }
            }
            Change::Reopened | Change::None => {}
        }
        let paused = self.thread.intake.flow.subscription().settings().paused;
        let wanted = self.stopping.is_none() && !paused;
        match (&mut self.subscriber, wanted) {
            (None, true) if self.thread.link.client().is_some() => self.subscribe().await,
            (Some(subscriber), false) if !self.draining => {
                self.draining = subscriber.drain().await.is_ok();
                if !self.draining {
                    self.subscriber = None;
                }
            }
            // Nothing will arrive on a connection that does not stand: not worth a wait while stopping.
            (Some(_), false) if !self.thread.link.is_up() => self.subscriber = None,
            _ => {}
        }
        let connected = self.subscriber.is_some() && self.thread.link.is_up();
        self.thread.intake.connected(connected);
        if (connected && !self.thread.intake.is_window_full()) || (paused && self.thread.link.is_up()) {
            self.thread.voice.say("");
        }
    }

    async fn subscribe(&mut self) {
        let Some(client) = self.thread.link.client() else { return };
        let (subject, group) = (self.thread.subject.to_string(), self.thread.group.clone());
        match client.queue_subscribe(subject, group).await {
            Ok(subscriber) => self.subscriber = Some(subscriber),
            Err(error) => self.thread.link.lost(&error.to_string()),
        }
    }

    /// Everything that this connection received was handed to us, or was dropped by the library: exact whenever the
    /// library holds nothing more.
    fn count_losses(&mut self, looked: bool) {
        let holds = match held(&mut self.subscriber) {
            Some(Some(message)) => {
                self.take(&message);
                true
            }
            Some(None) => {
                self.ended();
                false
            }
            None => false,
        };
        if !holds {
            let unseen = self.thread.link.in_messages().saturating_sub(self.counts.handed);
            self.counts.overlooked += unseen;
            self.counts.handed += unseen;
        }
        let due = looked && self.counts.told.elapsed() >= LOSS_INTERVAL;
        if due || self.stopping.is_some() {
            self.counts.told = Instant::now();
            self.tell(Outcome::Missed);
        }
    }

    fn tell(&mut self, outcome: Outcome) {
        let causes = [
            (
                std::mem::take(&mut self.counts.overflow),
                "the buffer was full: the function is too slow or not ready",
            ),
            (std::mem::take(&mut self.counts.overlooked), "dropped by the client library"),
        ];
        for (count, reason) in causes.into_iter().filter(|(count, _)| *count > 0) {
            self.counts.time_ms = self.counts.time_ms.max(clock::unix_ms());
            self.counts.sequence += 1;
            let position = self.counts.position(&self.thread.subject);
            tracing::warn!(trigger = self.thread.voice.trigger, count, reason, "Messages were missed");
            self.thread.intake.flow.unread(&position, outcome, reason, count);
        }
    }

    /// The end: what could not start is counted, what runs is not waited for any longer.
    async fn leave(&mut self) {
        let until = Instant::now() + SWEEP;
        self.lease.stop();
        while self.thread.intake.flow.calls() > 0 && Instant::now() < until {
            let wake = Arc::clone(&self.thread.wake);
            let _ = tokio::time::timeout(TICK, wake.notified()).await;
            self.settle();
        }
        self.thread.intake.give_up(Outcome::Missed, "the dispatcher stopped before its turn came");
        self.tell(Outcome::Missed);
        self.settle();
        self.thread.intake.flow.publish();
        if let Some(client) = self.thread.link.client() {
            // Dead letters of the last calls.
            let _ = tokio::time::timeout(FLUSH, client.flush()).await;
        }
        self.thread.intake.connected(false);
    }
}

impl Counts {
    fn position(&self, subject: &Arc<str>) -> Position {
        Position {
            stream: Arc::clone(subject),
            shard: 0,
            sequence: self.sequence,
            epoch: self.epoch,
            time_ms: self.time_ms,
            coordinates: None,
        }
    }
}

async fn next(subscriber: &mut Option<Subscriber>) -> Option<Message> {
    match subscriber {
        Some(subscriber) => subscriber.next().await,
        None => std::future::pending().await,
    }
}

/// What the library holds, without waiting: `None` is nothing, `Some(None)` the end. The scheduler's fairness budget must not
/// make a full queue look empty, because the counts rest on that.
fn held(subscriber: &mut Option<Subscriber>) -> Option<Option<Message>> {
    let subscriber = subscriber.as_mut()?;
    tokio::task::unconstrained(subscriber.next()).now_or_never()
}

/// The message as it was.
pub(super) fn original(message: &Message) -> Original {
    let headers = decode::listed(message.headers.as_ref()).into_iter();
    Original {
        key: None,
        value: Some(message.payload.clone()),
        headers: headers.map(|(name, value)| (name.to_owned(), value.map(Bytes::copy_from_slice))).collect(),
    }
}
