//! One HTTP call to a function, and the truth about whether it may have happened. Only this room names hyper's
//! client. Must never send an event twice: it re-sends only when no byte of the request left ([`SendState::NotSent`]).

use crate::{
    claims::{Claimed, lease::StartLease},
    cluster::target::TargetCell,
    event::{Event, headers::HeaderTemplate},
    ledger::Outcome,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Bounds of the invoker, from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvokerConfig {
    /// Longest wait for a TCP connection. Default 2 s.
    pub connect_timeout: Duration,
    /// A connection idle for longer is closed (below the shortest keep-alive of common servers). Default 1.5 s.
    pub idle_timeout: Duration,
    /// Response body bytes read before the connection is dropped. Default 64 KiB.
    pub max_response_bytes: usize,
    /// Response head bytes. Default 64 KiB.
    pub max_response_head_bytes: usize,
    /// First and longest pause between attempts that provably sent nothing. Defaults 5 ms and 500 ms.
    pub retry_pause: (Duration, Duration),
}

impl Default for InvokerConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_millis(1500),
            max_response_bytes: 64 * 1024,
            max_response_head_bytes: 64 * 1024,
            retry_pause: (Duration::from_millis(5), Duration::from_millis(500)),
        }
    }
}

/// Everything one call needs. Claimed before it gets here.
#[derive(Clone, Debug)]
pub struct Call {
    /// The event to send.
    pub event: Arc<Event>,
    /// Headers that are the same for every event of the subscription.
    pub template: Arc<HeaderTemplate>,
    /// The function's current endpoints; loaded anew for each attempt.
    pub target: TargetCell,
    /// Until when the call may start.
    pub lease: Arc<StartLease>,
}

/// Whether a request may have reached the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendState {
    /// Not one byte of this request was written to a connection: it may be tried again.
    NotSent,
    /// Bytes left: final, whatever happened after.
    MaybeSent,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// One of delivered, failed, unanswered, unreachable.
    pub outcome: Outcome,
    /// HTTP status of a complete answer.
    pub status: Option<u16>,
    /// The endpoint of the last attempt.
    pub endpoint: Option<SocketAddr>,
    /// Wall clock (Unix ms) when the request was handed to the connection; 0 if it never was.
    pub sent_unix_ms: i64,
    /// From the start of the call to its end.
    pub took: Duration,
    /// Why, for everything but delivered: a short constant text, never payload.
    pub reason: Option<&'static str>,
}

/// Calls functions from one thread: connections are never shared between threads, so nothing is locked.
#[derive(Debug)]
pub struct Invoker {
    _config: InvokerConfig,
}

impl Invoker {
    /// An invoker with no connections yet.
    pub fn new(config: InvokerConfig) -> Self {
        Self { _config: config }
    }

    /// Calls the function once and says how it ended. Runs on a current-thread runtime inside a `LocalSet`.
    /// Not cancel-safe: a dropped future leaves a call without an outcome.
    pub async fn invoke(&self, call: Claimed<Call>) -> Settled {
        let _ = call.spend();
        std::future::pending().await
    }
}
