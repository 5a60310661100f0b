//! Clocks: wall time for people, boot time (counts suspend) for deadlines that guard a claim.
//! Must never be used to expire deduplication entries: that is log time (rule D1).

use rustix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since boot, suspended time included (`CLOCK_BOOTTIME`). Only differences mean anything.
pub fn boot_ms() -> u64 {
    let t = clock_gettime(ClockId::Boottime);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1000 + u64::try_from(t.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Wall clock in milliseconds since the Unix epoch.
pub fn unix_ms() -> i64 {
    if let Some(told) = crate::testkit::wall_ms() {
        return told;
    }
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
