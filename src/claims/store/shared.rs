//! Claims that several processes share: the rules over rows of a server. A row is written only in place of what was read,
//! so that of two writers one wins. Must never grant for anything but an accepted write of its own.
//!
//! How the truth is found after a write that nobody answered: the claim is unknown and never called, and its maker frees it
//! ([`ClaimStore::end`]), which puts a row marked free in place of whatever the write left or would still find. A late
//! copy of that write then meets another version and is refused. What its maker could not free is open until its time is
//! over and is then named by an heir.

use super::{Bounds, Claim, ClaimStore, Digest, Durability, End, Held, How, Refusal, Reply};
use crate::{clock, ledger::Outcome};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long a row of an open claim is kept after its time, so that somebody can name it.
const OPEN_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a freed row is kept: longer than a write that nobody answered may be on its way.
const FREE_KEPT: Duration = Duration::from_secs(120);
/// Added to the window: servers count whole seconds and look now and then.
const WINDOW_MARGIN: Duration = Duration::from_secs(2);
/// How often a row is read again that changes under us.
const ATTEMPTS: usize = 5;
/// Pause before that.
const PAUSE: Duration = Duration::from_millis(20);
/// Most open claims taken over at once.
const MOST_INHERITED: usize = 256;

/// What a server calls one state of a row; never the same for two states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub Bytes);

/// A row as it is read.
#[derive(Clone, Debug)]
pub struct Found {
    /// What was written.
    pub value: Bytes,
    /// Its version.
    pub version: Version,
}

/// A row to write.
#[derive(Clone, Debug)]
pub struct Write {
    /// Whose rows: letters, digits, `-` and `_`.
    pub space: Arc<str>,
    /// Which of them, of the same letters.
    pub key: String,
    /// What must be there; `None`: nothing.
    pub expected: Option<Version>,
    /// What is to be there.
    pub value: Bytes,
    /// How long.
    pub kept: Duration,
    /// Of an open claim: when it may be taken over (wall clock in milliseconds).
    pub open_until_ms: Option<i64>,
}

/// Why a row was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The server has something else there.
    Conflict,
    /// The server has not got it, or has refused it.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

/// Rows of a server, written one at a time and conditionally.
pub trait Rows: Send + Sync {
    /// Writes one, if what is expected is there. An answer means that it is as durable as the server makes it.
    fn put(&self, write: Write) -> BoxFuture<'_, Result<Version, Failed>>;

    /// Reads one.
    ///
    /// # Errors
    /// The server does not answer.
    fn get<'a>(&'a self, space: &'a str, key: &'a str) -> BoxFuture<'a, Result<Option<Found>, String>>;

    /// Keys of open rows that may be taken over at `now_ms`; some may be missing this time, or over by now.
    ///
    /// # Errors
    /// The server does not answer.
    fn overdue<'a>(&'a self, space: &'a str, now_ms: i64) -> BoxFuture<'a, Result<Vec<String>, String>>;

    /// Why its promise is weaker than that of a register on several machines; `None`: it is not.
    fn weakness(&self) -> Option<String>;

    /// Longest value that it takes.
    fn max_value_bytes(&self) -> usize;
}

/// A row's content.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    claim: Claim,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<End>,
    /// Who answers for an open claim whose owner is gone, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heir: Option<(u64, i64)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    free: bool,
}

impl Row {
    fn open(claim: Claim) -> Self {
        Self { claim, end: None, heir: None, free: false }
    }

    fn is_open(&self) -> bool {
        self.end.is_none() && !self.free
    }

    fn until_ms(&self) -> i64 {
        self.heir.map_or(self.claim.until_ms, |(_, until_ms)| until_ms)
    }
}

/// The claims of one subscription in rows that others see too.
pub struct SharedStore {
    rows: Arc<dyn Rows>,
    space: Arc<str>,
    window: Mutex<Duration>,
    /// Versions of own open claims, and of those taken over. By claim, not by key: a repeat whose answer was lost is freed under
    /// the same key while the first one runs.
    versions: Mutex<HashMap<ClaimId, Version>>,
}

/// What makes two claims the same: [`Claim::is`].
type ClaimId = (Digest, u64, u64);

fn id_of(claim: &Claim) -> ClaimId {
    (claim.key, claim.owner, claim.number)
}

impl SharedStore {
    /// The store of `name` (anything; equal names share claims).
    pub fn new(rows: Arc<dyn Rows>, name: &str, bounds: Bounds) -> Self {
        let space = Digest::of(&[name.as_bytes()]).to_string();
        Self { rows, space: space.into(), window: Mutex::new(bounds.window), versions: Mutex::default() }
    }

    fn versions(&self) -> MutexGuard<'_, HashMap<ClaimId, Version>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, key: &Digest) -> Result<Option<(Row, Version)>, String> {
        let Some(found) = self.rows.get(&self.space, &key.to_string()).await? else { return Ok(None) };
        let row = serde_json::from_slice(&found.value)
            .map_err(|error| format!("the row of {key} is none of ours ({error}): delete it by hand"))?;
        Ok(Some((row, found.version)))
    }

    async fn write(&self, row: &Row, expected: Option<Version>) -> Result<Version, Failed> {
        let window = *self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let left_ms = row.claim.until_ms.saturating_sub(clock::unix_ms());
        let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        let kept = match (&row.end, row.free) {
            (_, true) => FREE_KEPT,
            (Some(_), _) => window + WINDOW_MARGIN,
            (None, _) => left + OPEN_KEPT.max(window),
        };
        let value = serde_json::to_vec(row).map_err(|error| Failed::Refused(error.to_string()))?;
        let open_until_ms = row.is_open().then(|| row.until_ms());
        let (space, key) = (Arc::clone(&self.space), row.claim.key.to_string());
        self.rows.put(Write { space, key, expected, value: value.into(), kept, open_until_ms }).await
    }

    async fn ask(&self, claim: Claim) -> Reply {
        let row = Row::open(claim);
        let mut expected = None;
        for _ in 0..ATTEMPTS {
            match self.write(&row, expected.take()).await {
                Ok(version) => {
                    self.versions().insert(id_of(&row.claim), version);
                    return Reply::Granted;
                }
                Err(Failed::Conflict) => {}
                Err(Failed::Refused(why)) => return Reply::Refused(Refusal::Away(why)),
                Err(Failed::Unknown(why)) => return Reply::Unknown(why),
            }
            match self.read(&row.claim.key).await {
                // Our own write, whose answer said that it was there already: it was sent twice.
                Ok(Some((held, version))) if is_untouched(&held, &row) => {
                    self.versions().insert(id_of(&row.claim), version);
                    return Reply::Granted;
                }
                Ok(Some((held, version))) if held.free => expected = Some(version),
                Ok(Some((held, _))) => {
                    let held = Held { claim: held.claim, end: held.end };
                    return Reply::Refused(Refusal::Held(Box::new(held)));
                }
                // Gone meanwhile, or accepted and not yet to be read.
                Ok(None) => tokio::time::sleep(PAUSE).await,
                // Somebody has it; that is not ours for certain, as our write may have been the first of two.
                Err(why) => return Reply::Unknown(why),
            }
        }
        Reply::Refused(Refusal::Away("others write the same row again and again".to_owned()))
    }

    /// The row that is to be there once a claim is over.
    fn over(&self, claim: &Claim, how: How) -> Row {
        let row = Row::open(claim.clone());
        match how {
            How::Freed => Row { free: true, ..row },
            How::Ended(end) => {
                let mut row = Row { end: Some(*end), ..row };
                let most = self.rows.max_value_bytes();
                let too_long = |row: &Row| serde_json::to_vec(row).is_ok_and(|value| value.len() > most);
                if too_long(&row)
                    && let Some(kept) = row.end.as_mut().and_then(|end| end.answer.as_mut())
                {
                    (kept.whole, kept.body, kept.headers) = (false, Bytes::new(), Vec::new());
                }
                row
            }
        }
    }

    async fn finish(&self, claim: Claim, how: How) -> Result<(), String> {
        let row = self.over(&claim, how);
        let known = self.versions().remove(&id_of(&claim));
        if let Some(version) = known {
            match self.write(&row, Some(version)).await {
                Ok(_) => return Ok(()),
                Err(Failed::Conflict) => {}
                Err(Failed::Refused(why) | Failed::Unknown(why)) => return Err(why),
            }
        }
        for _ in 0..ATTEMPTS {
            let expected = match self.read(&claim.key).await? {
                // Lost, or never there: a late copy of the claim must not find the place empty.
                None => None,
                // So that a late copy of a claim in place of this row is refused.
                Some((held, version)) if held.free && row.free => Some(version),
                Some((held, version)) if held.claim.is(&claim) && is_less(&held, &row) => Some(version),
                Some(_) => return Ok(()),
            };
            match self.write(&row, expected).await {
                Ok(_) => return Ok(()),
                Err(Failed::Conflict) => tokio::time::sleep(PAUSE).await,
                Err(Failed::Refused(why) | Failed::Unknown(why)) => return Err(why),
            }
        }
        Err("others write the same row again and again".to_owned())
    }

    async fn take_over(&self, by: u64, until_ms: i64) -> Result<Vec<Claim>, String> {
        let now_ms = clock::unix_ms();
        let mut taken = Vec::new();
        for key in self.rows.overdue(&self.space, now_ms).await?.into_iter().take(MOST_INHERITED) {
            let Ok(key) = Digest::try_from(key) else { continue };
            let Some((mut row, version)) = self.read(&key).await? else { continue };
            if !row.is_open() || row.claim.owner == by || row.until_ms() >= now_ms {
                continue;
            }
            row.heir = Some((by, until_ms));
            // Whoever did not get an answer waits until its own time as an heir would be over.
            if let Ok(version) = self.write(&row, Some(version)).await {
                self.versions().insert(id_of(&row.claim), version);
                taken.push(row.claim);
            }
        }
        Ok(taken)
    }
}

/// Whether both are the same open claim, and nobody has taken it over.
fn is_untouched(held: &Row, row: &Row) -> bool {
    held.is_open() && held.heir.is_none() && held.claim.is(&row.claim)
}

/// Whether `row` says more of the same claim than `held`: an own end is more than doubt.
fn is_less(held: &Row, row: &Row) -> bool {
    match (&held.end, &row.end) {
        (None, _) => !held.free,
        (Some(held), Some(end)) => held.outcome == Outcome::InDoubt && end.outcome != Outcome::InDoubt,
        (Some(_), None) => false,
    }
}

impl ClaimStore for SharedStore {
    fn claim(&self, claim: Claim) -> BoxFuture<'_, Reply> {
        Box::pin(self.ask(claim))
    }

    fn end(&self, claim: &Claim, how: How) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.finish(claim.clone(), how))
    }

    fn inherit(&self, by: u64, until_ms: i64) -> BoxFuture<'_, Result<Vec<Claim>, String>> {
        Box::pin(self.take_over(by, until_ms))
    }

    fn bound(&self, bounds: Bounds) {
        *self.window.lock().unwrap_or_else(PoisonError::into_inner) = bounds.window;
    }

    fn durability(&self) -> Durability {
        Durability::Shared
    }

    fn len(&self) -> Option<usize> {
        None
    }

    fn weakness(&self) -> Option<String> {
        self.rows.weakness()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt as _, future::ready};
    use proptest::prelude::*;

    /// What becomes of a write.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fate {
        Answered,
        /// It lands, the answer does not.
        Unanswered,
        /// It lands later, or never.
        Late,
        Away,
    }

    /// Value, version, and when it ends.
    type Row = (Bytes, u64, Option<i64>);

    /// Rows in memory, of a server whose next write meets a fate.
    #[derive(Default)]
    struct Table {
        rows: Mutex<HashMap<String, Row>>,
        late: Mutex<Vec<Write>>,
        fate: Mutex<Option<Fate>>,
        versions: Mutex<u64>,
    }

    impl Table {
        fn land(&self, write: &Write) -> Result<Version, Failed> {
            let mut rows = self.rows.lock().expect("no panic inside");
            let held = rows.get(&write.key).map(|(_, version, _)| version.to_be_bytes().to_vec());
            if held != write.expected.as_ref().map(|version| version.0.to_vec()) {
                return Err(Failed::Conflict);
            }
            let mut versions = self.versions.lock().expect("no panic inside");
            *versions += 1;
            rows.insert(write.key.clone(), (write.value.clone(), *versions, write.open_until_ms));
            Ok(Version(Bytes::copy_from_slice(&versions.to_be_bytes())))
        }

        fn meet(&self, fate: Fate) {
            *self.fate.lock().expect("no panic inside") = Some(fate);
        }

        fn land_late(&self) {
            let late = std::mem::take(&mut *self.late.lock().expect("no panic inside"));
            for write in late {
                let _ = self.land(&write);
            }
        }
    }

    impl Rows for Table {
        fn put(&self, write: Write) -> BoxFuture<'_, Result<Version, Failed>> {
            let lost = || Failed::Unknown("lost".to_owned());
            let fate = self.fate.lock().expect("no panic inside").take();
            Box::pin(ready(match fate.unwrap_or(Fate::Answered) {
                Fate::Answered => self.land(&write),
                Fate::Unanswered => self.land(&write).and_then(|_| Err(lost())).map_err(|_| lost()),
                Fate::Late => {
                    self.late.lock().expect("no panic inside").push(write);
                    Err(lost())
                }
                Fate::Away => Err(Failed::Refused("away".to_owned())),
            }))
        }

        fn get<'a>(&'a self, _space: &'a str, key: &'a str) -> BoxFuture<'a, Result<Option<Found>, String>> {
            let rows = self.rows.lock().expect("no panic inside");
            let found = rows.get(key).map(|(value, version, _)| Found {
                value: value.clone(),
                version: Version(Bytes::copy_from_slice(&version.to_be_bytes())),
            });
            Box::pin(ready(Ok(found)))
        }

        fn overdue<'a>(&'a self, _space: &'a str, now_ms: i64) -> BoxFuture<'a, Result<Vec<String>, String>> {
            let rows = self.rows.lock().expect("no panic inside");
            let overdue = rows.iter().filter(|(_, (_, _, until))| until.is_some_and(|until| until < now_ms));
            Box::pin(ready(Ok(overdue.map(|(key, _)| key.clone()).collect())))
        }

        fn weakness(&self) -> Option<String> {
            None
        }

        fn max_value_bytes(&self) -> usize {
            1000
        }
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().expect("rows in memory answer at once")
    }

    fn store(rows: &Arc<Table>) -> SharedStore {
        let window = Duration::from_secs(60);
        let bounds = Bounds { window, max_entries: 1, max_kept_bytes: 1 };
        SharedStore::new(Arc::clone(rows) as Arc<dyn Rows>, "a trigger", bounds)
    }

    fn claim(key: u8, owner: u64, number: u64) -> Claim {
        let key = Digest::of(&[&[key]]);
        let until_ms = clock::unix_ms() + 60_000;
        Claim { key, content: key, owner, number, id: String::new(), made_ms: 0, until_ms }
    }

    fn ended(outcome: Outcome) -> How {
        How::Ended(Box::new(End { outcome, answer: None }))
    }

    #[test]
    fn what_the_dead_left_open_has_one_heir_and_its_own_end_is_more_than_doubt() {
        let rows = Arc::new(Table::default());
        let (one, two, three) = (store(&rows), store(&rows), store(&rows));
        let mut left = claim(1, 1, 7);
        left.until_ms = 0;
        assert_eq!(now(one.claim(left.clone())), Reply::Granted);
        assert_eq!(now(one.inherit(1, 1,)), Ok(vec![]), "its owner knows better");
        let long = clock::unix_ms() + 60_000;
        assert_eq!(now(two.inherit(2, long)), Ok(vec![left.clone()]));
        assert_eq!(now(three.inherit(3, long)), Ok(vec![]), "it has an heir");
        now(two.end(&left, ended(Outcome::InDoubt))).expect("it is there");
        now(one.end(&left, ended(Outcome::Delivered))).expect("it comes back");
        now(two.end(&left, ended(Outcome::InDoubt))).expect("once more");
        let again = now(three.claim(claim(1, 3, 1)));
        let Reply::Refused(Refusal::Held(held)) = again else { panic!("{again:?}") };
        assert_eq!(held.end.map(|end| end.outcome), Some(Outcome::Delivered));
    }

    #[test]
    fn freeing_a_repeat_that_nobody_answered_leaves_the_first_one_claimed() {
        let rows = Arc::new(Table::default());
        let store = store(&rows);
        let (first, repeat) = (claim(1, 1, 1), claim(1, 1, 2));
        assert_eq!(now(store.claim(first.clone())), Reply::Granted);
        rows.meet(Fate::Unanswered);
        assert!(matches!(now(store.claim(repeat.clone())), Reply::Unknown(_)));
        now(store.end(&repeat, How::Freed)).expect("it is not there");
        let again = now(store.claim(claim(1, 2, 1)));
        assert!(matches!(again, Reply::Refused(Refusal::Held(held)) if held.claim.is(&first)), "it runs");
        now(store.end(&first, ended(Outcome::Delivered))).expect("it is there");
    }

    #[test]
    fn an_answer_that_is_too_long_for_the_server_is_kept_as_its_status() {
        let rows = Arc::new(Table::default());
        let (store, claim) = (store(&rows), claim(1, 1, 1));
        assert_eq!(now(store.claim(claim.clone())), Reply::Granted);
        let body = Bytes::from(vec![7; 2000]);
        let answer = Some(super::super::Kept { status: 201, headers: Vec::new(), body, whole: true });
        now(store.end(&claim, How::Ended(Box::new(End { outcome: Outcome::Delivered, answer }))))
            .expect("it fits now");
        let (row, _) = now(store.read(&claim.key)).expect("readable").expect("there");
        let kept = row.end.and_then(|end| end.answer).expect("its status");
        assert_eq!((kept.status, kept.whole, kept.body.len()), (201, false, 0));
    }

    proptest! {
        #[test]
        fn no_key_is_granted_twice_while_answers_are_lost_and_writes_come_late(
            steps in prop::collection::vec((0_u8..6, 0_u8..2, 0_u64..2, 0_u8..4), 1..120)
        ) {
            let rows = Arc::new(Table::default());
            let stores = [store(&rows), store(&rows)];
            // Keys whose call was granted and not freed since, and what has to be freed.
            let (mut called, mut loose) = (HashMap::new(), Vec::<(usize, Claim)>::new());
            for (number, (what, key, owner, fate)) in steps.into_iter().enumerate() {
                let at = owner as usize;
                let fates = [Fate::Answered, Fate::Unanswered, Fate::Late, Fate::Away];
                rows.meet(fates[usize::from(fate)]);
                match what {
                    0..=2 => {
                        let asked = claim(key, owner + 1, number as u64);
                        match now(stores[at].claim(asked.clone())) {
                            Reply::Granted => {
                                let before = called.insert(key, asked);
                                prop_assert!(before.is_none(), "granted twice: {before:?}");
                            }
                            Reply::Unknown(_) => loose.push((at, asked)),
                            Reply::Refused(_) => {}
                        }
                    }
                    3 => {
                        if let Some(claim) = called.get(&key) {
                            let own = usize::try_from(claim.owner - 1).expect("small");
                            // It stays called whatever the store says: an end is remembered.
                            let _ = now(stores[own].end(claim, ended(Outcome::Delivered)));
                        }
                    }
                    4 => rows.land_late(),
                    _ => {
                        // A caller frees until it is done.
                        let waiting = std::mem::take(&mut loose);
                        for (at, claim) in waiting {
                            if now(stores[at].end(&claim, How::Freed)).is_err() {
                                loose.push((at, claim));
                            }
                        }
                    }
                }
                *rows.fate.lock().expect("no panic inside") = None;
            }
            // Once everything landed and was freed, what was never called can be claimed.
            rows.land_late();
            for (at, claim) in loose {
                now(stores[at].end(&claim, How::Freed)).expect("nothing is lost now");
            }
            for key in 0..2 {
                let last = now(stores[0].claim(claim(key, 9, 9)));
                prop_assert_eq!(last == Reply::Granted, !called.contains_key(&key), "{:?}", last);
            }
        }
    }
}
