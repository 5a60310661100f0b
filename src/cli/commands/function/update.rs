//! `kubeless function update NAME`: changes a function. Must never touch what no flag names.

use super::{deploy, flags::Flags};
use crate::cli::{
    Exit, UsageError,
    session::{
        Place,
        objects::{Changed, FUNCTIONS, check_name},
    },
    wait::Wait,
    written::{DryRun, Writing},
};

const EXAMPLES: &str = "Examples:
  kubeless function update hello --from-file hello.py --wait
  kubeless function update hello --env LEVEL=info --env OLD- --memory 256Mi
  kubeless function update hello --runtime python3.11 --dry-run=server -o yaml
";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Name of the function.
    name: String,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    wait: Wait,
}

/// Runs the command.
pub fn run(args: &Args, place: &Place) -> anyhow::Result<Exit> {
    check_name(&FUNCTIONS, &args.name)?;
    let changes = args.flags.changes()?;
    if changes == Default::default() {
        let text = format!(
            "nothing to change: add a flag, as in --from-file FILE (kubeless function update {} --help)",
            args.name
        );
        return Err(UsageError(text).into());
    }
    place.run(async |session| {
        deploy::check_runtime(&changes, session).await?;
        let edit = |object: &mut serde_json::Value| {
            changes.apply(object);
            deploy::check(object)
        };
        let done = match args.writing.dry_run() {
            DryRun::Client => {
                let mut object = session.get(&FUNCTIONS, &args.name).await?;
                edit(&mut object)?;
                (FUNCTIONS, object, "changed")
            }
            _ => match session.update(&FUNCTIONS, &args.name, args.writing.commit(), edit).await? {
                Changed::Unchanged(object) => (FUNCTIONS, object, "unchanged"),
                Changed::Written(object) => (FUNCTIONS, object, "changed"),
            },
        };
        args.writing.print(&[done])?;
        if args.writing.dry_run() != DryRun::None {
            return Ok(Exit::Ok);
        }
        Ok(args.wait.run(session, &args.name).await?.unwrap_or(Exit::Ok))
    })
}
