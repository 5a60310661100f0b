//! What was received and waits, and its way into calls: judged in order of arrival, claimed, started. Used by one thread.
//! Must never hold more than its bounds, and never start more than [`Flow::budget`] allows.

use crate::{
    clock,
    dispatch::{
        Answer, Ended, Flow, InFlight, Judgement, StartLease, dead_letter::Original, recorder::Ending,
        subscription::Pending,
    },
    event::{Event, Position, message::Rejection},
    ledger::Outcome,
};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

/// A turn of the thread is no longer than this: more means that nothing was to be done.
const LONGEST_TURN: Duration = Duration::from_millis(10);
/// Longest wait for a source or a register that counts.
const LONGEST: Duration = Duration::from_secs(1);

/// A message that waits, or why it is none.
#[derive(Debug)]
pub enum Body {
    /// To be judged.
    Event(Arc<Event>),
    /// Ends as `rejected` when its turn comes.
    Rejected(Position, Rejection),
}

/// One message in our hands. `N` is what closes it at the source.
#[derive(Debug)]
pub struct Item<N> {
    /// What it is.
    pub body: Body,
    /// The message as it was, where a dead-letter sink wants it.
    pub original: Option<Arc<Original>>,
    /// Bytes it holds.
    pub weight: usize,
    /// Until when its call may start.
    pub lease: Arc<StartLease>,
    /// The source's note.
    pub note: N,
}

impl<N> Item<N> {
    /// Where it stands.
    pub fn position(&self) -> &Position {
        match &self.body {
            Body::Event(event) => &event.position,
            Body::Rejected(position, _) => position,
        }
    }

    fn id(&self) -> &str {
        match &self.body {
            Body::Event(event) => &event.attributes.id,
            Body::Rejected(..) => "",
        }
    }
}

/// See the module.
pub struct Intake<N> {
    /// The calls.
    pub flow: Flow<N>,
    waiting: VecDeque<Item<N>>,
    closed: Vec<(N, Outcome)>,
    serial: bool,
    full: bool,
    /// When calls were started last.
    started: Instant,
    /// How long it takes from asking the source for messages until they are here, and then until they are claimed; zero: they
    /// come unasked, or are claimed by that.
    fetch: Duration,
    claim: Duration,
}

impl<N> Intake<N> {
    /// Nothing waits yet. `serial`: one call at a time, in order of arrival.
    pub fn new(flow: Flow<N>, serial: bool) -> Self {
        Self {
            flow,
            waiting: VecDeque::new(),
            closed: Vec::new(),
            serial,
            full: false,
            started: Instant::now(),
            fetch: Duration::ZERO,
            claim: Duration::ZERO,
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Notes of what waits and of what runs.
    pub fn notes(&self) -> impl Iterator<Item = &N> {
        self.waiting.iter().map(|item| &item.note).chain(self.flow.notes())
    }

    /// Whether nothing waits and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flow.calls() == 0
    }

    /// Whether the deduplication window was full at the last look.
    pub fn is_window_full(&self) -> bool {
        self.full
    }

    /// Says whether the subscription receives.
    pub fn connected(&self, connected: bool) {
        let subscription = self.flow.subscription();
        subscription.metrics().connected.set(if connected { 1.0 } else { 0.0 });
        subscription.set_connected(connected);
    }

    /// Messages that were asked for took so long.
    pub fn fetched(&mut self, took: Duration) {
        // Longer ones were not answered at once: another member took what was there.
        if took < LONGEST {
            average(&mut self.fetch, took);
        }
    }

    /// The register took so long to claim some.
    pub fn claimed(&mut self, took: Duration) {
        average(&mut self.claim, took.min(LONGEST));
    }

    /// Takes a message in.
    pub fn push(&mut self, item: Item<N>) {
        self.flow.hold(item.weight);
        self.admit(item);
    }

    /// Takes a message in whose bytes are counted already.
    pub fn admit(&mut self, item: Item<N>) {
        self.waiting.push_back(item);
    }

    /// Takes the results of calls, writes the journal, and hands what ended to `close` for the source. Nothing is closed, and
    /// nothing may start, while the journal cannot be written.
    pub fn settle(&mut self, mut close: impl FnMut(N, Outcome)) {
        let Self { flow, closed, .. } = self;
        flow.collect(|_, Ended { call, outcome, .. }| closed.push((call.note, outcome)));
        if flow.write_journal() {
            closed.drain(..).for_each(|(note, outcome)| close(note, outcome));
        }
    }

    /// Judges and starts what may start now. The delivery was the claim: the server gave it to nobody else.
    pub fn start(&mut self) {
        self.full = false;
        let mut room = self.flow.budget(self.flow.calls());
        if self.serial {
            room = if self.flow.calls() == 0 { room.min(self.flow.pace.depth()) } else { 0 };
        }
        if room == 0 || self.waiting.is_empty() {
            return;
        }
        let batch = self.judge(room);
        if batch.is_empty() {
            return;
        }
        let subscription = Arc::clone(self.flow.subscription());
        let window = subscription.window().shard(0);
        crate::testkit::point("before_claim");
        self.flow.claim(batch, |pending| {
            for item in pending {
                // Log time is the time of arrival: it never runs backwards here.
                if let Some(id) = item.event.business.filter(|_| subscription.settings().dedup) {
                    window.enter(id, item.event.position.sequence, item.event.position.time_ms);
                }
            }
            vec![Answer::Granted; pending.len()]
        });
        crate::testkit::point("after_claim");
        // What completes until the thread is here again, and until what it asks for now has come.
        let turn = self.started.elapsed().min(LONGEST_TURN) + self.fetch + self.claim;
        self.flow.pace.committed(turn, Duration::MAX);
        self.started = Instant::now();
    }

    fn judge(&mut self, room: usize) -> Vec<(Pending, InFlight<N>)> {
        let subscription = Arc::clone(self.flow.subscription());
        let mut judging = subscription.judging(clock::unix_ms());
        let mut batch = Vec::with_capacity(room.min(self.waiting.len()));
        while batch.len() < room {
            let Some(item) = self.waiting.pop_front() else { break };
            let event = match &item.body {
                Body::Event(event) => Arc::clone(event),
                Body::Rejected(_, rejection) => {
                    let reason = rejection.reason;
                    let seeded = crate::testkit::bug("poison_is_delivered");
                    let outcome = if seeded { Outcome::Delivered } else { Outcome::Rejected };
                    self.end(item, outcome, reason);
                    continue;
                }
            };
            match judging.judge(0, event.position.sequence, event.position.time_ms, &event) {
                Judgement::Start => {
                    let chain = if self.serial { 0 } else { batch.len() as u64 };
                    let pending = Pending {
                        shard: 0,
                        chain,
                        event: Arc::clone(&event),
                        lease: Arc::clone(&item.lease),
                    };
                    let Item { original, weight, note, .. } = item;
                    batch.push((pending, InFlight { event, original, weight, note }));
                }
                Judgement::Pass(outcome, reason) => self.end(item, outcome, reason.as_str()),
                Judgement::Wait => {
                    self.waiting.push_front(item);
                    self.full = true;
                    break;
                }
            }
        }
        batch
    }

    /// Ends a message without a call.
    fn end(&mut self, item: Item<N>, outcome: Outcome, reason: &str) {
        let ending = Ending {
            id: item.id(),
            position: item.position(),
            outcome,
            reason: Some(reason),
            settled: None,
            owner: None,
            count: 1,
        };
        self.flow.received(1);
        self.flow.recorder.end(&ending);
        self.flow.offer(item.original.as_ref(), &ending);
        self.flow.release(item.weight);
        self.closed.push((item.note, outcome));
    }

    /// The time is over: what waits ends as `outcome`, what runs as `unanswered`.
    pub fn give_up(&mut self, outcome: Outcome, reason: &'static str) {
        while let Some(item) = self.waiting.pop_front() {
            item.lease.stop();
            self.end(item, outcome, reason);
        }
        let running: Vec<_> = self.flow.running().collect();
        for place in running {
            if let Some(Ended { call, outcome, .. }) = self.flow.give_up(place, reason) {
                self.closed.push((call.note, outcome));
            }
        }
    }
}

fn average(value: &mut Duration, sample: Duration) {
    *value = if value.is_zero() { sample } else { value.mul_f64(0.9) + sample.mul_f64(0.1) };
}
