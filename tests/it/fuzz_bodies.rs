//! The bodies of the fuzz targets on stable, with random input: CI needs no nightly toolchain for them.

#[path = "../../fuzz/src/bodies.rs"]
mod bodies;

use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn record_to_event(input in input()) {
        bodies::record_to_event(&input);
    }

    #[test]
    fn headers_to_request(input in input()) {
        bodies::headers_to_request(&input);
    }

    #[test]
    fn register_decode(head in any::<[u8; 2]>(), text in "kb1\\.[A-Za-z0-9_-]{0,60}|\\PC{0,40}") {
        bodies::register_decode(&[&head, text.as_bytes()].concat());
    }
}

proptest! {
    // A document costs a thread and a schema.
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn yaml_to_resource(input in manifest()) {
        bodies::yaml_to_resource(&input);
    }
}

/// Random bytes, or the beginning of a manifest (picked by a small first byte) with lines that look like fields.
fn manifest() -> impl Strategy<Value = Vec<u8>> {
    let line =
        (0_usize..4, "[a-zA-Z]{1,12}|topic|delivery|dedup|key|filter|name|spec|path|payload|handler|timeout|timeZone|catchUp", "\\PC{0,20}|[0-9]{1,20}m?")
            .prop_map(|(indent, key, value)| format!("{}{key}: {value}\n", "  ".repeat(indent)));
    let marked = prop_oneof![6 => line, 1 => Just("---\n".to_owned()), 1 => "[-&*!|>{}\\[\\]\t ]{1,6}\n"];
    let fields = (0_u8..9, vec(marked, 0..12)).prop_map(|(head, lines)| {
        let mut input = vec![head];
        input.extend(lines.concat().into_bytes());
        input
    });
    prop_oneof![1 => vec(any::<u8>(), 0..200), 3 => fields]
}

/// Random bytes, or a valid CloudEvent with random values behind it.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let header = (0_u8..18, vec(prop_oneof![3 => 0x20_u8..0x7f, 1 => any::<u8>()], 0..20));
    let event =
        (any::<u8>(), vec(header, 0..4), vec(any::<u8>(), 0..40)).prop_map(|(switches, headers, body)| {
            let mut input = vec![switches, 0, headers.len() as u8 + 4];
            for (name, value) in [(1_u8, "1.0"), (2, "id"), (3, "/s"), (4, "t")] {
                input.extend([name, value.len() as u8]);
                input.extend(value.bytes());
            }
            for (name, value) in headers {
                input.extend([name, value.len() as u8]);
                input.extend(value);
            }
            input.extend(body);
            input
        });
    prop_oneof![vec(any::<u8>(), 0..200), event]
}
