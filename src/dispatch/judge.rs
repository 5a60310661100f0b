//! What becomes of an event whose turn has come, before anything is claimed: rejected, expired, filtered, duplicate,
//! or to be invoked. Everything here may be repeated freely. Must never enter an id before its claim is granted (D2).

use super::Settings;
use crate::{
    claims::window::{Overlay, ShardWindow, Verdict, Window},
    event::Event,
    ledger::Outcome,
};
use std::{collections::HashMap, sync::Arc};

/// Why an event ended without a call: a constant text, or the path of a filter clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// From the program.
    Text(&'static str),
    /// From the trigger.
    Clause(Arc<str>),
}

impl Reason {
    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Clause(path) => path,
        }
    }
}

/// What is to be done with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Claim and invoke it.
    Start,
    /// It ends here, without a call.
    Pass(Outcome, Reason),
    /// Nothing can be decided now (window full): it and what follows in its shard stay where they are.
    Wait,
}

/// Judges the events of one batch, in log order per shard. Made anew for each batch: its overlay holds the ids that
/// are planned but not granted.
#[derive(Debug)]
pub struct Judging<'a> {
    settings: Arc<Settings>,
    window: &'a Window,
    overlays: HashMap<i32, (Arc<ShardWindow>, Overlay)>,
    now_ms: i64,
    full: bool,
}

impl<'a> Judging<'a> {
    /// Judges by `settings` at wall clock `now_ms` (for expiry only).
    pub fn new(settings: Arc<Settings>, window: &'a Window, now_ms: i64) -> Self {
        Self { settings, window, overlays: HashMap::new(), now_ms, full: false }
    }

    /// Judges one event at monotone log time `log_time_ms`.
    pub fn judge(&mut self, shard: i32, sequence: i64, log_time_ms: i64, event: &Event) -> Judgement {
        if let Err(clause) = self.settings.filter.check(event) {
            return Judgement::Pass(Outcome::Filtered, Reason::Clause(Arc::clone(&clause.path)));
        }
        // Expiry last: it depends on the wall clock, and the window must be a function of the log (D1).
        match self.repeated(shard, sequence, log_time_ms, event) {
            Judgement::Start if self.is_expired(event) => {
                pass(Outcome::Expired, "older than delivery.expireAfter")
            }
            judgement => judgement,
        }
    }

    fn is_expired(&self, event: &Event) -> bool {
        self.settings.expire_after.is_some_and(|age| {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            event.attributes.time_ms >= 0 && self.now_ms - event.attributes.time_ms > age
        })
    }

    fn repeated(&mut self, shard: i32, sequence: i64, log_time_ms: i64, event: &Event) -> Judgement {
        let Some(id) = event.business.filter(|_| self.settings.dedup) else { return Judgement::Start };
        let (window, overlay) =
            self.overlays.entry(shard).or_insert_with(|| (self.window.shard(shard), Overlay::default()));
        let mut verdict = overlay.check(window, id, sequence, log_time_ms);
        if matches!(verdict, Verdict::Full) && overlay.is_empty() {
            // The first of its shard: nothing before it will be judged again, so what is too old for it may go.
            window.advance(log_time_ms);
            verdict = overlay.check(window, id, sequence, log_time_ms);
        }
        if !matches!(verdict, Verdict::Full) {
            // Duplicates too: a rebuild cannot tell them from what they repeat, so live and rebuilt must agree (D1).
            overlay.enter(id, sequence, log_time_ms);
        }
        match verdict {
            Verdict::Duplicate { .. } => pass(Outcome::Duplicate, "business id seen in the window"),
            Verdict::Full => {
                self.full = true;
                Judgement::Wait
            }
            Verdict::Fresh => Judgement::Start,
        }
    }

    /// Whether the window was full for at least one event.
    pub fn window_was_full(&self) -> bool {
        self.full
    }
}

fn pass(outcome: Outcome, reason: &'static str) -> Judgement {
    Judgement::Pass(outcome, Reason::Text(reason))
}
