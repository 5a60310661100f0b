//! The thread of a JetStream subscription: asks for what can start, calls, journals, acknowledges. Must never start what was
//! delivered before, and never acknowledge what is not in the journal.

use super::{
    acks::Acks,
    consumer::{self, Last, Plan},
    delivery::{self, Handle},
    doubts::{Doubt, Doubts},
    pulls::{Answer, Pulls},
};
use crate::{
    clock,
    dispatch::{StartLease, recorder::Ending},
    event::Position,
    ledger::Outcome,
    sources::{
        Exit, Order,
        nats::{
            client,
            core::original,
            dead_letter::DeadLetterSubject,
            decode::{Decoder, Raw},
            intake::{Body, Intake, Item},
            link::{Change, Link, Voice},
            options::Options,
        },
    },
    testkit,
};
use async_nats::{Message, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
use tokio::{sync::Notify, task::JoinHandle};

/// How often orders, the connection and the requests are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Most messages that one round takes before it starts calls.
const ROUND: usize = 256;
/// How long queued calls may take to come back once they may not start any more.
const SWEEP: Duration = Duration::from_millis(500);
/// How long the last acknowledgements may take to be confirmed.
const CONFIRM: Duration = Duration::from_secs(3);
/// What headers and subject may add to a body.
const ENVELOPE: usize = 64 << 10;
/// Owner of an event in doubt: the server does not say who had it.
const NOBODY: &str = "0000000000000000";

/// What the thread needs.
pub struct StreamThread {
    /// The connection.
    pub link: Link,
    /// Says how it is.
    pub voice: Voice,
    /// The consumer.
    pub plan: Plan,
    /// Messages to events.
    pub decoder: Arc<Decoder>,
    /// Waiting messages and calls.
    pub intake: Intake<Handle>,
    /// Where originals of dead letters go.
    pub dead_letters: Option<Arc<DeadLetterSubject>>,
    /// Bounds.
    pub options: Arc<Options>,
    /// Notified when a call ended.
    pub wake: Arc<Notify>,
    /// Orders.
    pub orders: mpsc::Receiver<Order>,
}

enum Stage {
    /// The consumer is to be made sure of, not before this.
    Down(Instant),
    Ensuring(JoinHandle<Result<(), consumer::Error>>),
    Pulling,
}

/// A thread at work.
struct Work {
    thread: StreamThread,
    stage: Stage,
    attempts: usize,
    inbox: Option<Subscriber>,
    advisories: Option<Subscriber>,
    named: Option<Subscriber>,
    pulls: Pulls,
    acks: Acks,
    doubts: Doubts,
    last: Option<Last>,
    extended: Instant,
    stopping: Option<Instant>,
}

impl StreamThread {
    /// Runs until ordered to stop. Blocking: owns its thread.
    pub fn run(self) -> Exit {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return Exit::Failed(format!("no runtime: {error}"), Duration::ZERO),
        };
        runtime.block_on(Work::new(self).serve())
    }
}

impl Work {
    fn new(thread: StreamThread) -> Self {
        let plan = &thread.plan;
        Self {
            stage: Stage::Down(Instant::now()),
            attempts: 0,
            inbox: None,
            advisories: None,
            named: None,
            pulls: Pulls::new(&plan.stream, &plan.consumer, String::new(), thread.options.pull_expires),
            acks: Acks::new(String::new(), plan.ack_wait),
            doubts: Doubts::new(plan.clone(), Arc::clone(&thread.decoder)),
            last: None,
            extended: Instant::now(),
            stopping: None,
            thread,
        }
    }

    async fn serve(mut self) -> Exit {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let wake = Arc::clone(&self.thread.wake);
        loop {
            // Cancel-safe: `next` takes a message only when it returns it.
            tokio::select! {
                message = next(&mut self.inbox) => self.take_all(message),
                message = next(&mut self.advisories) => self.advised(message),
                message = next(&mut self.named) => match message {
                    Some(message) => self.doubts.heard(&message.payload),
                    None => self.named = None,
                },
                () = wake.notified() => {}
                _ = tick.tick() => self.look().await,
            }
            self.settle().await;
            self.thread.intake.start();
            self.thread.intake.flow.publish();
            self.ask().await;
            if self.is_done() {
                self.leave().await;
                return Exit::Stopped;
            }
        }
    }

    /// Whether it was told to stop and nothing more can come of waiting: what was asked for may still be delivered.
    fn is_done(&self) -> bool {
        let Some(deadline) = self.stopping else { return false };
        let intake = &self.thread.intake;
        let paused = intake.flow.calls() == 0 && intake.flow.subscription().settings().paused;
        let expected = self.pulls.outstanding() > 0 && self.thread.link.is_up();
        Instant::now() >= deadline || (!expected && (intake.is_idle() || paused))
    }

    fn take_all(&mut self, first: Option<Message>) {
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
        self.pulls.delivered();
        let thread = &mut self.thread;
        let position = Position {
            stream: thread.plan.stream.as_str().into(),
            shard: 0,
            sequence: numbers.sequence,
            epoch: -1,
            time_ms: numbers.time_ms,
            coordinates: None,
        };
        let seen = Last { sequence: numbers.sequence, time_ms: numbers.time_ms };
        let again = numbers.delivered > 1
            || self.last.is_some_and(|last| seen.sequence <= last.sequence && seen.time_ms <= last.time_ms);
        let reply = message.reply.as_deref().unwrap_or_default().to_owned();
        if again {
            // A consumer whose state fell back: this one had its turn.
            tracing::error!(trigger = thread.voice.trigger, %position, "Delivered again, and not called again");
            thread.intake.flow.unread(&position, Outcome::Duplicate, "the server delivered it before", 1);
            return;
        }
        self.last = Some(seen);
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
        let note = Handle { reply, sequence: numbers.sequence, lease: Arc::clone(&lease) };
        thread.intake.push(Item { body, original, weight, lease, note });
    }

    /// The consumer is made sure of again, after a pause.
    fn again(&mut self, why: &str) {
        self.pulls.forget();
        if !matches!(self.stage, Stage::Pulling) {
            return;
        }
        self.thread.intake.flow.subscription().metrics().restarts.increment(1);
        self.fail(why);
    }

    fn fail(&mut self, why: &str) {
        self.attempts += 1;
        self.thread.voice.say(why);
        self.stage = Stage::Down(Instant::now() + client::pause(self.attempts));
    }

    /// Orders, the connection, the consumer.
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
            Change::Opened => self.opened().await,
            // The requests died with the connection.
            Change::Reopened => self.pulls.forget(),
            Change::None => {}
        }
        if self.pulls.is_silent() {
            self.again("the consumer is silent");
        }
        self.ensure().await;
        self.extend().await;
        self.name_doubts();
        if let Some(client) = self.thread.link.client().filter(|_| self.thread.link.is_up()) {
            self.acks.repeat(client).await;
        }
        let up = matches!(self.stage, Stage::Pulling) && self.thread.link.is_up();
        self.thread.intake.connected(up);
        self.thread.intake.flow.publish_slow();
        if self.thread.intake.is_window_full() {
            self.thread
                .voice
                .say("the deduplication window is full: raise dedup.maxEntries or shorten dedup.window");
        } else if up {
            self.thread.voice.say("");
        }
    }

    /// A new client: one inbox for everything that the server answers, the advisories, and what other members name.
    async fn opened(&mut self) {
        let Some(client) = self.thread.link.client() else { return };
        let prefix = client.new_inbox();
        let plan = &self.thread.plan;
        self.pulls =
            Pulls::new(&plan.stream, &plan.consumer, prefix.clone(), self.thread.options.pull_expires);
        self.acks.listen_at(prefix.clone());
        let inbox = client.subscribe(format!("{prefix}.*")).await;
        let advisories = client.subscribe(self.doubts.subject()).await;
        let named = client.subscribe(self.doubts.names()).await;
        if let Some(dead_letters) = &self.thread.dead_letters {
            dead_letters.connect(Some(client.clone()));
        }
        (self.inbox, self.advisories, self.named) = (inbox.ok(), advisories.ok(), named.ok());
        self.stage = Stage::Down(Instant::now());
    }

    async fn ensure(&mut self) {
        match &mut self.stage {
            Stage::Down(until)
                if Instant::now() >= *until && self.inbox.is_some() && self.stopping.is_none() =>
            {
                let Some(client) = self.thread.link.client().filter(|_| self.thread.link.is_up()) else {
                    return;
                };
                let ensuring = consumer::ensure(client.clone(), self.thread.plan.clone(), self.last);
                self.stage = Stage::Ensuring(tokio::spawn(ensuring));
            }
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
    }

    /// Tells the server that what waits or runs is not forgotten, well before it would think so.
    async fn extend(&mut self) {
        let wait = self.thread.plan.ack_wait;
        if self.extended.elapsed() < wait / 3 || !self.thread.link.is_up() {
            return;
        }
        self.extended = Instant::now();
        let Some(client) = self.thread.link.client() else { return };
        let now = clock::boot_ms();
        let until = now + u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        for note in self.thread.intake.notes() {
            // One whose time is over has been named already.
            if note.lease.may_start(now) {
                note.lease.extend(until);
                let _ = client.publish(note.reply.clone(), "+WPI".into()).await;
            }
        }
    }

    /// Asks for as many messages as can start.
    async fn ask(&mut self) {
        if !matches!(self.stage, Stage::Pulling) || self.stopping.is_some() || !self.thread.link.is_up() {
            return;
        }
        let Some(client) = self.thread.link.client() else { return };
        let (intake, outstanding) = (&self.thread.intake, self.pulls.outstanding());
        let room = self.thread.options.memory_bytes.saturating_sub(intake.flow.memory());
        let open = intake.flow.calls() + intake.waiting() + outstanding;
        let budget = intake.flow.budget(open);
        // Not one request a message, unless nothing else is on its way.
        if budget == 0 || room == 0 || (outstanding > 0 && budget < (open + budget) / 4) {
            return;
        }
        let most = client.max_payload() + ENVELOPE;
        self.pulls.ask(client, budget, most.max(room / 2)).await;
    }

    /// Journals what ended and acknowledges it.
    async fn settle(&mut self) {
        let mut closed = Vec::new();
        self.thread.intake.settle(|note, outcome| closed.push((note, outcome)));
        for (note, outcome) in closed {
            self.acks.close(self.thread.link.client(), note.reply, note.sequence, outcome).await;
        }
        if !self.thread.intake.flow.is_journal_broken() {
            self.doubts.written(self.thread.link.client());
        }
    }

    /// The server names an event whose time is over.
    fn advised(&mut self, message: Option<Message>) {
        let Some(message) = message else {
            self.advisories = None;
            return;
        };
        let Some(sequence) = Doubts::read(&message.payload) else { return };
        let ours =
            self.acks.is_open(sequence) || self.thread.intake.notes().any(|note| note.sequence == sequence);
        if !ours {
            self.doubts.add(sequence);
        }
    }

    fn name_doubts(&mut self) {
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
        }
    }

    /// The end: what could not start was never sent, what runs is not waited for any longer, and the server knows.
    async fn leave(&mut self) {
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
        self.settle().await;
        let until = Instant::now() + CONFIRM;
        while !(self.acks.is_empty() && self.doubts.is_empty())
            && Instant::now() < until
            && self.thread.link.is_up()
        {
            if let Ok(message) = tokio::time::timeout(TICK, next(&mut self.inbox)).await {
                self.take_all(message);
            }
            self.name_doubts();
        }
        self.settle().await;
        if let Some(client) = self.thread.link.client().filter(|_| self.thread.link.is_up()) {
            // What the others need not name any more.
            let _ = tokio::time::timeout(CONFIRM, client.flush()).await;
        }
        self.thread.intake.flow.publish();
        self.thread.intake.connected(false);
    }
}

async fn next(subscriber: &mut Option<Subscriber>) -> Option<Message> {
    match subscriber {
        Some(subscriber) => subscriber.next().await,
        None => std::future::pending().await,
    }
}
