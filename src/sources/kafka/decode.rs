//! Kafka record → [`Event`]: plain records, CloudEvents in binary and in structured mode. Must never panic on what
//! a broker hands over, never need the Kafka client, and never pass a record header on that is not on a list.
//!
//! Hot path: once a record. Tombstone, empty, binary and oversized records each have a defined result: null data
//! stays `None`, empty data is empty, bytes are never interpreted, and what breaks a limit is a [`Rejection`].

use crate::event::cloudevents::Context;
use crate::event::headers::{EVENT_KEY, EVENT_OFFSET, EVENT_PARTITION, plain};
use crate::event::message::{self, Scan};
pub use crate::event::message::{Limits, Rejection};
use crate::event::{Attributes, BusinessId, Event, Lane, Position, record};
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// `type` of a record that is no CloudEvent.
pub const RECORD_TYPE: &str = "io.kubeless.kafka.record";
/// What CloudEvents attributes begin with in a Kafka header.
const PREFIX: &str = "ce_";

/// A record as the client library shows it, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Leader epoch, -1 when unknown.
    pub leader_epoch: i32,
    /// Record timestamp in milliseconds since the Unix epoch, -1 when there is none.
    pub timestamp_ms: i64,
    /// Key, `None` for a keyless record.
    pub key: Option<&'a [u8]>,
    /// Value, `None` for a tombstone.
    pub payload: Option<&'a [u8]>,
    /// Headers in the record's order; names may repeat, the last one counts.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Where `dedup.key` finds the business id of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DedupKey {
    /// Value of this record header.
    Header(String),
    /// Value at this JSON pointer (RFC 6901) of the data. Text counts without its quotes.
    JsonPointer(String),
    /// The record's key.
    RecordKey,
}

/// Which events wait for one another (rule 12 of the design).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// Those of one record key; keyless ones for nobody.
    #[default]
    Key,
    /// All of a partition.
    Partition,
    /// None.
    None,
}

/// How the records of one subscription become events.
#[derive(Clone, Debug)]
pub struct DecodeConfig {
    /// Topic, the stream of every [`Position`].
    pub topic: Arc<str>,
    /// Whether events carry a business id at all.
    pub dedup: bool,
    /// Where the business id is; it wins over CloudEvents `(source, id)`. `None`: CloudEvents or nothing.
    pub dedup_key: Option<DedupKey>,
    /// Lanes.
    pub ordering: Ordering,
    /// Limits.
    pub limits: Limits,
    /// CloudEvents `source` of records that are none, for example `/apis/v1/namespaces/ns/kafkatriggers/name#topic`.
    pub source: Arc<str>,
}

/// Decoder of one subscription.
#[derive(Clone, Debug)]
pub struct Decoder {
    config: DecodeConfig,
    kind: Arc<str>,
}

impl Decoder {
    /// A decoder for one subscription.
    pub fn new(config: DecodeConfig) -> Self {
        Self { config, kind: Arc::from(RECORD_TYPE) }
    }

    /// The event of `raw`. The same record always gives the same event.
    ///
    /// # Errors
    /// [`Rejection`] when a limit is broken or a CloudEvent is invalid.
    pub fn decode(&self, raw: RawRecord<'_>) -> Result<Event, Rejection> {
        let scan = message::scan(&self.config.limits, raw.payload, raw.headers, PREFIX)?;
        let message::Parts { context, data, content_type } =
            message::parts(&scan, raw.payload, raw.headers, PREFIX, Bytes::copy_from_slice)?;
        let key = self.dedup_value(&raw, data.as_deref());
        let business = match (&self.config.dedup_key, &key, &context) {
            _ if !self.config.dedup => None,
            (Some(_), key, _) => key.as_deref().map(|k| BusinessId::of(&[k])),
            (None, _, Some(c)) => Some(BusinessId::of(&[c.source.as_bytes(), c.id.as_bytes()])),
            (None, _, None) => None,
        };
        let body = data.as_ref().map_or(0, Bytes::len);
        Ok(Event {
            position: Position {
                stream: Arc::clone(&self.config.topic),
                shard: raw.partition,
                sequence: raw.offset,
                coordinates: None,
                epoch: raw.leader_epoch,
                time_ms: raw.timestamp_ms,
            },
            business,
            lane: self.lane(raw.key),
            headers: headers(&raw, &scan, context.as_ref()),
            attributes: self.attributes(&raw, context, key.as_deref()),
            content_type,
            data,
            weight: record::ENVELOPE + body + raw.key.map_or(0, <[u8]>::len) + scan.bytes,
            exchange: None,
        })
    }

    /// Value of `dedup.key`; `None` when none is configured or the record has none.
    fn dedup_value<'a>(&self, raw: &RawRecord<'a>, data: Option<&[u8]>) -> Option<Cow<'a, [u8]>> {
        match self.config.dedup_key.as_ref()? {
            DedupKey::RecordKey => raw.key.map(Cow::Borrowed),
            DedupKey::Header(name) => {
                raw.headers.iter().rev().find(|(n, _)| n == name).and_then(|(_, v)| *v).map(Cow::Borrowed)
            }
            DedupKey::JsonPointer(pointer) => record::at_pointer(data?, pointer).map(Cow::Owned),
        }
        .filter(|value| !value.is_empty())
    }

    fn lane(&self, key: Option<&[u8]>) -> Option<Lane> {
        match self.config.ordering {
            Ordering::Key => key.map(|k| Lane(xxh3_64(k))),
            Ordering::Partition => Some(Lane(0)),
            Ordering::None => None,
        }
    }

    fn attributes(
        &self,
        raw: &RawRecord<'_>,
        context: Option<Context<'_>>,
        key: Option<&[u8]>,
    ) -> Attributes {
        if let Some(context) = context {
            return Attributes {
                id: Arc::from(&*context.id),
                source: Arc::from(&*context.source),
                kind: Arc::from(&*context.kind),
                subject: context.subject.as_deref().map(Arc::from),
                time_ms: context.time_ms.unwrap_or(raw.timestamp_ms),
                extensions: context.extensions,
            };
        }
        Attributes {
            id: key.and_then(record::readable).map_or_else(|| self.position_id(raw), Arc::from),
            source: Arc::clone(&self.config.source),
            kind: Arc::clone(&self.kind),
            subject: None,
            time_ms: raw.timestamp_ms,
            extensions: Vec::new(),
        }
    }

    /// `<topic>/<partition>/<offset>`.
    fn position_id(&self, raw: &RawRecord<'_>) -> Arc<str> {
        let mut id = String::with_capacity(self.config.topic.len() + 32);
        // Writing to a String cannot fail.
        let _ = write!(id, "{}/{}/{}", self.config.topic, raw.partition, raw.offset);
        Arc::from(id)
    }
}

/// Position and trace context. A trace context of the record itself is nearer than the extension's.
fn headers(
    raw: &RawRecord<'_>,
    scan: &Scan<'_>,
    context: Option<&Context<'_>>,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::with_capacity(5);
    headers.push((EVENT_PARTITION, HeaderValue::from(raw.partition)));
    headers.push((EVENT_OFFSET, HeaderValue::from(raw.offset)));
    if let Some(key) = raw.key.filter(|k| (1..=record::MAX_ID).contains(&k.len())).and_then(plain) {
        headers.push((EVENT_KEY, key));
    }
    message::trace(scan, context, &mut headers);
    headers
}
