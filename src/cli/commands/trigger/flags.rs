//! The command line of one trigger kind, from its description. Must never read a value: see `fields`.

use super::{describe, pause, publish};
use crate::{
    api::command::{Flag, TriggerCommand, Value},
    cli::{commands::delete, listing::Listing, written::Writing},
};
use clap::{Arg, ArgAction, ArgMatches, Args, Command};

/// The kind with its verbs.
pub fn command(kind: &TriggerCommand) -> Command {
    let noun = kind.resource.noun;
    let changes = format!("Changes what the flags name of a {noun}, and nothing else");
    // The derived groups bring words of their own about a whole command, so ours come after them.
    let many = || Command::new("").arg(name_arg().num_args(1..));
    let delete = delete::Flags::augment_args(many()).name("delete").about(format!("Removes {noun}s"));
    let list = Listing::augment_args(many().mut_arg(NAME, |names| names.required(false).num_args(0..)));
    let list = list.name("list").visible_alias("ls").about(format!("Lists {noun}s"));
    let describe = describe::Flags::augment_args(Command::new("").arg(name_arg()));
    let describe = describe.name("describe").about(format!("Shows one {noun}, how it is and its events"));
    let command = Command::new(kind.name)
        .about(kind.about.trim_end_matches('.'))
        .before_help(examples(kind, ""))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(verb(kind, true).name("create").about(format!("Makes a {noun}")))
        .subcommand(verb(kind, false).name("update").about(changes))
        .subcommand(delete)
        .subcommand(list)
        .subcommand(describe)
        .mut_subcommands(|verb| {
            let examples = examples(kind, verb.get_name());
            verb.before_help(examples)
        });
    publish::with_verbs(pause::with_verbs(command, kind, &name_arg()), kind)
}

/// The lines for one verb.
fn examples(kind: &TriggerCommand, verb: &str) -> String {
    let all = kind.examples.iter().filter(|line| verb.is_empty() || line.split(' ').any(|word| word == verb));
    all.fold("Examples:\n".to_owned(), |text, line| format!("{text}  {line}\n"))
}

/// The name that was given to `create` or `update`.
pub fn name(matches: &ArgMatches) -> &str {
    matches.get_one::<String>(NAME).map(String::as_str).unwrap_or_default()
}

fn verb(kind: &TriggerCommand, new: bool) -> Command {
    let command = Command::new("").arg(name_arg());
    let command = kind.flags.iter().fold(command, |command, flag| command.arg(arg(flag, new)));
    Writing::augment_args(
        command.arg(
            Arg::new(LABEL)
                .long(LABEL)
                .short('l')
                .value_name("K=V")
                .value_delimiter(',')
                .action(ArgAction::Append)
                .help("Labels of the trigger itself; `key-` removes"),
        ),
    )
}

/// Id of the flag that labels the trigger.
pub const LABEL: &str = "label";
/// Id of the name, or names.
pub const NAME: &str = "name";

fn name_arg() -> Arg {
    Arg::new(NAME).required(true).value_name("NAME").help("Name of the trigger")
}

fn arg(flag: &Flag, new: bool) -> Arg {
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .value_name(flag.value_name)
        .help(flag.help.trim_end_matches('.'))
        .required(new && flag.required);
    let arg = match flag.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    match flag.value {
        Value::Bool => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide_possible_values(true)
            .value_parser(clap::value_parser!(bool)),
        _ => arg,
    }
}
