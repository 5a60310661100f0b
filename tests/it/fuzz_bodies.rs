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
