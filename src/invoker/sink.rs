//! Where the body of an answer goes: nowhere, counted against the limit, unless a caller waits for it. Hot path: allocates
//! nothing for an event from a broker. Must never hold more than the limit.

use super::Call;
use crate::event::exchange::Answer;
use bytes::Bytes;
use http::response::Parts;

/// The body of one answer on its way.
#[derive(Debug)]
pub(super) struct Sink {
    max: usize,
    read: usize,
    kept: Option<Vec<u8>>,
}

impl Sink {
    /// For the answer to `call`; `max` is the limit where nobody waits for it.
    pub(super) fn of(call: &Call, max: usize) -> Self {
        let exchange = call.event.exchange.as_ref();
        Self {
            max: exchange.map_or(max, |exchange| exchange.max_answer_bytes()),
            read: 0,
            kept: exchange.map(|_| Vec::new()),
        }
    }

    /// Longest body that is read.
    pub(super) const fn max(&self) -> usize {
        self.max
    }

    /// Takes a part; false: that was too much.
    pub(super) fn take(&mut self, data: &Bytes) -> bool {
        self.read += data.len();
        if self.read > self.max {
            self.overflow();
            return false;
        }
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(data);
        }
        true
    }

    /// The body is longer than the limit.
    pub(super) fn overflow(&mut self) {
        self.read = usize::MAX;
    }

    /// The answer is complete (or too long): hands it to whom waits for it.
    pub(super) fn hand_over(self, call: &Call, head: Parts) {
        if let Some((exchange, body)) = call.event.exchange.as_ref().zip(self.kept) {
            let whole = self.read <= self.max;
            let body = if whole { body.into() } else { Bytes::new() };
            exchange.answered(Answer { status: head.status, headers: head.headers, body, whole });
        }
    }
}
