//! Request → [`Event`] with the key of its claim: plain requests and CloudEvents in binary and structured mode. Must never
//! pass a caller's header off as ours, and never make two ids of one event.

use super::options::{Options, size};
use crate::{
    api::trigger::DedupKey,
    dispatch::store::Digest,
    event::{
        Attributes, Event, Position,
        cloudevents::Context,
        exchange::{Exchange, IDEMPOTENCY_KEY},
        message::{self, Limits, Rejection},
        record,
    },
    sources::push::{
        binding::{MAX_HEADERS, PREFIX, decoded},
        offer::{Ask, Numbers},
    },
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_TYPE, HOST, HeaderName},
    request::Parts,
    uri::PathAndQuery,
};
use std::{borrow::Cow, net::SocketAddr, sync::Arc};

/// `type` of a request that is no CloudEvent.
pub const REQUEST_TYPE: &str = "io.kubeless.http.request";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// A request whose body was read.
#[derive(Debug)]
pub struct Raw<'a> {
    /// Head.
    pub head: &'a Parts,
    /// Path that is left for the function.
    pub rest: &'a str,
    /// Body.
    pub body: &'a Bytes,
    /// Who sent it.
    pub peer: SocketAddr,
    /// When, in milliseconds since the Unix epoch.
    pub time_ms: i64,
}

/// How the requests of one subscription become events.
#[derive(Debug)]
pub struct Decoder {
    /// Places of events.
    pub numbers: Arc<Numbers>,
    /// Name of the function.
    pub function: Arc<str>,
    /// CloudEvents `source` of requests that are none.
    pub source: Arc<str>,
    /// Whether ids count at all.
    pub dedup: bool,
    /// Where the id is; it wins over CloudEvents and `Idempotency-Key`.
    pub dedup_key: Option<DedupKey>,
    /// Limits.
    pub limits: Limits,
    /// Longest answer.
    pub max_answer_bytes: usize,
}

/// Limits of a request as one of a message.
pub fn limits(options: &Options) -> Limits {
    Limits {
        max_body_bytes: size(options.max_body_bytes),
        max_headers: MAX_HEADERS,
        max_header_bytes: size(options.max_header_bytes),
    }
}

impl Decoder {
    /// The event of a request.
    ///
    /// # Errors
    /// A limit is broken or a CloudEvent is invalid.
    pub fn decode(&self, raw: &Raw<'_>) -> Result<Ask, (Position, Rejection)> {
        let position = self.numbers.next_position(raw.time_ms);
        self.event(raw, position.clone()).map_err(|rejection| (position, rejection))
    }

    fn event(&self, raw: &Raw<'_>, position: Position) -> Result<Ask, Rejection> {
        let decoded = decoded(&raw.head.headers);
        let list: Vec<(&str, Option<&[u8]>)> =
            decoded.iter().map(|(name, value)| (*name, Some(&**value))).collect();
        let body = Some(&raw.body[..]);
        let scan = message::scan(&self.limits, body, &list, PREFIX)?;
        let keep = |part: &[u8]| raw.body.slice_ref(part);
        let message::Parts { context, data, content_type } =
            message::parts(&scan, body, &list, PREFIX, keep)?;
        // The binding has no null data: an empty body is empty.
        let data = data.unwrap_or_default();
        let name = self.name(&raw.head.headers, context.as_ref(), &data).filter(|_| self.dedup);
        let number = u64::try_from(position.sequence).unwrap_or(0);
        let fresh = context.is_none().then(|| fresh_id(raw.time_ms));
        let key = match &name {
            Some(name) => self.key(name),
            None => self.key(&Name::Fresh(self.numbers.owner, number)),
        };
        let id = match (&name, &fresh) {
            (Some(Name::Key(key)), Some(fresh)) => record::readable(key).unwrap_or(fresh).to_owned(),
            (_, fresh) => fresh.clone().unwrap_or_default(),
        };
        let named = name.is_some();
        drop(name);
        let mut headers = Vec::with_capacity(2);
        message::trace(&scan, context.as_ref(), &mut headers);
        let weight = record::ENVELOPE + raw.body.len() + scan.bytes;
        let event = Event {
            attributes: self.attributes(context, &id, raw.time_ms),
            position,
            business: None,
            lane: None,
            headers,
            content_type,
            data: Some(data),
            weight,
            exchange: Some(Arc::new(self.exchange(raw))),
        };
        Ok(Ask { event: Arc::new(event), key, content: content(raw), named, number })
    }

    /// What the caller calls the event.
    fn name<'a>(
        &self,
        headers: &'a HeaderMap,
        context: Option<&Context<'_>>,
        data: &[u8],
    ) -> Option<Name<'a>> {
        let header = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
        let key = match &self.dedup_key {
            None => {
                if let Some(context) = context {
                    return Some(Name::CloudEvent(context.source.to_string(), context.id.to_string()));
                }
                // A structured-field string has quotes; many callers leave them out.
                let bare = |value: &'a [u8]| value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\""));
                header(&IDEMPOTENCY_KEY).map(|value| Cow::Borrowed(bare(value).unwrap_or(value)))
            }
            // A request has no key; the trigger's check says so.
            Some(DedupKey::RecordKey) => None,
            Some(DedupKey::Header(name)) => headers.get(&**name).map(|v| Cow::Borrowed(v.as_bytes())),
            Some(DedupKey::JsonPointer(pointer)) => record::at_pointer(data, pointer).map(Cow::Owned),
        };
        key.filter(|key| !key.is_empty()).map(Name::Key)
    }

    fn key(&self, name: &Name<'_>) -> Digest {
        let (uid, function) = (self.numbers.uid.as_bytes(), self.function.as_bytes());
        match name {
            Name::CloudEvent(source, id) => {
                Digest::of(&[uid, function, b"event", source.as_bytes(), id.as_bytes()])
            }
            Name::Key(key) => Digest::of(&[uid, function, b"key", key]),
            Name::Fresh(owner, number) => {
                Digest::of(&[uid, function, b"fresh", &owner.to_le_bytes(), &number.to_le_bytes()])
            }
        }
    }

    fn attributes(&self, context: Option<Context<'_>>, id: &str, time_ms: i64) -> Attributes {
        match context {
            Some(context) => Attributes {
                id: Arc::from(&*context.id),
                source: Arc::from(&*context.source),
                kind: Arc::from(&*context.kind),
                subject: context.subject.as_deref().map(Arc::from),
                time_ms: context.time_ms.unwrap_or(time_ms),
                extensions: context.extensions,
            },
            None => Attributes {
                id: Arc::from(id),
                source: Arc::clone(&self.source),
                kind: Arc::from(REQUEST_TYPE),
                subject: None,
                time_ms,
                extensions: Vec::new(),
            },
        }
    }

    fn exchange(&self, raw: &Raw<'_>) -> Exchange {
        let mut headers = raw.head.headers.clone();
        let hops = headers.get_all(&FORWARDED_FOR).iter().filter_map(|hop| hop.to_str().ok());
        let hops: Vec<String> = hops.map(str::to_owned).chain([raw.peer.ip().to_string()]).collect();
        if let Ok(hops) = HeaderValue::from_str(&hops.join(", ")) {
            headers.insert(FORWARDED_FOR, hops);
        }
        let authority = raw.head.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
        if let Some(host) = authority.or_else(|| headers.get(HOST).cloned())
            && !headers.contains_key(&FORWARDED_HOST)
        {
            headers.insert(FORWARDED_HOST, host);
        }
        Exchange::new(raw.head.method.clone(), target(raw), headers, self.max_answer_bytes)
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self {
            numbers: Arc::new(Numbers::new("uid".into(), 7)),
            function: "f".into(),
            source: "/trigger".into(),
            dedup: true,
            dedup_key: None,
            limits: limits(&Options::default()),
            max_answer_bytes: 1024,
        }
    }
}

/// What an event is called.
enum Name<'a> {
    CloudEvent(String, String),
    Key(Cow<'a, [u8]>),
    Fresh(u64, u64),
}

/// Path and query for the function.
fn target(raw: &Raw<'_>) -> PathAndQuery {
    let query = raw.head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    // Both are parts of a valid target.
    format!("{}{query}", raw.rest).parse().unwrap_or_else(|_| PathAndQuery::from_static("/"))
}

fn content(raw: &Raw<'_>) -> Digest {
    let kind = raw.head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let target = target(raw);
    Digest::of(&[raw.head.method.as_str().as_bytes(), target.as_str().as_bytes(), kind, raw.body])
}

/// A UUID of version 7: in the order of time, and nobody else's.
fn fresh_id(time_ms: i64) -> String {
    let time = u128::try_from(time_ms).unwrap_or(0) & 0xFFFF_FFFF_FFFF;
    let random = fastrand::u128(..);
    let bits = (time << 80)
        | (0x7 << 76)
        | ((random >> 52) & (0xFFF << 64))
        | (0b10 << 62)
        | (random & 0x3FFF_FFFF_FFFF_FFFF);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn ask(decoder: &Decoder, headers: &[(&str, &str)], body: &'static str) -> Result<Ask, &'static str> {
        let mut request = Request::builder().method("PUT").uri("/orders/42?x=1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let body = Bytes::from_static(body.as_bytes());
        let peer = SocketAddr::from(([192, 0, 2, 1], 5));
        let raw = Raw { head: &head, rest: "/42", body: &body, peer, time_ms: 1_795_435_200_000 };
        decoder.decode(&raw).map_err(|(_, rejection)| rejection.reason)
    }

    const CE: [(&str, &str); 4] =
        [("ce-specversion", "1.0"), ("ce-id", "e%2D1"), ("ce-source", "/s"), ("ce-type", "t")];

    #[test]
    fn an_event_has_one_key_in_both_modes_of_cloudevents() {
        let decoder = Decoder::for_tests();
        let binary = ask(&decoder, &CE, "{}").expect("an event");
        let json = r#"{"specversion":"1.0","id":"e-1","source":"/s","type":"t","data":{}}"#;
        let mode = [("content-type", "application/cloudevents+json")];
        let structured = ask(&decoder, &mode, json).expect("an event");
        assert_eq!((binary.key, &*binary.event.attributes.id), (structured.key, "e-1"));
        assert!(binary.named && binary.number != structured.number);
        assert_eq!(structured.event.data.as_deref(), Some(&b"{}"[..]));
        let batch = [("content-type", "application/cloudevents-batch+json")];
        assert_eq!(ask(&decoder, &batch, "[]").err(), Some("ce_batch"));
    }

    #[test]
    fn the_idempotency_key_counts_with_or_without_quotes_and_a_cloudevent_before_it() {
        let decoder = Decoder::for_tests();
        let with = |value| ask(&decoder, &[("idempotency-key", value)], "a").expect("an event");
        assert_eq!(with("k-1").key, with("\"k-1\"").key);
        assert_ne!(with("k-1").key, with("k-2").key);
        assert_eq!(&*with("k-1").event.attributes.id, "k-1");
        let other = ask(&decoder, &[("idempotency-key", "k-1")], "b").expect("an event");
        assert_eq!(with("k-1").key, other.key);
        assert_ne!(with("k-1").content, other.content);
        let mut both = CE.to_vec();
        both.push(("idempotency-key", "k-1"));
        let both = ask(&decoder, &both, "a").expect("an event");
        assert_eq!(both.key, ask(&decoder, &CE, "a").expect("an event").key);
    }

    #[test]
    fn a_request_without_an_id_is_an_event_of_its_own_and_so_is_every_one_without_dedup() {
        let mut decoder = Decoder::for_tests();
        let (one, two) = (ask(&decoder, &[], "a").expect("one"), ask(&decoder, &[], "a").expect("two"));
        assert!(one.key != two.key && !one.named);
        let id = &one.event.attributes.id;
        assert_eq!((id.len(), &id[14..15]), (36, "7"));
        assert_ne!(one.event.attributes.id, two.event.attributes.id);
        decoder.dedup = false;
        assert!(!ask(&decoder, &CE, "a").expect("an event").named);
    }

    #[test]
    fn method_path_query_and_who_asked_go_on() {
        let decoder = Decoder::for_tests();
        let headers = [("host", "shop.example.com"), ("x-forwarded-for", "203.0.113.9")];
        let ask = ask(&decoder, &headers, "a").expect("an event");
        let exchange = ask.event.exchange.as_ref().expect("a request");
        assert_eq!((exchange.method().as_str(), exchange.path().as_str()), ("PUT", "/42?x=1"));
        let mut sent = HeaderMap::new();
        exchange.merge(&mut sent, false);
        assert_eq!(sent["x-forwarded-for"], "203.0.113.9, 192.0.2.1");
        assert_eq!(sent["x-forwarded-host"], "shop.example.com");
        assert!(!sent.contains_key("host"));
    }
}
