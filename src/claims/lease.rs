//! [`StartLease`]: until when a granted claim may still *start* its call (rules L2 and N4). Must never be
//! extended by anything but an accepted commit of the shard's current epoch.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by the polling thread (extends, stops) and every claimed call of one shard and assignment epoch (asks).
///
/// A claim stays valid when its process is stopped (SIGSTOP, suspend), but a call that started *after* a successor
/// has run later events of the same key would break their order: so no call starts once the lease ran out.
#[derive(Debug)]
pub struct StartLease {
    until_boot_ms: AtomicU64,
    stopped: AtomicBool,
}

impl StartLease {
    /// A lease that ends at `until_boot_ms` ([`crate::clock::boot_ms`]).
    pub const fn new(until_boot_ms: u64) -> Self {
        Self { until_boot_ms: AtomicU64::new(until_boot_ms), stopped: AtomicBool::new(false) }
    }

    /// Whether a call may start now. Asked immediately before the first request byte.
    pub fn may_start(&self, now_boot_ms: u64) -> bool {
        !self.stopped.load(Ordering::Acquire) && now_boot_ms < self.until_boot_ms.load(Ordering::Acquire)
    }

    /// Extends the lease; never shortens it.
    pub fn extend(&self, until_boot_ms: u64) {
        self.until_boot_ms.fetch_max(until_boot_ms, Ordering::AcqRel);
    }

    /// Whether it was ended for good.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Ends the lease for good: the shard was revoked or lost.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }
}
