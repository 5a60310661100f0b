//! What can go wrong with one attempt, and the one question that matters: did a byte leave? Must never answer
//! [`SendState::NotSent`] on a guess.

use super::SendState;
use std::io;

/// The closed list of reasons in [`super::Settled::reason`]; safe as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The function has no endpoint (it went away after the claim).
    NoEndpoint,
    /// The Service name is not valid in a `Host` header.
    Authority,
    /// The connection was refused or is unroutable.
    Connect,
    /// The address is none that a function may have.
    Forbidden,
    /// No connection within the connect timeout.
    ConnectTimeout,
    /// The start lease ran out before the first byte.
    StartDeadline,
    /// No complete answer within the call timeout.
    Timeout,
    /// The peer closed the connection before a complete head.
    Closed,
    /// The peer reset the connection or the stream.
    Reset,
    /// The head came, the body did not end as announced.
    Truncated,
    /// What came is not HTTP.
    Garbage,
    /// The answer's head (interim answers included) is over the limit.
    HeadTooLarge,
    /// HTTP/2: the peer refused the stream unprocessed.
    RefusedStream,
    /// HTTP/2: the peer is going away and did not process the stream.
    GoAway,
    /// A complete answer that redirects.
    Redirect,
    /// A complete 4xx answer.
    ClientError,
    /// A complete 5xx answer.
    ServerError,
    /// Any other complete answer that is not 2xx.
    Status,
}

impl Reason {
    /// Every reason, for metrics registered ahead and for documentation.
    pub const ALL: [Self; 18] = [
        Self::NoEndpoint,
        Self::Authority,
        Self::Connect,
        Self::Forbidden,
        Self::ConnectTimeout,
        Self::StartDeadline,
        Self::Timeout,
        Self::Closed,
        Self::Reset,
        Self::Truncated,
        Self::Garbage,
        Self::HeadTooLarge,
        Self::RefusedStream,
        Self::GoAway,
        Self::Redirect,
        Self::ClientError,
        Self::ServerError,
        Self::Status,
    ];

    /// The text in [`super::Settled::reason`], journal and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoEndpoint => "no endpoint",
            Self::Authority => "authority",
            Self::Connect => "connect",
            Self::Forbidden => "forbidden address",
            Self::ConnectTimeout => "connect timeout",
            Self::StartDeadline => "start deadline",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Truncated => "truncated",
            Self::Garbage => "garbage",
            Self::HeadTooLarge => "head too large",
            Self::RefusedStream => "refused stream",
            Self::GoAway => "go away",
            Self::Redirect => "redirect",
            Self::ClientError => "client error",
            Self::ServerError => "server error",
            Self::Status => "status",
        }
    }

    /// The reason that goes with a complete answer; `None` for 2xx.
    pub(super) fn of_status(status: http::StatusCode) -> Option<Self> {
        match status.as_u16() {
            200..=299 => None,
            300..=399 => Some(Self::Redirect),
            400..=499 => Some(Self::ClientError),
            500..=599 => Some(Self::ServerError),
            _ => Some(Self::Status),
        }
    }

    fn of_io(error: &io::Error, in_body: bool) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, InvalidInput};
        match error.kind() {
            ConnectionReset | BrokenPipe | ConnectionAborted => Self::Reset,
            // How hyper reports a bad chunk.
            InvalidData | InvalidInput => Self::Garbage,
            _ if in_body => Self::Truncated,
            _ => Self::Closed,
        }
    }
}

/// Why one attempt brought no complete answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody to call.
    #[error("the function has no endpoint")]
    NoEndpoint,
    /// `Target::authority` is no header value.
    #[error("the function's authority is not valid in a request")]
    Authority,
    /// No connection.
    #[error("cannot connect to the function")]
    Connect(#[source] io::Error),
    /// An address that no function may have.
    #[error("the function's address may not be called: loopback, link-local, metadata or forbidden")]
    Forbidden,
    /// No connection in time.
    #[error("cannot connect to the function in time")]
    ConnectTimeout,
    /// The claim's start lease ended.
    #[error("the start deadline passed")]
    StartDeadline,
    /// The connection was there, the answer was not.
    #[error("no complete answer from the function: {}", reason.as_str())]
    Exchange {
        /// What ended the exchange.
        reason: Reason,
        /// Whether bytes of the request had left by then.
        sent: SendState,
        /// What the protocol library said.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl Error {
    /// Whether the request may have reached the function.
    pub const fn sent(&self) -> SendState {
        match self {
            Self::Exchange { sent, .. } => *sent,
            _ => SendState::NotSent,
        }
    }

    /// The closed-list reason.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NoEndpoint => Reason::NoEndpoint,
            Self::Authority => Reason::Authority,
            Self::Connect(_) => Reason::Connect,
            Self::Forbidden => Reason::Forbidden,
            Self::ConnectTimeout => Reason::ConnectTimeout,
            Self::StartDeadline => Reason::StartDeadline,
            Self::Exchange { reason, .. } => *reason,
        }
    }

    /// Whether another attempt could end better: nothing left, and neither the clock nor the target forbids it.
    pub(super) const fn may_retry(&self) -> bool {
        matches!(self.sent(), SendState::NotSent)
            && !matches!(self.reason(), Reason::StartDeadline | Reason::Timeout | Reason::Authority)
    }
}

/// What a hyper error before (`in_body` false) or after the head means.
pub(super) fn http1_reason(error: &hyper::Error, in_body: bool) -> Reason {
    if error.is_parse_too_large() {
        return Reason::HeadTooLarge;
    }
    if let Some(io) = source_io(error) {
        return Reason::of_io(io, in_body);
    }
    match () {
        () if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
            if in_body {
                Reason::Truncated
            } else {
                Reason::Closed
            }
        }
        // Framing errors inside a body (bad chunk size) and unasked-for bytes are as little HTTP as a bad status line.
        () => Reason::Garbage,
    }
}

/// What an h2 error means, and whether the peer itself says that it did not process the stream.
pub(super) fn h2_reason(error: &h2::Error, in_body: bool) -> (Reason, bool) {
    if error.is_remote() && error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM) {
        return (Reason::RefusedStream, true);
    }
    // h2 gives a stream the *remote* GOAWAY as its error only when the stream's id is above the last one named, or
    // when the stream was never opened because the GOAWAY had come before; others end with an I/O error at EOF.
    if error.is_remote() && error.is_go_away() {
        return (Reason::GoAway, true);
    }
    let reason = match error.get_io() {
        Some(io) => Reason::of_io(io, in_body),
        None if error.is_reset() => Reason::Reset,
        None if in_body => Reason::Truncated,
        None => Reason::Garbage,
    };
    (reason, false)
}

fn source_io(error: &hyper::Error) -> Option<&io::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return Some(io);
        }
        source = inner.source();
    }
    None
}
