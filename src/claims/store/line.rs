//! Lines of a claim log: a checksum, then JSON. Must never read a line that was not written whole.

use super::{Claim, Digest, End, How, table::Table};
use serde::{Deserialize, Serialize};

/// A line as it is written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line<'a> {
    Claim { claim: &'a Claim },
    End { key: Digest, owner: u64, number: u64, at: i64, end: &'a End },
    Free { key: Digest, owner: u64, number: u64 },
}

/// A line as it is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kept {
    Claim { claim: Claim },
    End { key: Digest, owner: u64, number: u64, at: i64, end: End },
    Free { key: Digest, owner: u64, number: u64 },
}

impl<'a> Line<'a> {
    pub(super) fn end(claim: &Claim, at: i64, end: &'a End) -> Self {
        Self::End { key: claim.key, owner: claim.owner, number: claim.number, at, end }
    }

    pub(super) fn free(claim: &Claim) -> Self {
        Self::Free { key: claim.key, owner: claim.owner, number: claim.number }
    }
}

impl Kept {
    /// Brings the table to where it was after this line; returns the line's time.
    pub(super) fn replay(self, table: &mut Table) -> i64 {
        match self {
            Self::Claim { claim } => {
                table.replace(claim);
                0
            }
            Self::End { key, owner, number, at, end } => {
                table.end_of(key, (owner, number), How::Ended(Box::new(end)), at);
                at
            }
            Self::Free { key, owner, number } => {
                table.end_of(key, (owner, number), How::Freed, 0);
                0
            }
        }
    }
}

pub(super) fn encode(line: &Line<'_>) -> Vec<u8> {
    // Text and numbers alone: this cannot fail, and an empty line would be seen as damaged.
    let json = serde_json::to_vec(line).unwrap_or_default();
    let mut bytes = format!("{:016x} ", xxhash_rust::xxh3::xxh3_64(&json)).into_bytes();
    bytes.extend_from_slice(&json);
    bytes.push(b'\n');
    bytes
}

pub(super) fn decode(line: &[u8]) -> Option<Kept> {
    let (sum, json) = (line.get(..16)?, line.get(17..)?);
    let sum = u64::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (sum == xxhash_rust::xxh3::xxh3_64(json)).then(|| serde_json::from_slice(json).ok())?
}

/// The lines that bring an empty table to this row.
pub(super) fn snapshot(claim: &Claim, end: Option<(i64, &End)>) -> Vec<u8> {
    let mut lines = encode(&Line::Claim { claim });
    if let Some((at, end)) = end {
        lines.extend(encode(&Line::end(claim, at, end)));
    }
    lines
}
