//! `kubeless events …`: what became of events, from the dispatcher's local journal. Must never write to it.

mod get;
mod list;
mod read;

use crate::cli::Exit;
use clap::Subcommand;

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Everything that is recorded about one event.
    Get(get::Args),
    /// Events that ended, oldest first.
    List(list::Args),
}

impl Command {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Get(args) => get::run(&args),
            Self::List(args) => list::run(&args),
        }
    }
}
