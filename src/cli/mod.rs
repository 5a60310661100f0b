//! The `kubeless` command line: arguments and which command they mean. Must never know a source or a
//! function by itself: see [`Wiring`].

mod age;
mod commands;
mod exit;
pub mod install;
mod listing;
pub mod output;
mod progress;
mod session;
mod system;
mod wait;
mod wiring;
mod workload;
mod written;

pub use self::{
    exit::{Exit, UsageError},
    wiring::{DevRequest, Message, Publisher, Wiring},
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use output::{Color, talk};
use std::ffi::OsString;

const EXAMPLES: &str = "Examples:
  kubeless dev .                                   run this folder, no cluster needed
  kubeless send orders '{\"id\":42}' --id order-42   publish an event to it
  kubeless events get order-42                     what became of it
  kubeless events list --outcome in_doubt          what a crash left open
  kubeless validate config/ && kubeless crds | kubectl apply --server-side -f -

  kubeless install                                 onto a cluster
  kubeless check                                   what the cluster lacks, and how to fix it
  kubeless function deploy hello -r python3.11 --handler hello.main -f hello.py --wait
  kubeless function call hello --data '{\"name\":\"Ada\"}'
  kubeless trigger --help                          which events can call it
";

const DEV_EXAMPLES: &str = "Examples:
  kubeless dev config/examples/flights
  kubeless dev . --json | jq .outcome
";
const SEND_EXAMPLES: &str = "Examples:
  kubeless send orders '{\"id\":42}' --id order-42
  kubeless send orders --file orders.jsonl --id-from id --key-from customer
  cat photo.jpg | kubeless send photos @- --broker broker-0:9092
";
const EVENTS_EXAMPLES: &str = "Examples:
  kubeless events get order-42
  kubeless events list --outcome in_doubt,failed --since 1h
";
const CRDS_EXAMPLES: &str = "Examples:
  kubeless crds | kubectl apply --server-side -f -
";

/// Events to functions, at most once.
#[derive(Debug, Parser)]
#[command(name = "kubeless", version, before_help = EXAMPLES, after_help = exit::HELP, max_term_width = 110)]
struct Cli {
    /// Colour: auto (only on a terminal), always or never.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        hide_possible_values = true
    )]
    #[arg(hide_default_value = true, display_order = 998)]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Functions of a cluster.
    Function(commands::function::Args),
    /// Which events call which functions.
    Trigger(commands::trigger::Args),
    /// Runs a folder of manifests on this machine, with a broker if none is named.
    #[command(before_help = DEV_EXAMPLES)]
    Dev(commands::dev::Args),
    /// Publishes events to a topic.
    #[command(before_help = SEND_EXAMPLES)]
    Send(commands::send::Args),
    /// Topics of a broker.
    #[command(subcommand, before_help = commands::topic::EXAMPLES)]
    Topic(commands::topic::Command),
    /// What became of events.
    #[command(subcommand, before_help = EVENTS_EXAMPLES)]
    Events(commands::events::Command),
    /// How many Pods a function has, by load.
    Autoscale(commands::autoscale::Args),
    /// When a schedule calls.
    #[command(subcommand, before_help = commands::cron::EXAMPLES)]
    Cron(commands::cron::Command),
    /// What is missing on the cluster, and how to fix it.
    Check(commands::check::Args),
    /// Checks manifests without touching anything.
    Validate(commands::validate::Args),
    /// Installs the programs on a cluster, or prints the manifests for it.
    Install(commands::install::Args),
    /// Prints the custom resource definitions.
    #[command(before_help = CRDS_EXAMPLES)]
    Crds,
    /// Prints which runtimes functions may use.
    #[command(name = "get-server-config")]
    ServerConfig(commands::server_config::Args),
    /// Prints the versions of this program and of what runs in the cluster.
    Version(commands::version::Args),
    /// Prints the script that completes words in a shell.
    Completion(commands::completion::Args),
    /// Starts a program that ends with its parent (used by `dev`).
    #[command(hide = true)]
    Child(commands::child::Args),
}

/// Parses `arguments` (the first is the program's name) and runs the command.
pub fn run(arguments: impl IntoIterator<Item = OsString>, wiring: &dyn Wiring) -> Exit {
    let parsed = whole(wiring).try_get_matches_from(arguments);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
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

/// The command line with every kind of trigger that the sources bring.
fn whole(wiring: &dyn Wiring) -> clap::Command {
    let kinds = wiring.triggers();
    let whole =
        Cli::command().mut_subcommand("trigger", |trigger| commands::trigger::with_kinds(trigger, &kinds));
    compact(whole)
}

/// `--help` is what `-h` is, everywhere: one line a flag, on one screen.
fn compact(command: clap::Command) -> clap::Command {
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let help = clap::Arg::new("help")
        .short('h')
        .long("help")
        .action(clap::ArgAction::HelpShort)
        .help("Prints this text")
        .help_heading(None::<&str>)
        .display_order(usize::MAX);
    let command = command.disable_help_flag(true).arg(help);
    verbs.into_iter().fold(command, |command, verb| command.mut_subcommand(verb, compact))
}

/// The help text, for documentation and its tests.
pub fn help() -> String {
    compact(Cli::command()).render_help().to_string()
}

impl Command {
    fn run(self, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
        match self {
            Self::Function(args) => args.run(wiring),
            Self::Trigger(args) => args.run(wiring),
            Self::ServerConfig(args) => commands::server_config::run(&args),
            Self::Autoscale(args) => args.run(),
            Self::Check(args) => commands::check::run(&args, wiring),
            Self::Completion(args) => commands::completion::run(&args, whole(wiring)),
            Self::Dev(args) => commands::dev::run(args, wiring),
            Self::Send(args) => commands::send::run(&args, wiring),
            Self::Events(command) => command.run(),
            Self::Cron(command) => command.run(),
            Self::Topic(command) => command.run(wiring),
            Self::Validate(args) => commands::validate::run(&args, wiring),
            Self::Install(args) => commands::install::run(&args),
            Self::Crds => commands::crds::run(wiring),
            Self::Version(args) => commands::version::run(&args),
            Self::Child(args) => commands::child::run(&args, wiring),
        }
    }
}
