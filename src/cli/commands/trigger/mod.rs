//! `kubeless trigger KIND create|update|delete|list|describe|pause|resume|publish`, made from the descriptions that the sources give. Must never
//! name a source.

mod describe;
mod fields;
mod flags;
mod list;
mod named;
mod pause;
mod publish;

use crate::{
    api::command::TriggerCommand,
    cli::{
        Exit, UsageError, Wiring,
        session::{
            Place, Session, host,
            objects::{Changed, check_name},
        },
        written::{DryRun, Writing},
    },
};
use anyhow::{Context, bail};
use clap::{ArgMatches, Command, FromArgMatches};
use serde_json::Value;

/// What was written after `trigger`; which kinds there are is known only when the program runs.
#[derive(Clone, Debug, Default)]
pub struct Args {
    matches: ArgMatches,
}

impl FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { matches: matches.clone() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.matches = matches.clone();
        Ok(())
    }
}

impl clap::Args for Args {
    fn augment_args(command: Command) -> Command {
        Place::augment_args(command).subcommand_required(true).arg_required_else_help(true)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Adds a subcommand for each kind.
pub fn with_kinds(command: Command, kinds: &[TriggerCommand]) -> Command {
    let examples = kinds.iter().filter_map(|kind| kind.examples.first());
    let examples = examples.fold("Examples:\n".to_owned(), |text, line| format!("{text}  {line}\n"));
    let command = command.before_help(examples);
    kinds.iter().fold(command, |command, kind| command.subcommand(flags::command(kind)))
}

impl Args {
    /// Runs the command.
    pub fn run(&self, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
        let place = Place::from_arg_matches(&self.matches)?;
        let (kind, matches) = self.matches.subcommand().context("no kind of trigger")?;
        let kinds = wiring.triggers();
        let kind = kinds.iter().find(|known| known.name == kind).context("an unknown kind of trigger")?;
        let (verb, matches) = matches.subcommand().context("no verb")?;
        if let Some(ended) = publish::run(kind, verb, matches, wiring) {
            return ended;
        }
        if let Some(paused) = pause::value_of(verb) {
            return place.run(async |session| pause::run(kind, matches, paused, session).await);
        }
        match verb {
            "create" => create(kind, matches, &place),
            "update" => update(kind, matches, &place),
            "delete" => place.run(async |session| delete(kind, matches, session).await),
            "describe" => place.run(async |session| describe::run(kind, matches, session).await),
            _ => place.run(async |session| list::run(kind, matches, session).await),
        }
    }
}

fn create(kind: &TriggerCommand, matches: &ArgMatches, place: &Place) -> anyhow::Result<Exit> {
    let writing = Writing::from_arg_matches(matches)?;
    let name = flags::name(matches);
    check_name(&kind.resource, name)?;
    let fields = fields::read(kind, matches)?;
    let object = |namespace: &str, server: &str| {
        let mut object = fields::blank(kind, namespace, name);
        fields::apply(&fields, &mut object);
        if let Some(complete) = kind.complete {
            complete(&mut object, server).map_err(UsageError)?;
        }
        check(kind, &object).map(|()| object)
    };
    if writing.dry_run() == DryRun::Client {
        let known = place.offline()?;
        let object = object(&known.namespace, &known.server)?;
        writing.print(&[(kind.resource, object, "created")])?;
        return Ok(Exit::Ok);
    }
    place.run(async |session| {
        let object = object(&session.namespace, &host(&session.connection.server))?;
        named::check(kind, &object, session).await?;
        let created = session.create(&kind.resource, &object, writing.commit()).await?;
        writing.print(&[(kind.resource, created, "created")])?;
        Ok(Exit::Ok)
    })
}

fn update(kind: &TriggerCommand, matches: &ArgMatches, place: &Place) -> anyhow::Result<Exit> {
    let writing = Writing::from_arg_matches(matches)?;
    let name = flags::name(matches);
    check_name(&kind.resource, name)?;
    let fields = fields::read(kind, matches)?;
    if fields.is_empty() {
        let text = format!("nothing to change: add a flag (kubeless trigger {} update --help)", kind.name);
        return Err(UsageError(text).into());
    }
    let edit = |object: &mut Value| {
        fields::apply(&fields, object);
        check(kind, object)
    };
    place.run(async |session| {
        let (object, what) = match writing.dry_run() {
            DryRun::Client => {
                let mut object = session.get(&kind.resource, name).await?;
                edit(&mut object)?;
                (object, "changed")
            }
            _ => match session.update(&kind.resource, name, writing.commit(), edit).await? {
                Changed::Unchanged(object) => (object, "unchanged"),
                Changed::Written(object) => (object, "changed"),
            },
        };
        writing.print(&[(kind.resource, object, what)])?;
        Ok(Exit::Ok)
    })
}

async fn delete(kind: &TriggerCommand, matches: &ArgMatches, session: &Session) -> anyhow::Result<Exit> {
    let names: Vec<String> = matches.get_many::<String>(flags::NAME).into_iter().flatten().cloned().collect();
    super::delete::run(&kind.resource, &names, &super::delete::Flags::from_arg_matches(matches)?, session)
        .await
}

/// What the API server or the dispatcher would refuse.
fn check(kind: &TriggerCommand, object: &Value) -> anyhow::Result<()> {
    if let Err(violations) = (kind.trigger.decode)(object.clone()) {
        let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
        bail!(UsageError(lines.join("\n       ")));
    }
    Ok(())
}
