//! The watched cache's inlet: one guarded watch for each kind and namespace, all flowing into one bounded queue of
//! [`Batch`]es. Must never stop at a malformed object, a missing CRD or an API server that is down.

pub mod feed;
pub mod health;
mod session;
pub mod subject;

pub use self::{
    feed::{Batch, Presence, Seen},
    health::{Health, Phase},
    subject::Subject,
};

use std::time::Duration;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::client::Connection;
use feed::Feed;
use session::Session;

/// Batches that wait for the reader; beyond it watches wait, and the server's own buffers hold the rest.
const QUEUE: usize = 64;

/// What is watched, and how patiently.
#[derive(Clone, Debug)]
pub struct WatchSettings {
    /// Kinds.
    pub subjects: Vec<Subject>,
    /// Namespaces; empty: all.
    pub namespaces: Vec<String>,
    /// A watch on which nothing is heard for so long is begun again. API servers send a bookmark about once a minute.
    pub silence: Duration,
}

/// All watches of a process.
#[derive(Debug)]
pub struct Watches {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    batches: mpsc::Receiver<Batch>,
    health: Vec<Health>,
}

impl Watches {
    /// Starts them. Dropping the value ends them.
    pub fn start(connection: &Connection, settings: &WatchSettings) -> Self {
        let (out, batches) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let (mut tasks, mut all) = (JoinSet::new(), Vec::new());
        let everywhere = [None];
        let named: Vec<Option<&str>> = settings.namespaces.iter().map(|name| Some(name.as_str())).collect();
        for subject in &settings.subjects {
            for namespace in if named.is_empty() { &everywhere[..] } else { &named } {
                let health = Health::new(subject.kind(), *namespace);
                all.push(health.clone());
                let feed = Feed::new(subject.clone());
                let session = Session::new(connection.clone(), feed, health, out.clone(), settings.silence);
                tasks.spawn(session.run(stop.clone()));
            }
        }
        Self { tasks, stop, batches, health: all }
    }

    /// The next batch. Cancel-safe.
    pub async fn next(&mut self) -> Option<Batch> {
        self.batches.recv().await
    }

    /// A batch that waits already.
    pub fn try_next(&mut self) -> Option<Batch> {
        self.batches.try_recv().ok()
    }

    /// How each watch is.
    pub fn health(&self) -> &[Health] {
        &self.health
    }

    /// Ends all watches and waits for them.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // A watch that waits for room in the queue ends with the queue.
        self.batches.close();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// What keeps the cache from being complete; empty: every list has been read once.
pub fn unsynced(health: &[Health]) -> Vec<String> {
    health.iter().filter(|watch| !watch.is_synced()).map(ToString::to_string).collect()
}
