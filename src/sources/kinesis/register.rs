//! The register: one row a shard, which names its holder, what is claimed and what of it is unfinished. Must never be
//! written but on condition that it still is what was read (P1).

use super::place::Place;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Form of the rows that this version writes; another one is not touched.
pub const FORM: u32 = 1;

/// What first versions are drawn from: random, so that a row made anew is never taken for the old (P3), and with room above
/// them, because other people's tools read such counters as signed numbers.
pub const FIRST_VERSIONS: std::ops::RangeTo<u64> = ..1 << 62;

/// Beyond the retention, before a row is deleted: for clocks that differ, and lists that are late.
const FORGOTTEN_MARGIN_MS: i64 = 3_600_000;

/// Names a start of a subscription's thread: what was sent is known to that memory alone (N3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token(pub u64);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.to_string()
    }
}

impl TryFrom<String> for Token {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Self)
    }
}

/// Where a shard without a checkpoint is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Start {
    /// The oldest record that the service still holds.
    Horizon,
    /// The first record that arrived at or after this instant (Unix ms).
    Time(i64),
}

/// A record that is claimed and has no recorded outcome, or that is passed over and not claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where.
    pub at: Place,
    /// When it arrived (Unix ms), -1 if unknown.
    pub ms: i64,
    /// Who claimed it; of a parked one who parked it.
    pub by: Token,
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Row {
    /// [`FORM`].
    pub form: u32,
    /// Raised by every accepted write; begins at a random number, so that a row made anew is never taken for the old (P3).
    pub version: u64,
    /// Who holds the shard; `None`: nobody.
    pub owner: Option<Token>,
    /// Where reading begins as long as there is no checkpoint.
    pub start: Start,
    /// All records up to here, inclusive, are claimed, passed or parked.
    pub checkpoint: Option<Place>,
    /// Monotone arrival time of the record at the checkpoint (Unix ms), -1 if unknown.
    pub time_ms: i64,
    /// What arrived until then (Unix ms) stands at or before the checkpoint; -1 if unknown.
    pub seen_ms: i64,
    /// The shard was split or merged, and everything in it has ended.
    pub ended: bool,
    /// Claimed, without a recorded outcome.
    pub open: Vec<Entry>,
    /// At or before the checkpoint, not claimed (L1).
    pub parked: Vec<Entry>,
}

impl Row {
    /// A row for a shard that has none.
    pub fn new(version: u64, start: Start) -> Self {
        Self {
            form: FORM,
            version,
            owner: None,
            start,
            checkpoint: None,
            time_ms: -1,
            seen_ms: -1,
            ended: false,
            open: Vec::new(),
            parked: Vec::new(),
        }
    }

    /// Whether it may be deleted at `now_ms` (Unix): all that its shard held ended, and is certainly beyond the stream's
    /// retention, so that a row made anew would find nothing. That a dispatcher does not see the shard in its list is no
    /// reason: the list may be from before the shard was made.
    pub fn is_forgotten(&self, retention_ms: i64, now_ms: i64) -> bool {
        let last_ms = self.seen_ms.max(self.time_ms);
        let over_ms = last_ms.saturating_add(retention_ms).saturating_add(FORGOTTEN_MARGIN_MS);
        self.ended && self.open.is_empty() && last_ms >= 0 && over_ms < now_ms
    }

    /// Its text in a store.
    pub fn encode(&self) -> String {
        // No map with other keys than texts, nothing that fails by itself.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is no row of this form.
    pub fn decode(text: &str) -> Result<Self, String> {
        let row: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if row.form == FORM { Ok(row) } else { Err(format!("form {}, this version knows {FORM}", row.form)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_goes_only_when_its_records_are_beyond_retention() {
        let day_ms = 24 * 3_600_000;
        let row = Row { ended: true, seen_ms: 1_000, ..Row::new(1, Start::Horizon) };
        let long = 1_000 + day_ms + FORGOTTEN_MARGIN_MS;
        assert!(row.is_forgotten(day_ms, long + 1));
        assert!(!row.is_forgotten(day_ms, long), "its records may still be read");
        let later = Row { time_ms: 2_000, ..row.clone() };
        assert!(!later.is_forgotten(day_ms, long + 1));
        let entry = Entry { at: "1/0".parse().expect("a place"), ms: 0, by: Token(1) };
        for kept in [
            Row { ended: false, ..row.clone() },
            Row { seen_ms: -1, ..row.clone() },
            Row { open: vec![entry], ..row },
        ] {
            assert!(!kept.is_forgotten(day_ms, i64::MAX), "{kept:?}");
        }
    }
}
