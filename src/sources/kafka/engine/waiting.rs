//! Back-pressure and waiting times of a consumer: how long to poll, when to pause. Must never stop polling: paused
//! partitions keep the member alive.

use super::Engine;
use std::{sync::atomic::Ordering, time::Duration};

impl Engine {
    /// How long the next poll may wait for a record.
    pub(in super::super) fn poll_wait(&self) -> Duration {
        let waiting = self.protocol.owned().any(|(_, s)| s.waiting() > 0 || s.parked() > 0);
        match (waiting, self.running.is_empty()) {
            // A result may free a lane or a permit at any moment.
            (true, false) => Duration::from_millis(1),
            // Only an endpoint, a permit of another subscription or an edit can help.
            (true, true) => Duration::from_millis(20),
            // Results only have to be recorded.
            (false, false) => Duration::from_millis(10),
            (false, true) => Duration::from_millis(100),
        }
    }

    /// How many records the next poll should take: up to three quarters of the bound at once. Beyond that one by one,
    /// which serves callbacks and still reaches the bound, because a pause throws away what was fetched ahead and
    /// a consumer that merely keeps up must not pause.
    pub(in super::super) fn poll_room(&self) -> usize {
        let room = (self.options.max_waiting / 4 * 3).saturating_sub(self.waiting_records());
        room.min(self.options.max_poll_records)
    }

    /// Records that wait unclaimed, over all owned shards.
    pub(in super::super) fn waiting_records(&self) -> usize {
        self.protocol.owned().map(|(_, s)| s.waiting()).sum()
    }

    /// Whether fetching should stand still: enough waits here, or the process holds too many bytes.
    pub(in super::super) fn should_pause(&self) -> bool {
        let waiting = self.waiting_records();
        let crowded = self.memory.load(Ordering::Relaxed) > self.options.memory_bytes;
        waiting >= self.options.max_waiting || crowded && waiting > 0
    }

    /// Whether fetching may go on after a pause: a quarter of the bound, so that pauses are rare.
    pub(in super::super) fn should_resume(&self) -> bool {
        let room = self.memory.load(Ordering::Relaxed) <= self.options.memory_bytes;
        let waiting = self.waiting_records();
        waiting == 0 || waiting <= self.options.max_waiting / 4 && room
    }
}
