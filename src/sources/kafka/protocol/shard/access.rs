//! What others may ask of a [`Shard`]. Must never change it, except for the lease of its epoch.

use super::{Open, Parked, Record, Shard};
use crate::{dispatch::StartLease, dispatch::lanes::Lanes};
use std::sync::Arc;

impl<R: Record> Shard<R> {
    /// Owned by this process now.
    pub fn is_owned(&self) -> bool {
        self.owned
    }

    /// Owned at some time before.
    pub fn was_owned(&self) -> bool {
        self.was_owned
    }

    /// Epoch of the current (or last) assignment.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Next offset to claim: what the register holds as committed offset.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Whether the register differs from what this process knows.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Whether a commit of this epoch was accepted (N2).
    pub fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Whether records below the position are still being read back (parked ones, the window).
    pub fn is_replaying(&self) -> bool {
        self.next_fetch < self.position
    }

    /// Start lease of the current epoch.
    pub fn lease(&self) -> &Arc<StartLease> {
        &self.lease
    }

    /// Records that wait above the position.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is anything that a claim commit could be about.
    pub fn has_work(&self) -> bool {
        !(self.is_replaying() || self.waiting.is_empty() && self.parked.is_empty())
    }

    /// Bytes of the records that wait or are parked.
    pub fn waiting_weight(&self) -> usize {
        let parked = self.parked.values().map(|p| match p {
            Parked::Read { record, .. } => record.weight(),
            Parked::Unread => 0,
        });
        self.waiting.iter().map(|w| w.record.weight()).sum::<usize>() + parked.sum::<usize>()
    }

    /// Records parked below the position.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Own calls without an outcome.
    pub fn running(&self) -> usize {
        self.open.values().filter(|o| matches!(o, Open::Running { .. })).count()
    }

    /// Offsets of own calls without an outcome.
    pub fn running_offsets(&self) -> Vec<i64> {
        let open = self.open.iter().filter(|(_, o)| matches!(o, Open::Running { .. }));
        open.map(|(offset, _)| *offset).collect()
    }

    /// Entries that a register written now would hold.
    pub(in super::super) fn entries(&self) -> usize {
        let inherited = self.inherited.values().filter(|e| !e.reported).count();
        self.running() + inherited + self.parked.len()
    }

    pub(in super::super) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// Records that wait above the position: offset, log time, record.
    pub fn unclaimed(&self) -> impl Iterator<Item = (i64, i64, &R)> {
        self.waiting.iter().map(|w| (w.offset, w.log_time_ms, &w.record))
    }

    pub(in super::super) fn parked_offsets(&self) -> impl Iterator<Item = i64> {
        self.parked.keys().copied()
    }

    /// A parked record that was read (back).
    pub fn parked_record(&self, offset: i64) -> Option<(i64, &R)> {
        match self.parked.get(&offset) {
            Some(Parked::Read { log_time_ms, record }) => Some((*log_time_ms, record)),
            _ => None,
        }
    }

    /// The offset to commit when the first `taken` waiting records are passed: gaps are never counted as loss.
    pub(in super::super) fn offset_after(&self, taken: usize) -> i64 {
        match taken.checked_sub(1).and_then(|i| self.waiting.get(i)) {
            Some(last) => last.offset + 1,
            None => self.position,
        }
    }

    /// Log time at that offset.
    pub(in super::super) fn log_time_after(&self, taken: usize) -> i64 {
        match taken.checked_sub(1).and_then(|i| self.waiting.get(i)) {
            Some(last) => last.log_time_ms,
            None => self.position_log_time_ms,
        }
    }
}
