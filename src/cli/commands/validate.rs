//! `kubeless validate PATH...`: checks manifests. Must never change or contact anything.

use crate::cli::{
    Exit, Wiring,
    output::{self, talk},
};
use std::{io::Write, path::PathBuf};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders or files of manifests.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

/// Runs the command: problems are the data, the count is talk.
pub fn run(args: &Args, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
    let (good, problems) = wiring.validate(&args.paths)?;
    let mut out = output::stdout();
    for problem in &problems {
        writeln!(out, "{}", output::printable_lines(problem))?;
    }
    talk(&format!("{good} objects are valid, {} problems", problems.len()));
    Ok(if problems.is_empty() { Exit::Ok } else { Exit::ProblemsFound })
}
