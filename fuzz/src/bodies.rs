//! What each fuzz target checks, as plain functions of bytes. Must hold for any input: a panic here is a bug.

use kubeless::cluster::manifests::{Limits as ManifestLimits, Manifests, read_text};
use kubeless::event::Event;
use kubeless::event::headers::HeaderTemplate;
use kubeless::sources::TRIGGERS;
use kubeless::sources::kafka::decode::{
    DecodeConfig, Decoder, DedupKey, Limits, Ordering, RawRecord, Rejection,
};
use kubeless::sources::kafka::register::{self, Decoded};
use std::sync::Arc;

/// Every name a request may have beside `ce-<extension>`.
const INTENDED: [&str; 22] = [
    "ce-id",
    "ce-source",
    "ce-specversion",
    "ce-subject",
    "ce-time",
    "ce-type",
    "content-type",
    "event-id",
    "event-key",
    "event-namespace",
    "event-offset",
    "event-partition",
    "event-sequence",
    "event-subject",
    "event-time",
    "event-tombstone",
    "event-topic",
    "event-type",
    "traceparent",
    "tracestate",
    "user-agent",
    "ce-dataschema",
];
/// Header names worth meeting often; a byte of the input picks one.
const NAMES: [&str; 18] = [
    "content-type",
    "ce_specversion",
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_time",
    "ce_subject",
    "ce_tenant",
    "traceparent",
    "tracestate",
    "host",
    "Authorization",
    "ce_data",
    "event-id",
    "ce_host\r\n",
    "ce_",
    "id",
    "ce_traceparent",
];

/// Beginnings of manifests that a small first byte of the input picks, so that the fields behind them are met, too.
const HEADS: [&str; 8] = [
    "apiVersion: kubeless.io/v1beta1\nkind: KafkaTrigger\nmetadata: {name: t}\nspec:\n  topic: orders\n  ",
    "apiVersion: kubeless.io/v1beta1\nkind: Function\nmetadata: {name: f}\nspec:\n  ",
    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: e}\n",
    "apiVersion: v1\nkind: List\nitems:\n- ",
    "apiVersion: kubeless.io/v1beta1\nkind: HTTPTrigger\nmetadata: {name: t}\nspec:\n  function-name: f\n  ",
    "apiVersion: kubeless.io/v1beta1\nkind: CronJobTrigger\nmetadata: {name: t}\nspec:\n  function-name: f\n  schedule: ",
    "apiVersion: kubeless.io/v1beta1\nkind: NATSTrigger\nmetadata: {name: t}\nspec:\n  topic: ",
    "apiVersion: kubeless.io/v1beta1\nkind: KinesisTrigger\nmetadata: {name: t}\nspec:\n  endpoint: ",
];

/// Cuts input into pieces: a length byte, then that many bytes; what is left at the end is the body.
struct Cutter<'a>(&'a [u8]);

impl<'a> Cutter<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn piece(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (piece, rest) = self.0.split_at(len);
        self.0 = rest;
        piece
    }
}

fn decode(input: &[u8]) -> Result<Event, Rejection> {
    let mut cutter = Cutter(input);
    let switches = cutter.byte();
    let dedup_key = match switches & 3 {
        0 => None,
        1 => Some(DedupKey::Header("id".into())),
        2 => Some(DedupKey::JsonPointer("/id".into())),
        _ => Some(DedupKey::RecordKey),
    };
    let key = cutter.piece();
    let mut headers = Vec::new();
    for _ in 0..cutter.byte() % 8 {
        let name = NAMES[usize::from(cutter.byte()) % NAMES.len()];
        let value = cutter.piece();
        headers.push((name, if value == b"\0" { None } else { Some(value) }));
    }
    let decoder = Decoder::new(DecodeConfig {
        topic: Arc::from("orders"),
        dedup: true,
        dedup_key,
        ordering: Ordering::Key,
        limits: Limits { max_body_bytes: 4096, ..Limits::default() },
        source: Arc::from("/t#orders"),
    });
    let raw = RawRecord {
        partition: i32::from(switches),
        offset: i64::from(switches) << 32,
        leader_epoch: -1,
        timestamp_ms: if switches & 4 == 0 { -1 } else { i64::MAX - i64::from(switches) },
        key: (switches & 8 == 0).then_some(key),
        payload: (switches & 16 == 0).then_some(cutter.0),
        headers: &headers,
    };
    let event = decoder.decode(raw);
    // The same record always gives the same event.
    if let (Ok(a), Ok(b)) = (&event, &decoder.decode(raw)) {
        assert_eq!((&a.attributes, a.business, &a.data), (&b.attributes, b.business, &b.data));
    }
    event
}

/// Any record is an event within bounds or a rejection from the closed list.
pub fn record_to_event(input: &[u8]) {
    match decode(input) {
        Ok(event) => {
            assert!(!event.attributes.id.is_empty() && !event.attributes.source.is_empty());
            assert!(event.weight >= event.data.as_ref().map_or(0, bytes::Bytes::len));
            assert!(event.attributes.extensions.len() <= 64);
        }
        Err(rejection) => assert!(Rejection::REASONS.contains(&rejection.reason), "{rejection}"),
    }
}

/// Any record gives request headers from the intended set, which a plain reading of the wire form finds again.
pub fn headers_to_request(input: &[u8]) {
    let Ok(event) = decode(input) else { return };
    let map =
        HeaderTemplate::new("kafkatriggers.kubeless.io", Some("orders"), "kubeless").request_headers(&event);
    let mut wire = Vec::new();
    for (name, value) in &map {
        let extension = name.as_str().strip_prefix("ce-").is_some_and(|n| {
            !n.is_empty() && n.len() <= 20 && n.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        });
        assert!(INTENDED.contains(&name.as_str()) || extension, "{name}");
        wire.extend_from_slice(name.as_str().as_bytes());
        wire.extend_from_slice(b": ");
        wire.extend_from_slice(value.as_bytes());
        wire.extend_from_slice(b"\r\n");
    }
    let lines: Vec<_> = wire.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect();
    assert_eq!(lines.len(), map.len(), "a value broke out of its line");
    assert_eq!(map.keys_len(), map.len(), "a name occurs twice");
    for line in lines {
        let at = line.iter().position(|b| *b == b':').expect("every line has a colon");
        let name = std::str::from_utf8(&line[..at]).expect("names are ASCII");
        let value = map.get(name).expect("the line is one of the map's");
        assert_eq!(line[at + 2..].strip_suffix(b"\r"), Some(value.as_bytes()));
    }
    assert_eq!(map["event-type"], map["content-type"]);
}

/// Any text decodes to something; what is a register is written back as the same text.
pub fn register_decode(input: &[u8]) {
    let mut cutter = Cutter(input);
    let committed = i64::from(cutter.byte()) << (cutter.byte() % 64);
    let Ok(text) = std::str::from_utf8(cutter.0) else { return };
    if let Decoded::Register(register) = register::decode(text, committed) {
        assert_eq!(register::encode(&register, committed, usize::MAX).as_deref(), Ok(text));
    }
}

/// Any text gives objects and faults with a place and a fix, the same ones each time.
pub fn yaml_to_resource(input: &[u8]) {
    let head = input.first().and_then(|first| HEADS.get(usize::from(*first)));
    let text = match head {
        Some(head) => format!("{head}{}", String::from_utf8_lossy(&input[1..])),
        None => String::from_utf8_lossy(input).into_owned(),
    };
    let limits = ManifestLimits { max_documents: 64, max_problems: 16, ..ManifestLimits::default() };
    let read = |text: &str| read_text("m.yaml", text, TRIGGERS, &limits);
    let found = read(&text);
    assert!(found.problems.len() <= limits.max_problems);
    // YAML ends a line at a lone carriage return too.
    let lines = text.matches(['\n', '\r']).count() as u64 + 1;
    for problem in &found.problems {
        // A reading thread that broke off names no file.
        assert_eq!(&*problem.file, "m.yaml", "{problem}");
        assert!(problem.line <= lines && !problem.what.is_empty() && !problem.fix.is_empty(), "{problem}");
    }
    let again = read(&text);
    assert_eq!((&found.problems, &found.ignored), (&again.problems, &again.ignored));
    assert_eq!(named(&found), named(&again));
}

/// Every object: what it is, where it stands, what it holds.
fn named(found: &Manifests) -> Vec<(String, u64, u128)> {
    let mut all: Vec<_> = found
        .triggers
        .iter()
        .map(|((kind, name), it)| (format!("{kind} {name}"), it.line, it.fingerprint))
        .collect();
    all.extend(found.functions.iter().map(|(name, it)| (format!("f {name}"), it.line, it.fingerprint)));
    all.extend(found.services.iter().map(|(name, it)| (format!("s {name}"), it.line, it.fingerprint)));
    all.extend(found.slices.iter().map(|(name, it)| (format!("e {name}"), it.line, it.fingerprint)));
    all
}
