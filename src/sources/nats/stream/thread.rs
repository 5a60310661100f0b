//! The thread of a JetStream subscription: asks for what can start, calls, journals, acknowledges. Must never start what was
//! delivered before, and never acknowledge what is not in the journal.

use super::{
    acks::{AGAIN, Acks},
    consumer::{self, Facts, Last, Plan},
    delivery::Handle,
    doubts::Doubts,
    holder::Holder,
    pulls::Pulls,
    seen::Seen,
    single::{Register, answer},
};
use crate::{
    clock,
    ledger::Outcome,
    sources::{
        Exit, Order,
        nats::{
            client,
            dead_letter::DeadLetterSubject,
            decode::Decoder,
            intake::{Intake, Item},
            link::{Change, Link, Voice},
            options::Options,
        },
    },
    testkit,
};
use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;
use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
use tokio::{sync::Notify, task::JoinHandle};

/// How often orders, the connection and the requests are looked at.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// What headers and subject may add to a body.
const ENVELOPE: usize = 64 << 10;

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
    /// Register of a stream with fewer than three copies.
    pub register: Register,
    /// Bounds.
    pub options: Arc<Options>,
    /// Notified when a call ended.
    pub wake: Arc<Notify>,
    /// Orders.
    pub orders: mpsc::Receiver<Order>,
}

pub(super) enum Stage {
    /// The stream is to be looked at, not before this.
    Down(Instant),
    Looking(JoinHandle<Result<Facts, consumer::Error>>),
    /// Until this process is the one that reads.
    StandingBy,
    Ensuring(JoinHandle<Result<(), consumer::Error>>),
    Pulling,
}

/// A thread at work.
pub(super) struct Work {
    pub(super) thread: StreamThread,
    pub(super) stage: Stage,
    pub(super) attempts: usize,
    pub(super) inbox: Option<Subscriber>,
    pub(super) advisories: Option<Subscriber>,
    pub(super) named: Option<Subscriber>,
    pub(super) pulls: Pulls,
    pub(super) acks: Acks,
    pub(super) doubts: Doubts,
    pub(super) seen: Seen,
    /// There for a stream with fewer than three copies.
    pub(super) holder: Option<Holder<Item<Handle>>>,
    /// Acknowledgements that wait for the journal.
    pub(super) owed: Vec<(String, i64, Outcome)>,
    pub(super) last: Option<Last>,
    /// Its name, as positions have it.
    pub(super) stream: Arc<str>,
    pub(super) extended: Instant,
    pub(super) stopping: Option<Instant>,
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
            acks: Acks::new(&plan.stream, &plan.consumer, plan.ack_wait),
            doubts: Doubts::new(plan.clone(), Arc::clone(&thread.decoder)),
            seen: Seen::default(),
            holder: None,
            owed: Vec::new(),
            last: None,
            stream: plan.stream.as_str().into(),
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
                message = next(&mut self.named) => self.heard(message),
                done = answer(&mut self.holder) => self.registered(done),
                () = wake.notified() => {}
                _ = tick.tick() => self.look().await,
            }
            self.settle().await;
            self.hold();
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
        let claiming = self.holder.as_ref().is_some_and(|holder| holder.waiting().next().is_some());
        Instant::now() >= deadline || (!expected && !claiming && (intake.is_idle() || paused))
    }

    /// The consumer is made sure of again, after a pause.
    pub(super) fn again(&mut self, why: &str) {
        self.pulls.forget();
        if !matches!(self.stage, Stage::Pulling) {
            return;
        }
        self.thread.intake.flow.subscription().metrics().restarts.increment(1);
        self.fail(why);
    }

    pub(super) fn fail(&mut self, why: &str) {
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
            self.acks.look(client).await;
            self.acks.repeat(client, AGAIN).await;
        }
        let serves = matches!(self.stage, Stage::Pulling) || self.stands_by();
        let up = serves && self.thread.link.is_up();
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
        let claiming = self.holder.iter().flat_map(|holder| holder.waiting().map(|item| &item.note));
        for note in self.thread.intake.notes().chain(claiming) {
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
        let claiming = self.holder.as_ref().map_or(0, |holder| holder.waiting().count());
        let open = intake.flow.calls() + intake.waiting() + claiming + outstanding;
        let budget = intake.flow.budget(open);
        // Not one request a message, unless nothing else is on its way.
        if budget == 0 || room == 0 || (outstanding > 0 && budget < (open + budget) / 4) {
            return;
        }
        let most = client.max_payload() + ENVELOPE;
        self.pulls.ask(client, budget, most.max(room / 2)).await;
    }
}

/// The next message; never, where nobody listens.
pub(super) async fn next(subscriber: &mut Option<Subscriber>) -> Option<Message> {
    match subscriber {
        Some(subscriber) => subscriber.next().await,
        None => std::future::pending().await,
    }
}
