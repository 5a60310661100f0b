//! Back-pressure and waiting times of a consumer: how long to poll, when to pause. Must never stop polling: paused
//! partitions keep the member alive.

use super::Engine;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// A partition whose position did not move for this long stands still.
const STANDS_STILL: Duration = Duration::from_millis(500);

impl Engine {
    /// How long the next poll may wait for a record.
    pub(in super::super) fn poll_wait(&self) -> Duration {
        let waiting = self.protocol.owned().any(|(_, s)| s.waiting() > 0 || s.parked() > 0);
        match (waiting, self.flow.calls() == 0) {
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

    /// Partitions whose fetching should stand still now, and those whose fetching may go on. One that keeps moving is not
    /// paused for its backlog (a pause throws away what was fetched ahead); one that stands still while it holds the room
    /// of all is, so that it never starves another. The bytes of the whole process pause any.
    pub(in super::super) fn pause_and_resume(&mut self, paused: &BTreeSet<i32>) -> (Vec<i32>, Vec<i32>) {
        let full = self.poll_room(paused) == 0;
        let crowded = self.flow.memory() > self.options.memory_bytes;
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (number, shard) in self.protocol.owned() {
            let (waiting, position) = (shard.waiting(), shard.position());
            let moved = self.moved.entry(number).or_insert((position, Instant::now()));
            if moved.0 != position {
                *moved = (position, Instant::now());
            }
            let stands = moved.1.elapsed() >= STANDS_STILL;
            if paused.contains(&number) {
                if waiting == 0 || waiting <= self.options.max_waiting / 16 && !crowded {
                    resume.push(number);
                }
            } else if waiting > 0 && (crowded || full && stands) || waiting >= self.options.max_waiting {
                pause.push(number);
            }
        }
        (pause, resume)
    }
}
