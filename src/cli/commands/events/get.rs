//! `kubeless events get ID`: everything that is recorded about one event, one block for each subscription. Must never
//! guess: what the journal does not hold is not shown.

use super::read::Location;
use crate::{
    cli::{
        Exit,
        output::{self, Format, Table, talk},
    },
    ledger::journal::Line,
};
use std::io::Write;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The event's id (header event-id), or its position as topic/partition/offset.
    id: String,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    location: Location,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let superseded = args.location.superseded()?;
    let mut found = Vec::new();
    args.location.for_each(|line| {
        if (line.id == args.id || line.position() == args.id) && superseded.counts(&line) {
            found.push(line);
        }
    })?;
    if found.is_empty() {
        talk(&format!(
            "no event `{}` in the journal: not seen, still in flight, or rotated away",
            output::printable(&args.id)
        ));
        return Ok(Exit::Failed);
    }
    let mut out = output::stdout();
    if args.output == Format::Table {
        for (index, line) in found.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(out, "{gap}{}", block(line))?;
        }
    } else {
        output::list(&mut out, args.output, &found, |_| Table::plain(), |line| line.id.clone())?;
    }
    Ok(Exit::Ok)
}

fn block(line: &Line) -> Table {
    let mut table = Table::plain();
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            table.row(&[name, value]);
        }
    };
    row("Event", &line.id);
    row("Position", &line.position());
    row("Written", &instant(line.time_ms));
    row("Trigger", &line.trigger);
    row("Function", &line.function);
    row("Outcome", line.outcome.as_str());
    row("Reason", line.reason.as_deref().unwrap_or_default());
    row("Ended", &line.ts);
    row("Claimed by", &line.owner);
    row("Sent to", line.endpoint.as_deref().unwrap_or_default());
    row("Sent at", &if line.sent_ms > 0 { instant(line.sent_ms) } else { String::new() });
    row("Status", &line.status.map(|status| status.to_string()).unwrap_or_default());
    row(
        "Took",
        &if line.took_us > 0 { format!("{:.1} ms", line.took_us as f64 / 1000.0) } else { String::new() },
    );
    if line.count > 1 {
        row("Stands for", &format!("{} events", line.count));
    }
    table
}

fn instant(unix_ms: i64) -> String {
    if unix_ms < 0 {
        return String::new();
    }
    jiff::Timestamp::from_millisecond(unix_ms).map(|time| time.to_string()).unwrap_or_default()
}
