//! The claim stores of a source's subscriptions: opened when first asked for, kept over restarts of their threads. Must never
//! open one twice, nor drop one while a repeat could still come.

use super::super::Error;
use crate::{
    api::{
        conditions::{Fact, reasons, types},
        kind::TriggerObject,
    },
    dispatch::{
        Route,
        store::{Bounds, ClaimStore, file::FileStore, memory::MemoryStore},
    },
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

/// Where claims are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// In the memory of this process.
    Memory,
    /// In the state folder.
    File,
}

/// See the module.
pub struct Stores {
    /// Which.
    kind: Store,
    /// The source whose section of the configuration says so.
    source: &'static str,
    /// Where logs of claims are.
    dir: PathBuf,
    /// Whether other dispatchers may serve the same triggers.
    replicated: bool,
    /// Most bytes of answers that one keeps for repeats.
    max_kept_bytes: usize,
    /// Outlive a trigger's thread, by trigger and function.
    open: Mutex<HashMap<String, Arc<dyn ClaimStore>>>,
}

impl Stores {
    /// None is open yet. `dir`: where logs of claims are; `replicated`: whether other dispatchers may serve the same triggers.
    pub fn new(kind: Store, source: &'static str, dir: PathBuf, replicated: bool) -> Self {
        Self { kind, source, dir, replicated, max_kept_bytes: 0, open: Mutex::default() }
    }

    /// With room for answers.
    pub fn keeping(self, max_kept_bytes: usize) -> Self {
        Self { max_kept_bytes, ..self }
    }

    /// The store of a subscription.
    ///
    /// # Errors
    /// Its log cannot be read or written.
    pub fn of(&self, trigger: &TriggerObject, route: &Route) -> Result<Arc<dyn ClaimStore>, Error> {
        let dedup = &trigger.core.dedup;
        let bounds = Bounds {
            window: dedup.window,
            max_entries: dedup.max_entries,
            max_kept_bytes: self.max_kept_bytes,
        };
        let name = name(trigger, route);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of deleted triggers go once nobody could repeat anything. Theirs is a thread that is gone.
        open.retain(|held, store| {
            *held == name || Arc::strong_count(store) > 1 || store.is_empty() != Some(true)
        });
        if let Some(store) = open.get(&name) {
            store.bound(bounds);
            return Ok(Arc::clone(store));
        }
        let store: Arc<dyn ClaimStore> = match self.kind {
            Store::Memory => Arc::new(MemoryStore::new(bounds)),
            Store::File => Arc::new(FileStore::open(&self.dir, &name, bounds)?),
        };
        Ok(Arc::clone(open.entry(name).or_insert(store)))
    }

    /// The condition `AtMostOnce` of a trigger whose claims are here.
    pub fn promise(&self) -> Fact {
        let message = match (self.kind, self.replicated) {
            (Store::Memory, _) => format!(
                "claims are in the memory of one dispatcher: a restart, or another replica, does not know them; set \
                 sources.{}.store to \"file\"",
                self.source
            ),
            (Store::File, true) => {
                "claims are on the disk of one dispatcher: another replica, or a Pod that is made anew, does not know \
                 them; run one replica with a volume"
                    .to_owned()
            }
            (Store::File, false) => {
                return Fact::new(types::AT_MOST_ONCE, true, reasons::CLAIMED_AT_SOURCE, "");
            }
        };
        Fact::new(types::AT_MOST_ONCE, true, reasons::DEGRADED, message)
    }

    /// In place of the store that the configuration names.
    #[cfg(test)]
    pub fn set(&self, trigger: &TriggerObject, route: &Route, store: Arc<dyn ClaimStore>) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(name(trigger, route), store);
    }
}

fn name(trigger: &TriggerObject, route: &Route) -> String {
    format!("{} {}", trigger.core.uid, route.key.function)
}
