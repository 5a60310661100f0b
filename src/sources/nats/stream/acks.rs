//! Acknowledgements until the server has confirmed them: a lost one would have an event named `in_doubt` that has an outcome.
//! They are sent without asking for an answer; now and then the server is asked up to where it has them all, and those that it
//! does not name in time are sent again, with an answer each. The floor in the server's answer is that of the replicated state
//! (nats-server, `consumer.infoWithSnapAndReply`), so that it is worth as much as an answer to each. Must never acknowledge what is not in the journal; sending twice is harmless.

use crate::ledger::Outcome;
use async_nats::{Client, Message, StatusCode};
use serde::Deserialize;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Pause before an acknowledgement is sent again.
pub const AGAIN: Duration = Duration::from_secs(2);
/// Pause between two questions for the floor.
const LOOK: Duration = Duration::from_millis(500);

/// As much of the server's answer as is needed.
#[derive(Deserialize)]
struct Info {
    ack_floor: Floor,
}

/// Every message up to it is acknowledged.
#[derive(Deserialize)]
struct Floor {
    stream_seq: i64,
}

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
    /// Where the consumer's state is asked for.
    info: String,
    open: HashMap<i64, Sent>,
    patience: Duration,
    looked: Instant,
}

impl Acks {
    /// No inbox yet. `patience`: how long the server waits for an acknowledgement at all.
    pub fn new(stream: &str, consumer: &str, patience: Duration) -> Self {
        Self {
            prefix: String::new(),
            info: format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}"),
            open: HashMap::new(),
            patience,
            looked: Instant::now(),
        }
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
            // One that the client does not take, or that is lost, is sent again.
            let _ = client.publish(reply.clone(), text.clone().into()).await;
        }
        self.open.insert(sequence, Sent { reply, text, first: now, last: now });
    }

    /// Asks up to where the server has all of them, if any is open and it is time.
    pub async fn look(&mut self, client: &Client) {
        if self.open.is_empty() || self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        // A question that is lost is asked again.
        let _ = client.publish_with_reply(self.info.clone(), format!("{}.f", self.prefix), "".into()).await;
    }

    /// Sends again what was not confirmed `after` it was sent, and forgets what the server does not wait for any more.
    pub async fn repeat(&mut self, client: &Client, after: Duration) {
        let patience = self.patience;
        self.open.retain(|_, sent| sent.first.elapsed() < patience);
        let due: Vec<i64> =
            self.open.iter().filter(|(_, sent)| sent.last.elapsed() >= after).map(|(at, _)| *at).collect();
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
        let Some(token) = message.subject.strip_prefix(self.prefix.as_str()) else { return false };
        if token == ".f" {
            if let Ok(Info { ack_floor }) = serde_json::from_slice(&message.payload) {
                self.open.retain(|sequence, _| *sequence > ack_floor.stream_seq);
            }
            return true;
        }
        let sequence = token.strip_prefix(".a").and_then(|token| token.parse::<i64>().ok());
        let Some(sequence) = sequence else { return false };
        if message.status.is_none_or(|status| status == StatusCode::OK) {
            self.open.remove(&sequence);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subject: &str, payload: &str, status: Option<StatusCode>) -> Message {
        Message {
            subject: subject.into(),
            reply: None,
            payload: payload.to_owned().into(),
            headers: None,
            status,
            description: None,
            length: payload.len(),
        }
    }

    #[tokio::test]
    async fn what_the_floor_or_an_answer_names_is_confirmed_and_nothing_else() {
        let mut acks = Acks::new("S", "C", Duration::from_secs(30));
        acks.listen_at("_INBOX.x".to_owned());
        for sequence in 1..=5 {
            acks.close(None, "reply".to_owned(), sequence, Outcome::Delivered).await;
        }
        let floor = r#"{"type":"x","ack_floor":{"consumer_seq":9,"stream_seq":2},"num_pending":1}"#;
        assert!(acks.confirm(&message("_INBOX.x.f", floor, None)));
        let open = |acks: &Acks| (1..=5).filter(|at| acks.is_open(*at)).collect::<Vec<_>>();
        assert_eq!(open(&acks), [3, 4, 5]);
        assert!(acks.confirm(&message("_INBOX.x.f", r#"{"error":{"code":404}}"#, None)));
        assert!(acks.confirm(&message("_INBOX.x.a4", "", None)));
        assert!(acks.confirm(&message("_INBOX.x.a3", "", Some(StatusCode::NO_RESPONDERS))));
        assert_eq!(open(&acks), [3, 5]);
        assert!(
            !acks.confirm(&message("_INBOX.x.p1", "", None)) && !acks.confirm(&message("other", "", None))
        );
    }
}
