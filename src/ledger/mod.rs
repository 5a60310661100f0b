//! How events end and how that is kept: the closed list of [`Outcome`]s, the conservation equation and the
//! local journal. Must never decide anything: it records.

pub mod conservation;
pub mod journal;
pub mod line;

use serde::{Deserialize, Serialize};

/// The closed list of ways an event ends. Every event that a subscription took over ends in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A complete 2xx answer.
    Delivered,
    /// A complete answer that is not 2xx (redirects included: they are outcomes, not instructions).
    Failed,
    /// Request bytes left and no complete answer came: timeout or reset. The function may have run.
    Unanswered,
    /// Claimed, and provably never sent: no byte of the request left.
    Unreachable,
    /// The business id was claimed before, inside the deduplication window.
    Duplicate,
    /// The trigger's filter did not match.
    Filtered,
    /// Older than the trigger's `delivery.expireAfter` when its turn came.
    Expired,
    /// Undecodable or over a limit.
    Rejected,
    /// Claimed by a process that died (or was fenced) before it recorded an outcome. Named by its successor.
    InDoubt,
    /// The source itself says that events were dropped (retention, compaction of a parked record).
    Missed,
}

impl Outcome {
    /// All outcomes, in the order of the table in docs/metrics.md.
    pub const ALL: [Self; 10] = [
        Self::Delivered,
        Self::Failed,
        Self::Unanswered,
        Self::Unreachable,
        Self::Duplicate,
        Self::Filtered,
        Self::Expired,
        Self::Rejected,
        Self::InDoubt,
        Self::Missed,
    ];

    /// The label value, as in metrics, journal and documentation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Unanswered => "unanswered",
            Self::Unreachable => "unreachable",
            Self::Duplicate => "duplicate",
            Self::Filtered => "filtered",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::InDoubt => "in_doubt",
            Self::Missed => "missed",
        }
    }
}
