//! Event → request headers: the Kubeless five, CloudEvents, and that nothing from outside stands in for ours.

use http::header::{HeaderName, HeaderValue};
use kubeless::event::headers::{HeaderTemplate, rfc3339_ms};
use kubeless::event::{Attributes, Event, Position, cloudevents};
use proptest::prelude::*;
use std::sync::Arc;

fn event() -> Event {
    Event {
        position: Position {
            stream: Arc::from("orders"),
            shard: 3,
            sequence: 42,
            coordinates: None,
            epoch: 5,
            time_ms: 7,
        },
        business: None,
        lane: None,
        attributes: Attributes {
            id: Arc::from("A 1"),
            source: Arc::from("/shop"),
            kind: Arc::from("order.created"),
            subject: Some(Arc::from("Euro \u{20AC}")),
            time_ms: 1_795_425_330_250,
            extensions: vec![],
        },
        content_type: HeaderValue::from_static("application/json"),
        headers: vec![(HeaderName::from_static("event-partition"), HeaderValue::from(3))],
        data: None,
        weight: 0,
        exchange: None,
    }
}

fn template() -> HeaderTemplate {
    HeaderTemplate::new("kafkatriggers.kubeless.io", Some("orders"), "kubeless/0.1.0")
}

#[test]
fn the_whole_set() {
    let map = template().request_headers(&event());
    let mut got: Vec<_> = map.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
    got.sort();
    assert_eq!(
        got,
        [
            "ce-id: A%201",
            "ce-source: /shop",
            "ce-specversion: 1.0",
            "ce-subject: Euro%20%E2%82%AC",
            "ce-time: 2026-11-23T09:15:30.250Z",
            "ce-type: order.created",
            "content-type: application/json",
            "event-id: A%201",
            "event-namespace: kafkatriggers.kubeless.io",
            "event-partition: 3",
            "event-time: 2026-11-23T09:15:30.250Z",
            "event-tombstone: true",
            "event-topic: orders",
            "event-type: application/json",
            "user-agent: kubeless/0.1.0",
        ]
    );
}

#[test]
fn unknown_time_and_subject_are_absent_even_if_an_extension_has_the_name() {
    let mut event = event();
    event.attributes.time_ms = -1;
    event.attributes.subject = None;
    event.data = Some(bytes::Bytes::new());
    event.attributes.extensions = ["ce-time", "ce-subject"]
        .map(|n| (HeaderName::from_static(n), HeaderValue::from_static("x")))
        .to_vec();
    let map = template().request_headers(&event);
    for absent in ["event-time", "ce-time", "ce-subject", "event-tombstone"] {
        assert!(!map.contains_key(absent), "{absent}");
    }
}

/// Security row 6: whoever filled the event, these never come from outside.
#[test]
fn nothing_from_outside_overwrites_ours_or_is_hop_by_hop() {
    const FORBIDDEN: [&str; 24] = [
        "host",
        "authorization",
        "cookie",
        "connection",
        "content-length",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "idempotency-key",
        "proxy-authorization",
        "proxy-connection",
        "keep-alive",
        "event-id",
        "event-type",
        "event-time",
        "event-namespace",
        "ce-id",
        "ce-source",
        "content-type",
        "user-agent",
    ];
    let clean = template().request_headers(&event());
    for name in FORBIDDEN {
        let mut event = event();
        let bad = (HeaderName::from_static(name), HeaderValue::from_static("evil"));
        event.headers.push(bad.clone());
        event.attributes.extensions.push(bad);
        assert_eq!(template().request_headers(&event), clean, "{name}");
    }
}

#[test]
fn percent_encoding_is_the_http_bindings() {
    // The example of section 3.1.3.2.
    assert_eq!(cloudevents::header_value("Euro \u{20AC} \u{1F600}"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
    assert_eq!(cloudevents::header_value("a\"b%c~!"), "a%22b%25c~!");
    assert_eq!(cloudevents::header_value("\r\n\0"), "%0D%0A%00");
}

#[test]
fn time_has_bounds() {
    assert_eq!(rfc3339_ms(-1), None);
    assert_eq!(rfc3339_ms(i64::MAX), None);
    assert_eq!(rfc3339_ms(i64::MIN), None);
    assert_eq!(rfc3339_ms(0).as_ref(), Some(b"1970-01-01T00:00:00.000Z"));
    assert_eq!(rfc3339_ms(253_402_300_799_999).as_ref(), Some(b"9999-12-31T23:59:59.999Z"));
}

proptest! {
    #[test]
    fn time_is_what_jiff_says(ms in -62_167_219_200_000_i64..253_402_207_200_000) {
        prop_assume!(ms != -1);
        let expected = jiff::Timestamp::from_millisecond(ms).unwrap().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
        prop_assert_eq!(rfc3339_ms(ms).unwrap(), expected.as_bytes());
    }
}
