//! The request of a caller who waits for the answer: what of it goes on to the function, and the place where the function's
//! answer comes back. Must never carry what belongs to one connection only, nor let a caller write a header that is ours.

use bytes::Bytes;
use http::{
    HeaderMap, Method, StatusCode,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
    },
    uri::PathAndQuery,
};
use std::sync::OnceLock;

/// Never sent on: proxies repeat requests that carry it.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Headers of one connection, or of the framing that each side makes for itself.
const HOP_BY_HOP: [HeaderName; 11] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    CONTENT_LENGTH,
    EXPECT,
];

/// What the function answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers, without those of the connection.
    pub headers: HeaderMap,
    /// Body; empty if it was longer than allowed.
    pub body: Bytes,
    /// Whether the body is all there.
    pub whole: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Exchange {
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
    max_answer_bytes: usize,
    answer: OnceLock<Answer>,
}

impl Exchange {
    /// A request for `path` of the function; of `headers`, what may go on is kept.
    pub fn new(method: Method, path: PathAndQuery, mut headers: HeaderMap, max_answer_bytes: usize) -> Self {
        end_to_end(&mut headers);
        headers.remove(HOST);
        headers.remove(IDEMPOTENCY_KEY);
        Self { method, path, headers, max_answer_bytes, answer: OnceLock::new() }
    }

    /// The caller's method.
    pub fn method(&self) -> Method {
        self.method.clone()
    }

    /// Path and query as the function sees them.
    pub fn path(&self) -> PathAndQuery {
        self.path.clone()
    }

    /// Longest body of an answer that is handed on.
    pub const fn max_answer_bytes(&self) -> usize {
        self.max_answer_bytes
    }

    /// Adds the caller's headers to `ours`, which win: nobody writes an event's identity from outside.
    pub fn merge(&self, ours: &mut HeaderMap, empty: bool) {
        if empty && !self.headers.contains_key(CONTENT_TYPE) {
            ours.remove(CONTENT_TYPE);
        }
        if self.headers.contains_key(USER_AGENT) {
            ours.remove(USER_AGENT);
        }
        for name in self.headers.keys() {
            let reserved = name.as_str().starts_with("ce-") || name.as_str().starts_with("event-");
            if reserved || ours.contains_key(name) {
                continue;
            }
            for value in self.headers.get_all(name) {
                ours.append(name, value.clone());
            }
        }
    }

    /// Puts the function's answer down. The first one stays; there is no second.
    pub fn answered(&self, mut answer: Answer) {
        end_to_end(&mut answer.headers);
        let _ = self.answer.set(answer);
    }

    /// The answer, once the call has ended with one.
    pub fn answer(&self) -> Option<&Answer> {
        self.answer.get()
    }
}

/// Takes out what is for one connection only: the known names, and those that `Connection` lists.
fn end_to_end(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn what_belongs_to_the_connection_or_to_us_does_not_go_on() {
        let theirs = map(&[
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("host", "shop.example.com"),
            ("idempotency-key", "k"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("event-id", "forged"),
            ("ce-extra", "forged"),
            ("x-own", "kept"),
            ("user-agent", "curl"),
            ("accept", "text/plain"),
        ]);
        let exchange = Exchange::new(Method::PUT, PathAndQuery::from_static("/42?x=1"), theirs, 10);
        let mut ours = map(&[("event-id", "e-1"), ("user-agent", "us"), ("content-type", "a/b")]);
        exchange.merge(&mut ours, true);
        let expected =
            map(&[("event-id", "e-1"), ("user-agent", "curl"), ("x-own", "kept"), ("accept", "text/plain")]);
        assert_eq!(ours, expected);
        let headers = map(&[("connection", "x-b"), ("x-b", "1"), ("x-c", "2"), ("content-length", "7")]);
        exchange.answered(Answer { status: StatusCode::OK, headers, body: Bytes::new(), whole: true });
        assert_eq!(exchange.answer().expect("an answer").headers, map(&[("x-c", "2")]));
    }
}
