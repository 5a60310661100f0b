//! The claim protocol as a pure state machine: who may hold a shard, which row a write carries, which records may start
//! once it is accepted, what a successor takes over. No I/O, no clock, no thread. Must never let a record start that
//! no accepted row claims.
//!
//! Rules are cited by their codes: P (row), N (naming), L (lanes), D (window); docs/ARCHITECTURE.md states each.

pub mod lease;
pub mod plan;
pub mod shard;
#[cfg(test)]
mod tests;

use crate::{dispatch::Judgement, event::Lane};

/// What the protocol needs to know of a record.
pub trait Record: Clone {
    /// The lane it runs in; `None` when it may run beside any other.
    fn lane(&self) -> Option<Lane>;
}

/// Decides about records in log order. An overlay inside the implementation serves a row that is being planned.
pub trait Judge<R> {
    /// Judges the record with this number whose monotone log time is `log_ms`.
    fn judge(&mut self, number: i64, log_ms: i64, record: &R) -> Judgement;
}

/// Seeded protocol bugs, for tests that prove that the tests can see. All off outside of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutations {
    /// N1: entries taken over are not carried.
    pub no_carry: bool,
    /// N1: an open entry leaves the row before its outcome is recorded.
    pub early_close: bool,
    /// N2: names before an own row was accepted.
    pub name_early: bool,
    /// N3: names what runs here.
    pub name_own: bool,
    /// L1: a row without a claim drops what is parked.
    pub flush_unparks: bool,
    /// 1.4: a child begins while its parent is not at its end.
    pub no_parents: bool,
}
