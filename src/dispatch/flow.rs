//! What every source's thread holds between its client and its register: the calls that run, their outcomes on the way
//! to the journal, dead letters, the bytes they hold and the pace. Must never claim on its own, and never tell a source
//! that a call ended before its line is in the batch that [`Flow::write_journal`] writes (N1).

use super::{
    Answer, Done, Subscription,
    dead_letter::{DeadLetterSink, Original},
    pace::Pace,
    recorder::{Ending, Recorder},
    subscription::Pending,
    worker::DoneSender,
};
use crate::{
    event::{Event, Position, hasher::Plain},
    invoker::Settled,
    ledger::{Outcome, journal::Line},
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};
use tokio::sync::Notify;

/// Shard and sequence: one running call.
pub type Place = (i32, i64);

/// A call that was started and has no outcome yet. `N` is the source's own note (an acknowledgement handle, say).
#[derive(Debug)]
pub struct InFlight<N> {
    /// The event.
    pub event: Arc<Event>,
    /// The record as it was, where a dead-letter sink wants it.
    pub original: Option<Arc<Original>>,
    /// Bytes it holds of the process's budget.
    pub weight: usize,
    /// The source's note.
    pub note: N,
}

impl InFlight<()> {
    /// An event that nobody wants to know more of.
    pub fn bare(event: &Arc<Event>) -> Self {
        Self { event: Arc::clone(event), original: None, weight: event.weight, note: () }
    }
}

/// A call that ended. Its line is in the batch, not yet in the journal.
#[derive(Debug)]
pub struct Ended<N> {
    /// The call.
    pub call: InFlight<N>,
    /// How it ended.
    pub outcome: Outcome,
    /// What the invoker knows of it; `None` when it was given up while it ran.
    pub settled: Option<Settled>,
}

/// What [`Flow::wait`] saw.
#[derive(Debug)]
pub enum Waited<N> {
    /// A call ended.
    Ended(Ended<N>),
    /// A call ended that was given up before.
    GivenUp,
    /// Nothing, until the time was over.
    Nothing,
}

/// What to make a [`Flow`] of.
pub struct FlowParts {
    /// Whose calls these are.
    pub subscription: Arc<Subscription>,
    /// The owner token as it stands in journal lines: 16 hexadecimal digits, new for each start of the thread.
    pub owner: String,
    /// Where records of events that were not delivered go.
    pub dead_letters: Option<Arc<dyn DeadLetterSink>>,
    /// Bytes of events held by all subscriptions of the process.
    pub memory: Arc<AtomicUsize>,
}

/// See the module. Used by one thread.
pub struct Flow<N> {
    /// Call and turn times: how much may be claimed.
    pub pace: Pace,
    /// Lines on their way to the journal, for endings that the methods here do not cover.
    pub recorder: Recorder,
    subscription: Arc<Subscription>,
    done: DoneSender,
    results: mpsc::Receiver<Done>,
    running: HashMap<Place, InFlight<N>, Plain>,
    dead_letters: Option<Arc<dyn DeadLetterSink>>,
    letters: Vec<(Arc<Original>, Line)>,
    memory: Arc<AtomicUsize>,
    held_bytes: usize,
    journal_broken: bool,
}

impl<N> Flow<N> {
    /// Nothing runs yet.
    pub fn new(parts: FlowParts) -> Self {
        let (done, results) = mpsc::channel();
        Self {
            pace: Pace::default(),
            recorder: parts.subscription.recorder(parts.owner),
            subscription: parts.subscription,
            done: DoneSender::new(done),
            results,
            running: HashMap::default(),
            dead_letters: parts.dead_letters,
            letters: Vec::new(),
            memory: parts.memory,
            held_bytes: 0,
            journal_broken: false,
        }
    }

    /// Has `wake` notified whenever a call ended, for a source whose thread awaits instead of blocking.
    pub fn waking(mut self, wake: Arc<Notify>) -> Self {
        self.done = self.done.clone().waking(wake);
        self
    }

    /// Whose calls these are.
    pub fn subscription(&self) -> &Arc<Subscription> {
        &self.subscription
    }

    /// Where results of started calls are to go.
    pub fn done(&self) -> &DoneSender {
        &self.done
    }

    /// Whether the last write of the journal failed: nothing may be claimed until one succeeds.
    pub fn is_journal_broken(&self) -> bool {
        self.journal_broken
    }

    /// Places of the calls that run, in no order.
    pub fn running(&self) -> impl Iterator<Item = Place> {
        self.running.keys().copied()
    }

    /// Notes of the calls that run, in no order.
    pub fn notes(&self) -> impl Iterator<Item = &N> {
        self.running.values().map(|call| &call.note)
    }

    /// How many calls run.
    pub fn calls(&self) -> usize {
        self.running.len()
    }

    /// Bytes that the calls which run hold.
    pub fn running_bytes(&self) -> usize {
        self.running.values().map(|call| call.weight).sum()
    }

    /// Bytes held in all.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Counts `bytes` against the process's budget.
    pub fn hold(&mut self, bytes: usize) {
        self.held_bytes += bytes;
        self.memory.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives `bytes` back, never more than were held.
    pub fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.held_bytes);
        self.held_bytes -= bytes;
        self.memory.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes that all subscriptions of the process hold.
    pub fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    /// `n` events were taken over from the source.
    pub fn received(&self, n: u64) {
        self.subscription.conservation().received(n);
        self.subscription.metrics().received.increment(n);
    }

    /// How many events may be claimed now while `open` are claimed and unfinished; 0 where nothing may be.
    pub fn budget(&self, open: usize) -> usize {
        if self.journal_broken || !self.subscription.may_claim() {
            return 0;
        }
        let settings = self.subscription.settings();
        let window = self.pace.window(settings.max_in_flight, settings.claim_window);
        // Rule 4: what other subscriptions keep busy is not claimed for, beyond what one commit completes.
        let ahead = window.saturating_sub(settings.max_in_flight);
        let room = self.subscription.function_has_room_for().saturating_add(ahead);
        window.saturating_sub(open).min(room)
    }

    /// A granted call was started.
    pub fn begin(&mut self, call: InFlight<N>) {
        let position = &call.event.position;
        self.running.insert((position.shard, position.sequence), call);
    }

    /// Takes all results that the workers have sent.
    pub fn collect(&mut self, mut each: impl FnMut(&mut Self, Ended<N>)) {
        while let Ok(done) = self.results.try_recv() {
            if let Some(ended) = self.finished(done) {
                each(self, ended);
            }
        }
    }

    /// Waits for one result, `left` at most.
    pub fn wait(&mut self, left: Duration) -> Waited<N> {
        match self.results.recv_timeout(left) {
            Ok(done) => self.finished(done).map_or(Waited::GivenUp, Waited::Ended),
            Err(_) => Waited::Nothing,
        }
    }

    /// A call ended. One that was given up before has its outcome already.
    fn finished(&mut self, done: Done) -> Option<Ended<N>> {
        let place = (done.event.position.shard, done.event.position.sequence);
        // After a cut log the same position may hold another event: its entry is not this call's.
        if !self.running.get(&place).is_some_and(|call| Arc::ptr_eq(&call.event, &done.event)) {
            return None;
        }
        let call = self.running.remove(&place)?;
        self.pace.called(done.settled.took);
        self.observe(&done);
        let (outcome, reason) = (done.settled.outcome, done.settled.reason);
        self.end(&call, &Ending { settled: Some(&done.settled), ..ending(&call.event, outcome, reason) });
        Some(Ended { call, outcome, settled: Some(done.settled) })
    }

    /// Ends a call that still runs as `unanswered`, whatever it does later (N4). Its result is not looked at.
    pub fn give_up(&mut self, place: Place, reason: &'static str) -> Option<Ended<N>> {
        let call = self.running.remove(&place)?;
        let outcome = Outcome::Unanswered;
        self.end(&call, &ending(&call.event, outcome, Some(reason)));
        Some(Ended { call, outcome, settled: None })
    }

    /// Gives up every call whose note fits; returns the notes.
    pub fn give_up_where(&mut self, fits: impl Fn(&N) -> bool, reason: &'static str) -> Vec<N> {
        let places = self.running.iter().filter(|(_, call)| fits(&call.note)).map(|(place, _)| *place);
        let places: Vec<Place> = places.collect();
        places.into_iter().filter_map(|place| Some(self.give_up(place, reason)?.call.note)).collect()
    }

    fn end(&mut self, call: &InFlight<N>, ending: &Ending<'_>) {
        self.recorder.end(ending);
        self.release(call.weight);
        self.subscription.conservation().finished(1);
        self.subscription.ended(ending.outcome);
        self.offer(call.original.as_ref(), ending);
    }

    fn observe(&self, done: &Done) {
        let metrics = self.subscription.metrics();
        metrics.invocation_duration.record(done.settled.took);
        if done.settled.attempts > 1 {
            metrics.retries.increment(u64::from(done.settled.attempts) - 1);
        }
        let (sent, written) = (done.settled.sent_unix_ms, done.event.position.time_ms);
        if sent > 0 && written >= 0 {
            let late = u64::try_from(sent - written).unwrap_or(0);
            metrics.dispatch_latency.record(Duration::from_millis(late));
        }
    }

    /// Counts and names an event of a predecessor that has no outcome. `ending.owner` is the predecessor's token.
    pub fn inherited(&mut self, original: Option<&Arc<Original>>, ending: &Ending<'_>) {
        self.recorder.end(ending);
        self.subscription.conservation().inherited(1);
        self.subscription.metrics().inherited.increment(1);
        self.offer(original, ending);
    }

    /// A dead letter is offered once its line is in the journal.
    pub fn offer(&mut self, original: Option<&Arc<Original>>, ending: &Ending<'_>) {
        if let Some(original) = original
            && self.subscription.settings().dead_letter.contains(&ending.outcome)
        {
            self.letters.push((Arc::clone(original), self.recorder.line(ending)));
        }
    }

    /// Writes the batch of endings; until that succeeds nothing may be claimed. True when the journal holds all.
    pub fn write_journal(&mut self) -> bool {
        if self.recorder.is_pending() {
            crate::testkit::point("before_outcome");
        }
        match self.recorder.flush() {
            Ok(()) => {
                if let Some(sink) = &self.dead_letters {
                    for (original, line) in self.letters.drain(..) {
                        sink.offer(&original, &line);
                    }
                }
                if std::mem::take(&mut self.journal_broken) {
                    tracing::info!(trigger = %self.subscription.trigger(), "Journal is writable again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.journal_broken, true) {
                    tracing::error!(trigger = %self.subscription.trigger(), %error, "Claiming stopped");
                }
            }
        }
        crate::testkit::point("after_outcome");
        !self.journal_broken
    }

    /// Gauges that are exact between two batches.
    pub fn publish(&self) {
        if self.recorder.is_pending() {
            return;
        }
        let (metrics, conservation) = (self.subscription.metrics(), self.subscription.conservation());
        metrics.residual.set(conservation.residual() as f64);
        metrics.in_flight.set(conservation.in_flight() as f64);
    }

    /// Gauges that may be a second old.
    pub fn publish_slow(&self) {
        let metrics = self.subscription.metrics();
        metrics.held_bytes.set(self.held_bytes as f64);
        metrics.window_entries.set(self.subscription.window().len() as f64);
        metrics.inflight_invocations.set(self.subscription.calls_running() as f64);
    }
}

/// What a source without a shared register of positions needs: one durable answer an event, no order of commits.
impl<N> Flow<N> {
    /// Claims `batch` through `commit` (one answer an event, in order), starts what is granted and counts it as received.
    /// Returns the rest with their answers; their bytes stay held. Blocking while `commit` runs.
    pub fn claim(
        &mut self,
        batch: Vec<(Pending, InFlight<N>)>,
        commit: impl FnOnce(&[Pending]) -> Vec<Answer>,
    ) -> Vec<(InFlight<N>, Answer)> {
        let (mut pending, mut calls) = (Vec::with_capacity(batch.len()), HashMap::new());
        for (item, call) in batch {
            calls.insert((item.event.position.shard, item.event.position.sequence), call);
            pending.push(item);
        }
        let refused = self.subscription.claim_and_start(pending, &self.done, commit);
        let others = refused.into_iter().filter_map(|(item, answer)| {
            let position = &item.event.position;
            Some((calls.remove(&(position.shard, position.sequence))?, answer))
        });
        let others = others.collect();
        self.received(calls.len() as u64);
        for call in calls.into_values() {
            self.begin(call);
        }
        others
    }

    /// An event ends without a call: counts it as received and as `outcome`, gives its bytes back.
    pub fn pass<M>(&mut self, call: &InFlight<M>, outcome: Outcome, reason: &str) {
        self.received(1);
        let ending = ending(&call.event, outcome, Some(reason));
        self.recorder.end(&ending);
        self.release(call.weight);
        self.offer(call.original.as_ref(), &ending);
    }

    /// `count` events ended of which none was read (or none could be): counts them as received and as `outcome`.
    pub fn unread(&mut self, position: &Position, outcome: Outcome, reason: &str, count: u64) {
        self.received(count);
        self.recorder.end(&Ending {
            id: "",
            position,
            outcome,
            reason: Some(reason),
            settled: None,
            owner: None,
            count,
        });
    }
}

impl<N> Drop for Flow<N> {
    fn drop(&mut self) {
        // The budget is the process's: what this flow still held is free again.
        self.release(self.held_bytes);
    }
}

fn ending<'a>(event: &'a Event, outcome: Outcome, reason: Option<&'a str>) -> Ending<'a> {
    let (id, position) = (&*event.attributes.id, &event.position);
    Ending { id, position, outcome, reason, settled: None, owner: None, count: 1 }
}
