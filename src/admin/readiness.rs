//! The registry of readiness checks: whoever owns a part says how it is. Must never ask a part by itself, so that
//! answering a probe cannot block.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// All checks of the process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    checks: Arc<Mutex<BTreeMap<String, State>>>,
}

/// Why a check fails, or that it does not.
type State = Result<(), String>;

impl Readiness {
    /// No checks: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check that fails ("not reported yet") until its handle says otherwise. It ends with its handle.
    pub fn check(&self, name: &str) -> CheckHandle {
        self.lock().insert(name.to_owned(), Err("not reported yet".to_owned()));
        CheckHandle { readiness: self.clone(), name: name.to_owned() }
    }

    /// Whether no check fails.
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(Result::is_ok)
    }

    /// Every check with its state, by name.
    pub fn snapshot(&self) -> Vec<(String, Result<(), String>)> {
        self.lock().iter().map(|(name, state)| (name.clone(), state.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says how one part is. The check disappears when this is dropped. One handle for each name.
#[derive(Debug)]
pub struct CheckHandle {
    readiness: Readiness,
    name: String,
}

impl CheckHandle {
    /// The part works.
    pub fn set_ok(&self) {
        self.readiness.lock().insert(self.name.clone(), Ok(()));
    }

    /// The part does not work; `reason` is shown to whoever asks.
    pub fn set_failed(&self, reason: impl Into<String>) {
        self.readiness.lock().insert(self.name.clone(), Err(reason.into()));
    }
}

impl Drop for CheckHandle {
    fn drop(&mut self) {
        self.readiness.lock().remove(&self.name);
    }
}
