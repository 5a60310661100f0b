//! Records that Amazon's producer library packed several into one: magic bytes, a protobuf message, an MD5 sum. Must
//! never fail: what is not exactly of this form is a record as it is.

use bytes::Bytes;
use md5::{Digest, Md5};
use prost::Message;

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
const SUM: usize = 16;

/// One of the packed records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its own partition key.
    pub key: String,
    /// Its data.
    pub data: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Aggregated {
    #[prost(string, repeated, tag = "1")]
    keys: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    hash_keys: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<Packed>,
}

#[derive(Clone, PartialEq, Message)]
struct Packed {
    #[prost(uint64, required, tag = "1")]
    key: u64,
    #[prost(uint64, optional, tag = "2")]
    hash_key: Option<u64>,
    #[prost(bytes = "bytes", required, tag = "3")]
    data: Bytes,
}

/// The parts of an aggregated record; `None` for any other, one without parts included.
pub fn parts(data: &Bytes) -> Option<Vec<Part>> {
    if data.len() < MAGIC.len() + SUM || data[..MAGIC.len()] != MAGIC {
        return None;
    }
    let body = data.slice(MAGIC.len()..data.len() - SUM);
    if Md5::digest(&body)[..] != data[data.len() - SUM..] {
        return None;
    }
    let message = Aggregated::decode(body).ok()?;
    let key = |index: u64| message.keys.get(usize::try_from(index).ok()?).cloned();
    let parts: Option<Vec<Part>> =
        message.records.iter().map(|r| Some(Part { key: key(r.key)?, data: r.data.clone() })).collect();
    parts.filter(|parts| !parts.is_empty())
}

/// Packs records as the producer library does, for tests.
#[cfg(test)]
pub fn pack(parts: &[Part]) -> Vec<u8> {
    let records = parts.iter().zip(0..);
    let message = Aggregated {
        keys: parts.iter().map(|p| p.key.clone()).collect(),
        hash_keys: Vec::new(),
        records: records.map(|(p, key)| Packed { key, hash_key: None, data: p.data.clone() }).collect(),
    };
    let body = message.encode_to_vec();
    [&MAGIC[..], &body, &Md5::digest(&body)[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(key: &str, data: &str) -> Part {
        Part { key: key.into(), data: Bytes::copy_from_slice(data.as_bytes()) }
    }

    /// Made by the Python package `aws-kinesis-agg` 1.2.3 of two records: keys `a` and `b`, data `one` and `two`.
    const FOREIGN: &str =
        "f3899ac20a01610a01621a0708001a036f6e651a0708011a0374776f7896626e4b54750e07fcfeb458e8a37e";

    #[test]
    fn what_another_library_packed_is_unpacked() {
        let bytes: Vec<u8> = (0..FOREIGN.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&FOREIGN[i..i + 2], 16).unwrap())
            .collect();
        assert_eq!(parts(&bytes.into()), Some(vec![part("a", "one"), part("b", "two")]));
    }

    #[test]
    fn a_broken_sum_a_missing_key_and_no_parts_make_a_plain_record() {
        let good = pack(&[part("k", "v"), part("", "")]);
        assert_eq!(parts(&good.clone().into()), Some(vec![part("k", "v"), part("", "")]));
        let mut broken = good.clone();
        broken[5] ^= 1;
        assert_eq!(parts(&broken.into()), None);
        assert_eq!(parts(&good[..good.len() - 1].to_vec().into()), None);
        assert_eq!(parts(&pack(&[]).into()), None);
        let keyless = Aggregated {
            records: vec![Packed { key: 3, hash_key: None, data: Bytes::new() }],
            ..Aggregated::default()
        };
        let body = keyless.encode_to_vec();
        let whole = [&MAGIC[..], &body, &Md5::digest(&body)[..]].concat();
        assert_eq!(parts(&whole.into()), None);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_fail(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), sum in any::<bool>()) {
            let mut whole = MAGIC.to_vec();
            whole.append(&mut bytes);
            if sum {
                let digest = Md5::digest(&whole[4..]);
                whole.extend_from_slice(&digest);
            }
            let _ = parts(&whole.into());
        }
    }
}
