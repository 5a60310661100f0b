//! NATS message → [`Event`]: plain messages, CloudEvents in binary (`ce-*` headers) and structured mode. Must never panic
//! on what a server hands over, and never pass a message header on that is not on a list.
//!
//! Hot path: once a message. The body is shared with the client library, not copied.

use crate::{
    api::trigger::DedupKey,
    event::{
        Attributes, BusinessId, Event, Lane, Position,
        cloudevents::{Context, header_value},
        headers::{EVENT_SEQUENCE, EVENT_SUBJECT},
        message::{self, Limits, Rejection},
        record,
    },
};
use async_nats::HeaderMap;
use bytes::Bytes;
use http::header::HeaderValue;
use std::{borrow::Cow, sync::Arc};

/// `type` of a message that is no CloudEvent.
pub const MESSAGE_TYPE: &str = "io.kubeless.nats.message";
/// What CloudEvents attributes begin with in a NATS header.
const PREFIX: &str = "ce-";
/// The publisher's own id, as JetStream deduplicates by.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// A message as the client library shows it.
#[derive(Clone, Debug)]
pub struct Raw<'a> {
    /// Where it stands.
    pub position: Position,
    /// Id of a message that brings none.
    pub fallback_id: &'a str,
    /// The concrete subject.
    pub subject: &'a str,
    /// Headers.
    pub headers: Option<&'a HeaderMap>,
    /// Body.
    pub payload: &'a Bytes,
}

/// How the messages of one subscription become events.
#[derive(Clone, Debug)]
pub struct DecodeConfig {
    /// Whether events carry a business id at all.
    pub dedup: bool,
    /// Where the business id is; it wins over CloudEvents and `Nats-Msg-Id`.
    pub dedup_key: Option<DedupKey>,
    /// Whether all messages wait for one another.
    pub serial: bool,
    /// Limits.
    pub limits: Limits,
    /// CloudEvents `source` of messages that are none.
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
        Self { config, kind: Arc::from(MESSAGE_TYPE) }
    }

    /// The event of `raw`.
    ///
    /// # Errors
    /// A limit is broken or a CloudEvent is invalid.
    pub fn decode(&self, raw: Raw<'_>) -> Result<Event, Rejection> {
        let list = listed(raw.headers);
        let body = Some(&raw.payload[..]);
        let scan = message::scan(&self.config.limits, body, &list, PREFIX)?;
        let keep = |part: &[u8]| raw.payload.slice_ref(part);
        let message::Parts { context, data, content_type } =
            message::parts(&scan, body, &list, PREFIX, keep)?;
        let key = self.dedup_value(&list, data.as_deref());
        let message_id = last(&list, MESSAGE_ID).filter(|id| !id.is_empty());
        let business = match (&self.config.dedup_key, &key, &context, message_id) {
            _ if !self.config.dedup => None,
            (Some(_), key, ..) => key.as_deref().map(|key| BusinessId::of(&[key])),
            (None, _, Some(c), _) => Some(BusinessId::of(&[c.source.as_bytes(), c.id.as_bytes()])),
            (None, _, None, Some(id)) => Some(BusinessId::of(&[id])),
            (None, _, None, None) => None,
        };
        let mut headers = Vec::with_capacity(4);
        headers.push((EVENT_SUBJECT, header_value(raw.subject)));
        headers.push((EVENT_SEQUENCE, HeaderValue::from(raw.position.sequence)));
        message::trace(&scan, context.as_ref(), &mut headers);
        let weight = record::ENVELOPE + raw.payload.len() + raw.subject.len() + scan.bytes;
        let id = key.as_deref().or(message_id).and_then(record::readable).unwrap_or(raw.fallback_id);
        Ok(Event {
            attributes: self.attributes(context, id, &raw),
            position: raw.position,
            business,
            lane: self.config.serial.then_some(Lane(0)),
            headers,
            content_type,
            data,
            weight,
            exchange: None,
        })
    }

    /// Value of `dedup.key`; `None` when none is configured or the message has none.
    fn dedup_value<'a>(&self, headers: &message::Headers<'a>, data: Option<&[u8]>) -> Option<Cow<'a, [u8]>> {
        match self.config.dedup_key.as_ref()? {
            // A message has no key; the trigger's check says so.
            DedupKey::RecordKey => None,
            DedupKey::Header(name) => last(headers, name).map(Cow::Borrowed),
            DedupKey::JsonPointer(pointer) => record::at_pointer(data?, pointer).map(Cow::Owned),
        }
        .filter(|value| !value.is_empty())
    }

    fn attributes(&self, context: Option<Context<'_>>, id: &str, raw: &Raw<'_>) -> Attributes {
        let received_ms = raw.position.time_ms;
        match context {
            Some(context) => Attributes {
                id: Arc::from(&*context.id),
                source: Arc::from(&*context.source),
                kind: Arc::from(&*context.kind),
                subject: context.subject.as_deref().map(Arc::from),
                time_ms: context.time_ms.unwrap_or(received_ms),
                extensions: context.extensions,
            },
            None => Attributes {
                id: Arc::from(id),
                source: Arc::clone(&self.config.source),
                kind: Arc::clone(&self.kind),
                subject: Some(Arc::from(raw.subject)),
                time_ms: received_ms,
                extensions: Vec::new(),
            },
        }
    }
}

/// Headers in a fixed order: the library's map has none, and the same message must always give the same event.
pub fn listed(headers: Option<&HeaderMap>) -> Vec<(&str, Option<&[u8]>)> {
    let Some(headers) = headers else { return Vec::new() };
    let mut list: Vec<(&str, Option<&[u8]>)> = headers
        .iter()
        .flat_map(|(name, values)| {
            let name: &str = name.as_ref();
            values.iter().map(move |value| (name, Some(value.as_str().as_bytes())))
        })
        .collect();
    // Stable: values of one name keep their order.
    list.sort_by_key(|(name, _)| *name);
    list
}

fn last<'a>(headers: &message::Headers<'a>, name: &str) -> Option<&'a [u8]> {
    headers.iter().rev().find(|(held, _)| held.eq_ignore_ascii_case(name)).and_then(|(_, value)| *value)
}
