//! Problems in our own words (RFC 9457). Must never say more than its caller may know.

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::Full;
use std::time::Duration;

/// An answer to a caller.
pub type Told = Response<Full<Bytes>>;

/// A problem in our own words.
pub fn problem(status: StatusCode, detail: &str) -> Told {
    let title = status.canonical_reason().unwrap_or_default();
    let body = serde_json::json!({ "title": title, "status": status.as_u16(), "detail": detail });
    let mut told = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *told.status_mut() = status;
    told.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    told
}

/// Nothing was called, and the same request may be sent again.
pub fn later(detail: &str, after: Duration) -> Told {
    let mut told = problem(StatusCode::SERVICE_UNAVAILABLE, detail);
    told.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    told
}
