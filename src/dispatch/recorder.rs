//! Outcomes of one subscription on their way to journal, metrics and the conservation equation: collected per batch,
//! written once. Must never count an outcome that is not in the journal (N1).

use crate::{
    event::Position,
    invoker::Settled,
    ledger::{
        Outcome,
        conservation::Conservation,
        journal::{self, Journal, Line},
        line::{Entry, LineWriter, Names},
    },
    telemetry::SubscriptionMetrics,
};
use metrics::Counter;
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Collects lines until [`Recorder::flush`]. Used by the source's thread alone.
#[derive(Debug)]
pub struct Recorder {
    journal: Arc<Journal>,
    conservation: Arc<Conservation>,
    outcomes: [Counter; Outcome::ALL.len()],
    writer: LineWriter,
    buffer: Vec<u8>,
    pending: Vec<(Outcome, u64)>,
}

/// An outcome before it becomes a line.
#[derive(Debug)]
pub struct Ending<'a> {
    /// `event-id`, empty if unknown.
    pub id: &'a str,
    /// Where.
    pub position: &'a Position,
    /// How.
    pub outcome: Outcome,
    /// Why.
    pub reason: Option<&'a str>,
    /// The call, if there was one.
    pub settled: Option<&'a Settled>,
    /// Token of the claimer in hexadecimal, if it was not this owner.
    pub owner: Option<&'a str>,
    /// Events it stands for.
    pub count: u64,
}

impl Recorder {
    /// A recorder for one subscription.
    pub fn new(
        journal: Arc<Journal>,
        conservation: Arc<Conservation>,
        metrics: &SubscriptionMetrics,
        names: Names,
    ) -> Self {
        let outcomes = Outcome::ALL.map(|o| metrics.outcome(o.as_str()));
        let writer = LineWriter::new(names);
        let (buffer, pending) = (Vec::new(), Vec::new());
        Self { journal, conservation, outcomes, writer, buffer, pending }
    }

    /// Adds an ending to the batch.
    pub fn end(&mut self, ending: &Ending<'_>) {
        self.writer.write(&mut self.buffer, &ending.entry());
        self.pending.push((ending.outcome, ending.count));
    }

    /// Adds the line of an ending that is counted later, by [`Recorder::count`].
    pub fn announce(&mut self, ending: &Ending<'_>) {
        self.writer.write(&mut self.buffer, &ending.entry());
    }

    /// Counts an ending whose line is written already.
    pub fn count(&mut self, outcome: Outcome, count: u64) {
        self.conservation.ended(outcome, count);
        self.outcomes[outcome as usize].increment(count);
    }

    /// The journal line of an ending, for a dead letter.
    pub fn line(&self, ending: &Ending<'_>) -> Line {
        self.writer.line(&ending.entry())
    }

    /// Whether a batch waits to be written.
    pub fn is_pending(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Writes the batch and counts it. After an error the batch is kept and written by the next call.
    ///
    /// # Errors
    /// The journal cannot be written: nothing of the batch is recorded.
    pub fn flush(&mut self) -> Result<(), journal::Error> {
        self.journal.append(&self.buffer)?;
        self.buffer.clear();
        for (outcome, count) in self.pending.drain(..) {
            self.conservation.ended(outcome, count);
            self.outcomes[outcome as usize].increment(count);
        }
        Ok(())
    }
}

impl Ending<'_> {
    fn entry(&self) -> Entry<'_> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Entry {
            ended_us: i64::try_from(now.as_micros()).unwrap_or(i64::MAX),
            id: self.id,
            position: self.position,
            outcome: self.outcome,
            status: self.settled.and_then(|s| s.status),
            endpoint: self.settled.and_then(|s| s.endpoint),
            sent_ms: self.settled.map_or(0, |s| s.sent_unix_ms),
            took_us: self.settled.map_or(0, |s| i64::try_from(s.took.as_micros()).unwrap_or(i64::MAX)),
            reason: self.reason,
            owner: self.owner,
            count: self.count,
        }
    }
}
