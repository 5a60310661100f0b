//! `kubeless trigger KIND pause|resume NAME…`: leaves new events at their source, or goes on. Must never touch another field.

use super::flags;
use crate::{
    api::command::TriggerCommand,
    cli::{
        Exit, UsageError,
        session::{Session, objects::Changed},
        written::{DryRun, Writing},
    },
};
use clap::{Arg, ArgMatches, Args as _, Command, FromArgMatches as _};
use serde_json::Value;

/// The field, as its flag describes it.
const FIELD: &str = "/spec/paused";
/// The verbs, with the value of the field.
const VERBS: [(&str, bool, &str); 2] = [
    ("pause", true, "Leaves new events at their source; what runs ends"),
    ("resume", false, "Takes events again, those that waited at their source first"),
];

/// Adds the verbs to a kind that can be paused.
pub fn with_verbs(command: Command, kind: &TriggerCommand, name: &Arg) -> Command {
    if !kind.flags.iter().any(|flag| flag.pointer == FIELD) {
        return command;
    }
    VERBS.into_iter().fold(command, |command, (verb, _, about)| {
        let names = name.clone().num_args(1..);
        let examples = format!("Examples:\n  kubeless trigger {} {verb} NAME\n", kind.name);
        let verb = Writing::augment_args(Command::new("").arg(names)).name(verb).about(about);
        command.subcommand(verb.before_help(examples))
    })
}

/// The value that a verb writes; `None`: the verb is not one of ours.
pub fn value_of(verb: &str) -> Option<bool> {
    VERBS.iter().find(|(known, ..)| *known == verb).map(|(_, value, _)| *value)
}

/// Runs a verb.
pub async fn run(
    kind: &TriggerCommand,
    matches: &ArgMatches,
    paused: bool,
    session: &Session,
) -> anyhow::Result<Exit> {
    let writing = Writing::from_arg_matches(matches)?;
    let edit = |object: &mut Value| {
        let spec = object.get_mut("spec").and_then(Value::as_object_mut);
        let spec =
            spec.ok_or_else(|| UsageError("the object has no spec; delete it and make it anew".to_owned()))?;
        // Without the field nothing is paused: an object that never was is left as it is.
        if paused || spec.contains_key("paused") {
            spec.insert("paused".to_owned(), paused.into());
        }
        Ok(())
    };
    let (done, already) = if paused { ("paused", "already paused") } else { ("resumed", "was not paused") };
    let mut changed = Vec::new();
    for name in matches.get_many::<String>(flags::NAME).into_iter().flatten() {
        let (object, what) = match writing.dry_run() {
            DryRun::Client => {
                let mut object = session.get(&kind.resource, name).await?;
                edit(&mut object)?;
                (object, done)
            }
            _ => match session.update(&kind.resource, name, writing.commit(), edit).await? {
                Changed::Unchanged(object) => (object, already),
                Changed::Written(object) => (object, done),
            },
        };
        changed.push((kind.resource, object, what));
    }
    writing.print(&changed)?;
    Ok(Exit::Ok)
}
