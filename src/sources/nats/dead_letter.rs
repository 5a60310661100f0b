//! The dead-letter subject: the original message, and how it ended in `kubeless-*` headers. Must never block a claim: what
//! the client cannot take at once is dropped and counted.

use crate::{
    dispatch::dead_letter::{DeadLetterSink, Original},
    ledger::journal::Line,
    telemetry::Counter,
};
use async_nats::{Client, HeaderMap, HeaderName, HeaderValue};
use futures_util::FutureExt as _;
use std::sync::{Arc, Mutex, PoisonError};

/// Counters of one sink.
pub struct Counts {
    /// Handed to the connection: core NATS acknowledges nothing.
    pub written: Counter,
    /// Refused by the client: too large, or a header that NATS cannot carry.
    pub failed: Counter,
    /// Never sent: there was no connection, or it was stuck.
    pub dropped: Counter,
}

/// Dead letters of one trigger, sent over the subscription's own connection.
pub struct DeadLetterSubject {
    subject: String,
    client: Mutex<Option<Client>>,
    counts: Counts,
}

impl DeadLetterSubject {
    /// A sink without a connection yet.
    pub fn new(subject: &str, counts: Counts) -> Arc<Self> {
        Arc::new(Self { subject: subject.to_owned(), client: Mutex::new(None), counts })
    }

    /// Sends over `client` from now on.
    pub fn connect(&self, client: Option<Client>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }
}

impl DeadLetterSink for DeadLetterSubject {
    fn offer(&self, original: &Original, line: &Line) {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (Some(client), Some(headers)) = (client, headers(original, line)) else {
            self.counts.dropped.increment(1);
            tracing::error!(subject = self.subject, "Dead letter was dropped: no connection");
            return;
        };
        let body = original.value.clone().unwrap_or_default();
        match client.publish_with_headers(self.subject.clone(), headers, body).now_or_never() {
            Some(Ok(())) => self.counts.written.increment(1),
            Some(Err(error)) => {
                self.counts.failed.increment(1);
                tracing::error!(%error, subject = self.subject, "Dead letter was not written");
            }
            None => {
                self.counts.dropped.increment(1);
                tracing::error!(subject = self.subject, "Dead letter was dropped: the connection is stuck");
            }
        }
    }
}

/// The message's own headers; `None`: NATS cannot carry one of them.
fn own(original: &Original) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &original.headers {
        let text = std::str::from_utf8(value.as_deref().unwrap_or_default()).ok()?;
        headers.append(name.parse::<HeaderName>().ok()?, text.parse::<HeaderValue>().ok()?);
    }
    Some(headers)
}

fn headers(original: &Original, line: &Line) -> Option<HeaderMap> {
    let mut headers = own(original)?;
    let position = format!("{}/{}/{}", line.stream, line.shard, line.sequence);
    let status = line.status.map(|status| status.to_string());
    let ours = [
        ("kubeless-outcome", Some(line.outcome.as_str())),
        ("kubeless-reason", line.reason.as_deref()),
        ("kubeless-status", status.as_deref()),
        ("kubeless-trigger", Some(line.trigger.as_str())),
        ("kubeless-function", Some(line.function.as_str())),
        ("kubeless-event-id", Some(line.id.as_str())),
        ("kubeless-position", Some(position.as_str())),
        ("kubeless-time", Some(line.ts.as_str())),
    ];
    for (name, value) in ours {
        // A reason of several lines cannot be a header; the journal has it whole.
        if let Some(value) = value.and_then(|value| value.parse::<HeaderValue>().ok()) {
            headers.insert(name, value);
        }
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_header_that_nats_cannot_carry_is_no_panic() {
        let original = Original {
            key: None,
            value: None,
            headers: vec![("bad name\r\n".to_owned(), Some(Bytes::from_static(b"x")))],
        };
        assert!(own(&original).is_none());
    }
}
