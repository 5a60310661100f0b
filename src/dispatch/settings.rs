//! What a trigger's shared groups mean to the dispatcher, ready to use. Replaced whole on an edit; must never hold
//! anything that would need the source to be restarted.

use crate::{event::filter::Filter, ledger::Outcome};
use std::time::Duration;

/// Settings of one subscription that take effect in place.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Calls that may run at once. Default 64.
    pub max_in_flight: usize,
    /// Most events claimed and not finished. Default 256.
    pub claim_window: usize,
    /// Events older than this (by their own time) end as `expired`. `None`: never.
    pub expire_after: Option<Duration>,
    /// The trigger's filter.
    pub filter: Filter,
    /// Claims nothing while true.
    pub paused: bool,
    /// Outcomes that go to the dead-letter sink; empty without one.
    pub dead_letter: Vec<Outcome>,
    /// Whether business ids are judged.
    pub dedup: bool,
}
