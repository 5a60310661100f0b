//! The conservation equation of a subscription: `received + inherited = Σ outcomes + in flight`. Must never be
//! corrected by hand: the residual is the alarm.

use super::Outcome;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Counters of one subscription in one process, each written where the fact arises.
#[derive(Debug, Default)]
pub struct Conservation {
    received: AtomicU64,
    inherited: AtomicU64,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    in_flight: AtomicI64,
}

impl Conservation {
    /// Events taken over from the source: an accepted commit passed or claimed them.
    pub fn received(&self, n: u64) {
        self.received.fetch_add(n, Ordering::Relaxed);
    }

    /// Open entries of a predecessor, counted when they are named.
    pub fn inherited(&self, n: u64) {
        self.inherited.fetch_add(n, Ordering::Relaxed);
    }

    /// `n` claimed events were handed to the invoker.
    pub fn started(&self, n: i64) {
        self.in_flight.fetch_add(n, Ordering::Relaxed);
    }

    /// `n` claimed events came back from the invoker.
    pub fn finished(&self, n: i64) {
        self.in_flight.fetch_sub(n, Ordering::Relaxed);
    }

    /// `n` events ended so.
    pub fn ended(&self, outcome: Outcome, n: u64) {
        self.outcomes[outcome as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// Events taken over from the source, and those that a predecessor left open.
    pub fn taken(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.inherited.load(Ordering::Relaxed))
    }

    /// How many events ended so.
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Ordering::Relaxed)
    }

    /// Claimed events without an outcome.
    pub fn in_flight(&self) -> i64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// `received + inherited - Σ outcomes - in flight`: 0 whenever the subscription is between two batches.
    pub fn residual(&self) -> i64 {
        let load = |a: &AtomicU64| i64::try_from(a.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        let ended: i64 = self.outcomes.iter().map(load).sum();
        load(&self.received) + load(&self.inherited) - ended - self.in_flight()
    }
}
