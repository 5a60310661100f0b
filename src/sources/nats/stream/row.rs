//! The register of a subscription whose stream has fewer than three copies: who reads it, up to where everything is reserved, and
//! what of it has no recorded outcome. Pure values. Must never reserve less than it did, nor drop an entry that nobody reported.

use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Form of the rows that this version writes; another one is not touched.
pub const FORM: u32 = 1;

/// A delivery, as far as the register needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct At(
    /// Number in the stream.
    pub i64,
    /// When the stream took it (Unix ms).
    pub i64,
);

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Row {
    /// [`FORM`].
    pub form: u32,
    /// Raised by every accepted write; begins at a random number, so that a row made anew is never taken for the old.
    pub version: u64,
    /// Who reads the stream; `None`: nobody.
    pub owner: Option<String>,
    /// When the stream was made (Unix ms): another one under its name begins its numbers anew.
    pub created_ms: i64,
    /// Every number up to here, inclusive, is reserved: started by a holder, or never to be started.
    pub reserved: i64,
    /// Latest time of a reserved message. A stream that lost its end uses numbers again, later than this.
    pub time_ms: i64,
    /// Reserved, without a recorded outcome.
    pub open: Vec<At>,
}

impl At {
    /// Whether a delivery is of something that is reserved, if everything up to `front` is. A lower number that the stream took
    /// later is a number used again.
    pub fn is_behind(self, front: Self) -> bool {
        self.0 <= front.0 && self.1 <= front.1
    }
}

impl Row {
    /// A row for a subscription that has none.
    pub fn new(version: u64, created_ms: i64) -> Self {
        Self { form: FORM, version, owner: None, created_ms, reserved: 0, time_ms: -1, open: Vec::new() }
    }

    /// The next version, held by `owner`, for the stream made at `created_ms`. The open list stays: it is reported first.
    pub fn taken(&self, owner: &str, created_ms: i64) -> Self {
        let mut next = self.clone();
        next.version = self.version.wrapping_add(1);
        next.owner = Some(owner.to_owned());
        if created_ms != self.created_ms {
            (next.created_ms, next.reserved, next.time_ms) = (created_ms, 0, -1);
        }
        next
    }

    /// The next version: `claims` are reserved and open, what stands in `closed` is open no more.
    pub fn next(&self, claims: &[At], closed: &HashSet<i64>) -> Self {
        let mut next = self.clone();
        next.version = self.version.wrapping_add(1);
        next.open.retain(|At(sequence, _)| !closed.contains(sequence));
        for at in claims {
            next.open.push(*at);
            // Neither goes back: a server whose clock was set back would have both lower.
            (next.reserved, next.time_ms) = (next.reserved.max(at.0), next.time_ms.max(at.1));
        }
        next
    }

    /// Up to where everything is reserved.
    pub fn front(&self) -> At {
        At(self.reserved, self.time_ms)
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
        let row: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if row.form == FORM { Ok(row) } else { Err(format!("form {}, this version knows {FORM}", row.form)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_stays_so_and_a_number_used_again_is_new() {
        let row = Row::new(7, 100).taken("me", 100).next(&[At(3, 1_000), At(5, 900)], &HashSet::new());
        assert_eq!((row.version, row.reserved, row.time_ms), (9, 5, 1_000));
        for repeat in [At(5, 900), At(3, 1_000), At(4, 950), At(1, 10)] {
            assert!(repeat.is_behind(row.front()), "{repeat:?}");
        }
        assert!(!At(6, 1_000).is_behind(row.front()) && !At(4, 1_001).is_behind(row.front()));
        // The stream lost its end: its numbers go on from below, later.
        let row = row.next(&[At(4, 2_000)], &HashSet::from([3]));
        assert_eq!((row.reserved, row.open.clone()), (5, vec![At(5, 900), At(4, 2_000)]));
        assert!(At(4, 2_000).is_behind(row.front()) && At(5, 900).is_behind(row.front()));
        assert!(!At(5, 2_001).is_behind(row.front()), "the next of those");
    }

    #[test]
    fn another_stream_of_the_same_name_begins_anew_and_keeps_what_nobody_reported() {
        let row = Row::new(7, 100).taken("me", 100).next(&[At(3, 1_000)], &HashSet::new());
        assert!(At(3, 1_000).is_behind(row.taken("you", 100).front()), "the same stream");
        let other = row.taken("you", 5_000);
        assert!(!At(3, 1_000).is_behind(other.front()) && other.open == [At(3, 1_000)]);
        assert_eq!(Row::decode(&other.encode()), Ok(other));
        assert!(Row::decode("{}").is_err());
        assert!(Row::decode(&Row { form: 2, ..row }.encode()).is_err());
    }
}
