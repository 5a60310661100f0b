//! Which instants are due: those after the register's last one, up to now. Must never be a list as long as an absence:
//! years of minutes are counted, and only the newest are kept by name.

use std::collections::VecDeque;

/// Instants that one look walks over: years of absence are passed piece by piece, one write each.
pub const LONGEST_WALK: u64 = 100_000;

/// Some instants that are only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The oldest.
    pub first: i64,
    /// The newest.
    pub last: i64,
    /// How many.
    pub count: u64,
}

impl Span {
    /// This span with a later instant.
    pub fn with(span: Option<Self>, instant: i64) -> Option<Self> {
        Some(match span {
            None => Self { first: instant, last: instant, count: 1 },
            Some(span) => Self { last: instant, count: span.count + 1, ..span },
        })
    }
}

/// What is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Older ones, which are not kept by name.
    pub older: Option<Span>,
    /// The newest, oldest first.
    pub newest: Vec<i64>,
    /// The walk ended before now: `newest` is empty, and another look follows once `older` has been passed.
    pub cut: bool,
    /// The first one that is not due yet.
    pub next: Option<i64>,
}

/// Walks from `after` to `now` (both in seconds) and keeps the newest `keep` by name.
pub fn due(occurrence: impl Fn(i64) -> Option<i64>, after: i64, now: i64, keep: usize) -> Due {
    let mut found = Due::default();
    let mut newest = VecDeque::new();
    let mut at = after;
    for _ in 0..LONGEST_WALK {
        match occurrence(at) {
            Some(instant) if instant <= now => {
                newest.push_back(instant);
                if newest.len() > keep
                    && let Some(old) = newest.pop_front()
                {
                    found.older = Span::with(found.older, old);
                }
                at = instant;
            }
            next => return Due { newest: newest.into(), next, ..found },
        }
    }
    // More follow: none of these is the newest, whatever was kept; those kept are walked over again.
    found.cut = true;
    found.next = occurrence(at);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_named_and_the_rest_is_counted() {
        let minutes = |at: i64| Some(at - at.rem_euclid(60) + 60);
        let found = due(minutes, 0, 659, 3);
        assert_eq!(found.older, Some(Span { first: 60, last: 420, count: 7 }));
        assert_eq!((found.newest, found.next, found.cut), (vec![480, 540, 600], Some(660), false));
        let none = due(minutes, 60, 119, 3);
        assert_eq!(none, Due { next: Some(120), ..Due::default() });
        assert_eq!(due(|_| None, 0, 1 << 40, 3), Due::default());
    }

    #[test]
    fn years_of_absence_are_passed_piece_by_piece() {
        let minutes = |at: i64| Some(at - at.rem_euclid(60) + 60);
        let (now, mut at, mut counted, mut looks) = (60 * 250_000, 0, 0, 0);
        let last = loop {
            looks += 1;
            let found = due(minutes, at, now, 10);
            if let Some(span) = found.older {
                (counted, at) = (counted + span.count, span.last);
            }
            if !found.cut {
                break found.newest;
            }
        };
        assert_eq!((counted, last.len(), last[9], looks), (249_990, 10, now, 3));
    }
}
