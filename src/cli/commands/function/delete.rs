//! `kubeless function delete NAME...`. Must never remove what was not named.

use crate::cli::{
    Exit,
    commands::delete,
    session::{Session, objects::FUNCTIONS},
};

const EXAMPLES: &str = "Examples:
  kubeless function delete hello
  kubeless function delete hello world -n shop
";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Names of functions.
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    flags: delete::Flags,
}

/// Runs the command.
pub async fn run(args: &Args, session: &Session) -> anyhow::Result<Exit> {
    delete::run(&FUNCTIONS, &args.names, &args.flags, session).await
}
