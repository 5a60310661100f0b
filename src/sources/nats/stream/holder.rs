//! Who reads a stream with fewer than three copies: one dispatcher, as long as its row goes on. It writes what it was delivered into
//! the row before anything of it may start, so that neither a server that fell back nor a successor calls it again (J1). Must
//! never hand out what no accepted row holds, nor judge by a row that it only read.

use super::row::{At, Row};
use crate::{
    clock,
    register::{self, Store, Stored, Written, watch::Watch},
    testkit,
};
use futures_util::future::LocalBoxFuture;
use std::{
    collections::HashSet,
    rc::Rc,
    time::{Duration, Instant},
};

/// Key of the row.
const KEY: &str = "position";
/// Looks at the row, and renewals, in one failover time.
const LOOKS: u32 = 4;
/// Closed entries leave the row after this, if nothing is claimed before.
const FLUSH: Duration = Duration::from_millis(500);

/// A delivery that waits for its claim.
pub trait Claimable {
    /// Which one.
    fn at(&self) -> At;
}

enum Stage {
    /// Somebody else reads, or nobody does: looked at again not before this.
    Away(Instant),
    Held {
        stored: Stored,
        row: Row,
        sent: Instant,
    },
}

enum Purpose {
    Take,
    Keep,
    Release,
}

/// An answer of the register.
pub struct Done(Answer);

enum Answer {
    Read(Result<Vec<(String, Stored)>, String>),
    Wrote { row: Row, before: Row, purpose: Purpose, written: Written },
}

/// What an answer comes to.
pub enum News<T> {
    /// Nothing to do.
    Nothing,
    /// This process reads from now on; a predecessor left these open, of the stream that is there (or another one of its name).
    Taken { open: Vec<At>, same_stream: bool },
    /// These are claimed.
    Claimed(Vec<T>),
    /// Somebody else reads, or nobody knows; these were not claimed.
    Lost(Vec<T>),
    /// The register is in trouble.
    Trouble(String),
}

/// See the module.
pub struct Holder<T> {
    store: Rc<dyn Store>,
    folder: Rc<str>,
    token: String,
    failover: Duration,
    created_ms: i64,
    stage: Stage,
    work: Option<LocalBoxFuture<'static, Done>>,
    watch: Watch,
    /// Another one reads, as far as the last look tells.
    other: bool,
    /// Delivered, and in no row yet.
    held: Vec<T>,
    /// In the write that is on its way.
    written: Vec<T>,
    closed: HashSet<i64>,
    closing: HashSet<i64>,
    /// How long the last write took.
    took: Duration,
}

impl<T: Claimable> Holder<T> {
    /// Holds nothing yet. `folder` is the register of one subscription, `created_ms` the identity of its stream.
    pub fn new(store: Rc<dyn Store>, folder: &str, failover: Duration, created_ms: i64) -> Self {
        Self {
            store,
            folder: folder.into(),
            token: format!("{:016x}", fastrand::u64(1..)),
            failover,
            created_ms,
            stage: Stage::Away(Instant::now()),
            work: None,
            watch: Watch::default(),
            other: false,
            held: Vec::new(),
            written: Vec::new(),
            closed: HashSet::new(),
            closing: HashSet::new(),
            took: Duration::ZERO,
        }
    }

    /// The stream as it was found now.
    pub fn stream_is(&mut self, created_ms: i64) {
        self.created_ms = created_ms;
    }

    /// The row, while this process reads.
    pub fn row(&self) -> Option<&Row> {
        match &self.stage {
            Stage::Held { row, .. } => Some(row),
            Stage::Away(_) => None,
        }
    }

    /// Whether another process reads.
    pub fn stands_by(&self) -> bool {
        self.other
    }

    /// How long the last accepted write took.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Deliveries that wait for a row.
    pub fn waiting(&self) -> impl Iterator<Item = &T> {
        self.held.iter().chain(&self.written)
    }

    /// Whether a delivery is of something that is claimed, or waits for it.
    pub fn is_repeat(&self, at: At) -> bool {
        let row = self.row().map_or(At(0, -1), Row::front);
        let front =
            self.waiting().map(Claimable::at).fold(row, |most, at| At(most.0.max(at.0), most.1.max(at.1)));
        at.is_behind(front)
    }

    /// A delivery waits for the next row.
    pub fn hold(&mut self, item: T) {
        self.held.push(item);
    }

    /// An event's outcome is in a journal.
    pub fn close(&mut self, sequence: i64) {
        self.closed.insert(sequence);
    }

    /// Everything that waits for a row: it will not be claimed here.
    pub fn give_up(&mut self) -> Vec<T> {
        let mut items = std::mem::take(&mut self.written);
        items.append(&mut self.held);
        items
    }

    /// Starts what is due, if nothing is on its way.
    pub fn turn(&mut self) {
        if self.work.is_some() {
            return;
        }
        if self.row().is_some_and(|row| row.created_ms != self.created_ms) {
            // The row is of another stream: it is taken anew.
            self.stage = Stage::Away(Instant::now());
        }
        match &self.stage {
            Stage::Away(at) if Instant::now() >= *at => {
                let (store, folder) = (Rc::clone(&self.store), Rc::clone(&self.folder));
                self.work = Some(Box::pin(async move { Done(Answer::Read(store.list(&folder).await)) }));
            }
            Stage::Away(_) => {}
            Stage::Held { row, sent, stored } => {
                let due = (!self.closed.is_empty() && sent.elapsed() >= FLUSH)
                    || sent.elapsed() >= self.failover / LOOKS;
                if self.held.is_empty() && !due {
                    return;
                }
                self.written = std::mem::take(&mut self.held);
                self.closing = std::mem::take(&mut self.closed);
                let claims: Vec<At> = self.written.iter().map(Claimable::at).collect();
                let (next, before, stored) =
                    (row.next(&claims, &self.closing), row.clone(), Some(stored.clone()));
                self.write(next, before, stored, Purpose::Keep);
            }
        }
    }

    /// Lets go, with what is closed. True when there is nothing left to be done.
    pub fn leave(&mut self) -> bool {
        if self.work.is_some() {
            return false;
        }
        let Stage::Held { row, stored, .. } = &self.stage else { return true };
        self.closing = std::mem::take(&mut self.closed);
        let mut next = row.next(&[], &self.closing);
        next.owner = None;
        let (before, stored) = (row.clone(), Some(stored.clone()));
        self.write(next, before, stored, Purpose::Release);
        false
    }

    /// The next answer; never, while none is awaited. Cancel-safe.
    pub async fn done(&mut self) -> Done {
        let Some(work) = &mut self.work else { return std::future::pending().await };
        let done = work.await;
        self.work = None;
        done
    }

    /// Takes an answer in.
    pub fn take(&mut self, Done(answer): Done) -> News<T> {
        match answer {
            Answer::Read(read) => match read {
                Ok(texts) => self.read(texts),
                Err(why) => {
                    self.stage = Stage::Away(Instant::now() + self.failover / LOOKS);
                    News::Trouble(why)
                }
            },
            Answer::Wrote { row, before, purpose, written } => self.wrote(row, &before, &purpose, written),
        }
    }

    fn read(&mut self, texts: Vec<(String, Stored)>) -> News<T> {
        let found = texts.into_iter().find(|(key, _)| key == KEY).map(|(_, stored)| stored);
        let row = match found.as_ref().map(|stored| Row::decode(&stored.text)) {
            None => Row::new(fastrand::u64(..), self.created_ms),
            Some(Ok(row)) => row,
            Some(Err(why)) => {
                self.stage = Stage::Away(Instant::now() + self.failover);
                return News::Trouble(format!("register of {}: no row of ours: {why}", self.folder));
            }
        };
        let failover_ms = u64::try_from(self.failover.as_millis()).unwrap_or(u64::MAX);
        self.watch.saw(row.version, clock::boot_ms());
        let ours = row.owner.as_ref().is_none_or(|owner| *owner == self.token);
        if ours || self.watch.is_expired(clock::boot_ms(), failover_ms) {
            testkit::point("before_assign");
            let next = row.taken(&self.token, self.created_ms);
            self.write(next, row, found, Purpose::Take);
        } else {
            self.other = true;
            self.stage = Stage::Away(Instant::now() + self.failover / LOOKS);
        }
        News::Nothing
    }

    fn write(&mut self, row: Row, before: Row, expected: Option<Stored>, purpose: Purpose) {
        testkit::point("claim_sent");
        if let Stage::Held { sent, .. } = &mut self.stage {
            *sent = Instant::now();
        }
        let (store, folder) = (Rc::clone(&self.store), Rc::clone(&self.folder));
        let until = tokio::time::Instant::now() + self.failover;
        self.work = Some(Box::pin(async move {
            let text = row.encode();
            let written = register::write(&*store, (&folder, KEY), &text, expected.as_ref(), until).await;
            testkit::point("claim_unknown");
            Done(Answer::Wrote { row, before, purpose, written })
        }));
    }

    fn wrote(&mut self, row: Row, before: &Row, purpose: &Purpose, written: Written) -> News<T> {
        let Written::Granted(stored) = written else {
            self.stage = Stage::Away(Instant::now());
            self.watch = Watch::default();
            self.closed.extend(self.closing.drain());
            let items = self.give_up();
            return News::Lost(items);
        };
        if let Stage::Held { sent, .. } = &self.stage {
            self.took = sent.elapsed();
        }
        self.closing.clear();
        self.other = false;
        match purpose {
            Purpose::Release => {
                // For good: nothing is taken while this process leaves.
                self.stage = Stage::Away(Instant::now() + self.failover);
                News::Nothing
            }
            Purpose::Take => {
                let (open, same_stream) = (row.open.clone(), row.created_ms == before.created_ms);
                self.stage = Stage::Held { stored, row, sent: Instant::now() };
                News::Taken { open, same_stream }
            }
            Purpose::Keep => {
                self.stage = Stage::Held { stored, row, sent: Instant::now() };
                News::Claimed(std::mem::take(&mut self.written))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::file::Folder;

    impl Claimable for At {
        fn at(&self) -> At {
            *self
        }
    }

    const FAILOVER: Duration = Duration::from_millis(200);

    fn holder(dir: &std::path::Path, created_ms: i64) -> Holder<At> {
        Holder::new(Rc::new(Folder::new(dir.to_owned())), "ns_t_f_S", FAILOVER, created_ms)
    }

    /// Until there is news of more than nothing.
    async fn news(holder: &mut Holder<At>) -> News<At> {
        loop {
            holder.turn();
            if let Ok(done) = tokio::time::timeout(Duration::from_millis(5), holder.done()).await {
                match holder.take(done) {
                    News::Nothing => {}
                    news => return news,
                }
            }
        }
    }

    async fn taken(holder: &mut Holder<At>) -> Vec<At> {
        match news(holder).await {
            News::Taken { open, .. } => open,
            _ => panic!("it is not taken"),
        }
    }

    #[tokio::test]
    async fn one_reads_and_its_successor_starts_nothing_that_was_reserved() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = holder(dir.path(), 1);
        assert!(taken(&mut first).await.is_empty());
        (1..=3).for_each(|n| first.hold(At(n, n * 10)));
        assert!(matches!(news(&mut first).await, News::Claimed(items) if items.len() == 3));
        first.close(2);
        first.hold(At(4, 40));
        assert!(matches!(news(&mut first).await, News::Claimed(items) if items == [At(4, 40)]));
        // The first stands still: after the failover time another one reads, and knows what was open.
        let mut second = holder(dir.path(), 1);
        assert_eq!(taken(&mut second).await, [At(1, 10), At(3, 30), At(4, 40)]);
        assert!((1..=4).all(|n| second.is_repeat(At(n, n * 10))) && !second.is_repeat(At(5, 50)));
        // The first goes on: what it was delivered meanwhile is claimed by nobody.
        first.hold(At(5, 50));
        assert!(matches!(news(&mut first).await, News::Lost(items) if items == [At(5, 50)]));
        assert!(first.row().is_none());
    }

    #[tokio::test]
    async fn who_leaves_is_followed_at_once_and_what_was_reported_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = holder(dir.path(), 1);
        taken(&mut first).await;
        first.hold(At(1, 10));
        assert!(matches!(news(&mut first).await, News::Claimed(_)));
        first.close(1);
        while !first.leave() {
            let done = first.done().await;
            assert!(matches!(first.take(done), News::Nothing));
        }
        let mut second = holder(dir.path(), 1);
        assert!(taken(&mut second).await.is_empty() && second.is_repeat(At(1, 10)));
        // Another stream of that name.
        second.stream_is(2);
        assert!(matches!(news(&mut second).await, News::Taken { same_stream: false, .. }));
        assert!(!second.is_repeat(At(1, 10)));
    }
}
