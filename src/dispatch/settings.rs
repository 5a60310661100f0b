//! What a trigger's shared groups mean to the dispatcher, ready to use. Replaced whole on an edit; must never hold
//! anything that would need the source to be restarted.

use crate::{api::trigger::TriggerCore, event::filter::Filter, ledger::Outcome};
use std::time::Duration;

/// Settings of one subscription that take effect in place.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Calls that may run at once. Default 64.
    pub max_in_flight: usize,
    /// Most events claimed and not finished. Default 1024.
    pub claim_window: usize,
    /// Longest wait for an answer, where the trigger overrides the function's timeout.
    pub call_timeout: Option<Duration>,
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

impl Settings {
    /// What `core` says; `margin` is added to a timeout that the trigger overrides.
    pub fn of(core: &TriggerCore, margin: Duration) -> Self {
        let dead_letter = core.delivery.dead_letter.as_ref();
        let kept = |d: &crate::api::trigger::DeadLetter| {
            Outcome::ALL.into_iter().filter(|o| d.keeps(*o)).collect::<Vec<_>>()
        };
        Self {
            max_in_flight: core.delivery.max_in_flight,
            claim_window: core.delivery.claim_window,
            call_timeout: core.delivery.timeout.map(|t| t + margin),
            expire_after: core.delivery.expire_after,
            filter: core.filter.clone(),
            paused: core.paused,
            dead_letter: dead_letter.map(kept).unwrap_or_default(),
            dedup: core.dedup.enabled,
        }
    }
}
