//! Whether the objects are there that a new trigger names, as Kubeless's command line looked. Must never read a Secret's
//! content.

use crate::{
    api::command::{Named, TriggerCommand},
    cli::{
        output::{printable_lines, talk},
        session::{Session, objects::FUNCTIONS},
    },
    cluster::client,
};
use anyhow::anyhow;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::Value;

/// Refuses a trigger whose function or Secret is missing. What may not be looked at is only told.
pub async fn check(kind: &TriggerCommand, object: &Value, session: &Session) -> anyhow::Result<()> {
    for flag in kind.flags {
        let name = object.pointer(flag.pointer).and_then(Value::as_str);
        let (Some(named), Some(name)) = (flag.names, name) else { continue };
        let found = match named {
            Named::Function => session.has(&FUNCTIONS, name).await,
            Named::Secret => has_secret(session, name).await,
        };
        match (found, named) {
            (Ok(true), _) => {}
            (Ok(false), Named::Function) => return Err(session.missing(&FUNCTIONS, name).await),
            (Ok(false), Named::Secret) => {
                return Err(anyhow!(
                    "there is no Secret {name:?} in namespace {}; make it first: kubectl -n {} create secret generic \
                     {name} --from-literal=KEY=VALUE",
                    session.namespace,
                    session.namespace
                ));
            }
            (Err(error), _) => {
                let text =
                    format!("warning: --{} {name} is not checked: {}", flag.name, client::explain(&error));
                talk(&printable_lines(&text));
            }
        }
    }
    Ok(())
}

async fn has_secret(session: &Session, name: &str) -> kube::Result<bool> {
    let secrets: Api<Secret> = Api::namespaced(session.connection.client.clone(), &session.namespace);
    Ok(secrets.get_metadata_opt(name).await?.is_some())
}
