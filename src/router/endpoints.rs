//! From a Function, its Service and its EndpointSlices to a [`Target`]: pure functions. Must never resolve a name.

use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{EndpointChoice, Place, RouterOptions};
use crate::{
    api::{
        self,
        function::{DEFAULT_TIMEOUT, Function, ServicePort, protocol_of},
    },
    cluster::{
        address::Reach,
        target::{ObjectRef, Protocol, Target},
    },
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
    let mut ready = Ready::default();
    if !service.is_some_and(is_external) {
        slices.for_each(|slice| ready.add(slice, &port, &options.reach));
    }
    // Either side may know: the Service that the user wrote, or the slice that a cluster made from it.
    let protocol = if ready.h2c { Protocol::H2c } else { port.protocol };
    let (endpoints, near) = match options.endpoints {
        EndpointChoice::Pods => ready.pods(&options.place),
        EndpointChoice::Service if ready.found.is_empty() => (Arc::from([]), 0),
        EndpointChoice::Service | EndpointChoice::ServiceUnseen => {
            let address = service.and_then(cluster_ip).filter(|ip| options.reach.allows(*ip));
            (address.map(|ip| SocketAddr::new(ip, port.port)).into_iter().collect(), 0)
        }
    };
    let ObjectRef { namespace, name } = &reference;
    let authority = format!("{name}.{namespace}.svc.{}:{}", options.cluster_domain, port.port);
    Target {
        endpoints,
        near,
        protocol,
        authority: authority.into(),
        call_timeout: function.timeout().unwrap_or(DEFAULT_TIMEOUT) + options.timeout_margin,
        max_in_flight: options.max_in_flight_per_function,
        function: reference,
    }
}

/// A Service that is only another name: whoever writes it chooses where calls go.
fn is_external(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName"))
}

/// The Service's own address; a headless Service (and one that is only a name) has none.
fn cluster_ip(service: &Service) -> Option<IpAddr> {
    service.spec.as_ref().filter(|_| !is_external(service))?.cluster_ip.as_ref()?.parse().ok()
}

fn first_port(service: &Service) -> Option<ServicePort> {
    let port = service.spec.as_ref()?.ports.as_ref()?.first()?;
    Some(ServicePort {
        name: port.name.clone(),
        port: u16::try_from(port.port).ok()?,
        protocol: protocol_of(port.app_protocol.as_deref()),
    })
}

/// Whether an endpoint is nearby.
type Rule = fn(&Endpoint, &Place) -> bool;

/// The ready endpoints of a function, over all its slices.
#[derive(Default)]
struct Ready<'a> {
    found: Vec<(SocketAddr, &'a Endpoint)>,
    h2c: bool,
}

impl<'a> Ready<'a> {
    fn add(&mut self, slice: &'a EndpointSlice, port: &ServicePort, reach: &Reach) {
        let Some((number, slice_port)) = slice_port(slice, port.name.as_deref()) else {
            return;
        };
        self.h2c |= protocol_of(slice_port.app_protocol.as_deref()) == Protocol::H2c;
        for endpoint in slice.endpoints.iter().filter(|endpoint| is_ready(endpoint)) {
            // Kubernetes says that all addresses of one endpoint are the same pod: the first one is enough.
            let address = endpoint.addresses.first().and_then(|text| text.parse::<IpAddr>().ok());
            if let Some(address) = address.filter(|address| reach.allows(*address)) {
                self.found.push((SocketAddr::new(address, number), endpoint));
            }
        }
    }

    /// Addresses of one family only (IPv4 where there is any: a dual-stack pod stands in two slices and must not count
    /// twice), those nearby first, and how many those are.
    fn pods(mut self, place: &Place) -> (Arc<[SocketAddr]>, usize) {
        if self.found.iter().any(|(address, _)| address.is_ipv4()) {
            self.found.retain(|(address, _)| address.is_ipv4());
        }
        let is_near = self.nearness(place);
        let mut near: Vec<SocketAddr> = Vec::new();
        let mut far: Vec<SocketAddr> = Vec::new();
        for (address, endpoint) in &self.found {
            if is_near(endpoint, place) { near.push(*address) } else { far.push(*address) }
        }
        near.sort_unstable();
        near.dedup();
        far.sort_unstable();
        far.dedup();
        far.retain(|address| near.binary_search(address).is_err());
        let count = near.len();
        near.extend(far);
        (near.into(), count)
    }

    /// The narrowest rule that at least one endpoint keeps: same node, then what the cluster's hints say (if every
    /// endpoint has one, as kube-proxy does), then same zone; else all are equally near.
    fn nearness(&self, place: &Place) -> Rule {
        let rules: [(bool, Rule); 3] = [
            (!place.node.is_empty(), |endpoint, place| endpoint.node_name.as_ref() == Some(&place.node)),
            (
                !place.zone.is_empty() && self.found.iter().all(|(_, e)| zones(e).is_some()),
                |endpoint, place| {
                    zones(endpoint).is_some_and(|mut zones| zones.any(|zone| zone == place.zone))
                },
            ),
            (!place.zone.is_empty(), |endpoint, place| endpoint.zone.as_ref() == Some(&place.zone)),
        ];
        let kept = |rule: &Rule| self.found.iter().any(|(_, e)| rule(e, place));
        let narrowest = rules.into_iter().find(|(applies, rule)| *applies && kept(rule));
        narrowest.map_or(|_, _| true, |(_, rule)| rule)
    }
}

/// Zones whose clients should use the endpoint, if the cluster says so.
fn zones(endpoint: &Endpoint) -> Option<impl Iterator<Item = &str>> {
    let zones = endpoint.hints.as_ref()?.for_zones.as_ref()?;
    Some(zones.iter().map(|zone| zone.name.as_str()))
}

/// The slice's port of that name. A slice with one port needs no name; with several, a wrong one might be a metrics
/// port.
fn slice_port<'a>(slice: &'a EndpointSlice, name: Option<&str>) -> Option<(u16, &'a EndpointPort)> {
    let tcp = |port: &&EndpointPort| matches!(port.protocol.as_deref(), None | Some("TCP"));
    let ports: Vec<&EndpointPort> = slice.ports.iter().flatten().filter(tcp).collect();
    let wanted = name.unwrap_or_default();
    let named = ports.iter().find(|port| port.name.as_deref().unwrap_or_default() == wanted);
    let port = match (named, ports.as_slice()) {
        (Some(port), _) => port,
        (None, [only]) => only,
        (None, _) => return None,
    };
    Some((u16::try_from(port.port?).ok().filter(|number| *number > 0)?, port))
}

/// Ready and not on its way out. `serving` is asked too because a Service may declare every pod ready
/// (`publishNotReadyAddresses`).
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_none_or(|conditions| {
        conditions.ready != Some(false)
            && conditions.serving != Some(false)
            && conditions.terminating != Some(true)
    })
}
