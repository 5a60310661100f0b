//! What one write is to say: which due instants are claimed, which are passed over and why. Pure. Must never leave an
//! instant between the old and the new `last` without one of the two.

use super::{Protocol, Purpose};
use crate::sources::cron::{
    due::{Due, Span},
    register::Register,
};

/// Why an instant passes without a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody could call in time.
    Late,
    /// A call still ran, and the trigger forbids two.
    Overlap,
    /// The trigger's filter does not match.
    Filtered,
    /// Older than the trigger's `delivery.expireAfter`.
    Expired,
    /// It was suspended: counts as nothing.
    Suspended,
}

/// What the trigger asks for and what can be done now.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Now, in milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// From when on instants count, where the register does not say it (seconds).
    pub since: i64,
    /// Instants before this one came due while nobody looked (seconds).
    pub watched_from: i64,
    /// Up to this instant nothing counts, because the trigger was suspended (seconds).
    pub suspended_until: i64,
    /// `startingDeadlineSeconds`.
    pub patience: Option<i64>,
    /// Missed instants that are made up for.
    pub catch_up: usize,
    /// Two calls at once are forbidden.
    pub forbid: bool,
    /// How many may be claimed now.
    pub room: usize,
    /// Until when a call that is claimed now is over, whatever becomes of it (seconds).
    pub deadline: i64,
}

impl Wish {
    /// How many due instants must be known by name.
    pub fn keep(&self) -> usize {
        self.catch_up + 1
    }

    fn is_late(&self, instant: i64, is_newest: bool) -> bool {
        let patience = self.patience.unwrap_or(i64::MAX / 2000);
        !is_newest || instant < self.watched_from || self.now_ms > (instant + patience) * 1000
    }
}

impl Protocol {
    /// Plans a write and puts it under way; false: there is nothing to say. Only after [`super::Step::Plan`].
    /// `judge` says why an instant that could be claimed is passed all the same.
    pub fn plan(&mut self, due: &Due, wish: &Wish, judge: impl FnMut(i64) -> Option<Why>) -> bool {
        let Some(view) = self.view() else { return false };
        let mut register = Register { open: self.carried(), ..view.register.clone() };
        let purpose = choose(due, wish, &mut register, judge);
        if register.since.is_none() {
            register.since = Some(wish.since);
        }
        if purpose == Purpose::default() && register == view.register {
            return false;
        }
        self.begin(register, wish.deadline, purpose);
        true
    }
}

/// Goes through what is due in order, until something has to wait.
fn choose(
    due: &Due,
    wish: &Wish,
    register: &mut Register,
    mut judge: impl FnMut(i64) -> Option<Why>,
) -> Purpose {
    let mut purpose = Purpose::default();
    if let Some(older) = due.older {
        pass(&mut purpose, register, older, late_or_suspended(wish, older.last));
    }
    if due.cut {
        return purpose;
    }
    let newest = due.newest.last().copied();
    let late = |instant: i64| wish.is_late(instant, Some(instant) == newest);
    let count_late = due.newest.iter().filter(|instant| late(**instant)).count();
    let mut beyond_catch_up = count_late.saturating_sub(wish.catch_up);
    for &instant in &due.newest {
        let one = Span { first: instant, last: instant, count: 1 };
        let (is_late, suspended) = (late(instant), instant <= wish.suspended_until);
        if suspended || (is_late && beyond_catch_up > 0) {
            beyond_catch_up = beyond_catch_up.saturating_sub(1);
            pass(&mut purpose, register, one, late_or_suspended(wish, instant));
        } else if let Some(why) = judge(instant) {
            pass(&mut purpose, register, one, why);
        } else if wish.forbid && (!register.open.is_empty() || !purpose.claims.is_empty()) {
            if is_late || wish.catch_up > 0 {
                // It is made up for once the call before it has ended.
                break;
            }
            pass(&mut purpose, register, one, Why::Overlap);
        } else if purpose.claims.len() >= wish.room {
            break;
        } else {
            purpose.claims.push(instant);
            register.last = Some(instant);
        }
    }
    purpose
}

fn late_or_suspended(wish: &Wish, instant: i64) -> Why {
    if instant <= wish.suspended_until { Why::Suspended } else { Why::Late }
}

fn pass(purpose: &mut Purpose, register: &mut Register, span: Span, why: Why) {
    register.last = Some(span.last);
    if matches!(why, Why::Late | Why::Overlap) {
        register.missed += span.count;
    }
    match purpose.passed.last_mut() {
        Some((before, same)) if *same == why => {
            (before.last, before.count) = (span.last, before.count + span.count);
        }
        _ => purpose.passed.push((span, why)),
    }
}
