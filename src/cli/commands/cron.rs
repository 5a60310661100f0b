//! `kubeless cron next`: the instants that a schedule names, before anybody relies on it. Must never call anything.

use crate::{
    api::occurrences::Occurrences,
    cli::{
        Exit, UsageError,
        output::{self, Format, Table},
    },
};
use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use std::io::Write;

/// Instants that are shown at most.
const MOST: u16 = 1000;

/// The beginning of its help.
pub const EXAMPLES: &str = "Examples:
  kubeless cron next '*/5 * * * *'
  kubeless cron next '30 2 * * *' --tz Europe/Berlin -n 10
  kubeless cron next @daily --tz Asia/Tokyo -o json
";

/// Subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Prints the next instants of a schedule.
    #[command(before_help = EXAMPLES)]
    Next(Next),
}

/// Arguments of `next`.
#[derive(Debug, clap::Args)]
pub struct Next {
    /// Minute, hour, day of month, month, day of week; or a name like @hourly.
    schedule: String,
    /// IANA name of the time zone.
    #[arg(long = "tz", value_name = "ZONE", default_value = "UTC")]
    zone: String,
    /// How many.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST)))]
    count: u16,
    /// Instants after this one (RFC 3339). Default: now.
    #[arg(long, value_name = "INSTANT")]
    from: Option<Timestamp>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Command {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<Exit> {
        let Self::Next(next) = self;
        next.run()
    }
}

impl Next {
    fn run(&self) -> anyhow::Result<Exit> {
        let schedule = Occurrences::of(&self.schedule, Some(&self.zone))
            .map_err(|error| anyhow!(UsageError(format!("{error}; {}", crate::api::schedule::FIX))))?;
        let from = self.from.unwrap_or_else(Timestamp::now).as_second();
        let walk = std::iter::successors(schedule.after(from), |at| schedule.after(*at));
        let instants: Vec<Timestamp> =
            walk.take(usize::from(self.count)).filter_map(|at| Timestamp::from_second(at).ok()).collect();
        let mut out = output::stdout();
        match self.output {
            Format::Json | Format::Yaml => {
                let list: Vec<_> = instants
                    .iter()
                    .map(|at| {
                        let local = at.to_zoned(schedule.zone().clone());
                        serde_json::json!({ "utc": at.to_string(), "local": local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string() })
                    })
                    .collect();
                let value = serde_json::json!({
                    "schedule": self.schedule, "timeZone": self.zone, "next": list,
                });
                output::document(&mut out, self.output, &value)?;
            }
            Format::Name => {
                for at in &instants {
                    writeln!(out, "{at}").context("writing")?;
                }
            }
            Format::Table | Format::Wide => {
                let mut table = Table::new(&["UTC", "LOCAL", "DAY"]);
                for at in &instants {
                    let local = at.to_zoned(schedule.zone().clone());
                    let shown = local.strftime("%Y-%m-%d %H:%M:%S %:z").to_string();
                    table.row(&[&at.to_string(), &shown, &local.strftime("%a").to_string()]);
                }
                write!(out, "{table}")?;
            }
        }
        if instants.is_empty() {
            output::talk("this schedule names no instant any more");
        }
        Ok(Exit::Ok)
    }
}
