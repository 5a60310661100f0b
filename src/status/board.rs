//! [`Board`]: every trigger object that the watches saw. Must never hold more of an object than how it stands with its
//! checks and what its status says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    api::kind::TriggerKind,
    cluster::{
        target::TriggerRef,
        watch::{Presence, Seen},
    },
};

/// Triggers and how they stand.
pub type Objects = BTreeMap<TriggerRef, Presence>;

/// Shared between the reader of the watches and the writer of statuses. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Board {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    objects: Arc<Objects>,
    complete: bool,
}

impl Board {
    /// Takes over what watches saw, once it is acted on; what is no trigger is passed over. `complete`: every kind has
    /// been read once.
    pub fn note(&self, seen: Vec<Seen>, kinds: &[TriggerKind], complete: bool) {
        let mut state = self.lock();
        state.complete |= complete;
        for seen in seen.into_iter().filter(|seen| kinds.iter().any(|kind| kind.kind == seen.kind)) {
            let trigger = TriggerRef::new(seen.kind, seen.reference);
            let objects = Arc::make_mut(&mut state.objects);
            match seen.present {
                Some(present) => objects.insert(trigger, present),
                None => objects.remove(&trigger),
            };
        }
    }

    /// What is there; `None` before everything was read once: a function that is not known yet is not missing.
    pub fn snapshot(&self) -> Option<Arc<Objects>> {
        let state = self.lock();
        state.complete.then(|| Arc::clone(&state.objects))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
