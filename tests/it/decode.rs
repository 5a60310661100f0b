//! Kafka record → event: CloudEvents in both modes, identity, limits, and what must not get through.

use kubeless::event::{BusinessId, Event};
use kubeless::sources::kafka::decode::{
    DecodeConfig, Decoder, DedupKey, Limits, Ordering, RECORD_TYPE, RawRecord, Rejection,
};
use std::sync::Arc;

type Headers<'a> = &'a [(&'a str, Option<&'a [u8]>)];

fn config() -> DecodeConfig {
    DecodeConfig {
        topic: Arc::from("orders"),
        dedup: true,
        dedup_key: None,
        ordering: Ordering::Key,
        limits: Limits::default(),
        source: Arc::from("/apis/v1/namespaces/shop/kafkatriggers/t#orders"),
    }
}

fn raw<'a>(payload: Option<&'a [u8]>, headers: Headers<'a>) -> RawRecord<'a> {
    RawRecord {
        partition: 3,
        offset: 42,
        leader_epoch: 5,
        timestamp_ms: 1_790_000_000_123,
        key: Some(b"k1"),
        payload,
        headers,
    }
}

fn decode(payload: Option<&[u8]>, headers: Headers<'_>) -> Result<Event, Rejection> {
    Decoder::new(config()).decode(raw(payload, headers))
}

fn with_key(key: DedupKey, payload: &[u8], headers: Headers<'_>) -> Event {
    Decoder::new(DecodeConfig { dedup_key: Some(key), ..config() })
        .decode(raw(Some(payload), headers))
        .expect("a valid record")
}

fn header<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    event.headers.iter().find(|(n, _)| n.as_str() == name).map(|(_, v)| v.to_str().expect("visible ASCII"))
}

const CE: [(&str, Option<&[u8]>); 4] = [
    ("ce_specversion", Some(b"1.0")),
    ("ce_id", Some(b"A-1")),
    ("ce_source", Some(b"/shop")),
    ("ce_type", Some(b"order.created")),
];

#[test]
fn a_plain_record_gets_its_identity_from_its_position() {
    let event = decode(Some(b"{\"a\":1}"), &[("x-secret", Some(b"no"))]).unwrap();
    assert_eq!(&*event.attributes.id, "orders/3/42");
    assert_eq!(&*event.attributes.kind, RECORD_TYPE);
    assert_eq!(&*event.attributes.source, "/apis/v1/namespaces/shop/kafkatriggers/t#orders");
    assert_eq!(event.attributes.time_ms, 1_790_000_000_123);
    assert_eq!((event.position.shard, event.position.sequence, event.position.epoch), (3, 42, 5));
    assert_eq!(event.business, None);
    assert_eq!(event.content_type, "application/json");
    assert_eq!(header(&event, "event-key"), Some("k1"));
    assert_eq!(event.headers.len(), 3, "no record header is passed on: {:?}", event.headers);
}

#[test]
fn content_type_is_what_kubeless_made_of_it() {
    for (body, expected) in [
        ("{\"a\":{\"b\":[1,2]}}", "application/json"),
        (" null ", "application/json"),
        ("{}", "application/json"),
        ("[1]", "application/x-www-form-urlencoded"),
        ("17", "application/x-www-form-urlencoded"),
        ("{\"a\":", "application/x-www-form-urlencoded"),
        ("{} x", "application/x-www-form-urlencoded"),
        ("", "application/x-www-form-urlencoded"),
        ("hello", "application/x-www-form-urlencoded"),
    ] {
        assert_eq!(decode(Some(body.as_bytes()), &[]).unwrap().content_type, expected, "{body}");
    }
    let named = decode(Some(b"{}"), &[("Content-Type", Some(b"text/plain; charset=utf-8"))]).unwrap();
    assert_eq!(named.content_type, "text/plain; charset=utf-8");
}

#[test]
fn tombstone_empty_and_binary_are_kept_apart() {
    assert_eq!(decode(None, &[]).unwrap().data, None);
    assert_eq!(decode(Some(b""), &[]).unwrap().data.as_deref(), Some(&b""[..]));
    let bytes = [0_u8, 255, 13, 10, 128];
    assert_eq!(decode(Some(&bytes), &[]).unwrap().data.as_deref(), Some(&bytes[..]));
}

#[test]
fn limits_reject_before_anything_else() {
    let reason = |payload: &[u8], headers: Headers<'_>| decode(Some(payload), headers).unwrap_err().reason;
    assert_eq!(reason(&vec![0; (1 << 20) + 1], &[]), "body_too_large");
    assert!(decode(Some(&vec![0; 1 << 20]), &[]).is_ok());
    assert_eq!(reason(b"", &[("h", None); 65]), "too_many_headers");
    assert_eq!(reason(b"", &[("h", Some(&[b'x'; 8192]))]), "headers_too_large");
    assert_eq!(reason(b"", &[("content-type", Some(b"a/b\r\nHost: evil"))]), "content_type");
}

#[test]
fn binary_cloud_event() {
    let mut headers = CE.to_vec();
    headers.extend_from_slice(&[
        ("ce_time", Some(b"2026-11-23T10:15:30.25+01:00".as_slice())),
        ("ce_subject", Some("Bestellung ä".as_bytes())),
        ("ce_tenant", Some(b"a b")),
        ("ce_Bad-Name", Some(b"x")),
        ("ce_abcdefghijklmnopqrstu", Some(b"21 letters")),
        ("content-type", Some(b"application/json")),
    ]);
    let event = decode(Some(b"[1]"), &headers).unwrap();
    assert_eq!((&*event.attributes.id, &*event.attributes.source), ("A-1", "/shop"));
    assert_eq!(event.attributes.time_ms, 1_795_425_330_250);
    assert_eq!(event.attributes.subject.as_deref(), Some("Bestellung ä"));
    assert_eq!(event.business, Some(BusinessId::of(&[b"/shop", b"A-1"])));
    let names: Vec<_> =
        event.attributes.extensions.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
    assert_eq!(names, [("ce-tenant", "a%20b")]);
    assert_eq!(event.content_type, "application/json");
}

#[test]
fn structured_cloud_event_is_unwrapped() {
    let kind: [(&str, Option<&[u8]>); 1] =
        [("content-type", Some(b"application/CloudEvents+json; charset=utf-8"))];
    let wrap = |rest: &str| {
        format!("{{\"specversion\":\"1.0\",\"id\":\"A-1\",\"source\":\"/shop\",\"type\":\"t\",{rest}}}")
    };
    for (rest, data, content_type) in [
        ("\"data\":{\"n\": 1.0}", Some("{\"n\": 1.0}"), "application/json"),
        ("\"datacontenttype\":\"text/plain\",\"data\":\"a\\nb\"", Some("a\nb"), "text/plain"),
        ("\"datacontenttype\":\"a/b\",\"data_base64\":\"aGk=\"", Some("hi"), "a/b"),
        ("\"data\":null", None, "application/x-www-form-urlencoded"),
        ("\"tenant\":7", None, "application/x-www-form-urlencoded"),
    ] {
        let event = decode(Some(wrap(rest).as_bytes()), &kind).unwrap();
        assert_eq!(event.data.as_deref(), data.map(str::as_bytes), "{rest}");
        assert_eq!(event.content_type, content_type, "{rest}");
        assert_eq!(event.business, Some(BusinessId::of(&[b"/shop", b"A-1"])), "same id in both modes");
    }
    for rest in ["\"data\":1,\"data_base64\":\"aGk=\"", "\"data_base64\":\"?\"", "\"time\":[]"] {
        assert_eq!(decode(Some(wrap(rest).as_bytes()), &kind).unwrap_err().reason, "ce_structure", "{rest}");
    }
    for body in ["", "[]", "{", "{\"specversion\":\"1.0\""] {
        assert_eq!(decode(Some(body.as_bytes()), &kind).unwrap_err().reason, "ce_structure", "{body}");
    }
    let batch = decode(Some(b"[]"), &[("content-type", Some(b"application/cloudevents-batch+json"))]);
    assert_eq!(batch.unwrap_err().reason, "ce_batch");
}

#[test]
fn invalid_cloud_events_are_rejected() {
    for missing in 0..CE.len() {
        let rest: Vec<_> =
            CE.iter().copied().enumerate().filter(|(i, _)| *i != missing).map(|(_, h)| h).collect();
        assert_eq!(decode(Some(b""), &rest).unwrap_err().reason, "ce_missing_attribute");
    }
    let with = |extra: (&'static str, Option<&'static [u8]>)| {
        let mut headers = CE.to_vec();
        headers.push(extra);
        decode(Some(b""), &headers).map(|_| ()).map_err(|r| r.reason)
    };
    assert_eq!(with(("ce_specversion", Some(b"0.3"))), Err("ce_specversion"));
    assert_eq!(with(("ce_id", Some(b""))), Err("ce_missing_attribute"));
    assert_eq!(with(("ce_id", Some(b"\xff"))), Err("ce_text"));
    assert_eq!(with(("ce_subject", Some(b"a\r\nb"))), Err("ce_text"));
    assert_eq!(with(("ce_time", Some(b"yesterday"))), Err("ce_time"));
    assert_eq!(with(("ce_subject", None)), Ok(()));
}

#[test]
fn dedup_key_wins_over_cloud_events_and_names_the_event() {
    let event = with_key(DedupKey::JsonPointer("/order/id".into()), b"{\"order\":{\"id\":\"B-7\"}}", &[]);
    assert_eq!(event.business, Some(BusinessId::of(&[b"B-7"])));
    assert_eq!(&*event.attributes.id, "B-7");
    let event = with_key(DedupKey::Header("id".into()), b"", &[("id", Some(b"x")), ("id", Some(b"y"))]);
    assert_eq!(event.business, Some(BusinessId::of(&[b"y"])));
    let event = with_key(DedupKey::RecordKey, b"", &CE);
    assert_eq!(event.business, Some(BusinessId::of(&[b"k1"])));
    assert_eq!(&*event.attributes.id, "A-1", "the CloudEvent keeps its id");
    for (key, body) in [
        (DedupKey::JsonPointer("/no".into()), "{\"a\":1}"),
        (DedupKey::JsonPointer("/a".into()), "no json"),
        (DedupKey::Header("none".into()), ""),
    ] {
        let event = with_key(key, body.as_bytes(), &CE[..0]);
        assert_eq!((event.business, &*event.attributes.id), (None, "orders/3/42"), "{body}");
    }
    let off = Decoder::new(DecodeConfig { dedup: false, ..config() }).decode(raw(None, &CE)).unwrap();
    assert_eq!(off.business, None);
}

#[test]
fn l1_lanes_follow_the_ordering() {
    let lane = |ordering, key| {
        let record = RawRecord { key, ..raw(None, &[]) };
        Decoder::new(DecodeConfig { ordering, ..config() }).decode(record).unwrap().lane
    };
    assert_eq!(lane(Ordering::Key, Some(b"a")), lane(Ordering::Key, Some(b"a")));
    assert_ne!(lane(Ordering::Key, Some(b"a")), lane(Ordering::Key, Some(b"b")));
    assert_eq!(lane(Ordering::Key, None), None);
    assert_eq!(lane(Ordering::Partition, Some(b"a")), lane(Ordering::Partition, None));
    assert_eq!(lane(Ordering::None, Some(b"a")), None);
}

#[test]
fn trace_context_is_checked_and_passed_on() {
    const PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let event = decode(None, &[("traceparent", Some(PARENT)), ("tracestate", Some(b"a=1"))]).unwrap();
    assert_eq!(header(&event, "traceparent"), std::str::from_utf8(PARENT).ok());
    assert_eq!(header(&event, "tracestate"), Some("a=1"));
    let alone = decode(None, &[("tracestate", Some(b"a=1"))]).unwrap();
    assert_eq!(header(&alone, "tracestate"), None);
    let upper = PARENT.to_ascii_uppercase();
    for bad in [
        &b"00-0"[..],
        &upper,
        b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        b"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
    ] {
        assert_eq!(header(&decode(None, &[("traceparent", Some(bad))]).unwrap(), "traceparent"), None);
    }
    let mut headers = CE.to_vec();
    headers.push(("ce_traceparent", Some(PARENT)));
    assert_eq!(header(&decode(None, &headers).unwrap(), "traceparent"), std::str::from_utf8(PARENT).ok());
}
