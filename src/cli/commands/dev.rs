//! `kubeless dev DIR`: arguments of local mode. Must never start anything itself.

use crate::cli::{DevRequest, Exit, UsageError, Wiring};
use std::{io::IsTerminal, path::PathBuf};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of manifests. Everything is kept in its subfolder .kubeless.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Print events as JSON lines; the default when standard output is not a terminal.
    #[arg(long)]
    json: bool,
    /// Another dispatcher executable than the one beside this program.
    #[arg(long, value_name = "FILE")]
    dispatcher: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
    if !args.dir.is_dir() {
        let text = format!(
            "{} is not a folder; name one with manifests, as in `kubeless dev .`",
            args.dir.display()
        );
        return Err(UsageError(text).into());
    }
    let json = args.json || !std::io::stdout().is_terminal();
    wiring.dev(DevRequest { dir: args.dir, json, dispatcher: args.dispatcher })?;
    Ok(Exit::Ok)
}
