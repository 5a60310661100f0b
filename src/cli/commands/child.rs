//! `kubeless child` (hidden): becomes a program that the kernel ends with its parent. Must never return once the
//! program runs.

use crate::cli::{Exit, Wiring};
use std::ffi::OsString;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Process id of the parent.
    #[arg(long)]
    parent: u32,
    /// Program and arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Runs the command.
pub fn run(args: &Args, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
    Err(wiring.child(args.parent, &args.command))
}
