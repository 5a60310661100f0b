//! Who listens to what, and the queue of every client. Must never wait for a client: one that does not read is cut off.

use super::{
    subjects,
    wire::{Connect, Message, frame},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Bytes that may wait for a client to read them; the real server allows 64 MiB.
const MAX_PENDING: usize = 64 << 20;
/// Subscriptions of one client.
const MAX_SUBSCRIPTIONS: usize = 10_000;
/// What a requester is told when nobody listens.
const NO_RESPONDERS: &[u8] = b"NATS/1.0 503\r\n\r\n";

/// All clients and their subscriptions.
#[derive(Debug, Default)]
pub struct Hub {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    clients: BTreeMap<u64, Client>,
}

#[derive(Debug)]
struct Client {
    connect: Connect,
    outbox: Outbox,
    subscriptions: HashMap<String, Subscription>,
}

#[derive(Debug)]
struct Subscription {
    subject: String,
    queue: Option<String>,
    delivered: u64,
    until: Option<u64>,
}

/// Frames on their way to one client.
#[derive(Clone, Debug)]
pub struct Outbox {
    frames: mpsc::UnboundedSender<Bytes>,
    /// Bytes in `frames`: the bound that the channel does not have.
    pending: Arc<AtomicUsize>,
    /// Ends the connection.
    pub cut: CancellationToken,
}

/// The reading end of an [`Outbox`].
#[derive(Debug)]
pub struct Pending {
    frames: mpsc::UnboundedReceiver<Bytes>,
    pending: Arc<AtomicUsize>,
}

impl Outbox {
    /// Queues a frame; a client that lets too much wait is cut off.
    pub fn send(&self, frame: impl Into<Bytes>) {
        let frame = frame.into();
        if self.pending.fetch_add(frame.len(), Relaxed) > MAX_PENDING {
            self.cut.cancel();
        } else {
            let _ = self.frames.send(frame);
        }
    }
}

impl Pending {
    /// The next frame. Cancel-safe.
    pub async fn next(&mut self) -> Option<Bytes> {
        let frame = self.frames.recv().await?;
        self.pending.fetch_sub(frame.len(), Relaxed);
        Some(frame)
    }
}

impl Hub {
    /// A new client: its number and its queue.
    pub fn enter(&self) -> (u64, Outbox, Pending) {
        let (frames, received) = mpsc::unbounded_channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let outbox = Outbox { frames, pending: Arc::clone(&pending), cut: CancellationToken::new() };
        let mut inner = self.lock();
        inner.last += 1;
        let id = inner.last;
        let client =
            Client { connect: Connect::default(), outbox: outbox.clone(), subscriptions: HashMap::new() };
        inner.clients.insert(id, client);
        (id, outbox, Pending { frames: received, pending })
    }

    /// The client went away.
    pub fn leave(&self, id: u64) {
        self.lock().clients.remove(&id);
    }

    /// What the client said about itself.
    pub fn connect(&self, id: u64, connect: Connect) {
        if let Some(client) = self.lock().clients.get_mut(&id) {
            client.connect = connect;
        }
    }

    /// Adds a subscription; `false`: the client has too many.
    pub fn subscribe(&self, id: u64, sid: String, subject: String, queue: Option<String>) -> bool {
        let mut inner = self.lock();
        let Some(client) = inner.clients.get_mut(&id) else { return true };
        if client.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return false;
        }
        client.subscriptions.insert(sid, Subscription { subject, queue, delivered: 0, until: None });
        true
    }

    /// Ends a subscription now, or after it received `after` messages in all.
    pub fn unsubscribe(&self, id: u64, sid: &str, after: Option<u64>) {
        let mut inner = self.lock();
        let Some(client) = inner.clients.get_mut(&id) else { return };
        match (after, client.subscriptions.get_mut(sid)) {
            (Some(after), Some(found)) if found.delivered < after => found.until = Some(after),
            _ => drop(client.subscriptions.remove(sid)),
        }
    }

    /// Hands a message to everybody who listens, and to one member of each queue group.
    pub fn publish(&self, from: u64, message: &Message) {
        let mut inner = self.lock();
        let sender = inner.clients.get(&from).map(|client| client.connect).unwrap_or_default();
        let mut chosen: Vec<(u64, String)> = Vec::new();
        let mut groups: HashMap<&str, Vec<(u64, &String)>> = HashMap::new();
        for (id, client) in inner.clients.iter().filter(|(id, _)| sender.echo || **id != from) {
            for (sid, found) in &client.subscriptions {
                if subjects::matches(&found.subject, &message.subject) {
                    match &found.queue {
                        None => chosen.push((*id, sid.clone())),
                        Some(queue) => groups.entry(queue).or_default().push((*id, sid)),
                    }
                }
            }
        }
        for members in groups.values() {
            if let Some((id, sid)) = members.get(fastrand::usize(..members.len())) {
                chosen.push((*id, (*sid).clone()));
            }
        }
        if let (true, true, Some(reply)) = (chosen.is_empty(), sender.no_responders, &message.reply) {
            inner.nobody(from, reply);
        }
        for (id, sid) in chosen {
            inner.deliver(id, &sid, message);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn deliver(&mut self, id: u64, sid: &str, message: &Message) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let Some(found) = client.subscriptions.get_mut(sid) else { return };
        client.outbox.send(frame(message, sid, client.connect.headers));
        found.delivered += 1;
        if found.until.is_some_and(|until| found.delivered >= until) {
            client.subscriptions.remove(sid);
        }
    }

    /// Tells a requester that nobody listens.
    fn nobody(&mut self, from: u64, reply: &str) {
        let Some(client) = self.clients.get(&from) else { return };
        let own = client.subscriptions.iter().find(|(_, found)| subjects::matches(&found.subject, reply));
        let Some(sid) = own.map(|(sid, _)| sid.clone()) else { return };
        let (subject, payload) = (reply.to_owned(), Bytes::from_static(NO_RESPONDERS));
        self.deliver(from, &sid, &Message { subject, reply: None, headers: payload.len(), payload });
    }
}
