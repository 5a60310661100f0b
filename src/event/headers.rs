//! Event → request headers: the Kubeless five, position, CloudEvents `ce-*`, trace context. Must never let a header
//! from a broker overwrite ours or be hop-by-hop: names from outside pass an allow-list here, whoever decoded them.
//!
//! Hot path: once an event. Allocates the map, the id, the time and the CloudEvents values, nothing else.

use super::{Event, cloudevents};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method};

/// `event-id`: stable across attempts and replicas.
pub const EVENT_ID: HeaderName = HeaderName::from_static("event-id");
/// `event-type`: the content type, as Kubeless had it.
pub const EVENT_TYPE: HeaderName = HeaderName::from_static("event-type");
/// `event-time`: the event's own time, RFC 3339 in UTC; absent when unknown.
pub const EVENT_TIME: HeaderName = HeaderName::from_static("event-time");
/// `event-namespace`: the emitter, for example `kafkatriggers.kubeless.io`.
pub const EVENT_NAMESPACE: HeaderName = HeaderName::from_static("event-namespace");
/// `event-topic`: Kafka only.
pub const EVENT_TOPIC: HeaderName = HeaderName::from_static("event-topic");
/// `event-tombstone: true`: the record's data is null, not empty.
pub const EVENT_TOMBSTONE: HeaderName = HeaderName::from_static("event-tombstone");
/// `event-partition`: position in the source.
pub const EVENT_PARTITION: HeaderName = HeaderName::from_static("event-partition");
/// `event-offset`: position in the source.
pub const EVENT_OFFSET: HeaderName = HeaderName::from_static("event-offset");
/// `event-key`: the record's key, where a header can carry it as it is.
pub const EVENT_KEY: HeaderName = HeaderName::from_static("event-key");
/// `event-subject`: position in a subject-based source.
pub const EVENT_SUBJECT: HeaderName = HeaderName::from_static("event-subject");
/// `event-sequence`: position in a sequence-based source.
pub const EVENT_SEQUENCE: HeaderName = HeaderName::from_static("event-sequence");
/// W3C trace context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// W3C trace context, vendors' part.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const CE_SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");
const CE_ID: HeaderName = HeaderName::from_static("ce-id");
const CE_SOURCE: HeaderName = HeaderName::from_static("ce-source");
const CE_TYPE: HeaderName = HeaderName::from_static("ce-type");
const CE_TIME: HeaderName = HeaderName::from_static("ce-time");
const CE_SUBJECT: HeaderName = HeaderName::from_static("ce-subject");

/// The only names beside `ce-*` that an event itself may bring (security row 6). A list of what may pass, since a
/// list of what may not is never complete.
const FROM_EVENT: [HeaderName; 7] =
    [EVENT_PARTITION, EVENT_OFFSET, EVENT_KEY, EVENT_SUBJECT, EVENT_SEQUENCE, TRACEPARENT, TRACESTATE];
/// Longest `tracestate` passed on, as W3C asks at least.
const MAX_TRACESTATE: usize = 512;
/// Milliseconds of 0000-01-01 and of 10000-01-01: RFC 3339 has four digits for the year.
const RFC3339_RANGE: std::ops::Range<i64> = -62_167_219_200_000..253_402_300_800_000;

/// Headers that are the same for every event of a subscription, built once.
#[derive(Clone, Debug, Default)]
pub struct HeaderTemplate {
    fixed: Vec<(HeaderName, HeaderValue)>,
    bodiless: bool,
}

impl HeaderTemplate {
    /// `event_namespace` is the emitter, `event_topic` the topic where the source has one. Values that no header
    /// can carry are percent-encoded.
    pub fn new(event_namespace: &str, event_topic: Option<&str>, user_agent: &str) -> Self {
        let mut fixed = vec![
            (CE_SPECVERSION, HeaderValue::from_static("1.0")),
            (EVENT_NAMESPACE, cloudevents::header_value(event_namespace)),
            (
                USER_AGENT,
                HeaderValue::from_str(user_agent).unwrap_or_else(|_| cloudevents::header_value(user_agent)),
            ),
        ];
        if let Some(topic) = event_topic {
            fixed.push((EVENT_TOPIC, cloudevents::header_value(topic)));
        }
        Self { fixed, bodiless: false }
    }

    /// The same for calls without a body: GET, as Kubeless calls by the clock where a trigger has no payload.
    #[must_use]
    pub fn without_body(self) -> Self {
        Self { bodiless: true, ..self }
    }

    /// The method of the request.
    pub fn method(&self) -> Method {
        if self.bodiless { Method::GET } else { Method::POST }
    }

    /// Every header of the request but `Host` and `Content-Length`.
    pub fn request_headers(&self, event: &Event) -> HeaderMap {
        let attributes = &event.attributes;
        let mut map = HeaderMap::with_capacity(16 + event.headers.len() + attributes.extensions.len());
        // What comes from outside goes first: ours, inserted later, win whatever it is called.
        for (name, value) in &attributes.extensions {
            if name.as_str().starts_with("ce-") {
                map.insert(name, value.clone());
            }
        }
        for (name, value) in &event.headers {
            if FROM_EVENT.contains(name) {
                map.insert(name, value.clone());
            }
        }
        for (name, value) in &self.fixed {
            map.insert(name, value.clone());
        }
        let id = cloudevents::header_value(&attributes.id);
        map.insert(EVENT_ID, id.clone());
        map.insert(CE_ID, id);
        map.insert(CE_SOURCE, cloudevents::header_value(&attributes.source));
        map.insert(CE_TYPE, cloudevents::header_value(&attributes.kind));
        set(&mut map, CE_SUBJECT, attributes.subject.as_deref().map(cloudevents::header_value));
        let time = rfc3339_ms(attributes.time_ms).and_then(|t| HeaderValue::from_bytes(&t).ok());
        set(&mut map, EVENT_TIME, time.clone());
        set(&mut map, CE_TIME, time);
        map.insert(CONTENT_TYPE, event.content_type.clone());
        map.insert(EVENT_TYPE, event.content_type.clone());
        if event.data.is_none() {
            map.insert(EVENT_TOMBSTONE, HeaderValue::from_static("true"));
        }
        map
    }
}

/// Ours or nothing: an extension of the same name never stands in for an attribute that is absent.
fn set(map: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => {
            map.insert(name, value);
        }
        None => {
            map.remove(name);
        }
    }
}

/// `2026-11-23T10:15:30.250Z`; `None` when `ms` is negative unknown (-1) or has no four-digit year.
pub fn rfc3339_ms(ms: i64) -> Option<[u8; 24]> {
    if ms == -1 || !RFC3339_RANGE.contains(&ms) {
        return None;
    }
    let (days, in_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Days to a civil date, with years that begin in March so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], in_day / 3_600_000);
    digits(&mut text[14..16], in_day / 60_000 % 60);
    digits(&mut text[17..19], in_day / 1000 % 60);
    digits(&mut text[20..23], in_day % 1000);
    Some(text)
}

fn digits(out: &mut [u8], mut value: i64) {
    for place in out.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// A `traceparent` worth passing on: W3C form, lower-case hex, neither id all zero, version not `ff`.
pub fn traceparent(value: &[u8]) -> Option<HeaderValue> {
    let hex = |range: std::ops::Range<usize>| {
        value[range].iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
    };
    let zero = |range: std::ops::Range<usize>| value[range].iter().all(|b| *b == b'0');
    let longer_is_newer =
        value.len() == 55 || (value.len() > 55 && &value[..2] != b"00" && value[55] == b'-');
    if value.len() < 55 || value.len() > 256 || !longer_is_newer {
        return None;
    }
    let dashes = value[2] == b'-' && value[35] == b'-' && value[52] == b'-';
    let fields = hex(0..2) && hex(3..35) && hex(36..52) && hex(53..55);
    if !dashes || !fields || zero(3..35) || zero(36..52) || &value[..2] == b"ff" {
        return None;
    }
    plain(value)
}

/// A `tracestate` worth passing on: printable and bounded. Only sent beside a [`traceparent`].
pub fn tracestate(value: &[u8]) -> Option<HeaderValue> {
    if value.is_empty() || value.len() > MAX_TRACESTATE { None } else { plain(value) }
}

/// `value` as it is where a header can carry it: printable ASCII without space at either end.
pub fn plain(value: &[u8]) -> Option<HeaderValue> {
    let printable = value.iter().all(|b| (0x20..=0x7e).contains(b));
    let trimmed = value.first() != Some(&b' ') && value.last() != Some(&b' ');
    if printable && trimmed { HeaderValue::from_bytes(value).ok() } else { None }
}
