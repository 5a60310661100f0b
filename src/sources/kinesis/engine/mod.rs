//! The thread of one subscription: lists shards, takes those that are free, reads, claims and names, all on one runtime of
//! its own. Must never block on a function or hold up one shard for another, and never read faster than the service allows.

mod claiming;
mod ending;
mod holding;
mod reading;
mod slots;

use super::{
    client::{Address, Client, Fault, Stream},
    dead_letter,
    decode::Decoder,
    options::Options,
    protocol::plan::Plan,
    register::{Start, Token},
    spec::StartingPosition,
};
use crate::{
    clock,
    dispatch::{Flow, Subscription},
    register::{MakeStore, Store, Stored, Written},
    sources::{Exit, Order},
};
use futures_util::{FutureExt as _, StreamExt as _, future::LocalBoxFuture, stream::FuturesUnordered};
use slots::Slot;
use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How often orders and what is due are looked at when nothing else happens.
const TICK: Duration = Duration::from_millis(50);
/// Pause before the stream is asked for again after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// How long calls that were queued may take to come back once their lease was stopped.
const SWEEP: Duration = Duration::from_millis(600);
/// Looks at the register, and renewals, in one failover time.
const LOOKS: u32 = 3;

/// What the thread is made of.
pub struct Parts {
    /// What it serves.
    pub subscription: Arc<Subscription>,
    /// Its calls.
    pub flow: Flow<Note>,
    /// Where the stream is.
    pub address: Address,
    /// The stream.
    pub stream: Arc<str>,
    /// The only shard that is read; `None`: all.
    pub only: Option<String>,
    /// Where a subscription without a register begins.
    pub start: StartingPosition,
    /// The instant of `AT_TIMESTAMP`.
    pub start_ms: Option<i64>,
    /// Whether all records of a shard are of one lane.
    pub in_order: bool,
    /// The register's place.
    pub store: MakeStore,
    /// Name of the register: one for each trigger, function and stream.
    pub group: String,
    /// Records to events.
    pub decoder: Decoder,
    /// Where dead letters go.
    pub dead_letters: Option<dead_letter::Writer>,
    /// Whether originals are kept for them.
    pub keep_originals: bool,
    /// Options.
    pub options: Arc<Options>,
    /// This start of the thread.
    pub token: Token,
    /// Rings when a call ended.
    pub wake: Arc<Notify>,
    /// Orders.
    pub orders: mpsc::Receiver<Order>,
    /// Why it is not consuming.
    pub status: Arc<Mutex<String>>,
}

/// Where a call's record stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Shard.
    pub shard: String,
    /// Place.
    pub at: super::place::Place,
}

/// What came back from a future.
enum Event {
    Described(Result<Stream, Fault>),
    Listed { result: Result<Vec<(String, Stored)>, String>, asked_ms: u64 },
    Began(Written),
    Present(Written),
    Wrote(Box<Wrote>),
    Fetched(reading::Fetched),
    Swept,
    Left,
}

/// A conditional write of a shard's row, answered.
struct Wrote {
    shard: String,
    plan: Plan,
    purpose: Purpose,
    written: Written,
    /// Boot clock, when it was first sent.
    sent_ms: u64,
    took: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Take,
    Keep,
    Release,
}

/// See the module.
pub struct Engine {
    parts: Parts,
    client: Rc<Client>,
    store: Rc<dyn Store>,
    work: FuturesUnordered<LocalBoxFuture<'static, Event>>,
    slots: BTreeMap<String, Slot>,
    /// The stream's generation, once it is known.
    generation: Option<Generation>,
    members: slots::Members,
    describing: bool,
    describe_at: Instant,
    listing: bool,
    list_at: Instant,
    stopping: Option<Instant>,
    /// Calls that ended; their entries close once the journal has their lines.
    ended: Vec<Note>,
    /// Entries that were named; likewise.
    naming: Vec<Note>,
    /// Claims that are on their way.
    planned: usize,
    epoch: u64,
    served: String,
    farewell: Farewell,
    /// What is wrong, by what it is wrong with.
    troubles: BTreeMap<String, String>,
    last_slow: Instant,
}

/// The stream as it was made at one time.
struct Generation {
    created_ms: i64,
    retention_ms: i64,
    folder: Rc<str>,
    /// Where its first shards begin; `None`: not read yet.
    origin: Option<slots::Origin>,
    beginning: bool,
    /// Every shard of the stream, also where only one is read.
    listed: Vec<String>,
}

/// The own sign of life goes when nothing is held any more, so that the others need not wait until it is old.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Farewell {
    Due,
    Sent,
    Said,
}

/// Runs the thread until it is told to stop.
pub fn run(parts: Parts) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(serve(parts)),
        Err(error) => Exit::Failed(format!("no runtime: {error}"), Duration::ZERO),
    }
}

async fn serve(mut parts: Parts) -> Exit {
    let letters = parts.dead_letters.take();
    let engine = Engine::new(parts).await;
    let writing = letters.map(|letters| letters.start((*engine.client).clone()));
    // The engine ends with it, and with the engine the queue's other end.
    let exit = engine.serve().await;
    if let Some(writing) = writing {
        writing.finish().await;
    }
    exit
}

impl Engine {
    async fn new(mut parts: Parts) -> Self {
        let client = Rc::new(Client::new(&parts.address, &parts.stream, &parts.options).await);
        let store = std::mem::replace(&mut parts.store, Box::new(|| unreachable!("taken once")));
        let now = Instant::now();
        Self {
            client,
            store: store(),
            work: FuturesUnordered::new(),
            slots: BTreeMap::new(),
            generation: None,
            members: slots::Members::new(parts.token),
            parts,
            describing: false,
            describe_at: now,
            listing: false,
            list_at: now,
            stopping: None,
            ended: Vec::new(),
            naming: Vec::new(),
            planned: 0,
            epoch: 0,
            served: String::new(),
            farewell: Farewell::Due,
            troubles: BTreeMap::new(),
            last_slow: now,
        }
    }

    async fn serve(mut self) -> Exit {
        let wake = Arc::clone(&self.parts.wake);
        loop {
            if let Some(exit) = self.turn() {
                return exit;
            }
            // Cancel-safe: a future of `work` stays in it until it is done.
            let event = tokio::select! {
                Some(event) = self.work.next() => Some(event),
                () = wake.notified() => None,
                () = tokio::time::sleep(TICK) => None,
            };
            let mut event = event;
            while let Some(done) = event {
                if let Err(exit) = self.handle(done) {
                    return exit;
                }
                event = self.work.next().now_or_never().flatten();
            }
        }
    }

    /// One round; everything here is quick.
    fn turn(&mut self) -> Option<Exit> {
        match self.parts.orders.try_recv() {
            Ok(Order::Stop(deadline)) => {
                self.stopping = Some(self.stopping.map_or(deadline, |d| d.min(deadline)));
            }
            Err(mpsc::TryRecvError::Empty) => {}
            // Whoever would give orders is gone: the process ends.
            Err(mpsc::TryRecvError::Disconnected) => {
                self.stopping.get_or_insert_with(Instant::now);
            }
        }
        self.collect();
        self.name();
        self.write_journal();
        self.overdue();
        self.write_rows();
        if self.stopping.is_none() {
            self.look();
            self.fetch();
        }
        self.publish();
        self.is_stopped().then_some(Exit::Stopped)
    }

    fn handle(&mut self, event: Event) -> Result<(), Exit> {
        match event {
            Event::Described(result) => return self.described(result),
            Event::Listed { result, asked_ms } => self.listed(result, asked_ms),
            Event::Began(written) => self.began(&written),
            Event::Present(written) => self.members.present(written),
            Event::Wrote(wrote) => self.wrote(*wrote),
            Event::Fetched(fetched) => self.fetched(fetched),
            Event::Swept => {}
            Event::Left => self.farewell = Farewell::Said,
        }
        Ok(())
    }

    fn is_stopped(&mut self) -> bool {
        let Some(deadline) = self.stopping else { return false };
        // What the journal does not take is named by the successor: the entries stay in the rows.
        let late = Instant::now() > deadline + SWEEP * 3;
        let clear = self.slots.values().all(|slot| slot.held.is_none() && !slot.busy);
        let ended = clear && self.parts.flow.calls() == 0 && self.ended.is_empty() && !self.members.busy;
        if ended && self.farewell == Farewell::Due {
            self.farewell = if self.leave() { Farewell::Sent } else { Farewell::Said };
        }
        late || ended && self.farewell == Farewell::Said
    }

    /// Says what is wrong with `at` (a shard, the stream, the register), to people and to the log, once for each; empty: nothing.
    fn trouble(&mut self, at: &str, why: &str) {
        let trigger = self.parts.subscription.trigger();
        let changed = if why.is_empty() {
            let gone = self.troubles.remove(at).is_some();
            if gone {
                tracing::info!(%trigger, at, "Consuming again");
            }
            gone
        } else {
            let before = self.troubles.insert(at.to_owned(), why.to_owned());
            if before.is_none() {
                tracing::warn!(%trigger, at, why, "Not consuming");
            }
            before.as_deref() != Some(why)
        };
        if changed {
            let mut status = self.parts.status.lock().unwrap_or_else(PoisonError::into_inner);
            *status = self.troubles.values().next().cloned().unwrap_or_default();
        }
    }

    fn failover_ms(&self) -> u64 {
        u64::try_from(self.parts.options.failover_time.as_millis()).unwrap_or(u64::MAX)
    }

    fn start(&self) -> Start {
        match (self.parts.start, self.parts.start_ms) {
            (StartingPosition::TrimHorizon, _) => Start::Horizon,
            (StartingPosition::AtTimestamp, Some(ms)) => Start::Time(ms),
            // Written down, so that a restart before the first record begins where this one did.
            _ => Start::Time(clock::unix_ms()),
        }
    }

    fn publish(&mut self) {
        self.parts.flow.publish();
        if self.last_slow.elapsed() >= Duration::from_secs(1) {
            self.last_slow = Instant::now();
            self.parts.flow.publish_slow();
        }
    }
}
