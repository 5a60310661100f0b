//! [`Secrets`]: the Secrets that triggers name, read one by one and looked at again from time to time. Must never list or
//! watch Secrets (that right opens all of them), and never show what one holds.

use k8s_openapi::api::core::v1::Secret;
use kube::{Client, Resource as _, api::GetParams, core::Request};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{client::explain, target::ObjectRef};

/// First pause after a failed reading; it doubles up to the interval of all readings.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of one Secret that are believed: Kubernetes takes no more than 1 MiB.
const MAX_BYTES: usize = 1 << 20;

/// What one Secret holds.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretData {
    values: BTreeMap<String, Vec<u8>>,
}

impl SecretData {
    /// Of these keys and values.
    pub fn new(values: BTreeMap<String, Vec<u8>>) -> Self {
        Self { values }
    }

    /// The value of a key, if it is there and not empty.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    /// Differs when any key or value does. Not for comparison across processes.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.values.hash(&mut hasher);
        hasher.finish()
    }
}

impl std::fmt::Debug for SecretData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretData").field("keys", &self.values.keys()).finish_non_exhaustive()
    }
}

/// What is known of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What it held when it was last read; a later failure does not take that away.
    pub data: Option<Arc<SecretData>>,
    /// Why the last reading failed; empty: it did not, or there was none yet.
    pub problem: String,
}

#[derive(Debug)]
struct Entry {
    known: Known,
    version: String,
    due: Instant,
    pause: Duration,
}

/// The Secrets that are wanted. Clones are the same.
#[derive(Clone, Debug)]
pub struct Secrets {
    entries: Arc<Mutex<BTreeMap<ObjectRef, Entry>>>,
    wanted: Arc<Notify>,
    changes: watch::Sender<u64>,
}

impl Secrets {
    /// None wanted yet.
    pub fn new() -> Self {
        let changes = watch::channel(0).0;
        Self { entries: Arc::default(), wanted: Arc::default(), changes }
    }

    /// Exactly these are wanted from now on; others are forgotten.
    pub fn want(&self, names: &BTreeSet<ObjectRef>) {
        let mut entries = self.lock();
        entries.retain(|name, _| names.contains(name));
        let mut fresh = false;
        for name in names {
            if !entries.contains_key(name) {
                let entry = Entry {
                    known: Known::default(),
                    version: String::new(),
                    due: Instant::now(),
                    pause: FIRST_PAUSE,
                };
                entries.insert(name.clone(), entry);
                fresh = true;
            }
        }
        drop(entries);
        if fresh {
            self.wanted.notify_one();
        }
    }

    /// What is known of one that is wanted.
    pub fn get(&self, name: &ObjectRef) -> Known {
        self.lock().get(name).map(|entry| entry.known.clone()).unwrap_or_default()
    }

    /// Counts readings that brought news.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Reads what is wanted, at once and then every `interval`, one after another, until `stop`.
    pub async fn run(self, client: Client, interval: Duration, stop: CancellationToken) {
        loop {
            let (next, at) = self.next_due();
            let idle = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wanted.notified() => continue,
                () = idle => {}
            }
            let Some(name) = next else { continue };
            let read = tokio::select! {
                () = stop.cancelled() => return,
                read = read(&client, &name) => read,
            };
            if self.learn(&name, read, interval) {
                self.changes.send_modify(|count| *count += 1);
            }
        }
    }

    fn next_due(&self) -> (Option<ObjectRef>, Option<Instant>) {
        let entries = self.lock();
        let next = entries.iter().min_by_key(|(_, entry)| entry.due);
        next.map_or((None, None), |(name, entry)| (Some(name.clone()), Some(entry.due)))
    }

    /// Takes the result of a reading over; returns whether it is news.
    fn learn(
        &self,
        name: &ObjectRef,
        read: Result<(String, SecretData), String>,
        interval: Duration,
    ) -> bool {
        let mut entries = self.lock();
        // Nobody wants it any more.
        let Some(entry) = entries.get_mut(name) else { return false };
        let before = entry.known.clone();
        match read {
            Ok((version, data)) => {
                entry.pause = FIRST_PAUSE;
                // Spread, so that Secrets that were wanted together are not read together for ever.
                entry.due = Instant::now() + interval.mul_f64(0.8 + 0.4 * fastrand::f64());
                entry.known.problem = String::new();
                if entry.version != version || entry.known.data.is_none() {
                    entry.version = version;
                    entry.known.data = Some(Arc::new(data));
                }
            }
            Err(problem) => {
                entry.due = Instant::now() + entry.pause;
                entry.pause = (entry.pause * 2).min(interval);
                if before.problem != problem {
                    tracing::warn!(secret = %name, problem, "Secret not read; trying again");
                }
                entry.known.problem = problem;
            }
        }
        before != entry.known
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectRef, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Secrets {
    fn default() -> Self {
        Self::new()
    }
}

/// Not by the client's own typed reading, which logs what it cannot read.
async fn read(client: &Client, name: &ObjectRef) -> Result<(String, SecretData), String> {
    let path = Secret::url_path(&(), Some(&name.namespace));
    let request =
        Request::new(path).get(&name.name, &GetParams::default()).map_err(|error| error.to_string())?;
    let text = client.request_text(request).await.map_err(|error| match &error {
        kube::Error::Api(status) if status.code == 404 => format!("Secret {name} does not exist"),
        kube::Error::Api(status) if status.code == 403 => {
            format!("Secret {name} may not be read: grant get on it by name, or mount it and use credentials = \"files\"")
        }
        error => format!("Secret {name}: {}", explain(error)),
    })?;
    if text.len() > 2 * MAX_BYTES {
        return Err(format!("Secret {name} is larger than a Secret can be"));
    }
    let secret: Secret =
        serde_json::from_str(&text).map_err(|_| format!("Secret {name}: the answer is not a Secret"))?;
    let values = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    Ok((secret.metadata.resource_version.unwrap_or_default(), SecretData::new(values)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(value: &str) -> SecretData {
        SecretData::new(BTreeMap::from([("password".to_owned(), value.as_bytes().to_vec())]))
    }

    #[tokio::test]
    async fn what_was_read_stays_when_a_later_reading_fails_and_only_news_counts() {
        let (secrets, name, interval) =
            (Secrets::new(), ObjectRef::new("shop", "kafka"), Duration::from_secs(60));
        secrets.want(&BTreeSet::from([name.clone()]));
        assert_eq!(secrets.get(&name), Known::default());
        assert!(secrets.learn(&name, Err("missing".to_owned()), interval));
        assert_eq!(secrets.get(&name).problem, "missing");
        assert!(!secrets.learn(&name, Err("missing".to_owned()), interval));
        assert!(secrets.learn(&name, Ok(("1".to_owned(), data("a"))), interval));
        let first = secrets.get(&name).data.expect("it was read");
        assert!(!secrets.learn(&name, Ok(("1".to_owned(), data("a"))), interval));
        assert!(secrets.learn(&name, Err("gone".to_owned()), interval));
        assert_eq!(secrets.get(&name).data.as_ref(), Some(&first), "the source goes on with what it has");
        assert!(secrets.learn(&name, Ok(("2".to_owned(), data("b"))), interval));
        let second = secrets.get(&name).data.expect("it was read");
        assert_ne!(first.fingerprint(), second.fingerprint());
        secrets.want(&BTreeSet::new());
        assert!(!secrets.learn(&name, Ok(("3".to_owned(), data("c"))), interval), "nobody wants it");
    }

    #[test]
    fn what_a_secret_holds_is_not_shown() {
        let shown = format!("{:?}", data("canary"));
        assert!(shown.contains("password") && !shown.contains("canary"), "{shown}");
        assert_eq!(data("").get("password"), None);
    }
}
