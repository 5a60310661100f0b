//! [`Folders`]: several manifest folders read as one, and again whenever one of them changed. Must never take what is in
//! force away because a reading failed.

use std::path::{Path, PathBuf};
use tokio::sync::watch;

use super::{Limits, Manifests, diff, load};
use crate::{api::kind::TriggerKind, cluster::changes::Changes};

/// A folder cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {}", path.display())]
pub struct Error {
    path: PathBuf,
    #[source]
    source: super::watch::WatchError,
}

/// The manifest folders of a configuration.
#[derive(Debug)]
pub struct Folders {
    paths: Vec<PathBuf>,
    kinds: &'static [TriggerKind],
    watches: Vec<super::watch::Watch>,
    signals: Vec<watch::Receiver<u64>>,
    last: Vec<Manifests>,
    problems: usize,
}

impl Folders {
    /// Begins to watch them; nothing is read yet.
    ///
    /// # Errors
    /// One of them cannot be watched.
    pub fn watch(paths: &[PathBuf], kinds: &'static [TriggerKind]) -> Result<Self, Error> {
        let mut watches = Vec::new();
        for path in paths {
            let watch = super::watch::watch(path, super::watch::DEBOUNCE)
                .map_err(|source| Error { path: path.clone(), source })?;
            watches.push(watch);
        }
        let signals = watches.iter().map(super::watch::Watch::signals).collect();
        let last = vec![Manifests::default(); paths.len()];
        Ok(Self { paths: paths.to_owned(), kinds, watches, signals, last, problems: 0 })
    }

    /// Objects that could not be read the last time.
    pub fn problems(&self) -> usize {
        self.problems
    }

    /// Resolves when any folder changed. Cancel-safe.
    pub async fn changed(&mut self) {
        debug_assert_eq!(self.watches.len(), self.signals.len());
        let waits = self.signals.iter_mut().map(|signal| {
            Box::pin(async move {
                // A watch that ended signals nothing any more; the others go on.
                if signal.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            })
        });
        futures_util::future::select_all(waits).await;
    }

    /// What changed since the last reading.
    pub async fn read(&mut self) -> Changes {
        let (paths, kinds) = (self.paths.clone(), self.kinds);
        let load = move |path: &Path| load(path, kinds, &Limits::default());
        let loaded =
            tokio::task::spawn_blocking(move || paths.iter().map(|p| load(p)).collect::<Vec<_>>()).await;
        // A panic while reading keeps what is in force.
        let now = loaded.unwrap_or_else(|_| self.last.clone());
        self.problems = 0;
        let mut before = Manifests::default();
        let mut after = Manifests::default();
        for (last, now) in self.last.iter_mut().zip(now) {
            for problem in &now.problems {
                tracing::error!(problem = %problem, "Manifest problem");
            }
            self.problems += now.problems.len() + now.more_problems;
            let now = now.keep_last_good(last);
            merge(&mut before, std::mem::replace(last, now.clone()));
            merge(&mut after, now);
        }
        diff::diff(&before, &after)
    }
}

fn merge(into: &mut Manifests, from: Manifests) {
    into.functions.extend(from.functions);
    into.triggers.extend(from.triggers);
    into.services.extend(from.services);
    into.slices.extend(from.slices);
}
