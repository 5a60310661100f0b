//! `kubeless trigger KIND describe NAME`: what one trigger says, how it is and what became of its events. Must never know a
//! kind.

use crate::{
    api::command::TriggerCommand,
    cli::{
        Exit,
        age::age,
        commands::function::{
            describe::{conditions_of, section},
            rows::{pairs, some},
        },
        output::{self, Format, Table},
        session::Session,
    },
};
use clap::{ArgMatches, FromArgMatches};
use jiff::Timestamp;
use serde_json::Value;
use std::io::Write;

/// Flags beside the name.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Output format.
    #[arg(short, long, alias = "out", value_enum, default_value_t)]
    output: Format,
}

/// Runs the command.
pub async fn run(kind: &TriggerCommand, matches: &ArgMatches, session: &Session) -> anyhow::Result<Exit> {
    let flags = Flags::from_arg_matches(matches)?;
    let name = super::flags::name(matches);
    let trigger = session.get(&kind.resource, name).await?;
    let mut out = output::stdout();
    match flags.output {
        Format::Json | Format::Yaml => {
            output::document(&mut out, flags.output, &output::presentable(&trigger))?;
        }
        Format::Name => writeln!(out, "{}", kind.resource.named(name))?,
        Format::Table | Format::Wide => {
            let now = Timestamp::now();
            write!(out, "{}", properties(kind, &trigger, now))?;
            section(&mut out, "Conditions", &conditions_of(&trigger, now))?;
            section(&mut out, "Events", &events(&trigger))?;
        }
    }
    Ok(Exit::Ok)
}

fn properties(kind: &TriggerCommand, trigger: &Value, now: Timestamp) -> Table {
    let text = |field: &str| trigger["metadata"][field].as_str().unwrap_or_default();
    let labels = pairs(trigger["metadata"]["labels"].as_object().into_iter().flatten()).join(",");
    let mut table = Table::plain();
    let mut add = |name: &str, value: &str| table.row(&[&format!("{name}:"), &some(value)]);
    add("Name", text("name"));
    add("Namespace", text("namespace"));
    add("Label", &labels);
    for column in kind.columns {
        add(&capitalised(column.title), &super::list::shown(trigger.pointer(column.pointer)));
    }
    // Not every kind counts them.
    if let Some(functions) = trigger["status"]["functions"].as_u64() {
        add("Functions", &functions.to_string());
    }
    add("Age", &age(trigger["metadata"]["creationTimestamp"].as_str(), now));
    table
}

fn capitalised(title: &str) -> String {
    let mut letters = title.chars();
    letters.next().map_or_else(String::new, |first| format!("{first}{}", letters.as_str().to_lowercase()))
}

/// What became of its events, as far as somebody counted them.
fn events(trigger: &Value) -> Table {
    let mut table = Table::new(&["OUTCOME", "EVENTS"]);
    let counts = &trigger["status"]["events"];
    let mut add = |name: &str, count: &Value| {
        if let Some(count) = count.as_u64() {
            table.row(&[name, &count.to_string()]);
        }
    };
    add("received", &counts["received"]);
    for (outcome, count) in counts["outcomes"].as_object().into_iter().flatten() {
        add(outcome, count);
    }
    add("in flight", &counts["inFlight"]);
    table
}
