//! Replies of core NATS: how a message ended, published to its reply subject once the journal has it. Must never answer before
//! that, twice, or on a subject of the server's own.

use crate::{event::exchange::Exchange, ledger::Outcome};
use async_nats::{Client, HeaderMap, HeaderName, HeaderValue, Subject};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{
    Method,
    header::{CONTENT_TYPE, HeaderMap as HttpHeaders},
    uri::PathAndQuery,
};
use std::sync::Arc;

/// How it ended, a word of [`Outcome`].
const OUTCOME: &str = "kubeless-outcome";
/// HTTP status of the function's answer.
const STATUS: &str = "kubeless-status";
/// Errors as services on NATS tell them.
const ERROR: &str = "Nats-Service-Error";
const ERROR_CODE: &str = "Nats-Service-Error-Code";
/// What headers may add to a body.
const ENVELOPE: usize = 4 << 10;

/// Where a message wants its answer, and where the function's arrives.
#[derive(Clone, Debug)]
pub struct ReplyTo {
    subject: Subject,
    exchange: Arc<Exchange>,
}

impl ReplyTo {
    /// For a message with this reply subject; `None`: it wants none, or one of the server's own (`$JS.ACK…`), on which an
    /// answer would mean something else. An answer is at most `max_bytes` long.
    pub fn of(reply: Option<&Subject>, max_bytes: usize) -> Option<Self> {
        let subject = reply.filter(|subject| !subject.is_empty() && !subject.starts_with('$'))?;
        let exchange =
            Exchange::new(Method::POST, PathAndQuery::from_static("/"), HttpHeaders::new(), max_bytes);
        Some(Self { subject: subject.clone(), exchange: Arc::new(exchange) })
    }

    /// Where the function's answer arrives.
    pub fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// Publishes how the message ended. Handed to the connection, or lost: a second one would be a repeat.
    pub fn send(&self, client: Option<&Client>, outcome: Outcome) {
        let Some(client) = client else { return };
        let largest = client.server_info().max_payload.saturating_sub(ENVELOPE);
        let (headers, body) = self.answer(outcome, largest);
        let sent = client.publish_with_headers(self.subject.clone(), headers, body).now_or_never();
        if !matches!(sent, Some(Ok(()))) {
            tracing::warn!(subject = %self.subject, "A reply could not be sent: the connection is away or stuck");
        }
    }

    fn answer(&self, outcome: Outcome, largest: usize) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::new();
        headers.insert(OUTCOME, outcome.as_str());
        let answer = self.exchange.answer();
        if let Some(answer) = answer {
            headers.insert(STATUS, answer.status.as_str());
            if let Some(kind) = answer.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok())
                && let Ok(kind) = kind.parse::<HeaderValue>()
            {
                headers.insert(HeaderName::from_static("Content-Type"), kind);
            }
        }
        let whole = answer.is_none_or(|answer| answer.whole && answer.body.len() <= largest);
        let status = answer.map(|answer| answer.status.as_u16());
        let error = match (outcome, whole) {
            (Outcome::Delivered, true) => None,
            (_, false) => Some((502, "the function's answer is too long for a reply")),
            (Outcome::Failed, _) => Some((status.unwrap_or(502), "the function answered with an error")),
            (Outcome::Unanswered, _) => {
                Some((504, "the function was called and did not answer; do not repeat blindly"))
            }
            (Outcome::Unreachable, _) => Some((503, "the function was not called")),
            (Outcome::Duplicate, _) => Some((409, "an event with this id was taken before")),
            (Outcome::Rejected, _) => Some((400, "the message is no event that could be delivered")),
            (Outcome::Expired, _) => Some((410, "the event is too old")),
            (Outcome::Filtered, _) => Some((422, "the trigger's filter does not let the event pass")),
            (Outcome::Missed, _) => {
                Some((503, "the dispatcher had no room or no time; the function was not called"))
            }
            (Outcome::InDoubt, _) => Some((504, "whether the function was called is not known")),
        };
        if let Some((code, text)) = error {
            headers.insert(ERROR_CODE, code.to_string());
            headers.insert(ERROR, text);
        }
        let body = answer.filter(|_| whole).map(|answer| answer.body.clone()).unwrap_or_default();
        (headers, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::exchange::Answer;
    use http::StatusCode;

    fn reply(status: u16, body: &'static str, whole: bool) -> ReplyTo {
        let reply = ReplyTo::of(Some(&Subject::from("_INBOX.1")), 100).unwrap();
        let headers = [(CONTENT_TYPE, http::HeaderValue::from_static("text/plain"))].into_iter().collect();
        let status = StatusCode::from_u16(status).unwrap();
        reply.exchange().answered(Answer {
            status,
            headers,
            body: Bytes::from_static(body.as_bytes()),
            whole,
        });
        reply
    }

    fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
        headers.get(name).map_or("", |value| value.as_str())
    }

    #[test]
    fn an_answer_carries_status_and_errors_and_its_body_is_bounded() {
        let (headers, body) = reply(201, "made", true).answer(Outcome::Delivered, 100);
        assert_eq!(
            (text(&headers, OUTCOME), text(&headers, STATUS), &body[..]),
            ("delivered", "201", &b"made"[..])
        );
        assert_eq!((text(&headers, "Content-Type"), text(&headers, ERROR_CODE)), ("text/plain", ""));
        let (headers, body) = reply(500, "oh", true).answer(Outcome::Failed, 100);
        assert_eq!((text(&headers, ERROR_CODE), &body[..]), ("500", &b"oh"[..]));
        for (reply, largest) in [(reply(200, "long", true), 3), (reply(200, "", false), 100)] {
            let (headers, body) = reply.answer(Outcome::Delivered, largest);
            assert_eq!((text(&headers, ERROR_CODE), body.len()), ("502", 0));
        }
        let unanswered = ReplyTo::of(Some(&Subject::from("r")), 1).unwrap().answer(Outcome::Unanswered, 1).0;
        assert_eq!(text(&unanswered, ERROR_CODE), "504");
    }

    #[test]
    fn what_belongs_to_the_server_is_no_reply_subject() {
        assert!(ReplyTo::of(None, 1).is_none());
        for subject in ["", "$JS.ACK.S.C.1.1.1.1.0", "$SYS.REQ"] {
            assert!(ReplyTo::of(Some(&Subject::from(subject)), 1).is_none(), "{subject}");
        }
    }
}
