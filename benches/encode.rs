//! Cost of one event on its way: record to event, event to request headers.
//!
//! `cargo bench --bench encode`. Both run once an event on the dispatcher's threads.

use criterion::{Criterion, criterion_group, criterion_main};
use kubeless::event::headers::HeaderTemplate;
use kubeless::sources::kafka::decode::{DecodeConfig, Decoder, Limits, Ordering, RawRecord};
use std::hint::black_box;
use std::sync::Arc;

fn encode(c: &mut Criterion) {
    let decoder = Decoder::new(DecodeConfig {
        topic: Arc::from("orders"),
        dedup: true,
        dedup_key: None,
        ordering: Ordering::Key,
        limits: Limits::default(),
        source: Arc::from("/apis/v1/namespaces/shop/kafkatriggers/orders#orders"),
    });
    let body = format!("{{\"order\":17,\"note\":\"{}\"}}", "x".repeat(234));
    assert_eq!(body.len(), 256);
    let plain = RawRecord {
        partition: 3,
        offset: 123_456_789,
        leader_epoch: 4,
        timestamp_ms: 1_790_000_000_123,
        key: Some(b"customer-4711"),
        payload: Some(body.as_bytes()),
        headers: &[],
    };
    let ce: [(&str, Option<&[u8]>); 7] = [
        ("ce_specversion", Some(b"1.0")),
        ("ce_id", Some(b"9d8f1c1e-3f0b-4a56-8a55-0a2b7b9d1f00")),
        ("ce_source", Some(b"/shop/orders")),
        ("ce_type", Some(b"shop.order.created")),
        ("ce_time", Some(b"2026-11-23T10:15:30.250Z")),
        ("content-type", Some(b"application/json")),
        ("traceparent", Some(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
    ];
    let cloud = RawRecord { headers: &ce, ..plain };
    let template = HeaderTemplate::new("kafkatriggers.kubeless.io", Some("orders"), "kubeless/0.1.0");
    for (name, raw) in [("plain 256-byte JSON", plain), ("binary CloudEvent", cloud)] {
        c.bench_function(&format!("decode: {name}"), |b| b.iter(|| decoder.decode(black_box(raw))));
        let event = decoder.decode(raw).expect("a valid record");
        c.bench_function(&format!("headers: {name}"), |b| {
            b.iter(|| template.request_headers(black_box(&event)));
        });
    }
}

criterion_group!(benches, encode);
criterion_main!(benches);
