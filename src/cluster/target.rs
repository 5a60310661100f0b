//! Where and how a function is called: plain values, rebuilt whole on every change. Must never do I/O.

use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Kubernetes namespace.
    pub namespace: Arc<str>,
    /// Object name.
    pub name: Arc<str>,
}

impl ObjectRef {
    /// Builds a reference from its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Identity of a trigger: triggers of two kinds may have one namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TriggerRef {
    /// `kind` of its objects.
    pub kind: &'static str,
    /// Namespace and name.
    pub object: ObjectRef,
}

impl TriggerRef {
    /// Builds the identity from its two parts.
    pub fn new(kind: &'static str, object: ObjectRef) -> Self {
        Self { kind, object }
    }
}

impl std::fmt::Display for TriggerRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.object)
    }
}

/// How requests are framed. Chosen by the Service port's `appProtocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1, one request at a time on a connection.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge (`appProtocol: kubernetes.io/h2c`).
    H2c,
}

/// One function as the invoker sees it. Immutable: a change publishes a new value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The function.
    pub function: ObjectRef,
    /// Addresses of ready pods, those nearby first. Empty: nothing is claimed for this function.
    pub endpoints: Arc<[SocketAddr]>,
    /// How many of them are nearby and preferred while they work; 0 (or all): no preference.
    pub near: usize,
    /// Framing.
    pub protocol: Protocol,
    /// Value of the `Host` header: `<function>.<namespace>.svc.<cluster domain>:<port>`.
    pub authority: Arc<str>,
    /// Longest wait for a complete answer: function timeout plus margin.
    pub call_timeout: Duration,
    /// Calls that may run at once over all subscriptions of this process.
    pub max_in_flight: usize,
}

/// The one place where a function's current [`Target`] stands: the router stores, everybody else loads (no lock).
/// A subscription takes its cell once, when it starts, and never looks anything up again.
pub type TargetCell = Arc<arc_swap::ArcSwap<Target>>;
