//! The claim stores of a source's subscriptions: opened when first asked for, kept over restarts of their threads. Must never
//! open one twice, nor drop one while a repeat could still come.

use crate::{
    api::{
        conditions::{Fact, reasons, types},
        kind::TriggerObject,
    },
    dispatch::{
        Route,
        store::{
            Bounds, ClaimStore, Durability, connect,
            file::FileStore,
            memory::MemoryStore,
            shared::{Rows, SharedStore},
        },
    },
    sources::{Error, KINDS},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

/// Where claims are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Store {
    /// In the memory of this process.
    Memory,
    /// In the state folder.
    File,
    /// On the servers at this address, for all dispatchers that name them.
    At(String),
}

impl From<String> for Store {
    fn from(text: String) -> Self {
        match text.as_str() {
            "memory" => Self::Memory,
            "file" => Self::File,
            _ => Self::At(text),
        }
    }
}

impl From<Store> for String {
    fn from(store: Store) -> Self {
        match store {
            Store::Memory => "memory".to_owned(),
            Store::File => "file".to_owned(),
            Store::At(address) => address,
        }
    }
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
    /// Folder of what the servers of a shared store want to know; empty: nothing.
    credentials: PathBuf,
    /// Servers that keep claims for several dispatchers, once a trigger is served.
    rows: Mutex<Option<Arc<dyn Rows>>>,
}

impl Stores {
    /// None is open yet. `dir`: where logs of claims are; `replicated`: whether other dispatchers may serve the same triggers.
    pub fn new(kind: Store, source: &'static str, dir: PathBuf, replicated: bool) -> Self {
        Self {
            kind,
            source,
            dir,
            replicated,
            max_kept_bytes: 0,
            open: Mutex::default(),
            credentials: PathBuf::new(),
            rows: Mutex::default(),
        }
    }

    /// With room for answers.
    pub fn keeping(self, max_kept_bytes: usize) -> Self {
        Self { max_kept_bytes, ..self }
    }

    /// With what the servers of a shared store want to know: a folder of one file a value; empty: nothing.
    pub fn with_credentials(self, credentials: PathBuf) -> Self {
        Self { credentials, ..self }
    }

    /// The servers of the store; the connection is one for all triggers.
    fn rows(&self, address: &str) -> Result<Arc<dyn Rows>, Error> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*rows {
            return Ok(Arc::clone(open));
        }
        let credentials = Some(&*self.credentials).filter(|dir| !dir.as_os_str().is_empty());
        let open = match KINDS.iter().find(|kind| kind.is_address(address)) {
            Some(kind) => kind.claim_store(address, credentials)?,
            None => connect(address, credentials).ok_or_else(|| self.unknown(address))??,
        };
        Ok(Arc::clone(rows.insert(open)))
    }

    fn unknown(&self, address: &str) -> String {
        format!(
            "sources.{}.store {address:?} is neither \"file\", \"memory\" nor the address of servers that keep claims: \
             write nats://host:port or etcd://host:port, several with commas, dynamodb://region/table or redis://host:port",
            self.source
        )
    }

    /// Why the shared store promises less than it might.
    fn weakness(&self) -> Option<String> {
        match &*self.rows.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(rows) => rows.weakness(),
            None => Some("the claim store is not in use yet".to_owned()),
        }
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
            let is_needed = store.durability() != Durability::Shared && store.is_empty() != Some(true);
            *held == name || Arc::strong_count(store) > 1 || is_needed
        });
        if let Some(store) = open.get(&name) {
            store.bound(bounds);
            return Ok(Arc::clone(store));
        }
        let store: Arc<dyn ClaimStore> = match &self.kind {
            Store::Memory => Arc::new(MemoryStore::new(bounds)),
            Store::File => Arc::new(FileStore::open(&self.dir, &name, bounds)?),
            Store::At(address) => Arc::new(SharedStore::new(self.rows(address)?, &name, bounds)),
        };
        Ok(Arc::clone(open.entry(name).or_insert(store)))
    }

    /// The condition `AtMostOnce` of a trigger whose claims are here.
    pub fn promise(&self) -> Fact {
        let claimed = || Fact::new(types::AT_MOST_ONCE, true, reasons::CLAIMED_AT_SOURCE, "");
        let message = match (&self.kind, self.replicated) {
            (Store::At(_), _) => match self.weakness() {
                Some(why) => why,
                None => return claimed(),
            },
            (Store::Memory, _) => format!(
                "claims are in the memory of one dispatcher: a restart, or another replica, does not know them; set \
                 sources.{}.store to \"file\"",
                self.source
            ),
            (Store::File, true) => format!(
                "claims are on the disk of one dispatcher: another replica, or a Pod that is made anew, does not know \
                 them; run one replica with a volume, or set sources.{}.store to the address of a shared store",
                self.source
            ),
            (Store::File, false) => return claimed(),
        };
        Fact::new(types::AT_MOST_ONCE, true, reasons::DEGRADED, &message)
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
