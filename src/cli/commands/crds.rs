//! `kubeless crds`: the custom resource definitions as YAML. Must never need a cluster.

use crate::cli::{Exit, Wiring, output};
use std::io::Write;

/// Runs the command.
pub fn run(wiring: &dyn Wiring) -> anyhow::Result<Exit> {
    output::stdout().write_all(wiring.crds()?.as_bytes())?;
    Ok(Exit::Ok)
}
