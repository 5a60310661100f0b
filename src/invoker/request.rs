//! Event → request: headers of the template, then the framing, which is ours alone. Hot path. Must never emit a
//! second `Content-Length`, a `Transfer-Encoding` or anything hop-by-hop, whatever the event carries.

use super::{Call, error::Error};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body_util::Full;

/// HTTP/1.1: origin form, `Host`, exact `Content-Length` (also for an empty body, where hyper would leave it out).
pub(super) fn http1(call: &Call, authority: &str) -> Result<Request<Full<Bytes>>, Error> {
    let host = HeaderValue::from_str(authority).map_err(|_| Error::Authority)?;
    let (mut headers, body) = parts(call);
    headers.insert(HOST, host);
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method(call);
    if let Some(exchange) = &call.event.exchange {
        *request.uri_mut() = Uri::from(exchange.path());
    }
    *request.headers_mut() = headers;
    Ok(request)
}

/// HTTP/2: the authority is a pseudo header, so no `Host`. The body goes separately.
pub(super) fn h2c(call: &Call, authority: &str) -> Result<(Request<()>, Bytes), Error> {
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(Authority::try_from(authority).map_err(|_| Error::Authority)?);
    let path = call.event.exchange.as_ref().map(|exchange| exchange.path());
    uri.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    let (mut headers, body) = parts(call);
    headers.remove(HOST);
    let mut request = Request::new(());
    *request.method_mut() = method(call);
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Error::Authority)?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok((request, body))
}

fn method(call: &Call) -> Method {
    call.event.exchange.as_ref().map_or_else(|| call.template.method(), |exchange| exchange.method())
}

fn parts(call: &Call) -> (HeaderMap, Bytes) {
    let mut headers = call.template.request_headers(&call.event);
    if let Some(exchange) = &call.event.exchange {
        exchange.merge(&mut headers, call.event.data.as_ref().is_none_or(Bytes::is_empty));
    }
    for name in [TRANSFER_ENCODING, CONNECTION, UPGRADE, EXPECT, TE] {
        headers.remove(name);
    }
    let body = call.event.data.clone().unwrap_or_default();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    (headers, body)
}
