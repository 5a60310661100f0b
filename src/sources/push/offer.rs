//! An event on its way from whoever pushes it to the subscription's thread, and the verdict on its way back. Must never let a
//! verdict say that an event may come again where the function may have run.

use crate::{
    clock,
    dispatch::store::{Digest, Held},
    event::{Event, Position, message::Rejection},
    ledger::Outcome,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// Shortest pause that a caller is asked for.
pub const SOON: Duration = Duration::from_secs(1);

/// What came, on its way to the thread.
#[derive(Debug)]
pub struct Arrival {
    /// What came.
    pub body: Body,
    /// The way back.
    pub reply: Reply,
}

/// What came.
#[derive(Debug)]
pub enum Body {
    /// An event.
    Ask(Ask),
    /// No event, and why.
    Rejected(Position, Rejection),
}

/// An event that can be claimed.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The event.
    pub event: Arc<Event>,
    /// What makes two offers the same event.
    pub key: Digest,
    /// What it says.
    pub content: Digest,
    /// Whether the caller named it: nobody can repeat one that has no id.
    pub named: bool,
    /// Number among those of this thread.
    pub number: u64,
}

/// What became of an offer.
#[derive(Debug)]
pub enum Verdict {
    /// It is no event.
    Rejected(&'static str),
    /// Nothing was called: it may come again.
    Later {
        /// Why.
        why: &'static str,
        /// Shortest pause.
        after: Duration,
        /// Whether the store did not say if it took the claim.
        unknown: bool,
    },
    /// It ended without a call.
    Passed(Outcome, String),
    /// The same event was claimed before.
    Repeat(Box<Held>),
    /// The same id was claimed before, with another content.
    Mismatch,
    /// It was claimed, and ended so.
    Ended {
        /// The event, with the function's answer if one was asked for.
        event: Arc<Event>,
        /// How it ended.
        outcome: Outcome,
        /// Why.
        reason: Option<&'static str>,
    },
}

/// The way back to whoever pushes. Dropped without a word: whether the event was claimed is for a successor to say.
#[derive(Debug)]
pub struct Reply {
    claimed: Option<oneshot::Sender<()>>,
    told: oneshot::Sender<Verdict>,
}

impl Reply {
    /// For one who waits for the end.
    pub fn at_end() -> (Self, oneshot::Receiver<Verdict>) {
        let (reply, _, verdict) = Self::early();
        (reply, verdict)
    }

    /// For one who also wants to know when the event is claimed, durably, before its call: from then on nobody need wait.
    pub fn early() -> (Self, oneshot::Receiver<()>, oneshot::Receiver<Verdict>) {
        let ((early, claimed), (told, verdict)) = (oneshot::channel(), oneshot::channel());
        (Self { claimed: Some(early), told }, claimed, verdict)
    }

    /// Whether nobody waits any more.
    pub fn is_closed(&self) -> bool {
        self.told.is_closed()
    }

    /// The claim stands.
    pub fn claimed(&mut self) {
        if let Some(early) = self.claimed.take() {
            let _ = early.send(());
        }
    }

    /// The end.
    pub fn tell(self, verdict: Verdict) {
        let _ = self.told.send(verdict);
    }
}

/// Places of a subscription's events, by the owner token of its thread.
#[derive(Debug)]
pub struct Numbers {
    /// UID of the trigger.
    pub uid: Arc<str>,
    /// Owner token, a part of each position.
    pub owner: u64,
    next: AtomicI64,
}

impl Numbers {
    /// From one on.
    pub const fn new(uid: Arc<str>, owner: u64) -> Self {
        Self { uid, owner, next: AtomicI64::new(1) }
    }

    /// The position of the next event.
    pub fn next_position(&self, time_ms: i64) -> Position {
        position(&self.uid, self.owner, self.next.fetch_add(1, Ordering::Relaxed), time_ms)
    }

    /// Something that came now and is too large to be read.
    pub fn too_large(&self) -> Body {
        Body::Rejected(self.next_position(clock::unix_ms()), Rejection::BODY_TOO_LARGE)
    }
}

/// Place of event `number` of `owner` in journal lines.
pub fn position(uid: &Arc<str>, owner: u64, number: i64, time_ms: i64) -> Position {
    Position {
        stream: Arc::clone(uid),
        shard: 0,
        sequence: number,
        coordinates: Some(format!("{owner:016x}-{number}").into()),
        epoch: -1,
        time_ms,
    }
}
