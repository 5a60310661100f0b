//! Worker threads: each has its own current-thread runtime and its own connections, and runs claimed calls within
//! the permits of subscription and function. Must never run two calls of one chain at once.
//!
//! Hot path: a task runs one chain after another while there are any, so none is made for each; no lock.

use crate::{
    claims::Claimed,
    event::{Event, hasher::Plain},
    invoker::{Call, Invoker, InvokerConfig, Settled},
};
use futures_util::FutureExt as _;
use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::{Arc, mpsc},
    time::Duration,
};
use tokio::{
    runtime::LocalOptions,
    sync::{Notify, Semaphore, mpsc as tokio_mpsc},
};
use tokio_util::task::TaskTracker;

/// How often idle connections and calls that may not start any more are looked for.
const TICK: Duration = Duration::from_millis(250);

/// A finished call, on its way back to the source's thread.
#[derive(Debug)]
pub struct Done {
    /// The event.
    pub event: Arc<Event>,
    /// How the call ended.
    pub settled: Settled,
}

/// The way of results back to a source's thread.
#[derive(Clone, Debug)]
pub struct DoneSender {
    channel: mpsc::Sender<Done>,
    wake: Option<Arc<Notify>>,
}

impl DoneSender {
    /// To a thread that blocks on the other end of `channel`.
    pub const fn new(channel: mpsc::Sender<Done>) -> Self {
        Self { channel, wake: None }
    }

    /// To one that awaits `wake` and then looks.
    #[must_use]
    pub fn waking(self, wake: Arc<Notify>) -> Self {
        Self { wake: Some(wake), ..self }
    }

    /// Sends. The source's thread outlives its calls; if it is gone the process is ending and the successor names them.
    fn send(&self, done: Done) {
        let _ = self.channel.send(done);
        if let Some(wake) = &self.wake {
            wake.notify_one();
        }
    }
}

/// Limits that a call holds while it runs.
#[derive(Clone, Debug)]
pub struct Permits {
    /// Of the subscription (`delivery.maxInFlight`).
    pub subscription: Arc<Semaphore>,
    /// Of the function, over all subscriptions of the process.
    pub function: Arc<Semaphore>,
    /// How many the subscription has in all: more runners than this could only wait.
    pub limit: usize,
}

/// Claimed calls of one lane, to be run one after another.
#[derive(Debug)]
pub struct Chain {
    /// The calls.
    pub calls: Vec<Claimed<Call>>,
    /// Limits.
    pub permits: Permits,
    /// Where the results go.
    pub done: DoneSender,
}

/// The worker threads of a process.
#[derive(Debug)]
pub struct Workers {
    // Unbounded, because every chain in it was claimed within its subscription's claim window. A thread ends with its queue.
    queues: Vec<tokio_mpsc::UnboundedSender<Vec<Chain>>>,
    backoff_interval: Duration,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// A thread or its runtime cannot be started.
    pub fn start(count: usize, config: &InvokerConfig) -> std::io::Result<Self> {
        let mut queues = Vec::with_capacity(count);
        for number in 0..count.max(1) {
            let (queue, receiver) = tokio_mpsc::unbounded_channel();
            let config = config.clone();
            let (begun, start) = mpsc::channel();
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                // Made here, because a local runtime never leaves its thread.
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default());
                match runtime {
                    Ok(runtime) => {
                        let _ = begun.send(Ok(()));
                        runtime.block_on(work(receiver, config));
                    }
                    Err(error) => drop(begun.send(Err(error))),
                }
            })?;
            start.recv().map_err(|_| std::io::Error::other("a worker thread ended at once"))??;
            queues.push(queue);
        }
        Ok(Self { queues, backoff_interval: Duration::ZERO })
    }

    /// With pauses of subscriptions after calls that failed, `longest` at most.
    #[must_use]
    pub fn pausing(self, longest: Duration) -> Self {
        Self { backoff_interval: longest, ..self }
    }

    /// Longest pause of a subscription after a call that failed; zero: none.
    pub fn backoff_interval(&self) -> Duration {
        self.backoff_interval
    }

    /// Hands chains to the worker of `shard` (any number; equal numbers go to the same thread).
    pub fn run(&self, shard: u64, chains: Vec<Chain>) {
        let at = usize::try_from(shard % self.queues.len() as u64).unwrap_or(0);
        // A worker ends only when all senders are gone, so this cannot fail while `self` lives.
        let _ = self.queues[at].send(chains);
    }
}

/// Chains of one subscription that wait on this thread, and how many tasks run them.
#[derive(Default)]
struct Lineup {
    chains: VecDeque<Chain>,
    runners: usize,
}

/// By the address of the subscription's permits, which a line-up's chains keep alive.
type Lineups = Rc<RefCell<HashMap<usize, Lineup, Plain>>>;

fn key(permits: &Permits) -> usize {
    Arc::as_ptr(&permits.subscription).addr()
}

async fn work(mut queue: tokio_mpsc::UnboundedReceiver<Vec<Chain>>, config: InvokerConfig) {
    let invoker = Rc::new(Invoker::new(config));
    let lineups = Lineups::default();
    let tasks = TaskTracker::new();
    let mut purge = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            chains = queue.recv() => match chains {
                Some(chains) => for chain in chains {
                    if let Some(permits) = line_up(&lineups, chain) {
                        let runner = Runner { lineups: Rc::clone(&lineups), permits };
                        tasks.spawn_local(run(Rc::clone(&invoker), runner));
                    }
                },
                None => break,
            },
            _ = purge.tick() => {
                invoker.purge();
                sweep(&lineups);
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

/// Ends what waits for a permit after its lease was stopped (the shard was revoked or lost): it was never sent.
fn sweep(lineups: &Lineups) {
    let stopped = |chain: &Chain| chain.calls.first().is_some_and(|call| call.get().lease.is_stopped());
    for lineup in lineups.borrow_mut().values_mut().filter(|l| l.chains.iter().any(stopped)) {
        let (gone, left) = std::mem::take(&mut lineup.chains).into_iter().partition(stopped);
        lineup.chains = left;
        let gone: VecDeque<Chain> = gone;
        for chain in gone {
            for call in chain.calls {
                let event = call.spend().event;
                let settled = Settled::never_sent("the partition went before the call could start");
                chain.done.send(Done { event, settled });
            }
        }
    }
}

/// Puts `chain` at the end of its line; the permits of a runner to start, where one more could run.
fn line_up(lineups: &Lineups, chain: Chain) -> Option<Permits> {
    let mut lineups = lineups.borrow_mut();
    let lineup = lineups.entry(key(&chain.permits)).or_default();
    let permits = (lineup.runners < chain.permits.limit.max(1)).then(|| chain.permits.clone());
    lineup.runners += usize::from(permits.is_some());
    lineup.chains.push_back(chain);
    permits
}

/// A task that runs the chains of one line.
struct Runner {
    lineups: Lineups,
    permits: Permits,
}

impl Runner {
    fn next(&self) -> Option<Chain> {
        self.lineups.borrow_mut().get_mut(&key(&self.permits))?.chains.pop_front()
    }
}

impl Drop for Runner {
    /// Also after a panic in a call: what waits is run by the others or by the next that comes.
    fn drop(&mut self) {
        let mut lineups = self.lineups.borrow_mut();
        if let Some(lineup) = lineups.get_mut(&key(&self.permits)) {
            lineup.runners -= 1;
            if lineup.runners == 0 && lineup.chains.is_empty() {
                lineups.remove(&key(&self.permits));
            }
        }
    }
}

/// A claimed call owes one result: sent when this is dropped, also if the call panicked.
struct Owed<'a> {
    event: Arc<Event>,
    done: &'a DoneSender,
    settled: Option<Settled>,
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        let settled = self.settled.take().unwrap_or_else(Settled::panicked);
        self.done.send(Done { event: Arc::clone(&self.event), settled });
    }
}

async fn run(invoker: Rc<Invoker>, runner: Runner) {
    loop {
        // Asked for anew for each chain, so that others of the function get their turn. The semaphores are never closed,
        // so an error cannot happen; a call without a permit would only run early.
        let _subscription = runner.permits.subscription.acquire().await.ok();
        let _function = runner.permits.function.acquire().await.ok();
        let Some(chain) = runner.next() else { return };
        for call in chain.calls {
            let mut owed = Owed { event: Arc::clone(&call.get().event), done: &chain.done, settled: None };
            // A defect in one call must not take the chain's others, nor this runner, with it.
            owed.settled = AssertUnwindSafe(invoker.invoke(call)).catch_unwind().await.ok();
        }
    }
}
