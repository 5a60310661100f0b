//! The thread of one trigger: waits for the next instant, an ended call or an order, at most half a second at once, so
//! that a clock that is set is noticed. Must never claim on its own (`claiming.rs` does) and never call in between.

use super::{
    clocks::{Clocks, StepWatch},
    facts::Facts,
    options::Options,
    protocol::{Protocol, Step},
    register::Open,
    store::Store,
};
use crate::{
    clock,
    dispatch::{Ended, Flow, flow::Waited},
    sources::{Exit, Order},
    testkit,
};
use metrics::Gauge;
use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

/// Longest wait without a look at the orders while something is due or calls run.
const BUSY_LOOK: Duration = Duration::from_millis(50);
/// First and longest pause after a register that did not answer.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What the thread is made of.
pub struct ThreadParts {
    /// What the trigger says.
    pub facts: Facts,
    /// Options of the source.
    pub options: Options,
    /// Calls and their outcomes.
    pub flow: Flow<()>,
    /// The claim protocol.
    pub protocol: Protocol,
    /// The register.
    pub store: Box<dyn Store>,
    /// The clocks.
    pub clocks: Clocks,
    /// Orders.
    pub orders: mpsc::Receiver<Order>,
    /// Why nothing is claimed; empty when all is well.
    pub status: Arc<Mutex<String>>,
}

/// See the module.
pub struct CronThread {
    pub(super) facts: Facts,
    pub(super) options: Options,
    pub(super) flow: Flow<()>,
    pub(super) protocol: Protocol,
    pub(super) store: Box<dyn Store>,
    pub(super) clocks: Clocks,
    orders: mpsc::Receiver<Order>,
    status: Arc<Mutex<String>>,
    steps: StepWatch,
    /// The wall clock as it was last compared with the boot clock.
    looked_ms: i64,
    /// Instants before this one came due while nobody looked.
    pub(super) watched_from: i64,
    pub(super) suspended_until: i64,
    suspended: bool,
    /// How often it was suspended, as of the last look.
    pauses: u64,
    /// When the trigger was made, where that is known.
    pub(super) created: Option<i64>,
    /// When the register was last read or written, by the boot clock.
    pub(super) seen_boot_ms: u64,
    /// Nothing is due before this instant, if the register's last one is the first of the two.
    pub(super) quiet: Option<(i64, i64)>,
    /// Instants whose line is in the batch, not yet in the journal.
    pub(super) unwritten: Vec<i64>,
    /// The same for instants of others.
    pub(super) unreported: Vec<Open>,
    retry_at: Instant,
    pause: Duration,
    pub(super) lag: Gauge,
    pub(super) skew: Gauge,
}

impl CronThread {
    /// Nothing has been read yet.
    pub fn new(parts: ThreadParts) -> Self {
        let (wall_ms, boot_ms) = ((parts.clocks.wall_ms)(), (parts.clocks.boot_ms)());
        let grace = i64::try_from(parts.options.restart_grace.as_secs()).unwrap_or(0);
        let metrics = parts.flow.subscription().metrics();
        let (lag, skew) = (metrics.lag("clock", 0), metrics.clock_skew());
        Self {
            watched_from: wall_ms.div_euclid(1000) - grace,
            suspended_until: i64::MIN,
            suspended: parts.flow.subscription().settings().paused,
            pauses: parts.flow.subscription().pauses(),
            created: None,
            seen_boot_ms: 0,
            quiet: None,
            unwritten: Vec::new(),
            unreported: Vec::new(),
            retry_at: Instant::now(),
            pause: RETRY.0,
            steps: StepWatch::new(wall_ms, boot_ms),
            looked_ms: wall_ms,
            facts: parts.facts,
            options: parts.options,
            flow: parts.flow,
            protocol: parts.protocol,
            store: parts.store,
            clocks: parts.clocks,
            orders: parts.orders,
            status: parts.status,
            lag,
            skew,
        }
    }

    /// Runs until ordered to stop. Blocking: owns its thread.
    pub fn run(mut self) -> Exit {
        let deadline = loop {
            self.look_at_clocks();
            self.collect();
            self.act_if_due();
            self.flow.publish();
            match self.orders.try_recv() {
                Ok(Order::Stop(deadline)) => break deadline,
                Err(mpsc::TryRecvError::Disconnected) => break Instant::now(),
                Err(mpsc::TryRecvError::Empty) => {}
            }
            let wait = self.wait();
            if let Waited::Ended(ended) = self.flow.wait(wait) {
                self.note(&ended);
            }
        };
        self.finish(deadline);
        Exit::Stopped
    }

    /// Wall clock in milliseconds, as of the last look: what is planned by it was compared with the boot clock first.
    pub(super) fn now_ms(&self) -> i64 {
        self.looked_ms
    }

    /// True: the clock was set, and what the server said of it has to be asked again.
    pub(super) fn look_at_clocks(&mut self) -> bool {
        let (wall_ms, boot_ms) = ((self.clocks.wall_ms)(), (self.clocks.boot_ms)());
        self.looked_ms = wall_ms;
        let step = self.steps.look(wall_ms, boot_ms);
        if let Some(step_ms) = step {
            tracing::warn!(trigger = %self.facts.reference, step_ms, "The clock of this machine was set");
            // What the server's clock said of ours is not true any more.
            self.protocol.forget_view();
            self.quiet = None;
        }
        let paused = self.flow.subscription().settings().paused;
        let pauses = self.flow.subscription().pauses();
        let paused_since = std::mem::replace(&mut self.pauses, pauses) != pauses;
        if (self.suspended || paused_since) && !paused {
            // Read anew: a pause may have begun and ended since the look above.
            self.suspended_until = (self.clocks.wall_ms)().div_euclid(1000);
            self.quiet = None;
        }
        self.suspended = paused;
        step.is_some()
    }

    /// Takes ended calls; tells the protocol once their lines are in the journal.
    fn collect(&mut self) {
        let mut ended = Vec::new();
        self.flow.collect(|_, call| ended.push(call));
        for call in &ended {
            self.note(call);
        }
        if self.flow.write_journal() {
            for instant in self.unwritten.drain(..) {
                self.protocol.ended(instant);
            }
            for open in self.unreported.drain(..) {
                self.protocol.reported(&open);
            }
        }
    }

    /// A call of ours ended: its line is in the batch.
    pub(super) fn note(&mut self, ended: &Ended<()>) {
        self.unwritten.push(ended.call.event.position.sequence);
    }

    fn act_if_due(&mut self) {
        if Instant::now() < self.retry_at || !self.has_work() {
            return;
        }
        match self.act() {
            Ok(()) => {
                self.pause = RETRY.0;
                self.retry_at = Instant::now();
                self.connected(true);
                self.say("");
            }
            Err(why) => {
                self.retry_at = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(RETRY.1);
                self.connected(false);
                self.say(&why);
            }
        }
        // What it named or gave up is written before anything else happens.
        self.collect();
        self.flow.publish_slow();
    }

    fn has_work(&self) -> bool {
        let now_s = self.now_ms().div_euclid(1000);
        let overdue = || self.protocol.foreign().any(|open| open.deadline < now_s);
        self.protocol.step() != Step::Plan || self.protocol.is_dirty() || overdue() || self.is_due(now_s)
    }

    fn is_due(&self, now_s: i64) -> bool {
        if self.suspended {
            return false;
        }
        let last = self.protocol.view().and_then(|view| view.register.settled_until());
        match (self.quiet, last) {
            (Some((after, next)), Some(last)) if after == last => now_s >= next,
            _ => true,
        }
    }

    fn wait(&self) -> Duration {
        let look = self.clocks.look;
        if self.flow.calls() > 0 || !self.unwritten.is_empty() {
            return BUSY_LOOK.min(look);
        }
        if self.has_work() {
            return self.retry_at.saturating_duration_since(Instant::now()).max(BUSY_LOOK).min(look);
        }
        let next_ms = self.quiet.map_or(i64::MAX, |(_, next)| next.saturating_mul(1000));
        let left = next_ms.saturating_sub((self.clocks.wall_ms)()).max(1);
        Duration::from_millis(left.unsigned_abs()).min(look)
    }

    /// Says whether instants are claimed, were one due.
    fn connected(&self, connected: bool) {
        let subscription = self.flow.subscription();
        subscription.metrics().connected.set(if connected { 1.0 } else { 0.0 });
        subscription.set_connected(connected);
    }

    /// Sets the status; says once in the log what is wrong and once that it is over.
    fn say(&self, why: &str) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if *status == why {
            return;
        }
        let trigger = &self.facts.reference;
        if why.is_empty() {
            tracing::info!(%trigger, was = *status, "Claiming again");
        } else if status.is_empty() {
            tracing::warn!(%trigger, why, "Nothing is claimed");
        }
        why.clone_into(&mut status);
    }

    /// Claims nothing more, waits for what runs, closes the register.
    fn finish(&mut self, deadline: Instant) {
        testkit::point("shutdown_drain");
        while self.flow.calls() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if let Waited::Ended(ended) = self.flow.wait(left.min(BUSY_LOOK)) {
                self.note(&ended);
            }
            self.collect();
            self.close();
        }
        let places: Vec<_> = self.flow.running().collect();
        for place in places {
            if let Some(ended) = self.flow.give_up(place, "the dispatcher stopped while the call ran") {
                self.note(&ended);
            }
        }
        self.collect();
        self.close();
        self.flow.publish();
        self.connected(false);
    }

    /// Takes what has ended out of the register, if that is possible without waiting for long.
    fn close(&mut self) {
        let until = clock::boot_ms() + u64::try_from(self.options.request_timeout.as_millis()).unwrap_or(0);
        while self.protocol.view().is_none() || self.protocol.is_dirty() {
            if self.close_once().is_err() || clock::boot_ms() >= until {
                return;
            }
        }
    }
}
