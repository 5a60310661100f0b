//! What the API server refuses, in words that name the fix. Must never guess: what is not recognised is passed on in
//! the server's own words.

use super::objects::Kind;
use crate::{
    api::schema,
    cluster::client::{self, Connect},
};
use anyhow::anyhow;
use kube::{config::Kubeconfig, core::Status};
use std::fmt::Write as _;

/// What was asked of the API server.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// RBAC verb.
    pub verb: &'static str,
    /// Of what.
    pub kind: Kind,
    /// Where; `None` is everywhere.
    pub namespace: Option<&'a str>,
    /// Which; empty for a list.
    pub name: &'a str,
    /// Address of the API server.
    pub server: &'a str,
}

/// Whether the server knows the kind, and has no object of this name.
pub fn is_missing_object(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found() && !details(status).0.is_empty())
}

/// Whether the server does not know the kind.
pub fn is_missing_kind(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 && details(status).0.is_empty())
}

fn details(status: &Status) -> (&str, &str) {
    status.details.as_ref().map_or(("", ""), |details| (details.name.as_str(), details.kind.as_str()))
}

/// An answer that is an error, with what to do about it.
pub fn api(asked: &Asked<'_>, error: &kube::Error) -> anyhow::Error {
    let kube::Error::Api(status) = error else {
        return unreachable(asked.server, error);
    };
    let Asked { kind, name, .. } = asked;
    let noun = kind.noun;
    match status.as_ref() {
        _ if is_missing_kind(error) => anyhow!(
            "this cluster has no {}: the custom resource definition is missing; install it with: kubeless install \
             (--crds-only for nothing but the definitions; kubeless check says what else is missing)",
            kind.permission()
        ),
        status if status.is_not_found() && details(status).1 == "namespaces" => {
            let namespace = asked.namespace.unwrap_or_default();
            anyhow!("there is no namespace {namespace:?}; make it with: kubectl create namespace {namespace}")
        }
        status if status.is_already_exists() => {
            let namespace = asked.namespace.unwrap_or_default();
            anyhow!(
                "{noun} {name:?} exists already in namespace {namespace}; change it with update, or delete it first"
            )
        }
        status if status.is_forbidden() => forbidden(asked, status),
        status if status.code == 401 => anyhow!(
            "{} does not accept these credentials ({}); log in again, or choose another --context",
            asked.server,
            status.message
        ),
        status if status.is_invalid() => {
            let mut text = format!("the API server refuses {noun} {name:?}:");
            let causes = status.details.iter().flat_map(|details| &details.causes);
            for cause in causes.clone() {
                // Writing to a String cannot fail.
                let _ = write!(text, "\n  {}: {}", cause.field, cause.message);
            }
            if causes.clone().next().is_none() {
                let _ = write!(text, " {}", status.message);
            }
            anyhow!(text)
        }
        _ => anyhow!("{}", client::explain(error)),
    }
}

fn forbidden(asked: &Asked<'_>, status: &Status) -> anyhow::Error {
    // Admission refuses with the same status, and then permissions are not what is missing.
    if !status.message.contains(" cannot ") {
        return anyhow!("{}", status.message);
    }
    let Asked { verb, kind, namespace, .. } = asked;
    let user =
        status.message.split("User \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("NAME");
    let subject = match user.strip_prefix("system:serviceaccount:") {
        Some(account) => format!("--serviceaccount={account}"),
        None => format!("--user={user}"),
    };
    let (space, role, what) = match namespace {
        Some(name) => (format!("-n {name} "), "role", format!("in namespace {name}")),
        None => (String::new(), "clusterrole", "in all namespaces".to_owned()),
    };
    let resource = kind.permission();
    let title = format!("kubeless-{verb}-{}", kind.plural);
    anyhow!(
        "{user} may not {verb} {resource} {what}; somebody who administers the cluster can allow it:\n  \
         kubectl {space}create {role} {title} --verb={verb} --resource={resource}\n  \
         kubectl {space}create {role}binding {title} --{role}={title} {subject}"
    )
}

/// No answer at all.
pub fn unreachable(server: &str, error: &kube::Error) -> anyhow::Error {
    anyhow!(
        "no answer from {server}: {}; is the cluster running, and is this the right --context?",
        client::explain(error)
    )
}

/// There is no way to a cluster; a context that does not exist is answered with those that do.
pub fn connect(connect: &Connect, error: &client::Error) -> anyhow::Error {
    let files = connect.files();
    if let (client::Error::Nowhere(_), true) = (error, files.is_empty()) {
        return anyhow!(
            "no cluster: there is no kubeconfig (KUBECONFIG, ~/.kube/config), and this is not a Pod; give --kubeconfig \
             FILE, or get one from whoever runs the cluster (kubeless dev needs none)"
        );
    }
    let read = files.iter().filter_map(|path| Kubeconfig::read_from(path).ok());
    let contexts: Vec<String> = read.flat_map(|file| file.contexts).map(|context| context.name).collect();
    let names: Vec<&str> = contexts.iter().map(String::as_str).collect();
    match &connect.context {
        Some(wanted) if !names.is_empty() && !names.contains(&wanted.as_str()) => {
            anyhow!("there is no context {wanted:?}: {}", schema::one_of(wanted, &names))
        }
        _ => anyhow!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::session::objects::FUNCTIONS;
    use kube::core::response::StatusDetails;

    fn told(status: Status) -> String {
        let asked = Asked {
            verb: "list",
            kind: FUNCTIONS,
            namespace: Some("shop"),
            name: "hello",
            server: "https://h:6443",
        };
        api(&asked, &kube::Error::Api(status.boxed())).to_string()
    }

    #[test]
    fn refusals_name_the_fix() {
        let forbidden = "functions.kubeless.io is forbidden: User \"jane\" cannot list resource \"functions\" in API group \
                         \"kubeless.io\" in the namespace \"shop\"";
        let text = told(Status::failure(forbidden, "Forbidden").with_code(403));
        assert!(text.starts_with("jane may not list functions.kubeless.io in namespace shop"), "{text}");
        assert!(text.contains("--verb=list --resource=functions.kubeless.io"), "{text}");
        let text = told(Status::failure("admission says no", "Forbidden").with_code(403));
        assert_eq!(text, "admission says no");
        let text = told(Status::failure("404 page not found\n", "").with_code(404));
        assert!(text.contains("kubeless install"), "{text}");
        let details: StatusDetails =
            serde_json::from_value(serde_json::json!({ "name": "shop", "kind": "namespaces" })).unwrap();
        let text = told(Status::failure("no", "NotFound").with_code(404).with_details(details));
        assert!(text.contains("kubectl create namespace shop"), "{text}");
    }
}
