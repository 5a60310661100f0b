//! From a Function, its Service and its EndpointSlices to a [`Target`]: pure functions. Must never resolve a name.

use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::RouterOptions;
use crate::{
    api::{
        self,
        function::{DEFAULT_TIMEOUT, Function, ServicePort, protocol_of},
    },
    cluster::target::{ObjectRef, Protocol, Target},
};

/// The Service that a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<ObjectRef> {
    let name = slice.metadata.labels.as_ref()?.get(api::SERVICE_NAME)?;
    Some(ObjectRef::new(api::reference(&slice.metadata).namespace, name.as_str()))
}

/// The function's current target. An unreadable timeout counts as the default: validation has said so already.
pub fn target<'a>(
    function: &Function,
    service: Option<&Service>,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    options: &RouterOptions,
) -> Target {
    let reference = api::reference(&function.metadata);
    let port = service.and_then(first_port).unwrap_or_else(|| function.service_port());
    let (endpoints, slice_protocol) = ready_endpoints(&port, slices);
    // Either side may know: the Service that the user wrote, or the slice that a cluster made from it.
    let protocol = match (port.protocol, slice_protocol) {
        (Protocol::Http1, Protocol::Http1) => Protocol::Http1,
        _ => Protocol::H2c,
    };
    let ObjectRef { namespace, name } = &reference;
    let authority = format!("{name}.{namespace}.svc.{}:{}", options.cluster_domain, port.port);
    Target {
        endpoints,
        protocol,
        authority: authority.into(),
        call_timeout: function.timeout().unwrap_or(DEFAULT_TIMEOUT) + options.timeout_margin,
        max_in_flight: options.max_in_flight_per_function,
        function: reference,
    }
}

fn first_port(service: &Service) -> Option<ServicePort> {
    let port = service.spec.as_ref()?.ports.as_ref()?.first()?;
    Some(ServicePort {
        name: port.name.clone(),
        port: u16::try_from(port.port).ok()?,
        protocol: protocol_of(port.app_protocol.as_deref()),
    })
}

/// Addresses of one family only (IPv4 where there is any): a dual-stack pod stands in two slices and must not
/// count twice.
fn ready_endpoints<'a>(
    port: &ServicePort,
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> (Arc<[SocketAddr]>, Protocol) {
    let mut all: Vec<SocketAddr> = Vec::new();
    let mut protocol = Protocol::Http1;
    for slice in slices {
        let Some((number, slice_port)) = slice_port(slice, port.name.as_deref()) else {
            continue;
        };
        if protocol_of(slice_port.app_protocol.as_deref()) == Protocol::H2c {
            protocol = Protocol::H2c;
        }
        // Kubernetes says that all addresses of one endpoint are the same pod: the first one is enough.
        let ready = slice.endpoints.iter().filter(|endpoint| is_ready(endpoint));
        let addresses = ready.filter_map(|endpoint| endpoint.addresses.first());
        all.extend(
            addresses.filter_map(|text| text.parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, number)),
        );
    }
    if all.iter().any(SocketAddr::is_ipv4) {
        all.retain(SocketAddr::is_ipv4);
    }
    all.sort_unstable();
    all.dedup();
    (all.into(), protocol)
}

fn slice_port<'a>(slice: &'a EndpointSlice, name: Option<&str>) -> Option<(u16, &'a EndpointPort)> {
    let ports = slice.ports.as_deref()?;
    let wanted = name.unwrap_or_default();
    let port = ports
        .iter()
        .find(|port| port.name.as_deref().unwrap_or_default() == wanted)
        .or_else(|| ports.first())?;
    Some((u16::try_from(port.port?).ok().filter(|number| *number > 0)?, port))
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .is_none_or(|conditions| conditions.ready != Some(false) && conditions.terminating != Some(true))
}
