//! Events that nobody acknowledged: the server names each once, `ack_wait` after its delivery, to everybody who listens. Not to
//! one of a group: the server may still take a dead member for a living one. The first member whose time has come tells the
//! others that it will name the event, and they wait; it tells them again when its line is in the journal, and they forget it.
//! If it dies in between, the next one whose time has come names it. Should two do so, their lines have one key. Must never name
//! what this process itself runs, nor have others forget what is not in a journal.

use super::consumer::Plan;
use crate::{
    event::{Event, Position},
    sources::nats::decode::{Decoder, Raw},
};
use async_nats::{Client, jetstream};
use futures_util::FutureExt as _;
use serde::Deserialize;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Longest wait for the message of an event in doubt; without it the event is named by its number alone.
const WAIT: Duration = Duration::from_secs(3);
/// Members name an event at different times within this.
const SPREAD: Duration = Duration::from_secs(1);
/// How long a member that says it will name an event is given for it: the look-up, and a journal that is slow.
const TURN: Duration = Duration::from_secs(6);
/// Word of a member whose line is written.
const WRITTEN: &str = "written";
/// Most messages that are looked up at once.
const AT_ONCE: usize = 64;

#[derive(Deserialize)]
struct Advisory {
    stream_seq: i64,
}

/// One event in doubt.
pub struct Doubt {
    /// Its number, and all else if its message was found.
    pub position: Position,
    /// The event, if its message was found and is one.
    pub event: Option<Event>,
}

/// An event that this member names when its time has come, unless another has done so by then.
struct Waiting {
    sequence: i64,
    due: Instant,
    /// Another member said that it will.
    theirs: bool,
}

/// Look-ups on their way.
pub struct Doubts {
    plan: Plan,
    decoder: Arc<Decoder>,
    tasks: JoinSet<Doubt>,
    waiting: Vec<Waiting>,
    /// Numbers that this member has named, and whose lines are not in the journal yet.
    unwritten: Vec<i64>,
    /// Tells our own words from others'.
    nonce: u64,
}

impl Doubts {
    /// None yet.
    pub fn new(plan: Plan, decoder: Arc<Decoder>) -> Self {
        Self {
            plan,
            decoder,
            tasks: JoinSet::new(),
            waiting: Vec::new(),
            unwritten: Vec::new(),
            nonce: fastrand::u64(1..),
        }
    }

    /// Subject on which the server names them.
    pub fn subject(&self) -> String {
        let Plan { stream, consumer, .. } = &self.plan;
        format!("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{stream}.{consumer}")
    }

    /// Subject on which members tell one another what they name.
    pub fn names(&self) -> String {
        subject_of_names(&self.plan)
    }

    /// Another member names one, or has done so: then its number is returned.
    pub fn heard(&mut self, payload: &[u8]) -> Option<i64> {
        let text = std::str::from_utf8(payload).unwrap_or_default();
        let mut words = text.split(' ');
        let (Some(Ok(sequence)), Some(Ok(nonce))) =
            (words.next().map(str::parse::<i64>), words.next().map(str::parse::<u64>))
        else {
            return None;
        };
        if nonce == self.nonce {
            return None;
        }
        if words.next() == Some(WRITTEN) {
            self.waiting.retain(|waiting| waiting.sequence != sequence);
            return Some(sequence);
        }
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.sequence == sequence) {
            (waiting.due, waiting.theirs) = (Instant::now() + TURN + spread(), true);
        }
        None
    }

    /// The line of one that this member named is in the batch.
    pub fn named(&mut self, sequence: i64) {
        self.unwritten.push(sequence);
    }

    /// The journal holds all lines: the others may forget what they are about. Returns their numbers.
    pub fn written(&mut self, client: Option<&Client>) -> Vec<i64> {
        let written = std::mem::take(&mut self.unwritten);
        for sequence in &written {
            let Some(client) = client else { continue };
            let told = format!("{sequence} {} {WRITTEN}", self.nonce);
            // A member that is not told names it as well.
            let _ = client.publish(subject_of_names(&self.plan), told.into()).now_or_never();
        }
        written
    }

    /// The number in an advisory.
    pub fn read(payload: &[u8]) -> Option<i64> {
        serde_json::from_slice::<Advisory>(payload).ok().map(|advisory| advisory.stream_seq)
    }

    /// Names an event, unless another member is quicker.
    pub fn add(&mut self, sequence: i64) {
        self.enter(sequence, spread());
    }

    /// Names an event at once: a register gave it to this member.
    pub fn add_ours(&mut self, sequence: i64) {
        self.enter(sequence, Duration::ZERO);
    }

    fn enter(&mut self, sequence: i64, after: Duration) {
        // Once: the server may tell of it, and deliver it again as well.
        if self.waiting.iter().any(|waiting| waiting.sequence == sequence) {
            return;
        }
        self.waiting.push(Waiting { sequence, due: Instant::now() + after, theirs: false });
    }

    /// Whether all have been found or given up, or are for another member to name.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.waiting.iter().all(|waiting| waiting.theirs)
    }

    /// Starts what may start and returns what was found.
    pub fn found(&mut self, client: Option<&Client>) -> Vec<Doubt> {
        let mut found = Vec::new();
        while let Some(task) = self.tasks.try_join_next() {
            // A look-up does not panic; if one did, its event would still be named by the journal of its owner.
            found.extend(task.ok());
        }
        let Some(client) = client else { return found };
        while self.tasks.len() < AT_ONCE
            && let Some(at) = self.waiting.iter().position(|waiting| waiting.due <= Instant::now())
        {
            let Waiting { sequence, .. } = self.waiting.swap_remove(at);
            let told = format!("{sequence} {}", self.nonce);
            // A member that is not told names it as well.
            let _ = client.publish(self.names(), told.into()).now_or_never();
            let bare = self.position(sequence, -1);
            let (client, stream, decoder) =
                (client.clone(), self.plan.stream.clone(), Arc::clone(&self.decoder));
            self.tasks.spawn(async move {
                let found = tokio::time::timeout(WAIT, fetch(client, &stream, bare.clone(), &decoder)).await;
                found.ok().flatten().unwrap_or(Doubt { position: bare, event: None })
            });
        }
        found
    }

    fn position(&self, sequence: i64, time_ms: i64) -> Position {
        Position {
            stream: self.plan.stream.as_str().into(),
            shard: 0,
            sequence,
            epoch: -1,
            time_ms,
            coordinates: None,
        }
    }
}

fn spread() -> Duration {
    SPREAD.mul_f64(fastrand::f64())
}

fn subject_of_names(Plan { stream, consumer, .. }: &Plan) -> String {
    format!("kubeless.named.{stream}.{consumer}")
}

async fn fetch(client: Client, stream: &str, bare: Position, decoder: &Decoder) -> Option<Doubt> {
    let context = jetstream::new(client);
    let stream = context.get_stream(stream).await.ok()?;
    let message = stream.get_raw_message(u64::try_from(bare.sequence).ok()?).await.ok()?;
    let time_ms = i64::try_from(message.time.unix_timestamp_nanos() / 1_000_000).ok()?;
    let position = Position { time_ms, ..bare };
    let fallback_id = format!("{}/{}", position.stream, position.sequence);
    let raw = Raw {
        position: position.clone(),
        fallback_id: &fallback_id,
        subject: &message.subject,
        headers: Some(&message.headers),
        payload: &message.payload,
    };
    Some(Doubt { position, event: decoder.decode(raw).ok() })
}
