//! What changed between two readings of a folder, so that an edit touches only what it says. Must never take an
//! object away because its file cannot be read for the moment.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{Loaded, Manifests};
use crate::cluster::changes::{Changes, Delta};

/// What must be applied and deleted to get from `old` to `new`.
pub fn diff(old: &Manifests, new: &Manifests) -> Changes {
    Changes {
        functions: delta(&old.functions, &new.functions),
        triggers: delta(&old.triggers, &new.triggers),
        services: delta(&old.services, &new.services),
        slices: delta(&old.slices, &new.slices),
    }
}

fn delta<K: Ord + Clone, T>(old: &BTreeMap<K, Loaded<T>>, new: &BTreeMap<K, Loaded<T>>) -> Delta<K, T> {
    let changed = |(key, loaded): &(&K, &Loaded<T>)| {
        old.get(*key).is_none_or(|before| before.fingerprint != loaded.fingerprint)
    };
    let apply = new.iter().filter(changed).map(|(_, loaded)| Arc::clone(&loaded.object)).collect();
    let delete = old.keys().filter(|key| !new.contains_key(*key)).cloned().collect();
    Delta { apply, delete }
}

impl Manifests {
    /// Keeps, from the reading before, what stood in a file that has a fault now: as with an API server, a bad
    /// edit leaves the last good object in force. A removed file, or a removed document of a sound file, is gone.
    pub fn keep_last_good(mut self, before: &Self) -> Self {
        let faulty = Faulty {
            // Faults that were not listed may be anywhere.
            everywhere: self.more_problems > 0,
            files: self.problems.iter().map(|problem| Arc::clone(&problem.file)).collect(),
        };
        if faulty.everywhere || !faulty.files.is_empty() {
            keep(&mut self.functions, &before.functions, &faulty);
            keep(&mut self.triggers, &before.triggers, &faulty);
            keep(&mut self.services, &before.services, &faulty);
            keep(&mut self.slices, &before.slices, &faulty);
        }
        self
    }
}

struct Faulty {
    everywhere: bool,
    files: HashSet<Arc<str>>,
}

impl Faulty {
    /// Whether the file, or a folder that it stands in, has a fault. The folder itself has the empty name.
    fn covers(&self, file: &str) -> bool {
        self.everywhere
            || self.files.contains(file)
            || self.files.contains("")
            || file.match_indices('/').any(|(end, _)| self.files.contains(&file[..end]))
    }
}

fn keep<K: Ord + Clone, T>(
    now: &mut BTreeMap<K, Loaded<T>>,
    before: &BTreeMap<K, Loaded<T>>,
    faulty: &Faulty,
) {
    for (key, loaded) in before.iter().filter(|(_, loaded)| faulty.covers(&loaded.file)) {
        now.entry(key.clone()).or_insert_with(|| Loaded {
            object: Arc::clone(&loaded.object),
            file: Arc::clone(&loaded.file),
            line: loaded.line,
            fingerprint: loaded.fingerprint,
        });
    }
}
