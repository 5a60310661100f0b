//! The `kubeless` command line: arguments and which command they mean. Must never know a source or a
//! function by itself: see [`Wiring`].

mod commands;
mod exit;
pub mod output;
mod wiring;

pub use self::{
    exit::{Exit, UsageError},
    wiring::{DevRequest, Message, Publisher, Wiring},
};

use clap::{CommandFactory, Parser, Subcommand};
use output::{Color, talk};
use std::ffi::OsString;

const EXAMPLES: &str = "Examples:
  kubeless dev .                                   run the manifests of this folder, no cluster needed
  kubeless send orders '{\"id\":42}' --id order-42   publish an event to the running session
  kubeless events get order-42                     what became of it
  kubeless events list --outcome in_doubt          what a crash left open
  kubeless validate config/ && kubeless crds | kubectl apply -f -
";

/// Events to functions, at most once.
#[derive(Debug, Parser)]
#[command(name = "kubeless", version, before_help = EXAMPLES, after_help = exit::HELP, max_term_width = 110)]
struct Cli {
    /// Colour: auto, always or never. NO_COLOR is honoured.
    #[arg(long, global = true, value_enum, default_value_t)]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a folder of manifests on this machine: dispatcher, functions, and a broker if none is named.
    Dev(commands::dev::Args),
    /// Publishes events to a topic.
    Send(commands::send::Args),
    /// What became of events.
    #[command(subcommand)]
    Events(commands::events::Command),
    /// Checks manifests without touching anything.
    Validate(commands::validate::Args),
    /// Prints the custom resource definitions.
    Crds,
    /// Prints the version.
    Version(commands::version::Args),
    /// Starts a program that ends with its parent (used by `dev`).
    #[command(hide = true)]
    Child(commands::child::Args),
}

/// Parses `arguments` (the first is the program's name) and runs the command.
pub fn run(arguments: impl IntoIterator<Item = OsString>, wiring: &dyn Wiring) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data on standard output; the rest is talk. clap decides.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok };
        }
    };
    cli.color.apply();
    match cli.command.run(wiring) {
        Ok(exit) => exit,
        Err(error) if output::is_closed_pipe(&error) => Exit::Ok,
        Err(error) => {
            talk(&format!("error: {}", output::printable_lines(&format!("{error:#}"))));
            if error.is::<UsageError>() { Exit::Usage } else { Exit::Failed }
        }
    }
}

/// The help text, for documentation and its tests.
pub fn help() -> String {
    Cli::command().render_long_help().to_string()
}

impl Command {
    fn run(self, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
        match self {
            Self::Dev(args) => commands::dev::run(args, wiring),
            Self::Send(args) => commands::send::run(&args, wiring),
            Self::Events(command) => command.run(),
            Self::Validate(args) => commands::validate::run(&args, wiring),
            Self::Crds => commands::crds::run(wiring),
            Self::Version(args) => commands::version::run(&args),
            Self::Child(args) => commands::child::run(&args, wiring),
        }
    }
}
