//! The thread of one subscription that events are pushed to: takes them, lets them wait for the function, has them claimed,
//! called and answered. Must never call for one that the store has not granted, and never leave one without an outcome or an answer.

use super::{
    Holding,
    claiming::{Decided, Ending, Settled},
    offer::{Arrival, Ask, Body, Numbers, Reply, SOON, Verdict},
};
use crate::{
    clock,
    dispatch::{
        Flow, InFlight, Judgement,
        store::{Claim, ClaimStore, How},
    },
    ledger::Outcome,
    sources::{Exit, Order},
    testkit,
};
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc as tokio_mpsc};

/// How often orders and waiting requests are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Refused requests are put into one journal line for so long.
const REFUSAL_INTERVAL: Duration = Duration::from_millis(250);
/// How often open claims of the dead are looked for, and ends that the store did not take are offered again.
const STORE_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for the store to take the last ends.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What a call carries until it ends.
pub struct Note {
    pub(super) reply: Reply,
    pub(super) claim: Claim,
    pub(super) named: bool,
}

/// A request that waits.
pub(super) struct Waiting {
    pub(super) ask: Ask,
    pub(super) reply: Reply,
    since: Instant,
}

/// What the thread is made of.
pub struct ThreadParts {
    /// Whose it is, for the log.
    pub trigger: String,
    /// How much may wait, and for how long.
    pub holding: Holding,
    /// The calls that run.
    pub flow: Flow<Note>,
    /// Who may call.
    pub store: Arc<dyn ClaimStore>,
    /// Owner token and places of events.
    pub numbers: Arc<Numbers>,
    /// What comes in.
    pub inbox: tokio_mpsc::Receiver<Arrival>,
    /// Has nothing more sent here; called once, at the end.
    pub close: Box<dyn FnOnce() + Send>,
    /// Notified when a call ended.
    pub wake: Arc<Notify>,
    /// What it is told to do.
    pub orders: mpsc::Receiver<Order>,
    /// Why it takes nothing; empty: it does.
    pub status: Arc<Mutex<String>>,
}

/// See the module.
pub struct PushThread {
    pub(super) parts: ThreadParts,
    waiting: VecDeque<Waiting>,
    pub(super) claiming: FuturesUnordered<BoxFuture<'static, Decided>>,
    pub(super) ending: FuturesUnordered<BoxFuture<'static, Settled>>,
    pub(super) inheriting: Option<BoxFuture<'static, Result<Vec<Claim>, String>>>,
    /// Ended calls whose line is in the batch, not yet in the journal.
    pub(super) unwritten: Vec<Ending>,
    /// Ends that the store did not take.
    pub(super) loose: Vec<(Claim, How)>,
    refused: BTreeMap<&'static str, u64>,
    told: Instant,
    store_due: Instant,
    stopping: Option<Instant>,
}

impl PushThread {
    /// Nothing is taken yet.
    pub fn new(parts: ThreadParts) -> Self {
        let now = Instant::now();
        Self {
            parts,
            waiting: VecDeque::new(),
            claiming: FuturesUnordered::new(),
            ending: FuturesUnordered::new(),
            inheriting: None,
            unwritten: Vec::new(),
            loose: Vec::new(),
            refused: BTreeMap::new(),
            told: now,
            store_due: now,
            stopping: None,
        }
    }

    /// Runs until ordered to stop. Blocking: owns its thread.
    pub fn run(self) -> Exit {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return Exit::Failed(format!("no runtime: {error}"), Duration::ZERO),
        };
        runtime.block_on(self.serve())
    }

    async fn serve(mut self) -> Exit {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let wake = Arc::clone(&self.parts.wake);
        self.connected(true);
        loop {
            let mut looked = false;
            // Cancel-safe: each of them takes something only when it returns it.
            tokio::select! {
                Some(arrival) = self.parts.inbox.recv() => self.take(arrival),
                () = wake.notified() => {}
                Some(decided) = self.claiming.next() => self.decided(decided),
                Some(settled) = self.ending.next() => self.settled(settled),
                inherited = next(&mut self.inheriting) => self.inherited(inherited),
                _ = tick.tick() => looked = true,
            }
            if looked {
                self.look();
            }
            self.collect();
            self.start();
            self.parts.flow.publish();
            if self.is_done() {
                break;
            }
        }
        self.leave().await;
        Exit::Stopped
    }

    fn take(&mut self, arrival: Arrival) {
        testkit::point("after_poll");
        let ask = match arrival.body {
            Body::Ask(ask) => ask,
            Body::Rejected(position, rejection) => {
                self.parts.flow.unread(&position, Outcome::Rejected, rejection.reason, 1);
                arrival.reply.tell(Verdict::Rejected(rejection.reason));
                return;
            }
        };
        let weight = ask.event.weight;
        let (flow, holding) = (&mut self.parts.flow, &self.parts.holding);
        let refusal = if self.stopping.is_some() {
            Some("the trigger is being stopped")
        } else if flow.subscription().settings().paused {
            Some("the trigger is paused")
        } else if self.waiting.len() >= holding.max_waiting {
            Some("too many requests wait for the function")
        } else if flow.memory() + weight > holding.memory_bytes {
            Some("the dispatcher holds as many bytes as it may")
        } else {
            None
        };
        match refusal {
            Some(why) => self.refuse(arrival.reply, why),
            None => {
                flow.hold(weight);
                self.waiting.push_back(Waiting { ask, reply: arrival.reply, since: Instant::now() });
            }
        }
    }

    /// Nothing was claimed: the request stays with its caller.
    pub(super) fn refuse(&mut self, reply: Reply, why: &'static str) {
        self.count_refused(why);
        reply.tell(Verdict::Later { why, after: SOON, unknown: false });
    }

    pub(super) fn count_refused(&mut self, why: &'static str) {
        *self.refused.entry(why).or_default() += 1;
    }

    /// Orders, what waited for too long, and what is due.
    fn look(&mut self) {
        match self.parts.orders.try_recv() {
            Ok(Order::Stop(deadline)) => {
                testkit::point("shutdown_drain");
                self.stopping.get_or_insert(deadline);
            }
            Err(mpsc::TryRecvError::Disconnected) => {
                self.stopping.get_or_insert_with(Instant::now);
            }
            Err(mpsc::TryRecvError::Empty) => {}
        }
        while let Some(first) = self.waiting.front() {
            let paused = self.parts.flow.subscription().settings().paused;
            let why = if self.stopping.is_some() {
                "the trigger is being stopped"
            } else if paused {
                "the trigger is paused"
            } else if first.since.elapsed() >= self.parts.holding.max_wait {
                "the function is not ready, or too slow"
            } else {
                break;
            };
            let Some(first) = self.waiting.pop_front() else { break };
            self.parts.flow.release(first.ask.event.weight);
            self.refuse(first.reply, why);
        }
        if Instant::now() >= self.store_due {
            self.store_due = Instant::now() + STORE_INTERVAL;
            self.look_at_store();
        }
        if self.told.elapsed() >= REFUSAL_INTERVAL || self.stopping.is_some() {
            self.told = Instant::now();
            self.tell_refused();
        }
        self.parts.flow.publish_slow();
        if let Some(entries) = self.parts.store.len() {
            self.parts.flow.subscription().metrics().window_entries.set(entries as f64);
        }
    }

    fn tell_refused(&mut self) {
        for (why, count) in std::mem::take(&mut self.refused) {
            let position = self.parts.numbers.next_position(clock::unix_ms());
            self.parts.flow.unread(&position, Outcome::Rejected, why, count);
        }
    }

    /// Has claimed what may run.
    fn start(&mut self) {
        while !self.waiting.is_empty() {
            let open = self.parts.flow.calls() + self.claiming.len();
            let most = self.parts.flow.subscription().settings().max_in_flight;
            if self.parts.flow.budget(open).min(most.saturating_sub(open)) == 0 {
                return;
            }
            let Some(next) = self.waiting.pop_front() else { return };
            if next.reply.is_closed() {
                self.pass(&next.ask, Outcome::Rejected, "the caller went away before the call");
                continue;
            }
            let (event, sequence) = (&next.ask.event, next.ask.event.position.sequence);
            let subscription = Arc::clone(self.parts.flow.subscription());
            let mut judging = subscription.judging(clock::unix_ms());
            match judging.judge(0, sequence, event.position.time_ms, event) {
                Judgement::Pass(outcome, reason) => {
                    self.pass(&next.ask, outcome, reason.as_str());
                    next.reply.tell(Verdict::Passed(outcome, reason.as_str().to_owned()));
                }
                // It has no business id, so no window can be full for it.
                Judgement::Start | Judgement::Wait => self.claim(next),
            }
        }
    }

    /// An event ends without a call of ours.
    pub(super) fn pass(&mut self, ask: &Ask, outcome: Outcome, reason: &str) {
        self.parts.flow.pass(&InFlight::bare(&ask.event), outcome, reason);
    }

    /// Whether it was told to stop and nothing more can come of waiting.
    fn is_done(&self) -> bool {
        let Some(deadline) = self.stopping else { return false };
        let idle = self.parts.flow.calls() == 0 && self.claiming.is_empty() && self.ending.is_empty();
        let settled = self.waiting.is_empty() && self.unwritten.is_empty() && self.loose.is_empty();
        (idle && settled) || Instant::now() >= deadline
    }

    /// The end: what runs is not waited for any longer.
    async fn leave(&mut self) {
        (std::mem::replace(&mut self.parts.close, Box::new(|| {})))();
        self.parts.inbox.close();
        while let Some(waiting) = self.waiting.pop_front() {
            self.parts.flow.release(waiting.ask.event.weight);
            self.refuse(waiting.reply, "the trigger is being stopped");
        }
        while let Ok(arrival) = self.parts.inbox.try_recv() {
            self.refuse(arrival.reply, "the trigger is being stopped");
        }
        let places: Vec<_> = self.parts.flow.running().collect();
        for place in places {
            if let Some(ended) = self.parts.flow.give_up(place, "the dispatcher stopped while the call ran") {
                self.ended(ended);
            }
        }
        self.tell_refused();
        self.collect();
        let until = tokio::time::Instant::now() + LAST_WORD;
        while let Ok(Some(settled)) = tokio::time::timeout_at(until, self.ending.next()).await {
            self.settled(settled);
        }
        self.parts.flow.publish();
        self.connected(false);
    }

    fn connected(&self, connected: bool) {
        let subscription = self.parts.flow.subscription();
        subscription.metrics().connected.set(if connected { 1.0 } else { 0.0 });
        subscription.set_connected(connected);
    }

    /// Sets the status; says once in the log what is wrong and once that it is over.
    pub(super) fn say(&self, why: &str) {
        self.connected(why.is_empty());
        let mut status = self.parts.status.lock().unwrap_or_else(PoisonError::into_inner);
        if *status == why {
            return;
        }
        let trigger = &self.parts.trigger;
        if why.is_empty() {
            tracing::info!(%trigger, was = *status, "Claiming again");
        } else if status.is_empty() {
            tracing::warn!(%trigger, why, "Requests are refused");
        }
        why.clone_into(&mut status);
    }
}

async fn next<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    let value = match future {
        Some(running) => running.await,
        None => std::future::pending().await,
    };
    *future = None;
    value
}
