//! When a holder is taken for gone: its version stood still for long enough under the eyes of whoever takes over. Must never
//! compare the clocks of two machines.

/// Since when a version has stood still, by this machine's boot clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    seen: Option<(u64, u64)>,
}

impl Watch {
    /// The row was read at `now_ms` and had this version.
    pub fn saw(&mut self, version: u64, now_ms: u64) {
        if self.seen.is_none_or(|(before, _)| before != version) {
            self.seen = Some((version, now_ms));
        }
    }

    /// Whether it has stood still for `failover_ms`.
    pub fn is_expired(&self, now_ms: u64, failover_ms: u64) -> bool {
        self.seen.is_some_and(|(_, since)| now_ms.saturating_sub(since) >= failover_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_expires_only_after_it_stood_still_under_our_eyes() {
        let mut watch = Watch::default();
        assert!(!watch.is_expired(u64::MAX, 10), "never seen");
        watch.saw(5, 100);
        watch.saw(5, 105);
        assert!(!watch.is_expired(109, 10) && watch.is_expired(110, 10));
        watch.saw(6, 111);
        assert!(!watch.is_expired(120, 10));
        watch.saw(5, 121);
        assert!(!watch.is_expired(130, 10), "a row made anew is another row");
    }
}
