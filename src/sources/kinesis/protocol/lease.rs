//! Who may hold a shard: expiry by a version that stood still, shares, parents before children. Must never compare two
//! machines' clocks: a holder is gone only when this process saw its row unchanged for the failover time.

use crate::sources::kinesis::register::{Row, Token};
use std::collections::BTreeMap;

/// What is known of a shard by whoever might take it.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// Its parents, those the service does not list any more included.
    pub parents: &'a [String],
    /// Its row; `None`: it has none yet.
    pub row: Option<&'a Row>,
    /// Whether its row stood still for the failover time.
    pub expired: bool,
    /// Whether it is held here.
    pub held: bool,
}

/// Shards to take now.
pub fn to_take(
    shards: &BTreeMap<String, Seen<'_>>,
    token: Token,
    members: usize,
    ignore_parents: bool,
) -> Vec<String> {
    let active = || shards.iter().filter(|(_, seen)| ignore_parents || is_active(shards, seen));
    let share = share(active().count(), members);
    let held = active().filter(|(_, seen)| seen.held).count();
    let free = active().filter(|(_, seen)| !seen.held && is_free(seen, token));
    free.take(share.saturating_sub(held)).map(|(id, _)| id.clone()).collect()
}

/// How many shards this process holds beyond its share, now that others want some.
pub fn surplus(shards: &BTreeMap<String, Seen<'_>>, members: usize) -> usize {
    let active = shards.values().filter(|seen| is_active(shards, seen));
    let (all, held) = active.fold((0, 0), |(all, held), seen| (all + 1, held + usize::from(seen.held)));
    held.saturating_sub(share(all, members))
}

/// Shards for each of `members`, rounded up: nobody's shard is left over.
fn share(shards: usize, members: usize) -> usize {
    shards.div_ceil(members.max(1))
}

/// Not at its end, and every parent that is still listed is at its own: records of a key keep their order.
fn is_active(shards: &BTreeMap<String, Seen<'_>>, seen: &Seen<'_>) -> bool {
    let ended = |seen: &Seen<'_>| seen.row.is_some_and(|row| row.ended);
    !ended(seen) && seen.parents.iter().all(|parent| shards.get(parent).is_none_or(ended))
}

fn is_free(seen: &Seen<'_>, token: Token) -> bool {
    match seen.row.map(|row| row.owner) {
        None | Some(None) => true,
        Some(Some(owner)) => owner == token || seen.expired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::kinesis::register::Start;

    fn row(owner: Option<u64>, ended: bool) -> Row {
        Row { owner: owner.map(Token), ended, ..Row::new(7, Start::Horizon) }
    }

    fn seen<'a>(row: Option<&'a Row>, parents: &'a [String]) -> Seen<'a> {
        let held = row.is_some_and(|row| row.owner == Some(Token(1)));
        Seen { parents, row, expired: false, held }
    }

    #[test]
    fn children_wait_for_parents_that_are_listed() {
        let parents = vec!["a".to_owned(), "gone".to_owned()];
        let (reading, ended) = (row(Some(2), false), row(None, true));
        for (parent, free) in [(&reading, false), (&ended, true)] {
            let shards = BTreeMap::from([
                ("a".to_owned(), seen(Some(parent), &[])),
                ("b".to_owned(), seen(None, &parents)),
            ]);
            assert_eq!(to_take(&shards, Token(1), 1, false).contains(&"b".to_owned()), free);
        }
    }

    #[test]
    fn shares_are_even_and_only_what_is_free_is_taken() {
        let (mine, other, nobody) = (row(Some(1), false), row(Some(2), false), row(None, false));
        let rows = [Some(&mine), Some(&other), Some(&nobody), None, Some(&nobody)];
        let shards: BTreeMap<String, Seen<'_>> =
            rows.iter().enumerate().map(|(n, row)| (format!("s{n}"), seen(*row, &[]))).collect();
        assert_eq!(to_take(&shards, Token(1), 2, false), ["s2", "s3"], "three of five");
        assert_eq!(to_take(&shards, Token(1), 1, false), ["s2", "s3", "s4"], "a live owner is not robbed");
        assert_eq!(to_take(&shards, Token(1), 5, false).len(), 0);
        let all = row(Some(1), false);
        let shards = (0..5).map(|n| (format!("s{n}"), seen(Some(&all), &[]))).collect();
        assert_eq!((surplus(&shards, 1), surplus(&shards, 2), surplus(&shards, 9)), (0, 2, 4));
    }

    #[test]
    fn an_expired_row_is_free() {
        let other = row(Some(2), false);
        let expired = Seen { expired: true, ..seen(Some(&other), &[]) };
        assert_eq!(to_take(&BTreeMap::from([("a".to_owned(), expired)]), Token(1), 2, false), ["a"]);
    }
}
