//! What sources share that events are pushed to: one listener, a claim store in place of a log's register, the thread of a
//! subscription, and an answer for whoever pushes. Must never know what a request means, nor which trigger it is for.

pub mod binding;
mod claiming;
pub mod front;
pub mod guard;
pub mod local;
pub mod offer;
pub mod problem;
pub mod start;
pub mod stores;
mod thread;

use std::time::Duration;

/// How much of a subscription may wait, and for how long.
#[derive(Clone, Debug)]
pub struct Holding {
    /// Events that wait for a free function.
    pub max_waiting: usize,
    /// How long one waits before it is refused.
    pub max_wait: Duration,
    /// Bytes of events over all subscriptions of the process.
    pub memory_bytes: usize,
    /// How long a claimed call may wait for its start.
    pub start_window: Duration,
    /// Added to the end of the longest call before an open claim is named in doubt.
    pub doubt_margin: Duration,
    /// Bytes of an answer's body that are kept for repeats.
    pub kept_answer_bytes: usize,
}
