//! Event → request headers: the Kubeless five, position, CloudEvents `ce-*`, trace context. Must never let a header
//! from a broker overwrite ours or be hop-by-hop.

use http::HeaderMap;

/// Headers that are the same for every event of a subscription, built once.
#[derive(Clone, Debug, Default)]
pub struct HeaderTemplate {
    /// The fixed headers.
    pub fixed: HeaderMap,
}
