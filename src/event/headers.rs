//! Event → request headers: the Kubeless five, position, CloudEvents `ce-*`, trace context. Must never let a header
//! from a broker overwrite ours or be hop-by-hop.

use http::HeaderMap;

/// Headers that are the same for every event of a subscription, built once.
#[derive(Clone, Debug, Default)]
pub struct HeaderTemplate {
    /// The fixed headers.
    pub fixed: HeaderMap,
}

impl HeaderTemplate {
    /// The headers of one request: everything but `Host` and `Content-Length`.
    pub fn request_headers(&self, event: &super::Event) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(self.fixed.len() + event.headers.len() + 8);
        headers.clone_from(&self.fixed);
        headers.insert(http::header::CONTENT_TYPE, event.content_type.clone());
        for (name, value) in &event.headers {
            headers.insert(name.clone(), value.clone());
        }
        headers
    }
}
