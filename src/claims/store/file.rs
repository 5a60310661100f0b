//! The claims of one machine, in a log: each line is on the disk before its claim counts, and many share one sync. Must never be
//! used by two processes at once, nor go on after a sync that failed: what the kernel dropped once it does not report twice.

use super::{
    Bounds, Claim, ClaimStore, Durability, How, Refusal, Reply,
    line::{self, Line},
    table::Table,
};
use crate::clock;
use futures_util::future::{BoxFuture, ready};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};
use tokio::sync::oneshot;

/// Most lines that share one sync.
const BATCH: usize = 1024;
/// A log below this is never written anew.
const SMALL: u64 = 1 << 20;

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{}: {source}; the folder must be writable, on a file system with locks", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else has it.
    #[error("{} is in use by another process: give each dispatcher a state_dir of its own", path.display())]
    Taken {
        /// The lock.
        path: PathBuf,
    },
    /// A line in the middle is not what was written.
    #[error("{} is damaged at byte {at}; move it away to begin without what it remembers", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: usize,
    },
}

/// A line on its way to the disk.
struct Order {
    bytes: Vec<u8>,
    done: oneshot::Sender<Result<(), Failed>>,
}

/// Why a line is not on the disk.
#[derive(Clone, Debug)]
enum Failed {
    /// It was taken back.
    Undone(String),
    /// Nobody knows.
    Unsure(String),
}

struct Shared {
    table: Mutex<Table>,
    /// The log's time: that of its last line or the wall clock, whichever was later when it was opened…
    base_ms: i64,
    /// …and as much more as the boot clock has gone on since.
    opened_boot_ms: u64,
    last_ms: AtomicI64,
}

/// See the module.
pub struct FileStore {
    shared: Arc<Shared>,
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl FileStore {
    /// The log called `name` (anything) in `dir`, which is made if it is not there. What an earlier process left open is
    /// overdue.
    ///
    /// # Errors
    /// It cannot be had, or it is damaged.
    pub fn open(dir: &Path, name: &str, bounds: Bounds) -> Result<Self, Error> {
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
        let path = dir.join(format!("{}.log", name.chars().map(safe).collect::<String>()));
        let failed = |source| Error::Io { path: path.clone(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let lock = lock(&path.with_extension("lock"))?;
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(failed)?;
        let (table, last_ms, length) = replay(&file, &path, bounds)?;
        file.set_len(length).map_err(failed)?;
        sync_folder(&path).map_err(failed)?;
        let shared = Arc::new(Shared {
            table: Mutex::new(table),
            base_ms: last_ms.max(clock::unix_ms()),
            opened_boot_ms: clock::boot_ms(),
            last_ms: AtomicI64::new(last_ms),
        });
        let (orders, inbox) = mpsc::channel();
        let writer = Writer {
            path,
            file,
            length,
            compacted: length,
            broken: None,
            shared: Arc::clone(&shared),
            _lock: lock,
        };
        let thread =
            std::thread::Builder::new().name("claims-log".to_owned()).spawn(move || writer.run(&inbox));
        let thread = thread.map_err(|source| Error::Io { path: dir.to_path_buf(), source })?;
        Ok(Self { shared, orders: Some(orders), thread: Some(thread) })
    }

    fn write(&self, line: &Line<'_>) -> oneshot::Receiver<Result<(), Failed>> {
        let (done, answer) = oneshot::channel();
        let order = Order { bytes: line::encode(line), done };
        // A writer that is gone drops the way back, which says so.
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
        answer
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never goes back, whatever happens to the wall clock.
    fn now_ms(&self) -> i64 {
        let elapsed = clock::boot_ms().saturating_sub(self.opened_boot_ms);
        let now = self.base_ms.saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX));
        self.last_ms.fetch_max(now, Ordering::Relaxed).max(now)
    }
}

async fn landed(answer: oneshot::Receiver<Result<(), Failed>>) -> Result<(), Failed> {
    answer.await.unwrap_or_else(|_| Err(Failed::Unsure("the log's writer has ended".to_owned())))
}

impl ClaimStore for FileStore {
    fn claim(&self, claim: Claim) -> BoxFuture<'_, Reply> {
        let now_ms = self.shared.now_ms();
        let answer = {
            let mut table = self.shared.lock();
            let reply = table.ask(&claim, now_ms);
            if reply != Reply::Granted {
                return Box::pin(ready(reply));
            }
            // Reserved: who asks meanwhile is refused. The order of lines is that of the table.
            table.enter(claim.clone());
            self.write(&Line::Claim { claim: &claim })
        };
        Box::pin(async move {
            match landed(answer).await {
                Ok(()) => Reply::Granted,
                Err(Failed::Undone(why)) => {
                    self.shared.lock().end(&claim, How::Freed, now_ms);
                    Reply::Refused(Refusal::Away(why))
                }
                Err(Failed::Unsure(why)) => Reply::Unknown(why),
            }
        })
    }

    fn end(&self, claim: &Claim, how: How) -> BoxFuture<'_, Result<(), String>> {
        let (claim, at) = (claim.clone(), self.shared.now_ms());
        let how = self.shared.lock().trim(how);
        let answer = match &how {
            How::Ended(end) => self.write(&Line::end(&claim, at, end)),
            How::Freed => self.write(&Line::free(&claim)),
        };
        Box::pin(async move {
            match landed(answer).await {
                Ok(()) => {
                    self.shared.lock().end(&claim, how, at);
                    Ok(())
                }
                Err(Failed::Undone(why) | Failed::Unsure(why)) => Err(why),
            }
        })
    }

    fn inherit(&self, by: u64, until_ms: i64) -> BoxFuture<'_, Result<Vec<Claim>, String>> {
        // No other process has this log, so its heirs need no line.
        let inherited = self.shared.lock().inherit(by, until_ms, clock::unix_ms());
        Box::pin(ready(Ok(inherited)))
    }

    fn bound(&self, bounds: Bounds) {
        self.shared.lock().bound(bounds);
    }

    fn durability(&self) -> Durability {
        Durability::Machine
    }

    fn len(&self) -> Option<usize> {
        Some(self.shared.lock().len())
    }
}

/// The thread that writes.
struct Writer {
    path: PathBuf,
    file: File,
    length: u64,
    /// Length after the last time it was written anew.
    compacted: u64,
    broken: Option<String>,
    shared: Arc<Shared>,
    /// Held while the log is in use.
    _lock: File,
}

impl Writer {
    fn run(mut self, inbox: &mpsc::Receiver<Order>) {
        while let Ok(first) = inbox.recv() {
            let mut batch = vec![first];
            batch.extend(inbox.try_iter().take(BATCH - 1));
            let result = self.append(&batch);
            for order in batch {
                let _ = order.done.send(result.clone());
            }
            if self.broken.is_none() && self.length > SMALL && self.length / 2 > self.compacted {
                self.compact();
            }
        }
    }

    fn append(&mut self, batch: &[Order]) -> Result<(), Failed> {
        if let Some(why) = &self.broken {
            return Err(Failed::Undone(why.clone()));
        }
        let bytes: Vec<u8> = batch.iter().flat_map(|order| &order.bytes).copied().collect();
        let written = self.file.seek(SeekFrom::Start(self.length)).and_then(|_| self.file.write_all(&bytes));
        if let Err(error) = written {
            let why = format!("{} cannot be written: {error}", self.path.display());
            // Half a line must not stand before the next one.
            return match self.file.set_len(self.length).and_then(|()| self.file.sync_data()) {
                Ok(()) => Err(Failed::Undone(why)),
                Err(_) => Err(self.break_off(why)),
            };
        }
        if let Err(error) = self.file.sync_data() {
            let why = format!("{} cannot be synced: {error}; restart the dispatcher", self.path.display());
            return Err(self.break_off(why));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn break_off(&mut self, why: String) -> Failed {
        tracing::error!(why, "Claims are not taken any more");
        self.broken = Some(why.clone());
        Failed::Unsure(why)
    }

    /// Writes what is remembered into a new log that takes the old one's place.
    fn compact(&mut self) {
        let bytes: Vec<u8> = {
            let mut table = self.shared.lock();
            table.expire(self.shared.now_ms());
            table.rows().flat_map(|(claim, end)| line::snapshot(claim, end)).collect()
        };
        let new = self.path.with_extension("new");
        let made = || -> io::Result<File> {
            let mut file =
                OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
            sync_folder(&self.path)?;
            Ok(file)
        };
        match made() {
            Ok(file) => {
                self.file = file;
                self.length = bytes.len() as u64;
                self.compacted = self.length;
            }
            // Which of the two is there after the next power cut is not known.
            Err(error) => {
                drop(self.break_off(format!("{} cannot be written anew: {error}", self.path.display())));
            }
        }
    }
}

fn lock(path: &Path) -> Result<File, Error> {
    let failed = |source| Error::Io { path: path.to_path_buf(), source };
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::AGAIN) => Err(Error::Taken { path: path.to_path_buf() }),
        Err(error) => Err(failed(error.into())),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Table, last time and length of what is whole. A torn line at the end was never answered.
fn replay(mut file: &File, path: &Path, bounds: Bounds) -> Result<(Table, i64, u64), Error> {
    let mut bytes = Vec::new();
    let read = file.read_to_end(&mut bytes);
    read.map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    let (mut table, mut last_ms, mut at) = (Table::new(bounds), 0, 0);
    while let Some(length) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let Some(kept) = line::decode(&bytes[at..at + length]) else {
            // A line that is cut off by a crash has no others behind it.
            let rest = &bytes[at + length + 1..];
            if rest.split(|byte| *byte == b'\n').any(|line| line::decode(line).is_some()) {
                return Err(Error::Damaged { path: path.to_path_buf(), at });
            }
            break;
        };
        last_ms = kept.replay(&mut table).max(last_ms);
        at += length + 1;
    }
    table.orphan();
    Ok((table, last_ms, at as u64))
}

#[cfg(test)]
mod tests {
    use super::{super::End, *};
    use crate::{claims::store::Digest, ledger::Outcome};
    use futures_util::FutureExt as _;
    use std::time::Duration;

    const BOUNDS: Bounds =
        Bounds { window: Duration::from_secs(600), max_entries: 1000, max_kept_bytes: 1 << 20 };

    fn claim(key: u8, number: u64) -> Claim {
        let key = Digest::of(&[&[key]]);
        Claim {
            key,
            content: key,
            owner: 1,
            number,
            id: format!("e-{number}"),
            made_ms: 5,
            until_ms: i64::MAX,
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(future)
    }

    fn ended(outcome: Outcome) -> How {
        How::Ended(Box::new(End { outcome, answer: None }))
    }

    #[test]
    fn what_was_granted_and_what_ended_outlives_the_process_and_a_torn_line_does_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || FileStore::open(dir.path(), "uid default/f", BOUNDS).expect("a log");
        let store = open();
        assert!(matches!(FileStore::open(dir.path(), "uid default/f", BOUNDS), Err(Error::Taken { .. })));
        let (done, freed, left) = (claim(1, 1), claim(2, 2), claim(3, 3));
        for claim in [&done, &freed, &left] {
            assert_eq!(run(store.claim(claim.clone())), Reply::Granted);
        }
        run(store.end(&done, ended(Outcome::Delivered))).expect("kept");
        run(store.end(&freed, How::Freed)).expect("kept");
        drop(store);
        let path = dir.path().join("uid_default_f.log");
        let whole = fs::read(&path).expect("the log");
        fs::write(&path, [&whole[..], b"0123456789abcdef {\"claim\":{"].concat()).expect("a torn line");

        let store = open();
        let Reply::Refused(Refusal::Held(held)) = run(store.claim(claim(1, 9))) else {
            panic!("granted twice")
        };
        assert_eq!(held.end.map(|end| end.outcome), Some(Outcome::Delivered));
        assert_eq!(run(store.claim(claim(2, 10))), Reply::Granted, "it was never called");
        assert!(matches!(run(store.claim(claim(3, 11))), Reply::Refused(Refusal::Held(_))));
        let left = run(store.inherit(7, i64::MAX)).expect("open claims");
        assert_eq!(left.iter().map(|claim| claim.number).collect::<Vec<_>>(), [3]);
        run(store.end(&left[0], ended(Outcome::InDoubt))).expect("kept");
        drop(store);
        assert!(
            run(open().inherit(8, i64::MAX)).expect("open claims").iter().all(|claim| claim.number == 10)
        );
    }

    #[test]
    fn a_damaged_log_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = FileStore::open(dir.path(), "l", BOUNDS).expect("a log");
        for number in 0..3 {
            assert_eq!(run(store.claim(claim(number, u64::from(number)))), Reply::Granted);
        }
        drop(store);
        let path = dir.path().join("l.log");
        let mut bytes = fs::read(&path).expect("the log");
        bytes[40] ^= 1;
        fs::write(&path, &bytes).expect("damaged");
        assert!(matches!(FileStore::open(dir.path(), "l", BOUNDS), Err(Error::Damaged { at: 0, .. })));
        assert_eq!(fs::read(&path).expect("the log"), bytes);
    }

    #[test]
    fn many_claims_at_once_are_granted_once_each_and_the_log_is_written_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = FileStore::open(dir.path(), "l", BOUNDS).expect("a log");
        let many = 200_u64;
        run(async {
            for round in 0..60 {
                let claims: Vec<Claim> =
                    (0..many).map(|n| claim((n % 100) as u8, round * many + n)).collect();
                let replies =
                    futures_util::future::join_all(claims.iter().map(|c| store.claim(c.clone()))).await;
                let granted: Vec<&Claim> = claims
                    .iter()
                    .zip(&replies)
                    .filter(|(_, r)| **r == Reply::Granted)
                    .map(|(c, _)| c)
                    .collect();
                assert_eq!(granted.len(), 100, "one of each key");
                futures_util::future::join_all(granted.iter().map(|c| store.end(c, How::Freed))).await;
            }
        });
        assert_eq!(store.len(), Some(0));
        assert!(store.claim(claim(1, 1)).now_or_never().is_none(), "not before it is on the disk");
        drop(store);
        let length = fs::metadata(dir.path().join("l.log")).expect("the log").len();
        assert!(length < 1_500_000, "{length}");
        FileStore::open(dir.path(), "l", BOUNDS).expect("what was written anew is whole");
    }
}
