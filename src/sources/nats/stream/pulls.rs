//! Requests for messages that are open at the server, and what its answers say of them. Must never ask for more than can
//! start: what is delivered is claimed.

use async_nats::{Client, Message, StatusCode};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Heartbeats that may be missing before the consumer is looked at anew.
const MISSED: u32 = 4;

/// Most requests that are timed at once.
const TIMED: usize = 16;

/// What an answer without a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The server is alive.
    Heartbeat,
    /// A request is over; so many of its messages did not come.
    Over(usize),
    /// The consumer must be looked at anew.
    Broken(String),
}

/// Open requests of one consumer.
#[derive(Debug)]
pub struct Pulls {
    subject: String,
    inbox: String,
    expires: Duration,
    number: u64,
    outstanding: usize,
    heard: Instant,
    /// Messages asked for and come since this began, and what waited in the stream behind the last that came.
    asked: u64,
    come: u64,
    pending: u64,
    /// Requests that the stream could answer at once: the number of their first message, and when they were made.
    timed: VecDeque<(u64, Instant)>,
}

impl Pulls {
    /// None is open. `inbox`: where answers arrive; `expires`: how long the server keeps a request.
    pub fn new(stream: &str, consumer: &str, inbox: String, expires: Duration) -> Self {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        Self {
            subject,
            inbox,
            expires,
            number: 0,
            outstanding: 0,
            heard: Instant::now(),
            asked: 0,
            come: 0,
            pending: 0,
            timed: VecDeque::new(),
        }
    }

    /// Messages that may still come.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Nothing is known to be open any more: the connection or the consumer is a new one.
    pub fn forget(&mut self) {
        self.outstanding = 0;
        self.heard = Instant::now();
        (self.come, self.pending) = (self.asked, 0);
        self.timed.clear();
    }

    /// Whether the server was silent for so long that the requests are not to be believed.
    pub fn is_silent(&self) -> bool {
        self.outstanding > 0 && self.heard.elapsed() > self.heartbeat() * MISSED + Duration::from_secs(1)
    }

    fn heartbeat(&self) -> Duration {
        self.expires / 4
    }

    /// Asks for up to `batch` messages of at most `bytes` in all.
    pub async fn ask(&mut self, client: &Client, batch: usize, bytes: usize) {
        if self.outstanding == 0 {
            self.heard = Instant::now();
        }
        self.number += 1;
        let request = serde_json::json!({
            "batch": batch,
            "max_bytes": bytes,
            "expires": nanoseconds(self.expires),
            "idle_heartbeat": nanoseconds(self.heartbeat()),
        });
        let reply = format!("{}.p{}", self.inbox, self.number);
        // A request that does not reach the server shows as silence.
        if client.publish_with_reply(self.subject.clone(), reply, request.to_string().into()).await.is_ok() {
            if self.pending > self.outstanding as u64 && self.timed.len() < TIMED {
                self.timed.push_back((self.asked, Instant::now()));
            }
            self.asked += batch as u64;
            self.outstanding += batch;
        }
    }

    /// A message came; `pending` wait behind it. Returns how long the request took whose first message it is, if the stream
    /// had it when it was asked.
    pub fn delivered(&mut self, pending: u64) -> Option<Duration> {
        self.heard = Instant::now();
        self.outstanding = self.outstanding.saturating_sub(1);
        self.pending = pending;
        let number = self.come;
        self.come += 1;
        let (first, at) = *self.timed.front()?;
        if first > number {
            return None;
        }
        self.timed.pop_front();
        (first == number).then(|| at.elapsed())
    }

    /// Reads an answer that carries a status.
    pub fn answered(&mut self, message: &Message, status: StatusCode) -> Answer {
        self.heard = Instant::now();
        let answer = read(message, status);
        if let Answer::Over(missing) = &answer {
            self.outstanding = self.outstanding.saturating_sub(*missing);
            self.come = self.asked - self.outstanding as u64;
            self.timed.clear();
        }
        answer
    }
}

fn read(message: &Message, status: StatusCode) -> Answer {
    let text = message.description.clone().unwrap_or_default();
    let pending = || {
        let headers = message.headers.as_ref();
        let value = headers.and_then(|headers| headers.get("Nats-Pending-Messages"));
        value.and_then(|value| value.as_str().parse().ok())
    };
    match status.as_u16() {
        100 => Answer::Heartbeat,
        404 | 408 => Answer::Over(pending().unwrap_or(usize::MAX)),
        409 if text.contains("MaxBytes") || text.contains("Batch Completed") => {
            Answer::Over(pending().unwrap_or(usize::MAX))
        }
        503 => Answer::Broken("the consumer does not answer".to_owned()),
        code => Answer::Broken(format!("{code} {text}")),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
