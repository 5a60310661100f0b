//! The verb `delete` of every kind. Must never remove what was not named.

use crate::cli::{
    Exit,
    output::{self, talk},
    session::{
        Session,
        objects::{Commit, Deleted, Kind},
    },
    written::DryRun,
};
use std::io::Write;

/// The flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Only tries: client (looks whether it is there) or server (the API server checks it).
    #[arg(long, value_name = "WHERE", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "client", hide_possible_values = true)]
    dry_run: Option<DryRun>,
    /// What is not there counts as deleted.
    #[arg(long)]
    ignore_not_found: bool,
}

/// Removes objects: every name is tried, and one that fails does not keep the others.
pub async fn run(kind: &Kind, names: &[String], flags: &Flags, session: &Session) -> anyhow::Result<Exit> {
    let mut exit = Exit::Ok;
    for name in names {
        match one(kind, name, flags, session).await {
            Ok(Some(text)) => writeln!(output::stdout(), "{} {text}", kind.named(name))?,
            Ok(None) => {}
            Err(error) => {
                talk(&format!("error: {}", output::printable_lines(&format!("{error:#}"))));
                exit = Exit::Failed;
            }
        }
    }
    Ok(exit)
}

async fn one(
    kind: &Kind,
    name: &str,
    flags: &Flags,
    session: &Session,
) -> anyhow::Result<Option<&'static str>> {
    let commit = match flags.dry_run {
        Some(DryRun::Client) => {
            session.get(kind, name).await?;
            return Ok(Some("deleted (dry run)"));
        }
        Some(DryRun::Server) => Commit::DryRun,
        Some(DryRun::None) | None => Commit::Really,
    };
    match session.delete(kind, name, commit).await? {
        Deleted::Missing if flags.ignore_not_found => Ok(None),
        Deleted::Missing => Err(session.missing(kind, name).await),
        _ if commit == Commit::DryRun => Ok(Some("deleted (server dry run)")),
        Deleted::Gone => Ok(Some("deleted")),
        Deleted::Pending(finalizers) => {
            talk(&format!(
                "{} {name} goes when its controller has cleaned up ({finalizers}); kubeless check says whether it runs",
                kind.noun
            ));
            Ok(Some("deleted"))
        }
    }
}
