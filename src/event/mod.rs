//! One occurrence on its way to a function: [`Event`], its [`Position`] in the source and its identity.
//! Must never know which broker it came from, and never do I/O.

pub mod cel;
pub mod cloudevents;
pub mod exchange;
pub mod filter;
pub mod hasher;
pub mod headers;
pub mod message;
pub mod record;
pub mod tick;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use std::sync::Arc;

/// Where an event stands in its source: the identity of a *delivery* (level 1).
///
/// For a partitioned log `stream` is the topic, `shard` the partition and `sequence` the offset. `epoch` and
/// `time_ms` tell a sequence that was reused (truncation, a topic recreated) from the original.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Topic, stream or subject.
    pub stream: Arc<str>,
    /// Partition or shard number.
    pub shard: i32,
    /// Offset or sequence number inside the shard.
    pub sequence: i64,
    /// Shard and sequence as the source writes them, where numbers cannot hold them. Then `shard` and `sequence` are local
    /// to the source's thread: they order its records, and nothing outside of it may be keyed by them.
    pub coordinates: Option<Arc<str>>,
    /// Leader epoch of the log when the record was written, -1 where the source has none.
    pub epoch: i32,
    /// The source's own timestamp in milliseconds since the Unix epoch, -1 where it has none.
    pub time_ms: i64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.coordinates {
            Some(coordinates) => write!(f, "{}/{coordinates}", self.stream),
            None => write!(f, "{}/{}/{}", self.stream, self.shard, self.sequence),
        }
    }
}

/// What makes two deliveries the same *business* event (level 2): a 128-bit hash of CloudEvents
/// `(source, id)` or of the value that `dedup.key` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BusinessId(pub u128);

impl BusinessId {
    /// Hashes the parts with a separator that cannot occur by concatenation (length prefixes).
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.digest128())
    }
}

/// Events of one lane run one at a time, in log order. `None` as a lane: no order asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lane(pub u64);

/// CloudEvents 1.0.2 context attributes of an event, present for every event: taken from the record where it
/// is a CloudEvent, made from its position where it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// `id`; also the `event-id` header. Stable across attempts and replicas, never random.
    pub id: Arc<str>,
    /// `source`.
    pub source: Arc<str>,
    /// `type`.
    pub kind: Arc<str>,
    /// `subject`, where the record has one.
    pub subject: Option<Arc<str>>,
    /// `time` as milliseconds since the Unix epoch; -1 when unknown.
    pub time_ms: i64,
    /// Extension attributes (and `dataschema`), already valid as `ce-<name>` headers.
    pub extensions: Vec<(HeaderName, HeaderValue)>,
}

/// One event, ready to be judged and sent. Shared by reference count: the call and a dead letter use the same bytes.
#[derive(Clone, Debug)]
pub struct Event {
    /// Identity of the delivery.
    pub position: Position,
    /// Identity of the business event, if it has one.
    pub business: Option<BusinessId>,
    /// Lane inside the shard, `None` when the event may run beside any other.
    pub lane: Option<Lane>,
    /// CloudEvents attributes.
    pub attributes: Attributes,
    /// `Content-Type` of the body, and the Kubeless `event-type`.
    pub content_type: HeaderValue,
    /// Headers of this event beyond the fixed ones: position headers of the source and `traceparent`/`tracestate`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Body; `None` for a tombstone (null data), which is sent as an empty body with `event-tombstone: true`.
    pub data: Option<Bytes>,
    /// Bytes this event holds in memory: body, key and headers. Counts against the memory budget.
    pub weight: usize,
    /// The request of a caller who waits for the function's answer; `None` for everything that comes from a broker.
    pub exchange: Option<Arc<exchange::Exchange>>,
}
