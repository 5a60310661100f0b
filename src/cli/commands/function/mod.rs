//! `kubeless function …`: functions of a cluster. Must never hold more than the list of verbs.

mod call;
mod change;
mod code;
mod delete;
mod deploy;
pub mod describe;
mod flags;
mod list;
mod logs;
mod pairs;
pub mod rows;
mod top;
mod update;

pub use self::{change::CREATED_BY, deploy::check, flags::check_quantity, pairs::Pair, rows::some};

use crate::cli::{Exit, Wiring, session::Place};
use clap::Subcommand;

const EXAMPLES: &str = "Examples:
  kubeless function deploy hello -r python3.11 --handler hello.main --from-file hello.py --wait
  kubeless function call hello --data '{\"name\":\"Ada\"}'
  kubeless function list
";

/// Functions of a cluster.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes a function of code and a runtime, or of an image.
    Deploy(Box<deploy::Args>),
    /// Changes what the flags name, and nothing else.
    Update(Box<update::Args>),
    /// Removes functions with everything that was made for them.
    Delete(delete::Args),
    /// Lists functions.
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Everything about one function: code, settings, conditions, Pods, events.
    Describe(describe::Args),
    /// What the function's Pods write.
    Logs(logs::Args),
    /// Calls a function through the API server.
    Call(call::Args),
    /// Calls, failures, CPU and memory of functions.
    #[command(visible_alias = "stats")]
    Top(top::Args),
}

impl Args {
    /// Runs the command.
    pub fn run(&self, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
        let place = &self.place;
        match &self.verb {
            Verb::Deploy(args) => deploy::run(args, place),
            Verb::Update(args) => update::run(args, place),
            Verb::Delete(args) => place.run(async |session| delete::run(args, session).await),
            Verb::List(args) => place.run(async |session| list::run(args, session).await),
            Verb::Describe(args) => place.run(async |session| describe::run(args, session, wiring).await),
            Verb::Logs(args) => place.run(async |session| logs::run(args, session).await),
            Verb::Call(args) => call::run(args, place),
            Verb::Top(args) => place.run(async |session| top::run(args, session).await),
        }
    }
}
