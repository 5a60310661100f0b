//! What a delivery says of itself: the acknowledgement subject. Must never be guessed at: one that cannot be read is no
//! delivery.

use super::row::At;
use crate::dispatch::StartLease;
use std::sync::Arc;

/// What closes a message at the server.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Where to acknowledge.
    pub reply: String,
    /// Its number in the stream.
    pub sequence: i64,
    /// When the stream took it, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Until when its call may start: as long as the server waits for the acknowledgement.
    pub lease: Arc<StartLease>,
}

impl Handle {
    /// The message.
    pub fn at(&self) -> At {
        At(self.sequence, self.time_ms)
    }
}

/// A delivery's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// How often it was delivered, this time included.
    pub delivered: u64,
    /// Number in the stream.
    pub sequence: i64,
    /// When the stream took it, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// What waited for this consumer in the stream behind it.
    pub pending: u64,
}

impl Numbers {
    /// The message.
    pub fn at(self) -> At {
        At(self.sequence, self.time_ms)
    }
}

/// Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<time>.<pending>`, or the longer form, with
/// domain and account before the stream.
pub fn numbers(reply: &str) -> Option<Numbers> {
    let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let at = match tokens.len() {
        7 => 2,
        9.. => 4,
        _ => return None,
    };
    let nanoseconds: i64 = tokens[at + 3].parse().ok()?;
    Some(Numbers {
        delivered: tokens[at].parse().ok()?,
        sequence: tokens[at + 1].parse().ok()?,
        time_ms: nanoseconds / 1_000_000,
        pending: tokens[at + 4].parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_nothing_else() {
        let numbers_are =
            Some(Numbers { delivered: 1, sequence: 42, time_ms: 1_700_000_000_123, pending: 7 });
        assert_eq!(numbers("$JS.ACK.S.C.1.42.40.1700000000123456789.7"), numbers_are);
        assert_eq!(numbers("$JS.ACK.hub.acc.S.C.1.42.40.1700000000123456789.7.rnd"), numbers_are);
        for bad in
            ["", "$JS.ACK.S.C.1.42.40.x.7", "$JS.ACK.S.C.1.42", "_INBOX.a.b", "$JS.ACK.S.C.-1.42.40.1.7"]
        {
            assert_eq!(numbers(bad), None, "{bad}");
        }
    }
}
