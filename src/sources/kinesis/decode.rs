//! Kinesis record → [`Event`]: plain records and CloudEvents in structured mode. Must never panic on what the service hands
//! over, and never need its client.
//!
//! Hot path: once a record. A record has no headers: a CloudEvent is known by its body alone, a JSON object with
//! `specversion` and every required attribute; anything less is data.

use super::place::Place;
use crate::{
    api::trigger::{DedupKey, Ordering},
    event::{
        Attributes, BusinessId, Event, Lane, Position,
        cloudevents::{self, Context},
        headers::{
            EVENT_KEY, EVENT_PARTITION, EVENT_SEQUENCE, TRACEPARENT, TRACESTATE, plain, traceparent,
            tracestate,
        },
        record,
    },
};
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// `type` of a record that is no CloudEvent.
pub const RECORD_TYPE: &str = "io.kubeless.kinesis.record";
/// Reason of the outcome `rejected`.
pub const TOO_LARGE: &str = "body_too_large";

/// A record, or a part of an aggregated one.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Shard, as the service names it.
    pub shard: Arc<str>,
    /// The shard's number in this thread.
    pub shard_number: i32,
    /// The record's number in this thread.
    pub number: i64,
    /// Where it stands.
    pub place: Place,
    /// Partition key, its own where it is a part.
    pub key: String,
    /// Data.
    pub data: Bytes,
    /// When it arrived (Unix ms), -1 if unknown.
    pub ms: i64,
}

/// How the records of one subscription become events.
#[derive(Clone, Debug)]
pub struct DecodeConfig {
    /// Stream.
    pub stream: Arc<str>,
    /// Whether events carry a business id at all.
    pub dedup: bool,
    /// Where the business id is; it wins over CloudEvents `(source, id)`. `None`: CloudEvents or nothing.
    pub dedup_key: Option<DedupKey>,
    /// Lanes.
    pub ordering: Ordering,
    /// Largest body.
    pub max_body_bytes: usize,
    /// CloudEvents `source` of records that are none.
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

    /// Where `raw` stands, with its true coordinates.
    pub fn position(&self, raw: &Raw) -> Position {
        Position {
            stream: Arc::clone(&self.config.stream),
            shard: raw.shard_number,
            sequence: raw.number,
            coordinates: Some(coordinates(&raw.shard, &raw.place)),
            epoch: -1,
            time_ms: raw.ms,
        }
    }

    /// The event of `raw`. The same record always gives the same event, but for its numbers of this thread.
    ///
    /// # Errors
    /// The reason for the outcome `rejected`.
    pub fn decode(&self, raw: &Raw) -> Result<Event, &'static str> {
        if raw.data.len() > self.config.max_body_bytes {
            return Err(TOO_LARGE);
        }
        let position = self.position(raw);
        let body = raw.data.clone();
        let context = structured(&body);
        let (context, data) = match context {
            Some((context, data)) => (Some(context), data),
            None => (None, Some(raw.data.clone())),
        };
        let named = context.as_ref().and_then(|c| c.content_type.as_deref());
        let content_type =
            named.and_then(|t| plain(t.as_bytes())).unwrap_or_else(|| record::body_type(data.as_deref()));
        let key = self.dedup_value(raw, data.as_deref());
        let business = match (&self.config.dedup_key, &key, &context) {
            _ if !self.config.dedup => None,
            (Some(_), key, _) => key.as_deref().map(|k| BusinessId::of(&[k])),
            (None, _, Some(c)) => Some(BusinessId::of(&[c.source.as_bytes(), c.id.as_bytes()])),
            (None, _, None) => None,
        };
        let weight = record::ENVELOPE + raw.data.len() + raw.key.len();
        Ok(Event {
            business,
            lane: self.lane(&raw.key),
            headers: headers(raw, context.as_ref()),
            attributes: self.attributes(&position, context, key.as_deref()),
            position,
            content_type,
            data,
            weight,
            exchange: None,
        })
    }

    fn dedup_value(&self, raw: &Raw, data: Option<&[u8]>) -> Option<Vec<u8>> {
        match self.config.dedup_key.as_ref()? {
            DedupKey::RecordKey => Some(raw.key.clone().into_bytes()),
            DedupKey::JsonPointer(pointer) => record::at_pointer(data?, pointer),
            // A record has none; the trigger's check says so.
            DedupKey::Header(_) => None,
        }
        .filter(|value| !value.is_empty())
    }

    fn lane(&self, key: &str) -> Option<Lane> {
        match self.config.ordering {
            Ordering::Key => Some(Lane(xxh3_64(key.as_bytes()))),
            Ordering::Partition => Some(Lane(0)),
            Ordering::None => None,
        }
    }

    fn attributes(
        &self,
        position: &Position,
        context: Option<Context<'_>>,
        key: Option<&[u8]>,
    ) -> Attributes {
        if let Some(context) = context {
            return Attributes {
                id: Arc::from(&*context.id),
                source: Arc::from(&*context.source),
                kind: Arc::from(&*context.kind),
                subject: context.subject.as_deref().map(Arc::from),
                time_ms: context.time_ms.unwrap_or(position.time_ms),
                extensions: context.extensions,
            };
        }
        Attributes {
            id: key.and_then(record::readable).map_or_else(|| Arc::from(position.to_string()), Arc::from),
            source: Arc::clone(&self.config.source),
            kind: Arc::clone(&self.kind),
            subject: None,
            time_ms: position.time_ms,
            extensions: Vec::new(),
        }
    }
}

/// `<shard>/<sequence>[/<part>]`.
pub fn coordinates(shard: &str, place: &Place) -> Arc<str> {
    Arc::from(format!("{shard}/{place}"))
}

/// A whole CloudEvent, or nothing.
fn structured(body: &Bytes) -> Option<(Context<'_>, Option<Bytes>)> {
    const MARK: &[u8] = b"\"specversion\"";
    let json = body.trim_ascii_start().first() == Some(&b'{');
    if !json || !body.windows(MARK.len()).any(|window| window == MARK) {
        return None;
    }
    let (collected, data) = cloudevents::structured(body).ok()?;
    Some((collected.finish().ok()?, data))
}

fn headers(raw: &Raw, context: Option<&Context<'_>>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::with_capacity(5);
    let mut set = |name, value: Option<HeaderValue>| headers.extend(value.map(|value| (name, value)));
    set(EVENT_PARTITION, plain(raw.shard.as_bytes()));
    set(EVENT_SEQUENCE, plain(raw.place.to_string().as_bytes()));
    let fits = (1..=record::MAX_ID).contains(&raw.key.len());
    set(EVENT_KEY, plain(raw.key.as_bytes()).filter(|_| fits));
    let extension = |name: &str| {
        let found = context?.extensions.iter().find(|(n, _)| n.as_str() == name);
        found.map(|(_, value)| value.as_bytes())
    };
    if let Some(parent) = extension("ce-traceparent").and_then(traceparent) {
        set(TRACEPARENT, Some(parent));
        set(TRACESTATE, extension("ce-tracestate").and_then(tracestate));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder(dedup_key: Option<DedupKey>) -> Decoder {
        Decoder::new(DecodeConfig {
            stream: "orders".into(),
            dedup: true,
            dedup_key,
            ordering: Ordering::Key,
            max_body_bytes: 400,
            source: "/here".into(),
        })
    }

    fn raw(data: &str) -> Raw {
        Raw {
            shard: "shardId-000000000001".into(),
            shard_number: 1,
            number: 9,
            place: "495903382714902566085596925383/2".parse().unwrap(),
            key: "k".into(),
            data: Bytes::copy_from_slice(data.as_bytes()),
            ms: 17,
        }
    }

    #[test]
    fn a_plain_record_is_named_by_its_true_coordinates() {
        let event = decoder(None).decode(&raw("{\"a\":1}")).unwrap();
        assert_eq!(&*event.attributes.id, "orders/shardId-000000000001/495903382714902566085596925383/2");
        assert_eq!(event.content_type, record::JSON);
        assert_eq!((event.business, event.attributes.time_ms), (None, 17));
        assert_eq!(event.lane, decoder(None).decode(&raw("")).unwrap().lane, "one key, one lane");
        let names: Vec<&str> = event.headers.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["event-partition", "event-sequence", "event-key"]);
    }

    #[test]
    fn a_cloud_event_is_known_by_its_body_and_half_of_one_is_data() {
        let whole = r#" {"specversion":"1.0","id":"i","source":"s","type":"t","data":{"b":2}}"#;
        let event = decoder(None).decode(&raw(whole)).unwrap();
        assert_eq!((&*event.attributes.id, event.data.as_deref()), ("i", Some(&b"{\"b\":2}"[..])));
        assert_eq!(event.business, Some(BusinessId::of(&[b"s", b"i"])));
        let half = r#"{"specversion":"1.0","id":"i"}"#;
        let event = decoder(None).decode(&raw(half)).unwrap();
        assert_eq!((event.business, event.data.as_deref()), (None, Some(half.as_bytes())));
    }

    #[test]
    fn keys_and_limits() {
        let pointer = DedupKey::JsonPointer("/id".into());
        let event = decoder(Some(pointer.clone())).decode(&raw("{\"id\":\"x7\"}")).unwrap();
        assert_eq!((&*event.attributes.id, event.business), ("x7", Some(BusinessId::of(&[b"x7"]))));
        assert_eq!(decoder(Some(pointer)).decode(&raw("{}")).unwrap().business, None);
        assert_eq!(&*decoder(Some(DedupKey::RecordKey)).decode(&raw("")).unwrap().attributes.id, "k");
        assert_eq!(decoder(None).decode(&raw(&"x".repeat(401))).unwrap_err(), TOO_LARGE);
    }
}
