//! What records of every broker have in common when they become events: the type of a body that says nothing about
//! itself, keys found in the data, ids that people can read. Must never know which broker a record came from.

use http::header::HeaderValue;

/// Longest `dedup.key` value that becomes the event id, and longest record key that becomes `event-key`, in bytes.
pub const MAX_ID: usize = 256;
/// What an event costs beside its bytes; an estimate for the memory budget.
pub const ENVELOPE: usize = 512;
/// `application/json`.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// What Kubeless called everything that is no JSON object.
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// What Kubeless made of a body that says nothing about itself: JSON for an object or `null`, else a form.
pub fn body_type(data: Option<&[u8]>) -> HeaderValue {
    let body = data.unwrap_or_default().trim_ascii();
    let object =
        body.first() == Some(&b'{') && serde_json::from_slice::<&serde_json::value::RawValue>(body).is_ok();
    if object || body == b"null" { JSON } else { FORM }
}

/// The value at a JSON pointer (RFC 6901) of the data; text counts without its quotes, `null` is none.
pub fn at_pointer(data: &[u8], pointer: &str) -> Option<Vec<u8>> {
    let json: serde_json::Value = serde_json::from_slice(data).ok()?;
    match json.pointer(pointer)? {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text.clone().into_bytes()),
        other => Some(other.to_string().into_bytes()),
    }
}

/// A dedup key's value as an event id: short text without control characters.
pub fn readable(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    if text.len() > MAX_ID || text.chars().any(char::is_control) { None } else { Some(text) }
}
