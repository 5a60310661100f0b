//! Attributes of CloudEvents in the headers of a request, as the HTTP binding 1.0.2 writes them. Must never change a header that is
//! none of them.

use http::HeaderMap;
use std::borrow::Cow;

/// What CloudEvents attributes begin with.
pub const PREFIX: &str = "ce-";
/// Most headers of a request.
pub const MAX_HEADERS: usize = 100;

/// Headers with the values of attributes as they were before the binding's percent-encoding.
pub fn decoded(headers: &HeaderMap) -> Vec<(&str, Cow<'_, [u8]>)> {
    let decode = |name: &str, value: &'_ [u8]| -> Option<Vec<u8>> {
        (name.starts_with(PREFIX) && value.contains(&b'%')).then(|| percent_decoded(value))
    };
    let each = headers.iter().map(|(name, value)| {
        let (name, value) = (name.as_str(), value.as_bytes());
        (name, decode(name, value).map_or(Cow::Borrowed(value), Cow::Owned))
    });
    each.collect()
}

fn percent_decoded(value: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(value.len());
    let digit = |at: usize| value.get(at).and_then(|d| char::from(*d).to_digit(16));
    let mut at = 0;
    while let Some(byte) = value.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                plain.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    plain
}
