//! A function's Service. Must never leave out the selector: a Service without one reaches nobody, silently.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{metadata, selector};
use crate::api::{
    Violation,
    function::{DEFAULT_PORT, DEFAULT_PORT_NAME, Function},
};

/// The Service: as the function says if it names a port, else port 8080.
///
/// # Errors
/// One violation if `spec.service` is no ServiceSpec.
pub fn service(function: &Function) -> Result<Service, Violation> {
    let mut spec = function.service()?;
    let name = function.metadata.name.as_deref().unwrap_or_default();
    if spec.ports.as_ref().is_none_or(Vec::is_empty) {
        spec = ServiceSpec { ports: Some(vec![default_port()]), ..ServiceSpec::default() };
    }
    if spec.selector.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
        spec.selector = Some(selector(name));
    }
    spec.type_ = Some(spec.type_.filter(|text| !text.is_empty()).unwrap_or_else(|| "ClusterIP".to_owned()));
    for port in spec.ports.iter_mut().flatten() {
        // Server-side apply tells ports apart by number and protocol, which therefore must be said.
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
    }
    Ok(Service { metadata: metadata(&function.metadata), spec: Some(spec), status: None })
}

/// The port that the function's container listens on: the numeric target of the first port.
///
/// # Errors
/// One violation if that target is a name, which would not say what `FUNC_PORT` has to be.
pub fn container_port(function: &Function) -> Result<u16, Violation> {
    let spec = function.service()?;
    let Some(first) = spec.ports.iter().flatten().next() else {
        return Ok(DEFAULT_PORT);
    };
    let number = match &first.target_port {
        None => first.port,
        Some(IntOrString::Int(0)) => first.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => name.parse().unwrap_or(-1),
    };
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| {
        Violation::new(
            "/spec/service/ports/0/targetPort",
            "does not say which port the function listens on",
            "write a number from 1 to 65535",
        )
    })
}

fn default_port() -> ServicePort {
    ServicePort {
        name: Some(DEFAULT_PORT_NAME.to_owned()),
        port: i32::from(DEFAULT_PORT),
        target_port: Some(IntOrString::Int(i32::from(DEFAULT_PORT))),
        ..ServicePort::default()
    }
}
