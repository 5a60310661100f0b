//! One HTTP call to a function, and the truth about whether it may have happened. Only this room names hyper's
//! client. Must never send an event twice: it re-sends only when no byte of the request left ([`SendState::NotSent`]).

mod choose;
mod error;
mod h2c;
mod http1;
mod io;
mod pool;
mod request;
mod sink;

pub use error::{Error, Reason};

use crate::{
    claims::{Claimed, lease::StartLease},
    clock,
    cluster::{
        address::Reach,
        target::{Protocol, TargetCell},
    },
    event::{Event, headers::HeaderTemplate},
    ledger::Outcome,
    testkit,
};
use http::StatusCode;
use std::{
    cell::Cell,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// Below this the timer fires at once, and a call with nobody to go to would never let the thread go.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);

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
    /// Addresses that may be called. Default: any.
    pub reach: Reach,
}

impl Default for InvokerConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_millis(1500),
            max_response_bytes: 64 * 1024,
            max_response_head_bytes: 64 * 1024,
            retry_pause: (Duration::from_millis(5), Duration::from_millis(500)),
            reach: Reach::anywhere(),
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
    /// Longest wait for the answer, where the subscription overrides the target's.
    pub timeout: Option<Duration>,
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
    /// Wall clock (Unix ms) when the request was handed to the connection; 0 if nothing of it ever left.
    pub sent_unix_ms: i64,
    /// Wall clock (Unix ms) when its first byte left (HTTP/2: when its stream was queued); 0 if none did.
    pub first_byte_unix_ms: i64,
    /// Attempts made; all but the last one provably sent nothing. 0 if there was never anybody to call.
    pub attempts: u32,
    /// From the start of the call to its end.
    pub took: Duration,
    /// Why, for everything but delivered: [`Reason::as_str`], never payload.
    pub reason: Option<&'static str>,
}

/// What an [`Invoker`] has done since it was made. Counters, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections made.
    pub opened: u64,
    /// Calls put on a connection that was there already.
    pub reused: u64,
    /// Idle connections found closed, spoiled or too old when one was wanted.
    pub stale: u64,
    /// Attempts after the first one.
    pub retried: u64,
}

#[derive(Debug, Default)]
struct Counters {
    opened: Cell<u64>,
    reused: Cell<u64>,
    stale: Cell<u64>,
    retried: Cell<u64>,
}

/// One call under way: what its attempts leave behind.
struct Run<'a> {
    config: &'a InvokerConfig,
    stats: &'a Counters,
    started: Instant,
    attempts: u32,
    /// Of the current attempt; of the last one when it is over.
    address: SocketAddr,
    sent_unix_ms: i64,
    first_byte_unix_ms: i64,
}

/// Calls functions from one thread: connections are never shared between threads, so nothing is locked.
#[derive(Debug)]
pub struct Invoker {
    config: InvokerConfig,
    pool: pool::Pool,
    stats: Counters,
}

impl Invoker {
    /// An invoker with no connections yet.
    pub fn new(config: InvokerConfig) -> Self {
        Self { config, pool: pool::Pool::default(), stats: Counters::default() }
    }

    /// Calls the function once and says how it ended. Runs on a current-thread runtime inside a `LocalSet`.
    /// Returns within the target's `call_timeout` (as it stood when the call began).
    /// Not cancel-safe: a dropped future leaves a call without an outcome.
    pub async fn invoke(&self, call: Claimed<Call>) -> Settled {
        let call = call.spend();
        let mut run = Run {
            config: &self.config,
            stats: &self.stats,
            started: Instant::now(),
            attempts: 0,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            sent_unix_ms: 0,
            first_byte_unix_ms: 0,
        };
        testkit::point("before_connect");
        let timeout = call.timeout.unwrap_or_else(|| call.target.load().call_timeout);
        // One timer for the whole call; it is not registered before something has to be waited for.
        let mut deadline = pin!(sleep_until(run.started + timeout));
        let mut pause = self.config.retry_pause.0.max(SHORTEST_PAUSE);
        loop {
            let error = match self.attempt(&call, &mut run, deadline.as_mut()).await {
                Ok(status)
                    if status.is_redirection() && testkit::bug("redirect_followed") && run.attempts < 2 =>
                {
                    continue;
                }
                Ok(_) if testkit::bug("called_twice") && run.attempts < 2 => continue,
                Ok(status) => {
                    testkit::point("after_response_head");
                    return run.answered(status);
                }
                Err(error) => error,
            };
            tracing::trace!(
                error = &error as &dyn std::error::Error,
                attempts = run.attempts,
                "Attempt failed"
            );
            if error.sent() == SendState::MaybeSent && !testkit::bug("retry_on_reset") {
                return run.settled(Outcome::Unanswered, None, Some(error.reason()));
            }
            run.sent_unix_ms = 0;
            run.first_byte_unix_ms = 0;
            // A used connection that was closed under us says nothing about the function: no pause the first time.
            let at_once = run.attempts == 1 && matches!(error, Error::Exchange { .. });
            if error.may_retry() && !at_once {
                // Half of it at random, so that callers that failed together do not come back together.
                let resume = Instant::now() + pause.mul_f64(0.5 + 0.5 * fastrand::f64());
                sleep_until(resume.min(deadline.deadline())).await;
                pause = (pause * 2).min(self.config.retry_pause.1).max(SHORTEST_PAUSE);
            }
            if !error.may_retry() && !testkit::bug("retry_on_reset") || Instant::now() >= deadline.deadline()
            {
                return run.settled(Outcome::Unreachable, None, Some(error.reason()));
            }
        }
    }

    /// Closes connections that were idle for too long and forgets endpoints that nobody calls. Call it about once a
    /// second, from the invoker's own thread: idle connections have no timers of their own.
    pub fn purge(&self) {
        self.pool.purge(self.config.idle_timeout);
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        Stats {
            opened: self.stats.opened.get(),
            reused: self.stats.reused.get(),
            stale: self.stats.stale.get(),
            retried: self.stats.retried.get(),
        }
    }

    /// Connections kept: idle HTTP/1.1 ones and all HTTP/2 ones.
    pub fn connections(&self) -> usize {
        self.pool.connections()
    }

    /// One attempt with the endpoints of this moment.
    async fn attempt(
        &self,
        call: &Call,
        run: &mut Run<'_>,
        deadline: Pin<&mut Sleep>,
    ) -> Result<StatusCode, Error> {
        // Also before a connection is made for nothing; the wire asks again when the first byte is about to leave.
        if !call.lease.may_start(clock::boot_ms()) {
            return Err(Error::StartDeadline);
        }
        let target = call.target.load_full();
        let not_again = (run.attempts > 0).then_some(run.address);
        run.address =
            choose::choose(&target.endpoints, target.near, not_again, |address| self.pool.load(address))
                .ok_or(Error::NoEndpoint)?;
        if run.attempts > 0 {
            self.stats.retried.set(self.stats.retried.get() + 1);
        }
        run.attempts += 1;
        let endpoint = self.pool.endpoint(run.address);
        let _in_flight = endpoint.enter();
        match target.protocol {
            Protocol::Http1 => http1::call(call, &target, &endpoint, run, deadline).await,
            Protocol::H2c => h2c::call(call, &target, &endpoint, run, deadline).await,
        }
    }
}

impl Run<'_> {
    /// A complete answer came.
    fn answered(&self, status: StatusCode) -> Settled {
        let reason = Reason::of_status(status);
        let outcome = if reason.is_none() { Outcome::Delivered } else { Outcome::Failed };
        self.settled(outcome, Some(status.as_u16()), reason)
    }

    fn settled(&self, outcome: Outcome, status: Option<u16>, reason: Option<Reason>) -> Settled {
        Settled {
            outcome,
            status,
            endpoint: (self.attempts > 0).then_some(self.address),
            sent_unix_ms: self.sent_unix_ms,
            first_byte_unix_ms: self.first_byte_unix_ms,
            attempts: self.attempts,
            took: self.started.elapsed(),
            reason: reason.map(Reason::as_str),
        }
    }
}

impl Settled {
    /// A call that was claimed and never handed to the invoker.
    pub fn never_sent(reason: &'static str) -> Self {
        Self::without_call(Outcome::Unreachable, reason)
    }

    /// A call whose task ended without a result: a defect of this program; the function may have run.
    pub fn panicked() -> Self {
        Self::without_call(Outcome::Unanswered, "the call's task panicked")
    }

    fn without_call(outcome: Outcome, reason: &'static str) -> Self {
        Self {
            outcome,
            status: None,
            endpoint: None,
            sent_unix_ms: 0,
            first_byte_unix_ms: 0,
            attempts: 0,
            took: Duration::ZERO,
            reason: Some(reason),
        }
    }
}
