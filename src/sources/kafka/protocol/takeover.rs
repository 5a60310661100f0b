//! What a consumer learns about a partition before it takes it over, and what the takeover found. Must never be
//! filled from a register that was read before the assignment (D1).

use super::{Protocol, Record, shard::Reportable};
use crate::sources::kafka::register::Register;
use std::ops::Range;

/// Read after the assignment.
#[derive(Clone, Debug)]
pub struct Takeover {
    /// Committed offset, or the start position that the trigger's policy chose.
    pub offset: i64,
    /// Whether it was committed; false: chosen by the policy.
    pub committed: bool,
    /// The register; empty when there is none.
    pub register: Register,
    /// First offset that the log still holds.
    pub log_start: i64,
    /// Offset after the last record.
    pub log_end: i64,
    /// First offset whose record lies inside the deduplication window (D1), if a window is to be rebuilt.
    pub rebuild_from: Option<i64>,
}

/// What the takeover found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Where fetching starts: below the position while parked records or the window are read back.
    pub fetch_from: i64,
    /// The register stood below this process's high-water mark at this offset: somebody rewound it (K8).
    pub regressed_from: Option<i64>,
    /// The log ends below the high-water mark: a topic was recreated or truncated.
    pub truncated: bool,
    /// Unclaimed offsets that retention removed.
    pub missed: Option<Range<i64>>,
    /// Parked records that retention removed.
    pub missed_parked: Vec<i64>,
    /// Open entries beyond the end of a log that was cut: no register can carry them, so they are named at once.
    pub cut: Vec<Reportable>,
}

impl<R: Record> Protocol<R> {
    /// Takes `shard` over in the current epoch.
    pub fn assign(&mut self, shard: i32, takeover: &Takeover) -> Taken {
        let (epoch, token, m) = (self.epoch, self.token, self.mutations);
        self.shards.entry(shard).or_default().assign(epoch, token, takeover, m.no_guard, m.name_own)
    }
}
