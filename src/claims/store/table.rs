//! The rules of a claim store that is one process's: a table with a window. Pure. Must never evict inside the window, and
//! never let go of an open claim.

use super::{Bounds, Claim, Digest, End, Held, How, Kept, Refusal, Reply};
use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    time::Duration,
};

#[derive(Debug)]
struct Row {
    claim: Claim,
    end: Option<End>,
    /// Who answers for an open claim whose owner is gone, and until when.
    heir: Option<(u64, i64)>,
}

/// See the module. Times are the caller's: milliseconds of a clock that never goes back.
#[derive(Debug)]
pub(super) struct Table {
    bounds: Bounds,
    rows: HashMap<Digest, Row>,
    /// Ended claims in the order of their ends.
    ended: VecDeque<(i64, Digest, Token)>,
    /// Bytes of answers.
    kept_bytes: usize,
}

/// Owner and number of a claim.
type Token = (u64, u64);

impl Table {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, rows: HashMap::new(), ended: VecDeque::new(), kept_bytes: 0 }
    }

    pub(super) fn bound(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// What a claim would be answered now.
    pub(super) fn ask(&mut self, claim: &Claim, now_ms: i64) -> Reply {
        self.expire(now_ms);
        match self.rows.get(&claim.key) {
            Some(row) if row.claim.is(claim) && row.end.is_none() => Reply::Granted,
            Some(row) => {
                let held = Held { claim: row.claim.clone(), end: row.end.clone() };
                Reply::Refused(Refusal::Held(Box::new(held)))
            }
            None if self.rows.len() >= self.bounds.max_entries => {
                Reply::Refused(Refusal::Full(self.until_room(now_ms)))
            }
            None => Reply::Granted,
        }
    }

    /// Enters a claim that was granted.
    pub(super) fn enter(&mut self, claim: Claim) {
        if let Entry::Vacant(place) = self.rows.entry(claim.key) {
            place.insert(Row { claim, end: None, heir: None });
        }
    }

    /// An end with as much of its answer as there is room for.
    pub(super) fn trim(&self, mut how: How) -> How {
        if let How::Ended(end) = &mut how
            && let Some(kept) = &mut end.answer
            && self.kept_bytes.saturating_add(kept.size()) > self.bounds.max_kept_bytes
        {
            (kept.whole, kept.body, kept.headers) = (false, bytes::Bytes::new(), Vec::new());
        }
        how
    }

    /// Ends a claim, if it stands.
    pub(super) fn end(&mut self, claim: &Claim, how: How, now_ms: i64) {
        self.end_of(claim.key, (claim.owner, claim.number), how, now_ms);
    }

    /// The same, by its name.
    pub(super) fn end_of(&mut self, key: Digest, token: Token, how: How, now_ms: i64) {
        let open = |row: &&mut Row| (row.claim.owner, row.claim.number) == token && row.end.is_none();
        let Some(row) = self.rows.get_mut(&key).filter(open) else { return };
        match how {
            How::Ended(end) => {
                self.kept_bytes += end.answer.as_ref().map_or(0, Kept::size);
                row.end = Some(*end);
                self.ended.push_back((now_ms, key, token));
            }
            How::Freed => {
                self.rows.remove(&key);
            }
        }
    }

    /// Enters a claim in place of what stood there: it was granted, so that was over.
    pub(super) fn replace(&mut self, claim: Claim) {
        self.remove(&claim.key);
        self.enter(claim);
    }

    /// No owner of before is there any more: what is open is overdue.
    pub(super) fn orphan(&mut self) {
        for row in self.rows.values_mut().filter(|row| row.end.is_none()) {
            row.claim.until_ms = i64::MIN;
        }
    }

    /// Everything, the ended ones in their order first.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&Claim, Option<(i64, &End)>)> {
        let ended = self.ended.iter().filter_map(|(at, key, token)| {
            let row = self.rows.get(key).filter(|row| (row.claim.owner, row.claim.number) == *token)?;
            Some((&row.claim, Some((*at, row.end.as_ref()?))))
        });
        let open = self.rows.values().filter(|row| row.end.is_none());
        ended.chain(open.map(|row| (&row.claim, None)))
    }

    fn remove(&mut self, key: &Digest) {
        let row = self.rows.remove(key);
        let size = row.and_then(|row| Some(row.end?.answer?.size())).unwrap_or(0);
        self.kept_bytes = self.kept_bytes.saturating_sub(size);
    }

    /// Open claims that are overdue and not `by`'s.
    pub(super) fn inherit(&mut self, by: u64, until_ms: i64, now_ms: i64) -> Vec<Claim> {
        let open = self.rows.values_mut().filter(|row| row.end.is_none());
        let overdue = open.filter(|row| match row.heir {
            Some((heir, until)) => heir != by && until < now_ms,
            None => row.claim.owner != by && row.claim.until_ms < now_ms,
        });
        let taken = overdue.map(|row| {
            row.heir = Some((by, until_ms));
            row.claim.clone()
        });
        taken.collect()
    }

    fn window_ms(&self) -> i64 {
        i64::try_from(self.bounds.window.as_millis()).unwrap_or(i64::MAX)
    }

    fn until_room(&self, now_ms: i64) -> Duration {
        let first = self.ended.front().map_or(0, |(at, ..)| at.saturating_add(self.window_ms()) - now_ms);
        Duration::from_millis(u64::try_from(first).unwrap_or(0)).max(Duration::from_secs(1))
    }

    /// Forgets what ended a window ago.
    pub(super) fn expire(&mut self, now_ms: i64) {
        let window_ms = self.window_ms();
        while let Some((at, key, token)) = self.ended.front().copied() {
            if at.saturating_add(window_ms) > now_ms {
                return;
            }
            let held = self.rows.get(&key).map(|row| (row.claim.owner, row.claim.number));
            if held == Some(token) {
                self.remove(&key);
            }
            self.ended.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Outcome;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const WINDOW_MS: i64 = 100;
    const MOST: usize = 4;

    fn claim(key: u8, owner: u64, number: u64) -> Claim {
        let key = Digest::of(&[&[key]]);
        Claim { key, content: key, owner, number, id: String::new(), made_ms: 0, until_ms: 50 }
    }

    fn ended() -> How {
        How::Ended(Box::new(End { outcome: Outcome::Delivered, answer: None }))
    }

    fn table() -> Table {
        Table::new(Bounds { window: Duration::from_millis(100), max_entries: MOST, max_kept_bytes: 100 })
    }

    #[test]
    fn a_full_table_refuses_and_forgets_nothing_inside_the_window() {
        let mut table = table();
        for n in 0..4 {
            let claim = claim(n, 1, u64::from(n));
            assert_eq!(table.ask(&claim, 0), Reply::Granted);
            table.enter(claim.clone());
            table.end(&claim, ended(), i64::from(n));
        }
        let fifth = claim(9, 1, 9);
        assert_eq!(table.ask(&fifth, 99), Reply::Refused(Refusal::Full(Duration::from_secs(1))));
        assert_eq!(table.ask(&fifth, 100), Reply::Granted, "the first one's window is over");
        assert!(matches!(table.ask(&claim(1, 1, 9), 100), Reply::Refused(Refusal::Held(_))));
    }

    #[test]
    fn what_the_dead_left_open_has_one_heir_at_a_time() {
        let mut table = table();
        let left = claim(1, 1, 7);
        table.enter(left.clone());
        assert_eq!(table.inherit(2, 200, 50), [], "it may still run");
        assert_eq!(table.inherit(1, 200, 60), [], "its owner knows better");
        assert_eq!(table.inherit(2, 200, 60), std::slice::from_ref(&left));
        assert_eq!((table.inherit(2, 200, 70), table.inherit(3, 300, 70)), (vec![], vec![]));
        assert_eq!(table.inherit(3, 300, 201), std::slice::from_ref(&left), "the heir died too");
        table.end(&left, ended(), 210);
        assert_eq!(table.inherit(4, 999, 500), []);
    }

    proptest! {
        #[test]
        fn no_key_is_granted_twice_inside_its_window(
            steps in prop::collection::vec((0_u8..4, 0_u8..6, 0_i64..40), 1..200)
        ) {
            let (mut table, mut now) = (table(), 0);
            // What stands: the claim, and when it ended.
            let mut model: HashMap<u8, (Claim, Option<i64>)> = HashMap::new();
            for (number, (what, key, pause)) in steps.into_iter().enumerate() {
                now += pause;
                model.retain(|_, (_, ended)| ended.is_none_or(|at| at + WINDOW_MS > now));
                let asked = claim(key, 1, number as u64);
                match (what, model.get_mut(&key)) {
                    (0 | 1, None) => {
                        let room = model.len() < MOST;
                        let reply = table.ask(&asked, now);
                        prop_assert_eq!(reply == Reply::Granted, room);
                        if room {
                            table.enter(asked.clone());
                            model.insert(key, (asked, None));
                        }
                    }
                    (0 | 1, Some(_)) => {
                        let reply = table.ask(&asked, now);
                        prop_assert!(matches!(reply, Reply::Refused(Refusal::Held(_))));
                    }
                    (2, Some((held, ended_at @ None))) => {
                        table.end(held, ended(), now);
                        *ended_at = Some(now);
                    }
                    (3, Some((held, None))) => {
                        table.end(held, How::Freed, now);
                        model.remove(&key);
                    }
                    // Another one's end changes nothing.
                    _ => table.end(&asked, How::Freed, now),
                }
            }
        }
    }
}
