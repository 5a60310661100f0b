//! The claims of one process, in its memory. Must never be taken for more: a restart forgets everything.

use super::{Bounds, Claim, ClaimStore, Durability, How, Reply, table::Table};
use crate::clock;
use futures_util::future::{BoxFuture, ready};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Debug)]
pub struct MemoryStore {
    table: Mutex<Table>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(bounds: Bounds) -> Self {
        Self { table: Mutex::new(Table::new(bounds)) }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The window goes by the boot clock: a wall clock that is set must not end it.
fn now_ms() -> i64 {
    i64::try_from(clock::boot_ms()).unwrap_or(i64::MAX)
}

impl ClaimStore for MemoryStore {
    fn claim(&self, claim: Claim) -> BoxFuture<'_, Reply> {
        let mut table = self.lock();
        let reply = table.ask(&claim, now_ms());
        if reply == Reply::Granted {
            table.enter(claim);
        }
        Box::pin(ready(reply))
    }

    fn end(&self, claim: &Claim, how: How) -> BoxFuture<'_, Result<(), String>> {
        let mut table = self.lock();
        let how = table.trim(how);
        table.end(claim, how, now_ms());
        drop(table);
        Box::pin(ready(Ok(())))
    }

    fn inherit(&self, by: u64, until_ms: i64) -> BoxFuture<'_, Result<Vec<Claim>, String>> {
        // Claims carry wall-clock deadlines: only open ones have a use for them.
        let inherited = self.lock().inherit(by, until_ms, clock::unix_ms());
        Box::pin(ready(Ok(inherited)))
    }

    fn bound(&self, bounds: Bounds) {
        self.lock().bound(bounds);
    }

    fn durability(&self) -> Durability {
        Durability::Process
    }

    fn len(&self) -> Option<usize> {
        Some(self.lock().len())
    }
}
