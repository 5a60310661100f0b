//! CloudEvents 1.0.2 attributes from any transport, structured JSON included, and their HTTP header form.
//! Must never accept an event whose identity is incomplete, and never let an attribute out as anything but `ce-*`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;

/// Longest extension name, as the specification asks of producers.
const MAX_NAME: usize = 20;
/// Most extensions of one event, structured ones included; more are an attack, not a context.
const MAX_EXTENSIONS: usize = 64;

/// Why something that says it is a CloudEvent is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// `id`, `source` or `type` is absent or empty.
    #[error("CloudEvent lacks a required attribute")]
    Missing,
    /// `specversion` is not 1.0.
    #[error("CloudEvent has another specversion than 1.0")]
    Version,
    /// `time` is not RFC 3339.
    #[error("CloudEvent time is not RFC 3339")]
    Time,
    /// An attribute is not UTF-8 or has control characters.
    #[error("CloudEvent attribute is not text")]
    Text,
    /// The structured form is not a JSON object of the right shape.
    #[error("structured CloudEvent is malformed")]
    Structure,
}

/// Attributes collected one by one; the same for binary and structured mode.
#[derive(Debug, Default)]
pub struct Collected<'a> {
    specversion: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    content_type: Option<Cow<'a, str>>,
    extensions: Vec<(HeaderName, HeaderValue)>,
}

/// A complete and valid context.
#[derive(Debug)]
pub struct Context<'a> {
    /// `id`, not empty.
    pub id: Cow<'a, str>,
    /// `source`, not empty.
    pub source: Cow<'a, str>,
    /// `type`, not empty.
    pub kind: Cow<'a, str>,
    /// `subject`.
    pub subject: Option<Cow<'a, str>>,
    /// `time` in milliseconds since the Unix epoch.
    pub time_ms: Option<i64>,
    /// `datacontenttype`.
    pub content_type: Option<Cow<'a, str>>,
    /// Extension attributes and `dataschema`, as headers.
    pub extensions: Vec<(HeaderName, HeaderValue)>,
}

impl<'a> Collected<'a> {
    /// Takes one attribute by its CloudEvents name. The last one of a name counts; names outside `[a-z0-9]{1,20}`
    /// are no attributes and are left out.
    ///
    /// # Errors
    /// [`Invalid::Text`] when the value has control characters.
    pub fn set(&mut self, name: &str, value: Cow<'a, str>) -> Result<(), Invalid> {
        if value.chars().any(char::is_control) {
            return Err(Invalid::Text);
        }
        let slot = match name {
            "specversion" => &mut self.specversion,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            "datacontenttype" => &mut self.content_type,
            _ => {
                self.extend(name, &value);
                return Ok(());
            }
        };
        *slot = Some(value);
        Ok(())
    }

    fn extend(&mut self, name: &str, value: &str) {
        let valid = (1..=MAX_NAME).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && name != "data";
        if !valid || self.extensions.len() >= MAX_EXTENSIONS {
            return;
        }
        let mut text = [0_u8; 3 + MAX_NAME];
        text[..3].copy_from_slice(b"ce-");
        text[3..3 + name.len()].copy_from_slice(name.as_bytes());
        if let Ok(name) = HeaderName::from_bytes(&text[..3 + name.len()]) {
            self.extensions.retain(|(held, _)| *held != name);
            self.extensions.push((name, header_value(value)));
        }
    }

    /// The context, if it is complete.
    ///
    /// # Errors
    /// [`Invalid`], in the order version, required attributes, time.
    pub fn finish(self) -> Result<Context<'a>, Invalid> {
        if self.specversion.as_deref() != Some("1.0") {
            return Err(if self.specversion.is_none() { Invalid::Missing } else { Invalid::Version });
        }
        let required = |value: Option<Cow<'a, str>>| value.filter(|v| !v.is_empty()).ok_or(Invalid::Missing);
        let time_ms = match self.time {
            None => None,
            Some(time) => Some(time.parse::<jiff::Timestamp>().map_err(|_| Invalid::Time)?.as_millisecond()),
        };
        Ok(Context {
            id: required(self.id)?,
            source: required(self.source)?,
            kind: required(self.kind)?,
            subject: self.subject.filter(|s| !s.is_empty()),
            time_ms,
            content_type: self.content_type,
            extensions: self.extensions,
        })
    }
}

/// Reads the JSON event format: the attributes, and the data as a function would have got it in binary mode
/// (JSON byte for byte, text and base64 unwrapped). Absent and null data are `None`.
///
/// # Errors
/// [`Invalid::Structure`] when it is not a JSON object, has both `data` and `data_base64`, or bad base64;
/// [`Invalid::Text`] as [`Collected::set`].
pub fn structured(body: &[u8]) -> Result<(Collected<'_>, Option<Bytes>), Invalid> {
    let members: HashMap<Cow<'_, str>, &RawValue> =
        serde_json::from_slice(body).map_err(|_| Invalid::Structure)?;
    let mut collected = Collected::default();
    let (mut data, mut encoded) = (None, None);
    // In the order of their names: which of too many extensions stay must not depend on a hash seed.
    let mut members: Vec<_> = members.into_iter().collect();
    members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    for (name, value) in members {
        match (&*name, value.get()) {
            (_, "null") => {}
            ("data", json) => data = Some(json),
            ("data_base64", json) => encoded = Some(json),
            (name, json) => match scalar(json) {
                Some(text) => collected.set(name, text)?,
                // A required attribute of a wrong type is missing, an extension that is no CloudEvents type is none.
                None if matches!(name, "time" | "specversion") => return Err(Invalid::Structure),
                None => {}
            },
        }
    }
    let is_json = collected.content_type.as_deref().is_none_or(json_content_type);
    let data = match (data, encoded) {
        (Some(_), Some(_)) => return Err(Invalid::Structure),
        (None, None) => None,
        (Some(json), None) if is_json || !json.starts_with('"') => {
            Some(Bytes::copy_from_slice(json.as_bytes()))
        }
        (Some(json), None) => Some(Bytes::from(string(json)?)),
        (None, Some(json)) => Some(STANDARD.decode(string(json)?).map_err(|_| Invalid::Structure)?.into()),
    };
    if collected.content_type.is_none() && data.is_some() && encoded.is_none() {
        collected.content_type = Some(Cow::Borrowed("application/json"));
    }
    Ok((collected, data))
}

/// A JSON string, boolean or integer as the text that CloudEvents gives it.
fn scalar(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first() {
        Some(b'"') => string(json).ok().map(Cow::Owned),
        Some(b't' | b'f') => Some(Cow::Borrowed(json)),
        Some(b'-' | b'0'..=b'9') => json.parse::<i32>().ok().map(|_| Cow::Borrowed(json)),
        _ => None,
    }
}

fn string(json: &str) -> Result<String, Invalid> {
    serde_json::from_str(json).map_err(|_| Invalid::Structure)
}

/// `application/json`, `text/json`, or anything with the suffix `+json`.
pub fn json_content_type(value: &str) -> bool {
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(&*essence, "application/json" | "text/json") || essence.ends_with("+json")
}

/// An attribute value as HTTP header: percent-encoded as the HTTP binding 1.0.2, section 3.1.3.2, asks (space,
/// double quote, percent and everything outside printable ASCII).
pub fn header_value(text: &str) -> HeaderValue {
    let safe = |b: u8| (0x21..=0x7e).contains(&b) && b != b'"' && b != b'%';
    if text.bytes().all(safe)
        && let Ok(value) = HeaderValue::from_str(text)
    {
        return value;
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(text.len() + 16);
    for b in text.bytes() {
        if safe(b) {
            encoded.push(b);
        } else {
            encoded.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        }
    }
    HeaderValue::from_maybe_shared(Bytes::from(encoded)).unwrap_or_else(|_| HeaderValue::from_static(""))
}
