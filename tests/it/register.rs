//! The claim register's codec: round trip, damage, limits and sizes (rules N1, N7, L1).

use kubeless::sources::kafka::register::{
    Decoded, EncodeError, MAX_ENTRIES, OpenEntry, Register, Token, capacity_hint, decode, encode, fits,
};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

const WIDE: usize = 64 * 1024;

fn register(open: Vec<OpenEntry>, parked: Vec<i64>) -> Register {
    Register {
        owner: Token(0x0123_4567_89ab_cdef),
        seq: 70_000,
        log_time_ms: 1_790_000_000_000,
        open,
        parked,
    }
}

fn own(offset: i64) -> OpenEntry {
    OpenEntry { offset, owner: Token(0x0123_4567_89ab_cdef) }
}

prop_compose! {
    fn any_register()(
        owner in any::<u64>(), seq in any::<u64>(), log_time_ms in any::<i64>(),
        tokens in vec(any::<u64>(), 1..5),
        scale in prop_oneof![Just(1300_i64), Just(1_000_000), Just(100_000_000_000), Just(i64::MAX)],
        picks in btree_set(any::<u64>(), 0..120),
        kinds in vec(0_usize..6, 120),
        above in 1_i64..1000,
    ) -> (Register, i64) {
        let offsets: std::collections::BTreeSet<i64> =
            picks.into_iter().map(|p| (p % (scale as u64 - 1000)) as i64).collect();
        let committed = offsets.last().map_or(0, |o| o + above);
        let mut register = Register { owner: Token(owner), seq, log_time_ms, open: vec![], parked: vec![] };
        for (offset, kind) in offsets.into_iter().zip(kinds) {
            match kind {
                0 | 1 => register.parked.push(offset),
                2 | 3 => register.open.push(OpenEntry { offset, owner: Token(owner) }),
                k => register.open.push(OpenEntry { offset, owner: Token(tokens[k % tokens.len()]) }),
            }
        }
        (register, committed)
    }
}

proptest! {
    #[test]
    fn n1_round_trip_keeps_every_entry_and_owner((register, committed) in any_register()) {
        let text = encode(&register, committed, WIDE).unwrap();
        prop_assert!(text.is_ascii());
        prop_assert_eq!(decode(&text, committed), Decoded::Register(register));
    }

    #[test]
    fn n7_fits_is_an_upper_bound((register, committed) in any_register(), max in 60_usize..1000) {
        let chars = encode(&register, committed, WIDE).unwrap().len();
        if fits(&register, committed, 0, max) {
            prop_assert!(chars <= max);
        }
    }

    #[test]
    fn n7_fits_covers_entries_added_on_top((register, committed) in any_register(), extra in 0_usize..50) {
        prop_assume!(committed < i64::MAX - 2000);
        let mut grown = register.clone();
        grown.open.extend((0..extra as i64).map(|i| OpenEntry { offset: committed + 2 * i, owner: grown.owner }));
        let after = committed + 2 * extra as i64;
        let chars = encode(&grown, after, WIDE).unwrap().len();
        prop_assert!(!fits(&register, after, extra, chars - 1), "said yes although {chars} are needed");
    }

    #[test]
    fn any_single_bit_flip_is_noticed((register, committed) in any_register(), at in any::<prop::sample::Index>(), bit in 0_u8..7) {
        let text = encode(&register, committed, WIDE).unwrap();
        let mut bytes = text.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let flipped = String::from_utf8(bytes).unwrap();
        let got = decode(&flipped, committed);
        prop_assert!(matches!(got, Decoded::Corrupt { .. } | Decoded::Foreign | Decoded::Newer { .. }), "{got:?}");
    }

    #[test]
    fn another_offset_is_noticed((register, committed) in any_register(), by in 1_i64..1000) {
        let text = encode(&register, committed, WIDE).unwrap();
        prop_assert_eq!(decode(&text, committed.wrapping_add(by)), Decoded::Corrupt {
            why: if committed.wrapping_add(by) < 0 { "no committed offset" } else { "check failed" } });
    }

    #[test]
    fn random_text_never_panics_and_never_changes(text in "\\PC{0,80}|kb1\\.[A-Za-z0-9_-]{0,80}|kb[0-9]{0,9}\\..{0,9}", committed in any::<i64>()) {
        if let Decoded::Register(register) = decode(&text, committed) {
            prop_assert_eq!(encode(&register, committed, WIDE).unwrap(), text);
        }
    }

    /// Random bodies behind a right check: the reader itself, not the check, has to hold.
    #[test]
    fn random_bodies_never_panic_and_never_change(mut body in vec(prop_oneof![Just(0_u8), Just(1), Just(0x80), Just(0xff), any::<u8>()], 8..120), committed in any::<i64>()) {
        use base64::Engine as _;
        let check = xxhash_rust::xxh3::xxh3_64_with_seed(&body, committed as u64) as u32;
        body.extend_from_slice(&check.to_le_bytes());
        let text = format!("kb1.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&body));
        if let Decoded::Register(register) = decode(&text, committed) {
            prop_assert_eq!(encode(&register, committed, WIDE).unwrap(), text);
        }
    }
}

#[test]
fn other_texts_have_their_names() {
    assert_eq!(decode("", 5), Decoded::Empty);
    for foreign in
        ["offset from sarama", "kb", "kb1", "kb01.x", "kb.x", "KB1.x", "kb1234567.x", "{\"a\":1}", "kbä."]
    {
        assert_eq!(decode(foreign, 5), Decoded::Foreign, "{foreign}");
    }
    assert_eq!(decode("kb2.whatever it is", 5), Decoded::Newer { version: 2 });
    assert_eq!(decode("kb1.", 5), Decoded::Corrupt { why: "cut short" });
    assert_eq!(decode("kb1.====", 5), Decoded::Corrupt { why: "not base64url" });
    assert_eq!(decode("kb1.AAAAAAAAAAAAAAAAAAAAAA", 5), Decoded::Corrupt { why: "check failed" });
    assert_eq!(decode("kb1.AAAA", -1001), Decoded::Corrupt { why: "no committed offset" });
}

/// Sizes that rule N7 computed: the open set alone, and with our header of 24 bytes.
#[test]
fn n7_sizes() {
    let body = |open: Vec<OpenEntry>, committed| {
        let chars = encode(&register(open, vec![]), committed, WIDE).unwrap().len();
        (chars - 4) * 3 / 4
    };
    let empty = body(vec![], 100_000_000);
    assert!(empty <= 24, "{empty}");
    for (span, limit) in [(1_000_000_i64, 520), (100_000_000, 770)] {
        let even = body((0..256).map(|i| own(i * (span / 256))).collect(), span);
        let mut rng = 0x9e37_79b9_u64;
        let mut picks = std::collections::BTreeSet::new();
        while picks.len() < 256 {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            picks.insert(((rng >> 20) % span as u64) as i64);
        }
        let random = body(picks.into_iter().map(own).collect(), span);
        eprintln!("256 open over {span}: even {even}, random {random}, of which header {empty}");
        assert!(even - empty <= limit && random - empty <= limit, "{even} {random}");
    }
}

#[test]
fn n7_too_long_is_said_and_nothing_is_cut() {
    let many = register((0..1000).map(|i| own(i * 100_000)).collect(), vec![]);
    assert!(matches!(encode(&many, 100_000_000, 2048), Err(EncodeError::TooLong { chars }) if chars > 2048));
    assert!(!fits(&many, 100_000_000, 0, 2048));
    let some = register((0..200).map(|i| own(i * 5_000)).collect(), vec![7, 9]);
    assert!(fits(&some, 1_000_000, 56, 2048));
    assert!(capacity_hint(256, 0, 100_000_000, 0) <= 2048);
}

#[test]
fn malformed_sets_are_refused_not_written() {
    for (bad, committed) in [
        (register(vec![own(3), own(2)], vec![]), 10),
        (register(vec![own(3), own(3)], vec![]), 10),
        (register(vec![own(10)], vec![]), 10),
        (register(vec![own(-1)], vec![]), 10),
        (register(vec![], vec![5, 4]), 10),
        (register(vec![own(4)], vec![4]), 10),
        (register(vec![], vec![]), -1),
        (register(vec![], (0..=MAX_ENTRIES as i64).collect()), 100_000),
    ] {
        assert!(matches!(encode(&bad, committed, WIDE), Err(EncodeError::Invalid { .. })), "{bad:?}");
    }
}

/// L1: a parked record is below the committed offset and stays apart from the claimed ones.
#[test]
fn l1_parked_is_kept_apart_from_open() {
    let before = register(vec![own(3), own(5)], vec![4, 6]);
    let text = encode(&before, 7, 2048).unwrap();
    let Decoded::Register(after) = decode(&text, 7) else { panic!("{text}") };
    assert_eq!((after.open, after.parked), (before.open, before.parked));
}
