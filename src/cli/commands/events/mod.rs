//! `kubeless events …`: what became of events, from the dispatcher's local journal. Must never write to it.

mod get;
mod list;
mod read;

use crate::cli::Exit;
use clap::Subcommand;

const GET_EXAMPLES: &str = "Examples:
  kubeless events get order-42
  kubeless events get orders/0/1234 -o json
";
const LIST_EXAMPLES: &str = "Examples:
  kubeless events list --outcome in_doubt
  kubeless events list --trigger shop/orders --since 1h -o json
";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Everything that is recorded about one event.
    #[command(before_help = GET_EXAMPLES)]
    Get(get::Args),
    /// Events that ended, oldest first.
    #[command(before_help = LIST_EXAMPLES)]
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
