//! The function under test's invocations, seen from the function's side: an HTTP server in the test process that
//! records every request when its head has arrived, before it answers or misbehaves. Must never ask the product.

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Condvar, Mutex, RwLock},
    thread,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinSet, LocalSet},
};

use super::witness_http;

/// How one request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Answer {
        status: u16,
        delay: Duration,
    },
    /// Reads the request, answers nothing, keeps the connection.
    Hang,
    /// RST as soon as the request's head was read, before any answer.
    ResetBeforeHead,
    /// The answer's head, then RST in place of its body.
    ResetAfterHead,
    /// 307 to the witness itself: who follows it invokes twice.
    Redirect307,
    /// An answer's body of ten bytes, one every `gap`.
    SlowDrip {
        gap: Duration,
    },
}

impl Behaviour {
    pub const OK: Self = Self::Answer { status: 200, delay: Duration::ZERO };
}

/// One invocation.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `event-id`.
    pub id: String,
    /// `event-topic`, `event-partition`, `event-offset`: the delivery.
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// When the request's first byte was there.
    pub first_byte: SystemTime,
    /// When its head was complete.
    pub at: Instant,
    /// Head and body, where [`Witness::keep_requests`] asked for them.
    pub head: String,
    pub body: Vec<u8>,
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) seen: Vec<Seen>,
    pub(super) per_id: HashMap<String, u32>,
    pub(super) answered_2xx: u64,
    /// Requests that had a first byte and never a whole head.
    pub(super) torn: u64,
}

type Script = Arc<dyn Fn(&Seen) -> Behaviour + Send + Sync>;

pub(super) struct Shared {
    pub(super) log: Mutex<Log>,
    pub(super) news: Condvar,
    pub(super) script: RwLock<Option<Script>>,
    pub(super) keep: std::sync::atomic::AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    Refusing,
    Gone,
}

/// A function that remembers. Its server stops on drop.
pub struct Witness {
    address: SocketAddr,
    shared: Arc<Shared>,
    door: watch::Sender<Door>,
    opened: Mutex<std::sync::mpsc::Receiver<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Witness {
    /// Serves on a free port of the loopback address, on a thread of its own, answering 200.
    pub fn start() -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST)
    }

    /// The same on another address of this machine: an API server takes no loopback address for an endpoint.
    pub fn start_on(address: Ipv4Addr) -> Self {
        let shared = Arc::new(Shared {
            log: Mutex::default(),
            news: Condvar::new(),
            script: RwLock::default(),
            keep: false.into(),
        });
        // Below the ephemeral range, so that nobody takes the port while it refuses.
        let address = SocketAddr::from((address, super::ports::free_port()));
        let (door, orders) = watch::channel(Door::Open);
        let (opening, opened) = std::sync::mpsc::channel();
        let served = shared.clone();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime of one thread");
            LocalSet::new().block_on(&runtime, serve(address, served, orders, opening));
        };
        let thread = thread::Builder::new().name("witness".into()).spawn(serve).expect("one more thread");
        opened.recv().expect("the witness listens");
        Self { address, shared, door, opened: Mutex::new(opened), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Decides each later request's behaviour; called once per request, after it was recorded.
    pub fn script(&self, script: impl Fn(&Seen) -> Behaviour + Send + Sync + 'static) {
        *self.shared.script.write().expect("no panic inside") = Some(Arc::new(script));
    }

    /// Answers every later request in the same way.
    pub fn always(&self, behaviour: Behaviour) {
        self.script(move |_| behaviour);
    }

    /// Keeps head and body of every later request (memory: the whole traffic).
    pub fn keep_requests(&self) {
        self.shared.keep.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Closes the listener and every connection: connections are refused until [`Self::reopen`].
    pub fn refuse(&self) {
        self.door.send_replace(Door::Refusing);
        self.wait_door();
    }

    /// Listens again on the same port.
    pub fn reopen(&self) {
        self.door.send_replace(Door::Open);
        self.wait_door();
    }

    fn wait_door(&self) {
        self.opened.lock().expect("no panic inside").recv().expect("the witness runs");
    }

    /// Every invocation so far, in order of arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.with(|log| log.seen.clone())
    }

    /// Number of invocations so far.
    pub fn len(&self) -> usize {
        self.with(|log| log.seen.len())
    }

    /// Invocations per event id.
    pub fn counts(&self) -> HashMap<String, u32> {
        self.with(|log| log.per_id.clone())
    }

    /// Number of different event ids so far.
    pub fn distinct(&self) -> usize {
        self.with(|log| log.per_id.len())
    }

    /// Event ids that were invoked more than once, sorted. Empty, or at-most-once is broken.
    pub fn invoked_twice(&self) -> Vec<String> {
        let twice =
            |log: &Log| log.per_id.iter().filter(|(_, n)| **n > 1).map(|(id, _)| id.clone()).collect();
        let mut twice: Vec<String> = self.with(twice);
        twice.sort();
        twice
    }

    /// Requests whose head never arrived whole.
    pub fn torn(&self) -> u64 {
        self.with(|log| log.torn)
    }

    /// Deliveries seen: (topic, partition, offset).
    pub fn positions(&self) -> HashSet<(String, i32, i64)> {
        self.with(|log| log.seen.iter().map(|s| (s.topic.clone(), s.partition, s.offset)).collect())
    }

    /// Returns true once `enough` holds for all invocations so far; asked after each request, false at the limit.
    pub fn wait_until(&self, limit: Duration, mut enough: impl FnMut(&[Seen]) -> bool) -> bool {
        let log = self.shared.log.lock().expect("no panic inside");
        let waited = self.shared.news.wait_timeout_while(log, limit, |log| !enough(&log.seen));
        !waited.expect("no panic inside").1.timed_out()
    }

    /// Returns once `n` invocations arrived; panics at the limit.
    #[track_caller]
    pub fn wait_for(&self, n: usize, limit: Duration) {
        assert!(
            self.wait_until(limit, |seen| seen.len() >= n),
            "the function saw {} of {n} in {limit:?}",
            self.len()
        );
    }

    fn with<T>(&self, read: impl FnOnce(&Log) -> T) -> T {
        read(&self.shared.log.lock().expect("no panic inside"))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.door.send_replace(Door::Gone);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    address: SocketAddr,
    shared: Arc<Shared>,
    mut orders: watch::Receiver<Door>,
    opening: std::sync::mpsc::Sender<()>,
) {
    loop {
        let door = *orders.borrow_and_update();
        match door {
            Door::Gone => return,
            Door::Refusing => {
                let _ = opening.send(());
                if orders.changed().await.is_err() {
                    return;
                }
            }
            Door::Open => {
                let listener = TcpListener::bind(address).await.expect("the port is ours");
                let _ = opening.send(());
                // Dropping the set closes every connection with the listener.
                let mut connections = JoinSet::new();
                loop {
                    tokio::select! {
                        accepted = listener.accept() => {
                            let Ok((stream, _)) = accepted else { continue };
                            connections.spawn_local(witness_http::connection(stream, address, shared.clone()));
                        }
                        _ = orders.changed() => break,
                        Some(_) = connections.join_next() => {}
                    }
                }
            }
        }
    }
}
