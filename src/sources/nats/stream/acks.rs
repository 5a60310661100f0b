//! Acknowledgements until the server has confirmed them: a lost one would have an event named `in_doubt` that has an outcome.
//! Must never acknowledge what is not in the journal; sending twice is harmless.

use crate::ledger::Outcome;
use async_nats::{Client, Message, StatusCode};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Pause before an acknowledgement is sent again.
const AGAIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Sent {
    reply: String,
    text: String,
    first: Instant,
    last: Instant,
}

/// Unconfirmed acknowledgements by the message's number. Bounded by what was delivered within `patience`.
#[derive(Debug)]
pub struct Acks {
    prefix: String,
    open: HashMap<i64, Sent>,
    patience: Duration,
}

impl Acks {
    /// `prefix`: inbox of the confirmations; `patience`: how long the server waits for an acknowledgement at all.
    pub fn new(prefix: String, patience: Duration) -> Self {
        Self { prefix, open: HashMap::new(), patience }
    }

    /// Whether the server has confirmed everything.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether the acknowledgement of a message is on its way.
    pub fn is_open(&self, sequence: i64) -> bool {
        self.open.contains_key(&sequence)
    }

    /// Another inbox from now on: confirmations to the old one do not arrive any more.
    pub fn listen_at(&mut self, prefix: String) {
        self.prefix = prefix;
    }

    /// Tells the server how an event ended. What failed is not to be had again either: the server is told why.
    pub async fn close(&mut self, client: Option<&Client>, reply: String, sequence: i64, outcome: Outcome) {
        let text = match outcome {
            Outcome::Failed | Outcome::Unanswered | Outcome::Unreachable => {
                format!("+TERM {}", outcome.as_str())
            }
            _ => "+ACK".to_owned(),
        };
        let now = Instant::now();
        if let Some(client) = client {
            self.send(client, sequence, &reply, &text).await;
        }
        self.open.insert(sequence, Sent { reply, text, first: now, last: now });
    }

    /// Sends again what was not confirmed in time, and forgets what the server does not wait for any more.
    pub async fn repeat(&mut self, client: &Client) {
        let patience = self.patience;
        self.open.retain(|_, sent| sent.first.elapsed() < patience);
        let due: Vec<i64> =
            self.open.iter().filter(|(_, sent)| sent.last.elapsed() >= AGAIN).map(|(at, _)| *at).collect();
        for sequence in due {
            let Some(sent) = self.open.get_mut(&sequence) else { continue };
            sent.last = Instant::now();
            let (reply, text) = (sent.reply.clone(), sent.text.clone());
            self.send(client, sequence, &reply, &text).await;
        }
    }

    async fn send(&self, client: &Client, sequence: i64, reply: &str, text: &str) {
        let inbox = format!("{}.a{sequence}", self.prefix);
        // What the client does not take is sent again.
        let _ = client.publish_with_reply(reply.to_owned(), inbox, text.to_owned().into()).await;
    }

    /// Takes a confirmation; false if the message is none. Any status in it, "no responders" first, confirms nothing.
    pub fn confirm(&mut self, message: &Message) -> bool {
        let token =
            message.subject.strip_prefix(self.prefix.as_str()).and_then(|rest| rest.strip_prefix(".a"));
        let Some(sequence) = token.and_then(|token| token.parse::<i64>().ok()) else { return false };
        if message.status.is_none_or(|status| status == StatusCode::OK) {
            self.open.remove(&sequence);
        }
        true
    }
}
