//! Deduplication window by business id, in log time (rules D1 and D2).
//! Must never look at the wall clock, never evict inside the window by itself, and never hold an id whose
//! record no accepted commit has passed over.
//!
//! `duplicate(r)` is a function of the log alone, so that a successor who re-reads one span of it comes to the
//! same verdicts: there is a record q before r in the same shard with the same id, not filtered out, and
//! `ts(r) - ts(q) <= span`, ts being the record time made monotone. "Before" counts **every** such q below the
//! committed offset: claimed, parked (it will run later, L1) and duplicate alike. A duplicate therefore extends
//! the window of its id. It has to: whether q was a duplicate itself depends on records further back, which a
//! rebuild of one span cannot see, and the verdicts would change with every change of owner.
//!
//! Hot path: one look-up per standing generation and one insert an event.

use crate::event::BusinessId;
use dashmap::DashMap;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Locks inside one generation. One polling thread writes and few readers look: more would only cost memory.
const LOCKS: usize = 4;
/// Log time before the first timestamp of a shard was seen.
pub const UNKNOWN_TIME: i64 = -1;

/// Size of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowConfig {
    /// Length in milliseconds of log time. Default 10 min.
    pub span_ms: i64,
    /// Most ids over all shards of the subscription. Default 10⁶, about 70 MB.
    pub max_entries: usize,
    /// Most generations that stand at once, at least 3: more of them expire sooner but cost a look-up each.
    pub generations: usize,
}

impl Default for WindowConfig {
    fn default() -> Self {
        Self { span_ms: 600_000, max_entries: 1_000_000, generations: 8 }
    }
}

/// What the window says about one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not seen inside the window.
    Fresh,
    /// The same business event as the record `of` of this shard.
    Duplicate {
        /// Sequence of the latest earlier record with that id.
        of: i64,
    },
    /// Fresh, but there is no room to remember it: it must not be claimed now. Claim what is planned, call
    /// [`ShardWindow::advance`] with this record's log time and ask again. Waiting alone never helps, since log
    /// time stands still with the shard: hold the shard and say so, or call [`ShardWindow::truncate_oldest`].
    Full,
}

/// Window of one subscription over all its shards.
#[derive(Debug)]
pub struct Window {
    config: WindowConfig,
    total: Arc<AtomicUsize>,
    shards: DashMap<i32, Arc<ShardWindow>>,
}

/// Window of one shard and one assignment of it.
#[derive(Debug)]
pub struct ShardWindow {
    config: WindowConfig,
    generation_ms: i64,
    total: Arc<AtomicUsize>,
    /// Log time of the latest record read.
    read_ms: AtomicI64,
    /// No record below this log time will be judged again; only this expires anything.
    floor_ms: AtomicI64,
    /// Ascending by index.
    generations: RwLock<Vec<Generation>>,
}

/// Ids of a batch that is planned but not granted (rule D2): dropped when the claim is refused.
#[derive(Debug, Default)]
pub struct Overlay {
    ids: HashMap<u128, Entry, BuildHasherDefault<IdHasher>>,
    /// In the order entered, so that a grant moves them in log order.
    order: Vec<(BusinessId, Entry)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    sequence: i64,
    time_ms: i64,
}

/// Ids of one range of log time; given back to the shared count when dropped.
#[derive(Debug)]
struct Generation {
    index: i64,
    ids: DashMap<u128, Entry, BuildHasherDefault<IdHasher>>,
    len: AtomicUsize,
    total: Arc<AtomicUsize>,
}

/// Ids are hashes already: half of one is as good a hash as any.
#[derive(Clone, Copy, Debug, Default)]
struct IdHasher(u64);

impl Window {
    /// An empty window. `generations` below 3 counts as 3, a negative span as 0.
    pub fn new(config: WindowConfig) -> Self {
        let config =
            WindowConfig { span_ms: config.span_ms.max(0), generations: config.generations.max(3), ..config };
        Self { config, total: Arc::default(), shards: DashMap::with_shard_amount(LOCKS) }
    }

    /// The window of shard `n`, made empty if there is none.
    pub fn shard(&self, n: i32) -> Arc<ShardWindow> {
        Arc::clone(
            &self.shards.entry(n).or_insert_with(|| Arc::new(ShardWindow::new(self.config, &self.total))),
        )
    }

    /// Forgets a revoked shard. Memory comes back when the last holder of its [`ShardWindow`] lets go.
    pub fn forget_shard(&self, n: i32) {
        self.shards.remove(&n);
    }

    /// Log time from which a rebuild must read, for the log time at the claimed position: the first offset whose
    /// timestamp is at least this, up to exactly the position read after the assignment (rule D1). Each record is
    /// observed and, unless the filter drops it, entered; then [`ShardWindow::rewind`] to the position's log time.
    pub fn rebuild_from_ms(&self, position_log_time_ms: i64) -> i64 {
        position_log_time_ms.saturating_sub(self.config.span_ms)
    }

    /// Length of the window in milliseconds of log time.
    pub fn span_ms(&self) -> i64 {
        self.config.span_ms
    }

    /// Ids held over all shards; an id that came again in a later generation counts once for each.
    pub fn len(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ShardWindow {
    fn new(config: WindowConfig, total: &Arc<AtomicUsize>) -> Self {
        // A span touches one generation more than it is long, and the newest one is only begun: hence two less.
        let parts = i64::try_from(config.generations - 2).unwrap_or(i64::MAX);
        Self {
            config,
            generation_ms: (config.span_ms / parts).saturating_add(1),
            total: Arc::clone(total),
            read_ms: AtomicI64::new(UNKNOWN_TIME),
            floor_ms: AtomicI64::new(UNKNOWN_TIME),
            generations: RwLock::default(),
        }
    }

    /// Log time of a record with timestamp `ts_ms`: the highest timestamp seen in this shard so far. Records are
    /// observed once each, in log order; a record without a timestamp (-1) keeps the time of the one before.
    pub fn observe(&self, ts_ms: i64) -> i64 {
        self.read_ms.fetch_max(ts_ms, Ordering::Relaxed).max(ts_ms)
    }

    /// Sets log time back before records are read again (a refused batch, a seek): to the log time of the last
    /// record before them. Without it their log time would be that of later records (rule D1).
    pub fn rewind(&self, log_time_ms: i64) {
        self.read_ms.store(log_time_ms, Ordering::Relaxed);
    }

    /// The verdict on a record (rule D1). Nothing is remembered. A record is never a duplicate of itself or of a
    /// later one, whatever the order in which they are judged; without any log time it is fresh.
    pub fn check(&self, id: BusinessId, sequence: i64, log_time_ms: i64) -> Verdict {
        self.check_with(id, sequence, log_time_ms, 0)
    }

    fn check_with(&self, id: BusinessId, sequence: i64, log_time_ms: i64, planned: usize) -> Verdict {
        if log_time_ms <= UNKNOWN_TIME {
            return Verdict::Fresh;
        }
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        for generation in generations.iter().rev() {
            let Some(entry) = generation.ids.get(&id.0) else { continue };
            // D1: the generation may stand longer than its entries count.
            if entry.sequence < sequence && log_time_ms - entry.time_ms <= self.config.span_ms {
                return Verdict::Duplicate { of: entry.sequence };
            }
        }
        if self.total.load(Ordering::Relaxed) + planned >= self.config.max_entries {
            return Verdict::Full;
        }
        Verdict::Fresh
    }

    /// Remembers a record that an accepted commit has passed over (rule D2): claimed, parked or duplicate, with the log
    /// time that [`Self::observe`] gave it. Never refuses: a granted claim without its id would be worse than one entry
    /// above the bound.
    pub fn enter(&self, id: BusinessId, sequence: i64, log_time_ms: i64) {
        if log_time_ms <= UNKNOWN_TIME {
            return;
        }
        let index = log_time_ms.div_euclid(self.generation_ms);
        let entry = Entry { sequence, time_ms: log_time_ms };
        {
            let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
            if let Ok(at) = generations.binary_search_by_key(&index, |g| g.index) {
                generations[at].insert(id, entry);
                return;
            }
        }
        let mut generations = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        let at = match generations.binary_search_by_key(&index, |g| g.index) {
            Ok(at) => at,
            Err(at) => {
                generations.insert(at, Generation::new(index, &self.total));
                at
            }
        };
        generations[at].insert(id, entry);
    }

    /// Expires what no record at or above `log_time_ms` can be a duplicate of. To be called with the log time of the last
    /// record of each accepted commit; a refused batch must not move it, as its records are judged again.
    pub fn advance(&self, log_time_ms: i64) {
        let before = self.floor_ms.fetch_max(log_time_ms, Ordering::Relaxed);
        let oldest = |floor: i64| floor.saturating_sub(self.config.span_ms).div_euclid(self.generation_ms);
        if oldest(before) >= oldest(log_time_ms) {
            return;
        }
        let keep = oldest(log_time_ms);
        let mut generations = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        let expired = generations.iter().take_while(|g| g.index < keep).count();
        let gone: Vec<_> = generations.drain(..expired).collect();
        drop(generations);
        // Freed outside the lock: a large map takes a while.
        drop(gone);
    }

    /// Gives up the oldest generation although it is inside the window, and says up to which log time (exclusive)
    /// ids are forgotten. For a caller that prefers a shorter, reported window to a held shard.
    pub fn truncate_oldest(&self) -> Option<i64> {
        let mut generations = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        if generations.is_empty() {
            return None;
        }
        let gone = generations.remove(0);
        drop(generations);
        Some((gone.index + 1).saturating_mul(self.generation_ms))
    }

    /// Ids held for this shard.
    pub fn len(&self) -> usize {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        generations.iter().map(|g| g.len.load(Ordering::Relaxed)).sum()
    }

    /// Whether nothing is held for this shard.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Generations that stand now.
    pub fn generations(&self) -> usize {
        self.generations.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Overlay {
    /// The verdict on a record of the batch being planned: among the planned ones first, then in `window`.
    pub fn check(&self, window: &ShardWindow, id: BusinessId, sequence: i64, log_time_ms: i64) -> Verdict {
        if let Some(planned) = self.ids.get(&id.0)
            && planned.sequence < sequence
            && log_time_ms - planned.time_ms <= window.config.span_ms
        {
            return Verdict::Duplicate { of: planned.sequence };
        }
        window.check_with(id, sequence, log_time_ms, self.ids.len())
    }

    /// Whether nothing is planned.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Plans a record: fresh, parked or duplicate, in log order.
    pub fn enter(&mut self, id: BusinessId, sequence: i64, log_time_ms: i64) {
        if log_time_ms > UNKNOWN_TIME {
            let entry = Entry { sequence, time_ms: log_time_ms };
            self.ids.insert(id.0, entry);
            self.order.push((id, entry));
        }
    }

    /// The commit of the batch was accepted: its ids enter `window` (rule D2). Log time has advanced to
    /// `log_time_ms`, that of the last record the commit passed over, with or without an id.
    pub fn grant(self, window: &ShardWindow, log_time_ms: i64) {
        for (id, entry) in self.order {
            window.enter(id, entry.sequence, entry.time_ms);
        }
        window.advance(log_time_ms);
    }
}

impl Generation {
    fn new(index: i64, total: &Arc<AtomicUsize>) -> Self {
        let ids = DashMap::with_hasher_and_shard_amount(BuildHasherDefault::default(), LOCKS);
        Self { index, ids, len: AtomicUsize::new(0), total: Arc::clone(total) }
    }

    /// Keeps the later record of the two: log time grows with the sequence, so it counts for longer.
    fn insert(&self, id: BusinessId, entry: Entry) {
        match self.ids.entry(id.0) {
            dashmap::Entry::Occupied(mut held) => {
                if held.get().sequence < entry.sequence {
                    held.insert(entry);
                }
            }
            dashmap::Entry::Vacant(free) => {
                free.insert(entry);
                self.len.fetch_add(1, Ordering::Relaxed);
                self.total.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.total.fetch_sub(*self.len.get_mut(), Ordering::Relaxed);
    }
}

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Never used: keys are `u128`. Right all the same.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64 ^ (id >> 64) as u64;
    }
}
