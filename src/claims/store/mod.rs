//! Claim stores: who may call for an event that has no position in a log (a request), and how it ended. One trait, three
//! answers. Must never grant a key twice inside its window, and never forget one early because it is full.

pub mod dynamodb;
pub mod etcd;
pub mod file;
mod gateway;
mod line;
pub mod memory;
pub mod redis;
pub mod shared;
mod table;

use crate::ledger::Outcome;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shared::Rows;
use std::{path::Path, sync::Arc, time::Duration};

/// A SHA-256 of length-prefixed parts: what callers choose must not meet another key on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(pub [u8; 32]);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("a digest is 32 bytes in base64")
    }
}

impl Digest {
    /// Of these parts, in order.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

/// A claim as its maker writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// What makes two events the same: trigger, function and the event's own id.
    pub key: Digest,
    /// What the event says: the same id with another content is a mistake of the caller.
    pub content: Digest,
    /// Token of the owner, new for every start of its thread.
    pub owner: u64,
    /// Number of the claim among those of the owner.
    pub number: u64,
    /// The event's id, for people.
    pub id: String,
    /// When it was made, wall clock in milliseconds.
    pub made_ms: i64,
    /// Nothing of it runs after this (wall clock in milliseconds): whoever finds it open later may name it.
    pub until_ms: i64,
}

impl Claim {
    /// Whether both are the same claim: its owner may have written it twice.
    pub fn is(&self, other: &Self) -> bool {
        (self.key, self.owner, self.number) == (other.key, other.owner, other.number)
    }
}

/// An answer as far as it is kept for repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Status.
    pub status: u16,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// Body.
    #[serde(with = "encoded")]
    pub body: Bytes,
    /// False: the body was too large to keep.
    pub whole: bool,
}

impl Kept {
    /// Bytes that it holds.
    pub fn size(&self) -> usize {
        self.body.len() + self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

/// Bytes as base64.
mod encoded {
    use super::{Bytes, STANDARD};
    use base64::Engine as _;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Bytes::from).map_err(D::Error::custom)
    }
}

/// How a claim ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The outcome in the journal.
    pub outcome: Outcome,
    /// What the caller was told; `None` where there was no complete answer.
    pub answer: Option<Kept>,
}

/// What is to become of a claim that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// It is remembered for the window.
    Ended(Box<End>),
    /// It is forgotten: the call was provably never made, or nobody can repeat the event.
    Freed,
}

/// A claim that stands, and its end if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The claim.
    pub claim: Claim,
    /// Its end.
    pub end: Option<End>,
}

/// Why nothing was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The key is claimed.
    Held(Box<Held>),
    /// The store is full; room comes after so long at the earliest.
    Full(Duration),
    /// The store does not answer, and the claim was not sent.
    Away(String),
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The claim is as durable as the store is: call, once.
    Granted,
    /// The store is as it was.
    Refused(Refusal),
    /// Nobody knows: never call. The claim may stand, and its maker should free it.
    Unknown(String),
}

/// What outlives what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The process's end forgets everything; other processes do not see it.
    Process,
    /// Everything accepted outlives the process and the machine's sudden end; other processes do not see it.
    Machine,
    /// As the servers keep it; every process that names them sees it.
    Shared,
}

/// Rows for claims on the servers at `address`, if its scheme is one of these stores'; `credentials`: folder of one file a value.
/// Connects later, as often as it must.
///
/// # Errors
/// The address or the credentials make no sense.
pub fn connect(address: &str, credentials: Option<&Path>) -> Option<Result<Arc<dyn Rows>, String>> {
    let shared = |rows: Result<Arc<dyn Rows>, String>| Some(rows);
    if etcd::is_address(address) {
        return shared(etcd::EtcdRows::new(address, credentials).map(|rows| Arc::new(rows) as _));
    }
    if dynamodb::is_address(address) {
        return shared(dynamodb::DynamoRows::new(address, credentials).map(|rows| Arc::new(rows) as _));
    }
    if redis::is_address(address) {
        return shared(redis::RedisRows::new(address, credentials).map(|rows| Arc::new(rows) as _));
    }
    None
}

/// A store for the claims of one subscription. Shared by threads.
pub trait ClaimStore: Send + Sync {
    /// Claims, if the key is free. The identical claim once more is granted again.
    fn claim(&self, claim: Claim) -> BoxFuture<'_, Reply>;

    /// Ends a claim of ours. Repeated by the caller until it succeeds.
    ///
    /// # Errors
    /// The store did not take it, or nobody knows.
    fn end(&self, claim: &Claim, how: How) -> BoxFuture<'_, Result<(), String>>;

    /// Takes over open claims of owners that are gone: `by` answers for them until `until_ms`. They are named, then ended
    /// by [`ClaimStore::end`]; if that does not happen until then, another one takes them over.
    ///
    /// # Errors
    /// The store does not answer.
    fn inherit(&self, by: u64, until_ms: i64) -> BoxFuture<'_, Result<Vec<Claim>, String>>;

    /// Other bounds from now on. What is remembered stays until its window, as it now is, is over.
    fn bound(&self, bounds: Bounds);

    /// What outlives what.
    fn durability(&self) -> Durability;

    /// Claims and ends that are remembered, where that is known.
    fn len(&self) -> Option<usize>;

    /// Why its promise is weaker than its durability says; `None`: it is not.
    fn weakness(&self) -> Option<String> {
        None
    }

    /// Whether nothing is remembered, where that is known.
    fn is_empty(&self) -> Option<bool> {
        self.len().map(|len| len == 0)
    }
}

/// Bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How long an ended claim is remembered.
    pub window: Duration,
    /// Most claims at once; nothing is forgotten early for a new one.
    pub max_entries: usize,
    /// Most bytes of answers at once; beyond that only the status of an answer is kept.
    pub max_kept_bytes: usize,
}
