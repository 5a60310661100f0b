//! Kafka record → [`Event`]: plain records, CloudEvents in binary and in structured mode. Must never panic on what
//! a broker hands over, never need the Kafka client, and never pass a record header on that is not on a list.
//!
//! Hot path: once a record. Tombstone, empty, binary and oversized records each have a defined result: null data
//! stays `None`, empty data is empty, bytes are never interpreted, and what breaks a limit is a [`Rejection`].

use crate::event::cloudevents::{self, Collected, Context, Invalid};
use crate::event::headers::{
    EVENT_KEY, EVENT_OFFSET, EVENT_PARTITION, TRACEPARENT, TRACESTATE, plain, traceparent, tracestate,
};
use crate::event::{Attributes, BusinessId, Event, Lane, Position, record};
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// `type` of a record that is no CloudEvent.
pub const RECORD_TYPE: &str = "io.kubeless.kafka.record";
/// Longest content type, in bytes.
const MAX_CONTENT_TYPE: usize = 256;

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

/// What is refused before anything is allocated for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a record's value. Default 1 MiB.
    pub max_body_bytes: usize,
    /// Headers of a record. Default 64.
    pub max_headers: usize,
    /// Bytes of all header names and values. Default 8 KiB.
    pub max_header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_body_bytes: 1 << 20, max_headers: 64, max_header_bytes: 8 << 10 }
    }
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

/// A record that cannot become an event: the outcome `rejected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record rejected: {reason}")]
pub struct Rejection {
    /// One of [`Rejection::REASONS`]; fit for a metric label.
    pub reason: &'static str,
}

impl Rejection {
    /// Every reason there is.
    pub const REASONS: [&'static str; 10] = [
        "body_too_large",
        "too_many_headers",
        "headers_too_large",
        "content_type",
        "ce_missing_attribute",
        "ce_specversion",
        "ce_time",
        "ce_text",
        "ce_structure",
        "ce_batch",
    ];

    const fn new(reason: &'static str) -> Self {
        Self { reason }
    }
}

impl From<Invalid> for Rejection {
    fn from(invalid: Invalid) -> Self {
        Self::new(match invalid {
            Invalid::Missing => "ce_missing_attribute",
            Invalid::Version => "ce_specversion",
            Invalid::Time => "ce_time",
            Invalid::Text => "ce_text",
            Invalid::Structure => "ce_structure",
        })
    }
}

/// Decoder of one subscription.
#[derive(Clone, Debug)]
pub struct Decoder {
    config: DecodeConfig,
    kind: Arc<str>,
}

/// What one walk over the record headers finds.
#[derive(Default)]
struct Scan<'a> {
    content_type: Option<&'a [u8]>,
    traceparent: Option<&'a [u8]>,
    tracestate: Option<&'a [u8]>,
    /// Whether a header says that this is a CloudEvent in binary mode.
    binary: bool,
    /// Names and values, in bytes.
    bytes: usize,
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
        let scan = self.scan(&raw)?;
        let record_type = content_type(scan.content_type)?;
        let (context, data, content_type) = match scan.content_type {
            Some(mode) if starts_with(mode, b"application/cloudevents-batch") => {
                return Err(Rejection::new("ce_batch"));
            }
            Some(mode) if starts_with(mode, b"application/cloudevents") => {
                let (collected, data) = cloudevents::structured(raw.payload.unwrap_or_default())?;
                let context = collected.finish()?;
                let inner = content_type(context.content_type.as_deref().map(str::as_bytes))?;
                (Some(context), data, inner)
            }
            _ => {
                let context = if scan.binary { Some(binary(raw.headers)?) } else { None };
                (context, raw.payload.map(Bytes::copy_from_slice), record_type)
            }
        };
        let content_type = content_type.unwrap_or_else(|| record::body_type(data.as_deref()));
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
        })
    }

    /// Limits first, then one walk over the headers.
    fn scan<'a>(&self, raw: &RawRecord<'a>) -> Result<Scan<'a>, Rejection> {
        let limits = &self.config.limits;
        if raw.payload.map_or(0, <[u8]>::len) > limits.max_body_bytes {
            return Err(Rejection::new("body_too_large"));
        }
        if raw.headers.len() > limits.max_headers {
            return Err(Rejection::new("too_many_headers"));
        }
        let mut scan = Scan::default();
        for &(name, value) in raw.headers {
            scan.bytes = scan.bytes.saturating_add(name.len()).saturating_add(value.map_or(0, <[u8]>::len));
            if name.eq_ignore_ascii_case("content-type") {
                scan.content_type = value;
            } else if name.eq_ignore_ascii_case("traceparent") {
                scan.traceparent = value;
            } else if name.eq_ignore_ascii_case("tracestate") {
                scan.tracestate = value;
            } else {
                scan.binary |= matches!(name, "ce_specversion" | "ce_id" | "ce_source" | "ce_type");
            }
        }
        if scan.bytes > limits.max_header_bytes { Err(Rejection::new("headers_too_large")) } else { Ok(scan) }
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

/// Context of a CloudEvent in binary mode: `ce_*` headers, text in UTF-8.
fn binary<'a>(headers: &[(&'a str, Option<&'a [u8]>)]) -> Result<Context<'a>, Rejection> {
    let mut collected = Collected::default();
    for &(name, value) in headers {
        if let (Some(name), Some(value)) = (name.strip_prefix("ce_"), value) {
            // The data's type is the content-type header in this mode.
            if name != "datacontenttype" {
                let text = std::str::from_utf8(value).map_err(|_| Invalid::Text)?;
                collected.set(name, Cow::Borrowed(text))?;
            }
        }
    }
    Ok(collected.finish()?)
}

/// Media types are compared without case.
fn starts_with(value: &[u8], prefix: &[u8]) -> bool {
    value.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// The content type a record names, if it names one.
fn content_type(value: Option<&[u8]>) -> Result<Option<HeaderValue>, Rejection> {
    let Some(value) = value.filter(|v| !v.is_empty()) else { return Ok(None) };
    if value == b"application/json" {
        return Ok(Some(record::JSON));
    }
    let header = if value.len() <= MAX_CONTENT_TYPE { plain(value) } else { None };
    header.map(Some).ok_or(Rejection::new("content_type"))
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
    let extension = |name: &str| {
        let found = context?.extensions.iter().find(|(n, _)| n.as_str() == name);
        found.map(|(_, value)| value.as_bytes())
    };
    let own = scan.traceparent.and_then(traceparent);
    let (parent, state) = match own {
        Some(parent) => (Some(parent), scan.tracestate),
        None => (extension("ce-traceparent").and_then(traceparent), extension("ce-tracestate")),
    };
    if let Some(parent) = parent {
        headers.push((TRACEPARENT, parent));
        if let Some(state) = state.and_then(tracestate) {
            headers.push((TRACESTATE, state));
        }
    }
    headers
}
