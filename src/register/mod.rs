//! The common place of registers, for sources whose servers keep none that could be trusted: texts under keys, each written on condition that it still is what was read. Must never
//! report a write as done that the next reader might not find.

pub mod file;
pub mod leases;
pub mod watch;

use serde::{Deserialize, Serialize};
use std::{future::Future, path::Path, pin::Pin, rc::Rc, sync::Arc, time::Duration};
use tokio::time::Instant;

/// First pause before a write without an answer is repeated; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Where an operator wants registers to be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// In Leases where objects come from a cluster, else in a folder.
    #[default]
    Auto,
    /// In Leases of the dispatcher's own namespace.
    Leases,
    /// In files of the register's folder.
    Folder,
}

/// Makes a store on the thread that uses it.
pub type MakeStore = Box<dyn FnOnce() -> Rc<dyn Store> + Send>;

/// An API server and the namespace of this process.
pub type Cluster = (kube::Client, Arc<str>);

/// The store of a source: `folder`, or Leases in the `cluster` that the objects come from.
///
/// # Errors
/// Leases are wanted and there is no cluster. `section` is where the choice stands.
pub fn choose(
    choice: Choice,
    folder: &Path,
    cluster: Option<Cluster>,
    section: &str,
) -> Result<MakeStore, String> {
    let root = folder.to_path_buf();
    match (choice, cluster) {
        (Choice::Folder, _) | (Choice::Auto, None) => {
            Ok(Box::new(move || Rc::new(file::Folder::new(root)) as Rc<dyn Store>))
        }
        (_, Some((client, namespace))) => {
            Ok(Box::new(move || Rc::new(leases::Leases::new(client, &namespace)) as Rc<dyn Store>))
        }
        (Choice::Leases, None) => Err(format!(
            "[{section}] register = \"leases\": objects come from folders, so there is no cluster to keep them in; \
             use \"auto\" or \"folder\""
        )),
    }
}

/// A text as it was read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The text.
    pub text: String,
    /// The store's own name for this version of it.
    pub tag: String,
}

/// Answer to one conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is durable.
    Done(Stored),
    /// Something else stands there; `None`: nothing.
    Conflict(Option<Stored>),
    /// Nobody knows.
    Unknown(String),
}

/// What a write came to, once all was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It stands there, written by us.
    Granted(Stored),
    /// Something else stands there.
    Refused,
    /// Nobody knows, and there was no time to find out.
    Unknown(String),
}

/// What a store's operations return.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A place for texts. Keys hold letters, digits, `.`, `_` and `-`.
pub trait Store {
    /// Every key under `folder` with its text, as of now: never from a cache.
    fn list<'a>(&'a self, folder: &'a str) -> Later<'a, Result<Vec<(String, Stored)>, String>>;

    /// Writes `text` if what stands there is `expected` (`None`: nothing).
    fn put<'a>(
        &'a self,
        folder: &'a str,
        key: &'a str,
        text: &'a str,
        expected: Option<&'a Stored>,
    ) -> Later<'a, Put>;

    /// Removes `key` if it is `expected`. A failure leaves rubbish, no more.
    fn delete<'a>(
        &'a self,
        folder: &'a str,
        key: &'a str,
        expected: &'a Stored,
    ) -> Later<'a, Result<(), String>>;
}

/// Writes and finds the truth: an unknown answer is followed by the identical write, and whatever is refused is compared
/// with what was to be written (P4). Texts carry their owner's token and version, so equal means ours.
pub async fn write(
    store: &dyn Store,
    at: (&str, &str),
    text: &str,
    expected: Option<&Stored>,
    until: Instant,
) -> Written {
    let mut pause = FIRST_PAUSE;
    loop {
        let why = match store.put(at.0, at.1, text, expected).await {
            Put::Done(stored) => return Written::Granted(stored),
            Put::Conflict(Some(stored)) if stored.text == text => return Written::Granted(stored),
            Put::Conflict(_) => return Written::Refused,
            Put::Unknown(why) => why,
        };
        if Instant::now() + pause >= until {
            return Written::Unknown(why);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
