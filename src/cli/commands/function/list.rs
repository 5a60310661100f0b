//! `kubeless function list`: functions of a namespace or of all, once or as they change. Must never need more
//! permissions than to list functions.

use super::rows;
use crate::cli::{
    Exit,
    listing::{Listing, Rows},
    output::{Cell, talk},
    session::{
        Session,
        objects::{FUNCTIONS, conditions},
    },
};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, api::ListParams};
use serde_json::Value;
use std::collections::HashMap;

const EXAMPLES: &str = "Examples:
  kubeless function list
  kubeless function list -A -o wide
  kubeless function list hello -o yaml
  kubeless function list -w
";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Only these.
    names: Vec<String>,
    #[command(flatten)]
    listing: Listing,
}

struct Functions {
    deployments: HashMap<(String, String), Deployment>,
    wide: bool,
}

impl Rows for Functions {
    fn head(&self) -> Vec<&str> {
        rows::head(self.wide)
    }

    fn row(&self, function: &Value) -> Vec<Cell> {
        rows::row(function, self.deployments.get(&key(function)), self.wide, Timestamp::now())
    }
}

/// Runs the command.
pub async fn run(args: &Args, session: &Session) -> anyhow::Result<Exit> {
    let found = args.listing.read(session, &FUNCTIONS, &args.names).await?;
    let deployments =
        match args.listing.is_table() && found.iter().any(|function| conditions(function).is_empty()) {
            true => deployments(args, session).await,
            false => HashMap::new(),
        };
    let rows = Functions { deployments, wide: args.listing.is_wide() };
    args.listing.show(session, &FUNCTIONS, &args.names, found, &rows).await
}

/// The Deployments of functions, for clusters whose controller writes no status. Without the permission to see them
/// the table is shown all the same.
async fn deployments(args: &Args, session: &Session) -> HashMap<(String, String), Deployment> {
    let client = session.connection.client.clone();
    let api: Api<Deployment> = match args.listing.all {
        true => Api::all(client),
        false => Api::namespaced(client, &session.namespace),
    };
    match api.list(&ListParams::default().labels("created-by=kubeless")).await {
        Ok(found) => found.items.into_iter().map(|item| (reference(&item), item)).collect(),
        Err(error) => {
            talk(&format!(
                "the Deployments cannot be seen, so STATUS may say too little: {}",
                crate::cluster::client::explain(&error)
            ));
            HashMap::new()
        }
    }
}

fn reference(deployment: &Deployment) -> (String, String) {
    let metadata = &deployment.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

fn key(function: &Value) -> (String, String) {
    let text = |field: &str| function["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}
