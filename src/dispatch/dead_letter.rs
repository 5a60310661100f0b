//! Where the original record of an event that was not delivered is put. Must never delay a claim or change an outcome:
//! a dead letter is a copy, offered after the outcome is recorded.

use crate::ledger::journal::Line;
use bytes::Bytes;

/// A record as the source delivered it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// Key.
    pub key: Option<Bytes>,
    /// Value; `None` for a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// Takes dead letters. Implemented by a source.
pub trait DeadLetterSink: Send + Sync {
    /// Offers the record with the line that says how it ended. Never blocks: a full queue is counted and dropped.
    fn offer(&self, original: &Original, line: &Line);
}
