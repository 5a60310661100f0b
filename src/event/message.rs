//! A message with headers, whatever broker carried it: limits, CloudEvents in both modes, content type, trace context.
//! Must never allocate before the limits were checked, and never pass a header on that is not on a list.
//!
//! Hot path: once a message. Allocates what the event keeps.

use super::{
    cloudevents::{self, Collected, Context, Invalid},
    headers::{TRACEPARENT, TRACESTATE, plain, traceparent, tracestate},
    record,
};
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use std::borrow::Cow;

/// Longest content type, in bytes.
const MAX_CONTENT_TYPE: usize = 256;

/// Headers of a message in its order; names may repeat, the last one counts.
pub type Headers<'a> = [(&'a str, Option<&'a [u8]>)];

/// What is refused before anything is allocated for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message's body. Default 1 MiB.
    pub max_body_bytes: usize,
    /// Headers of a message. Default 64.
    pub max_headers: usize,
    /// Bytes of all header names and values. Default 8 KiB.
    pub max_header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_body_bytes: 1 << 20, max_headers: 64, max_header_bytes: 8 << 10 }
    }
}

/// A message that cannot become an event: the outcome `rejected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record rejected: {reason}")]
pub struct Rejection {
    /// One of [`Rejection::REASONS`]; fit for a metric label.
    pub reason: &'static str,
}

impl Rejection {
    /// Every reason there is.
    pub const REASONS: [&'static str; 10] = [
        "body_too_large",
        "too_many_headers",
        "headers_too_large",
        "content_type",
        "ce_missing_attribute",
        "ce_specversion",
        "ce_time",
        "ce_text",
        "ce_structure",
        "ce_batch",
    ];

    /// A body over the limit, for those who see that before they have it.
    pub const BODY_TOO_LARGE: Self = Self::new("body_too_large");

    const fn new(reason: &'static str) -> Self {
        Self { reason }
    }
}

impl From<Invalid> for Rejection {
    fn from(invalid: Invalid) -> Self {
        Self::new(match invalid {
            Invalid::Missing => "ce_missing_attribute",
            Invalid::Version => "ce_specversion",
            Invalid::Time => "ce_time",
            Invalid::Text => "ce_text",
            Invalid::Structure => "ce_structure",
        })
    }
}

/// What one walk over the headers finds.
#[derive(Default)]
pub struct Scan<'a> {
    content_type: Option<&'a [u8]>,
    traceparent: Option<&'a [u8]>,
    tracestate: Option<&'a [u8]>,
    /// Whether a header says that this is a CloudEvent in binary mode.
    binary: bool,
    /// Names and values, in bytes.
    pub bytes: usize,
}

/// A message taken apart.
pub struct Parts<'a> {
    /// CloudEvents context, if it is one.
    pub context: Option<Context<'a>>,
    /// Body.
    pub data: Option<Bytes>,
    /// Type of the body, in Kubeless's words where the message names none.
    pub content_type: HeaderValue,
}

/// Limits first, then one walk over the headers. `prefix`: what CloudEvents attributes begin with on this transport.
///
/// # Errors
/// A limit is broken.
pub fn scan<'a>(
    limits: &Limits,
    body: Option<&[u8]>,
    headers: &Headers<'a>,
    prefix: &str,
) -> Result<Scan<'a>, Rejection> {
    if body.map_or(0, <[u8]>::len) > limits.max_body_bytes {
        return Err(Rejection::new("body_too_large"));
    }
    if headers.len() > limits.max_headers {
        return Err(Rejection::new("too_many_headers"));
    }
    let mut scan = Scan::default();
    for &(name, value) in headers {
        scan.bytes = scan.bytes.saturating_add(name.len()).saturating_add(value.map_or(0, <[u8]>::len));
        if name.eq_ignore_ascii_case("content-type") {
            scan.content_type = value;
        } else if name.eq_ignore_ascii_case("traceparent") {
            scan.traceparent = value;
        } else if name.eq_ignore_ascii_case("tracestate") {
            scan.tracestate = value;
        } else if let Some(attribute) = name.strip_prefix(prefix) {
            scan.binary |= matches!(attribute, "specversion" | "id" | "source" | "type");
        }
    }
    if scan.bytes > limits.max_header_bytes { Err(Rejection::new("headers_too_large")) } else { Ok(scan) }
}

/// The message as plain body, or as CloudEvent in structured or binary mode. `keep` makes the body shared.
///
/// # Errors
/// The content type cannot be a header, or a CloudEvent is invalid.
pub fn parts<'a>(
    scan: &Scan<'a>,
    body: Option<&'a [u8]>,
    headers: &Headers<'a>,
    prefix: &str,
    keep: impl FnOnce(&'a [u8]) -> Bytes,
) -> Result<Parts<'a>, Rejection> {
    let own_type = content_type(scan.content_type)?;
    let (context, data, content_type) = match scan.content_type {
        Some(mode) if starts_with(mode, b"application/cloudevents-batch") => {
            return Err(Rejection::new("ce_batch"));
        }
        Some(mode) if starts_with(mode, b"application/cloudevents") => {
            let (collected, data) = cloudevents::structured(body.unwrap_or_default())?;
            let context = collected.finish()?;
            let inner = content_type(context.content_type.as_deref().map(str::as_bytes))?;
            (Some(context), data, inner)
        }
        _ => {
            let context = if scan.binary { Some(binary(headers, prefix)?) } else { None };
            (context, body.map(keep), own_type)
        }
    };
    let content_type = content_type.unwrap_or_else(|| record::body_type(data.as_deref()));
    Ok(Parts { context, data, content_type })
}

/// Adds the trace context. One of the message itself is nearer than the extension's.
pub fn trace(scan: &Scan<'_>, context: Option<&Context<'_>>, headers: &mut Vec<(HeaderName, HeaderValue)>) {
    let extension = |name: &str| {
        let found = context?.extensions.iter().find(|(n, _)| n.as_str() == name);
        found.map(|(_, value)| value.as_bytes())
    };
    let own = scan.traceparent.and_then(traceparent);
    let (parent, state) = match own {
        Some(parent) => (Some(parent), scan.tracestate),
        None => (extension("ce-traceparent").and_then(traceparent), extension("ce-tracestate")),
    };
    if let Some(parent) = parent {
        headers.push((TRACEPARENT, parent));
        if let Some(state) = state.and_then(tracestate) {
            headers.push((TRACESTATE, state));
        }
    }
}

/// Context of a CloudEvent in binary mode: prefixed headers, text in UTF-8.
fn binary<'a>(headers: &Headers<'a>, prefix: &str) -> Result<Context<'a>, Rejection> {
    let mut collected = Collected::default();
    for &(name, value) in headers {
        if let (Some(name), Some(value)) = (name.strip_prefix(prefix), value) {
            // The data's type is the content-type header in this mode.
            if name != "datacontenttype" {
                let text = std::str::from_utf8(value).map_err(|_| Invalid::Text)?;
                collected.set(name, Cow::Borrowed(text))?;
            }
        }
    }
    Ok(collected.finish()?)
}

/// Media types are compared without case.
fn starts_with(value: &[u8], prefix: &[u8]) -> bool {
    value.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// The content type a message names, if it names one.
fn content_type(value: Option<&[u8]>) -> Result<Option<HeaderValue>, Rejection> {
    let Some(value) = value.filter(|v| !v.is_empty()) else { return Ok(None) };
    if value == b"application/json" {
        return Ok(Some(record::JSON));
    }
    let header = if value.len() <= MAX_CONTENT_TYPE { plain(value) } else { None };
    header.map(Some).ok_or(Rejection::new("content_type"))
}
