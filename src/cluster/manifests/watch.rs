//! Says when a folder may have changed. Must never read a manifest: the answer to a signal is a new [`super::load`].

use notify::{EventKind, RecursiveMode, Watcher, event::AccessKind};
use std::{
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Quiet time after the last edit before a signal, when the caller has no opinion.
pub const DEBOUNCE: Duration = Duration::from_millis(150);
/// A folder that is written all the time still signals this often.
const LONGEST_DELAY: Duration = Duration::from_millis(600);

/// The folder cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The operating system refused, e.g. the folder is missing or the limit of watches is reached.
    #[error("cannot watch the manifest folder")]
    Notify(#[from] notify::Error),
    /// No thread could be started.
    #[error("cannot start the watch thread")]
    Thread(#[from] std::io::Error),
}

/// A running watch; dropping it ends it (and its thread, which is waited for).
#[derive(Debug)]
pub struct Watch {
    signals: tokio::sync::watch::Receiver<u64>,
    watcher: Option<notify::RecommendedWatcher>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Counts signals; await `changed()` and load the folder again.
    pub fn signals(&self) -> tokio::sync::watch::Receiver<u64> {
        self.signals.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The watcher holds the only sender: without it the thread sees the end at once.
        self.watcher.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Watches `dir` and its subfolders; signals once the folder was quiet for `debounce` (at the latest 600 ms after
/// the first edit).
///
/// # Errors
/// [`WatchError`] when the folder cannot be watched.
pub fn watch(dir: &Path, debounce: Duration) -> Result<Watch, WatchError> {
    // One place is enough: a second edit before the first is read says nothing new.
    let (edited, edits) = sync_channel(1);
    let root = dir.to_owned();
    let mut watcher = notify::recommended_watcher(move |event| on_event(&root, &edited, event))?;
    watcher.watch(dir, RecursiveMode::Recursive)?;
    let sender = tokio::sync::watch::Sender::new(0);
    let signals = sender.subscribe();
    let thread = std::thread::Builder::new()
        .name("manifest-watch".to_owned())
        .spawn(move || forward(&edits, &sender, debounce))?;
    Ok(Watch { signals, watcher: Some(watcher), thread: Some(thread) })
}

/// Hidden folders are not read, so what happens in them (a journal, a package folder) is no edit.
fn is_hidden(root: &Path, path: &Path) -> bool {
    let inside = path.strip_prefix(root).unwrap_or(path);
    inside.components().any(|c| c.as_os_str().to_string_lossy().starts_with('.'))
}

fn on_event(root: &Path, edited: &SyncSender<()>, event: notify::Result<notify::Event>) {
    if event.as_ref().is_ok_and(|e| !e.paths.is_empty() && e.paths.iter().all(|p| is_hidden(root, p))) {
        return;
    }
    // Our own reading opens and closes files: only what writes counts. An error may hide an edit, so it counts.
    let counts = event.map_or(true, |event| match event.kind {
        EventKind::Access(AccessKind::Close(mode)) => mode == notify::event::AccessMode::Write,
        EventKind::Access(_) => false,
        _ => true,
    });
    if counts {
        let _ = edited.try_send(());
    }
}

fn forward(edits: &Receiver<()>, signals: &tokio::sync::watch::Sender<u64>, debounce: Duration) {
    while edits.recv().is_ok() {
        let deadline = Instant::now() + LONGEST_DELAY;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match edits.recv_timeout(debounce.min(left)) {
                Ok(()) if !left.is_zero() => {}
                Ok(()) | Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        signals.send_modify(|count| *count += 1);
    }
}
