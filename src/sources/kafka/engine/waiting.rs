//! Back-pressure and waiting times of a consumer: how long to poll, when to pause. Must never stop polling: paused
//! partitions keep the member alive.

use super::Engine;
use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

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
    pub(in super::super) fn poll_room(&self, paused: &BTreeSet<i32>) -> usize {
        // A paused partition holds its share for as long as its function takes: it must not starve the others.
        let flowing = self.protocol.owned().filter(|(n, _)| !paused.contains(n));
        let waiting: usize = flowing.map(|(_, s)| s.waiting()).sum();
        let room = (self.options.max_waiting / 4 * 3).saturating_sub(waiting);
        room.min(self.options.max_poll_records)
    }

    /// Partitions whose fetching should stand still now, and those whose fetching may go on: a quarter of the bound of
    /// unclaimed records each, and the bytes of the whole process. One stuck partition never pauses another.
    pub(in super::super) fn pause_and_resume(&self, paused: &BTreeSet<i32>) -> (Vec<i32>, Vec<i32>) {
        let most = (self.options.max_waiting / 4).max(64);
        let crowded = self.memory.load(Ordering::Relaxed) > self.options.memory_bytes;
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (number, shard) in self.protocol.owned() {
            let waiting = shard.waiting();
            if paused.contains(&number) {
                if waiting == 0 || waiting <= most / 4 && !crowded {
                    resume.push(number);
                }
            } else if waiting >= most || crowded && waiting > 0 {
                pause.push(number);
            }
        }
        (pause, resume)
    }
}
