//! `kubeless events list`: events that ended, filtered. Must never hold more lines than it was asked to print.

use super::read::Location;
use crate::{
    cli::{
        Exit, UsageError,
        output::{self, Format, Table, talk},
    },
    config::quantity::duration,
    ledger::{Outcome, journal::Line},
};
use jiff::Timestamp;
use std::collections::VecDeque;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these outcomes, separated by commas, as in in_doubt,failed.
    #[arg(long, value_delimiter = ',')]
    outcome: Vec<String>,
    /// Only this trigger, as name or namespace/name.
    #[arg(long)]
    trigger: Option<String>,
    /// Only this function, as name or namespace/name.
    #[arg(long)]
    function: Option<String>,
    /// Only what ended since: a duration (10m) or an RFC 3339 instant.
    #[arg(long)]
    since: Option<String>,
    /// The newest so many; 0 is all.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    location: Location,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let wanted = Wanted::new(args)?;
    let superseded = args.location.superseded()?;
    let (mut newest, mut left_out) = (VecDeque::new(), 0_u64);
    args.location.for_each(|line| {
        if wanted.includes(&line) && superseded.counts(&line) {
            newest.push_back(line);
            if args.limit > 0 && newest.len() > args.limit {
                newest.pop_front();
                left_out += 1;
            }
        }
    })?;
    let found = Vec::from(newest);
    output::list(&mut output::stdout(), args.output, &found, table, |line| line.id.clone())?;
    if left_out > 0 {
        talk(&format!("the newest {}; older ones with --limit 0", found.len()));
    }
    Ok(Exit::Ok)
}

struct Wanted<'a> {
    args: &'a Args,
    outcomes: Vec<Outcome>,
    since: Option<Timestamp>,
}

impl<'a> Wanted<'a> {
    fn new(args: &'a Args) -> Result<Self, UsageError> {
        let outcomes = args.outcome.iter().map(|text| outcome(text)).collect::<Result<_, _>>()?;
        let since = args.since.as_deref().map(|text| instant(text, Timestamp::now())).transpose()?;
        Ok(Self { args, outcomes, since })
    }

    fn includes(&self, line: &Line) -> bool {
        (self.outcomes.is_empty() || self.outcomes.contains(&line.outcome))
            && names(self.args.trigger.as_deref(), &line.trigger)
            && names(self.args.function.as_deref(), &line.function)
            && self.since.is_none_or(|since| line.ts.parse::<Timestamp>().is_ok_and(|ended| ended >= since))
    }
}

/// Whether `wanted` (a name, or namespace/name) means `found` (namespace/name).
fn names(wanted: Option<&str>, found: &str) -> bool {
    wanted
        .is_none_or(|wanted| wanted == found || found.split_once('/').is_some_and(|(_, name)| name == wanted))
}

fn outcome(text: &str) -> Result<Outcome, UsageError> {
    Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or_else(|| {
        let all = Outcome::ALL.map(Outcome::as_str).join(", ");
        UsageError(format!("`{text}` is not an outcome; there are {all}"))
    })
}

fn instant(text: &str, now: Timestamp) -> Result<Timestamp, UsageError> {
    let problem = || UsageError(format!("`{text}` is neither a duration (10m) nor an RFC 3339 instant"));
    match duration::parse(text) {
        Ok(ago) => now.checked_sub(ago).map_err(|_| problem()),
        Err(_) => text.parse().map_err(|_| problem()),
    }
}

fn table(lines: &[Line]) -> Table {
    let mut table =
        Table::new(&["ENDED", "TRIGGER", "EVENT", "FUNCTION", "OUTCOME", "STATUS", "TOOK", "REASON"]);
    for line in lines {
        let event = match line.id.as_str() {
            "" => line.position(),
            id => id.to_owned(),
        };
        table.row(&[
            line.ts.clone(),
            line.trigger.clone(),
            event,
            line.function.clone(),
            line.outcome.as_str().to_owned(),
            line.status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
            if line.took_us > 0 { format!("{:.1}ms", line.took_us as f64 / 1000.0) } else { "-".to_owned() },
            line.reason.clone().unwrap_or_default(),
        ]);
    }
    table
}
