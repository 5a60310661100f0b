//! `kubeless trigger http …`, described. Must never hold more than words, pointers into the resource, and what Kubeless's
//! command line filled in.

use super::{Column, Flag, Named, PAUSED, Resource, TriggerCommand};
use crate::api::http_trigger::KIND;
use serde_json::Value;
use std::net::IpAddr;

/// Gateway of a trigger that names none, as in Kubeless.
const GATEWAY: &str = "nginx";

/// The command, with the flags of Kubeless under their names.
pub const COMMAND: TriggerCommand = TriggerCommand {
    name: "http",
    resource: Resource::ours("HTTPTrigger", "httptriggers", "HTTP trigger"),
    trigger: KIND,
    about: "HTTP requests from outside the cluster to a function.",
    examples: &[
        "kubeless trigger http create hello --function-name hello --hostname hello.example.com",
        "kubeless trigger http create hello --function-name hello --gateway traefik --hostname a.example",
        "kubeless trigger http update hello --path greet --cors-enable",
        "kubeless trigger http list -A",
        "kubeless trigger http describe hello",
        "kubeless trigger http delete hello",
    ],
    flags: &[
        Flag::text("function-name", "NAME", "/spec/function-name", "Function that receives the requests.")
            .required()
            .naming(Named::Function),
        Flag::text(
            "hostname",
            "HOST",
            "/spec/host-name",
            "Host of the requests. With nginx: made with nip.io.",
        ),
        Flag::text("path", "PATH", "/spec/path", "Path, with or without a leading slash. Default: the root."),
        Flag::text(
            "gateway",
            "NAME",
            "/spec/gateway",
            "Ingress controller: nginx (default), traefik or kong.",
        ),
        Flag::switch("enableTLSAcme", "/spec/tls", "Asks for a certificate by ACME (cert-manager)."),
        Flag::text("tls-secret", "SECRET", "/spec/tls-secret", "TLS Secret that is there already."),
        Flag::text("basic-auth-secret", "SECRET", "/spec/basic-auth-secret", "Secret with an htpasswd file."),
        Flag::switch("cors-enable", "/spec/cors-enable", "The gateway answers cross-origin requests."),
        Flag::text(
            "ingress-class",
            "NAME",
            "/spec/ingressClassName",
            "IngressClass. Default: as the gateway.",
        ),
        PAUSED,
    ],
    columns: &[
        Column { title: "FUNCTION", pointer: "/spec/function-name" },
        Column { title: "HOST", pointer: "/spec/host-name" },
        Column { title: "PATH", pointer: "/spec/path" },
    ],
    complete: Some(complete),
    publish: None,
};

/// The gateway, and for nginx a host name that resolves to the API server's address.
fn complete(object: &mut Value, server: &str) -> Result<(), String> {
    let spec = &mut object["spec"];
    if spec["gateway"].is_null() {
        spec["gateway"] = GATEWAY.into();
    }
    if !spec["host-name"].is_null() {
        return Ok(());
    }
    let function = spec["function-name"].as_str().unwrap_or_default();
    match (spec["gateway"] == GATEWAY, server.parse::<IpAddr>()) {
        (true, Ok(IpAddr::V4(address))) => {
            spec["host-name"] = format!("{function}.{address}.nip.io").into();
            Ok(())
        }
        (true, _) => {
            Err("--hostname is missing, and no name can be made of the API server's address".to_owned())
        }
        (false, _) => Err("--hostname is missing; only for nginx one is made".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_host_is_made_where_kubeless_made_one() {
        let made = |spec: Value, server: &str| {
            let mut object = json!({ "spec": spec });
            complete(&mut object, server).map(|()| object["spec"]["host-name"].clone())
        };
        let function = json!({ "function-name": "f" });
        assert_eq!(made(function.clone(), "10.0.0.1"), Ok(json!("f.10.0.0.1.nip.io")));
        assert!(made(function.clone(), "api.example").is_err() && made(function, "").is_err());
        assert!(made(json!({ "function-name": "f", "gateway": "kong" }), "10.0.0.1").is_err());
        assert_eq!(made(json!({ "function-name": "f", "host-name": "h" }), ""), Ok(json!("h")));
    }
}
