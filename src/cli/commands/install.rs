//! `kubeless install`: the programs, their permissions and the custom resources, onto a cluster. Must never print anything
//! but manifests on standard output.

use crate::{
    api::selector::is_dns_label,
    cli::{
        Exit, UsageError,
        install::{self, Request, apply},
        output::{self, talk},
        session::{Place, Session},
    },
};
use serde_json::Value;
use std::io::Write;

const EXAMPLES: &str = "Examples:
  kubeless install
  kubeless install --dry-run --daemonset | less
  kubeless install -n events --image registry.example/kubeless:0.1.0
  kubeless install --crds-only
";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Prints the manifests and touches nothing.
    #[arg(long)]
    dry_run: bool,
    /// Image of the programs, with its registry and tag.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// A dispatcher on each node in place of two for the cluster.
    #[arg(long)]
    daemonset: bool,
    /// Only the definitions of the custom resources.
    #[arg(long)]
    crds_only: bool,
    /// Takes over fields that somebody else (kubectl edit, another tool) has set.
    #[arg(long)]
    force_conflicts: bool,
    #[command(flatten)]
    place: Place,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    // Not that of the context: programs have a namespace of their own.
    let namespace = args.place.namespace.clone();
    if let Some(name) = namespace.as_ref().filter(|name| !is_dns_label(name)) {
        return Err(UsageError(format!("{name:?} is no name of a namespace: a-z, 0-9 and -")).into());
    }
    if args.image.as_ref().is_some_and(|image| image.is_empty() || image.contains(char::is_whitespace)) {
        return Err(UsageError("--image needs the name of an image".to_owned()).into());
    }
    let request = Request {
        namespace,
        image: args.image.clone(),
        daemonset: args.daemonset,
        crds_only: args.crds_only,
    };
    let objects = install::render(&request)?;
    if args.dry_run {
        output::stdout().write_all(install::to_yaml(&objects)?.as_bytes())?;
        return Ok(Exit::Ok);
    }
    args.place.run(async |session| apply_all(args, session, &objects).await)
}

async fn apply_all(args: &Args, session: &Session, objects: &[Value]) -> anyhow::Result<Exit> {
    talk(&format!("Installing on {}", session.connection.server));
    let tell = |line: &str| talk(&format!("  {line}"));
    apply::apply(&session.connection.client, objects, args.force_conflicts, tell).await?;
    if !args.crds_only {
        talk("Installed; `kubeless check` says when it runs, and what is missing");
    }
    Ok(Exit::Ok)
}
