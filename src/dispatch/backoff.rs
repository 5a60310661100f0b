//! The pause of a subscription after a call that failed, as Kubeless had it: the next event waits, the failed one is not called
//! again. Must never hold up what is claimed already, nor last longer than one and a half times what was asked for.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::ledger::Outcome;

/// First pause, unless a shorter one is the longest.
const FIRST: Duration = Duration::from_millis(500);
/// By how much the next one is longer.
const GROWTH: f64 = 1.5;
/// Up to how much of itself each is shorter or longer, so that many subscriptions of one function do not come back at once.
const SPREAD: f64 = 0.5;

/// See the module.
#[derive(Debug)]
pub struct Backoff {
    longest: Duration,
    /// The next pause, without its spread.
    next: Mutex<Duration>,
    /// Until when nothing is claimed, by the boot clock.
    until_ms: AtomicU64,
}

impl Backoff {
    /// Pauses of `longest` at most; zero: none.
    pub fn new(longest: Duration) -> Self {
        Self { longest, next: Mutex::new(FIRST.min(longest)), until_ms: AtomicU64::new(0) }
    }

    /// Whether nothing may be claimed at `now_ms` of the boot clock.
    pub fn holds(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms.load(Ordering::Relaxed)
    }

    /// A call ended. Several that fail in one pause are one failure: they were claimed before it.
    pub fn ended(&self, outcome: Outcome, now_ms: u64) {
        if self.longest.is_zero() {
            return;
        }
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Outcome::Delivered => *next = FIRST.min(self.longest),
            Outcome::Failed | Outcome::Unanswered | Outcome::Unreachable if !self.holds(now_ms) => {
                let pause = next.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * fastrand::f64());
                *next = next.mul_f64(GROWTH).min(self.longest);
                let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                self.until_ms.store(now_ms.saturating_add(pause_ms), Ordering::Relaxed);
            }
            _ => {}
        }
    }
}
