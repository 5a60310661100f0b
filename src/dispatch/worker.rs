//! Worker threads: each has its own current-thread runtime and its own connections, and runs claimed calls within
//! the permits of subscription and function. Must never run two calls of one chain at once.
//!
//! Hot path: one task per chain, no lock, no allocation beyond the task.

use crate::{
    claims::Claimed,
    event::Event,
    invoker::{Call, Invoker, InvokerConfig, Settled},
};
use std::{
    rc::Rc,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc as tokio_mpsc};
use tokio_util::task::TaskTracker;

/// A finished call, on its way back to the source's thread.
#[derive(Debug)]
pub struct Done {
    /// The event.
    pub event: Arc<Event>,
    /// How the call ended.
    pub settled: Settled,
}

/// Limits that a call holds while it runs.
#[derive(Clone, Debug)]
pub struct Permits {
    /// Of the subscription (`delivery.maxInFlight`).
    pub subscription: Arc<Semaphore>,
    /// Of the function, over all subscriptions of the process.
    pub function: Arc<Semaphore>,
}

/// Claimed calls of one lane, to be run one after another.
#[derive(Debug)]
pub struct Chain {
    /// The calls.
    pub calls: Vec<Claimed<Call>>,
    /// Limits.
    pub permits: Permits,
    /// Where the results go.
    pub done: mpsc::Sender<Done>,
}

#[derive(Debug)]
struct Worker {
    // Unbounded, because every chain in it was claimed within its subscription's claim window.
    queue: tokio_mpsc::UnboundedSender<Vec<Chain>>,
    thread: JoinHandle<()>,
}

/// The worker threads of a process.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// A thread or its runtime cannot be started.
    pub fn start(count: usize, config: &InvokerConfig) -> std::io::Result<Self> {
        let mut workers = Vec::with_capacity(count);
        for number in 0..count.max(1) {
            let (queue, receiver) = tokio_mpsc::unbounded_channel();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let config = config.clone();
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || tokio::task::LocalSet::new().block_on(&runtime, work(receiver, config)))?;
            workers.push(Worker { queue, thread });
        }
        Ok(Self { workers })
    }

    /// Hands chains to the worker of `shard` (any number; equal numbers go to the same thread).
    pub fn run(&self, shard: u64, chains: Vec<Chain>) {
        let at = usize::try_from(shard % self.workers.len() as u64).unwrap_or(0);
        // A worker ends only when all senders are gone, so this cannot fail while `self` lives.
        let _ = self.workers[at].queue.send(chains);
    }

    /// Ends the threads once their calls are finished.
    pub fn stop(self) {
        for worker in self.workers {
            drop(worker.queue);
            // A panic was already reported by the hook.
            let _ = worker.thread.join();
        }
    }
}

async fn work(mut queue: tokio_mpsc::UnboundedReceiver<Vec<Chain>>, config: InvokerConfig) {
    let invoker = Rc::new(Invoker::new(config));
    let tasks = TaskTracker::new();
    let mut purge = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            chains = queue.recv() => match chains {
                Some(chains) => for chain in chains {
                    tasks.spawn_local(run(Rc::clone(&invoker), chain));
                },
                None => break,
            },
            _ = purge.tick() => invoker.purge(),
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn run(invoker: Rc<Invoker>, chain: Chain) {
    // The semaphores are never closed, so an error cannot happen; a call without a permit would only run early.
    let _subscription = chain.permits.subscription.acquire().await.ok();
    let _function = chain.permits.function.acquire().await.ok();
    for call in chain.calls {
        let event = Arc::clone(&call.get().event);
        let settled = invoker.invoke(call).await;
        // The source's thread outlives its calls; if it is gone the process is ending and the successor names them.
        let _ = chain.done.send(Done { event, settled });
    }
}
