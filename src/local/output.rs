//! What a local session says: talk on standard error, one line for each event on standard output. Must never print
//! control characters that came from an event.

use crate::ledger::{Outcome, journal::Line};
use std::{collections::BTreeMap, fmt::Write as _, io::Write};

/// Writes the live lines and counts what it wrote.
#[derive(Debug)]
pub struct Live {
    json: bool,
    header_printed: bool,
    counts: BTreeMap<&'static str, u64>,
}

impl Live {
    /// Text for people, or JSON lines for programs.
    pub fn new(json: bool) -> Self {
        Self { json, header_printed: false, counts: BTreeMap::new() }
    }

    /// One event ended.
    pub fn event(&mut self, line: &Line) -> std::io::Result<()> {
        *self.counts.entry(line.outcome.as_str()).or_default() += line.count;
        let mut out = anstream::stdout().lock();
        if self.json {
            let text = serde_json::to_string(line).map_err(std::io::Error::other)?;
            return writeln!(out, "{text}");
        }
        if !self.header_printed {
            self.header_printed = true;
            writeln!(out, "{}", columns(["TIME", "TRIGGER", "EVENT", "FUNCTION", "RESULT", "TOOK"]))?;
        }
        let time = line.ts.get(11..23).unwrap_or(&line.ts);
        let event = if line.id.is_empty() {
            format!("{}/{}/{}", line.stream, line.shard, line.sequence)
        } else {
            line.id.clone()
        };
        let (result, took) = (result(line), took(line.took_us));
        writeln!(
            out,
            "{}",
            columns([time, short(&line.trigger), &event, short(&line.function), &result, &took])
        )
    }

    /// The last sentence of a session.
    pub fn summary(&self) -> String {
        let count = |outcome: Outcome| self.counts.get(outcome.as_str()).copied().unwrap_or(0);
        let total: u64 = self.counts.values().sum();
        let mut text = format!(
            "{total} events: {} delivered, {} duplicates stopped, {} in doubt",
            count(Outcome::Delivered),
            count(Outcome::Duplicate),
            count(Outcome::InDoubt)
        );
        let told = [Outcome::Delivered, Outcome::Duplicate, Outcome::InDoubt];
        for outcome in Outcome::ALL.iter().filter(|outcome| !told.contains(outcome)) {
            if count(*outcome) > 0 {
                // Writing to a String cannot fail.
                let _ = write!(text, ", {} {}", count(*outcome), outcome.as_str());
            }
        }
        text
    }

    /// The counts for programs.
    pub fn counts(&self) -> serde_json::Value {
        let all: BTreeMap<&str, u64> = Outcome::ALL
            .iter()
            .map(|outcome| (outcome.as_str(), self.counts.get(outcome.as_str()).copied().unwrap_or(0)))
            .collect();
        serde_json::json!({ "summary": all })
    }
}

/// Says something to the person at the terminal.
pub fn say(text: &str) {
    // Nobody can be told that standard error is gone.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// A line that a function or the dispatcher printed, with whose it is.
pub fn relay(who: &str, line: &str) {
    say(&format!("  [{who}] {}", printable(line)));
}

/// The result as a person reads it.
fn result(line: &Line) -> String {
    let reason = line.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let status = line.status.map(|status| status.to_string()).unwrap_or_default();
    match line.outcome {
        Outcome::Delivered => status,
        Outcome::Failed => format!("{status} failed"),
        Outcome::Duplicate => "duplicate, not called".to_owned(),
        Outcome::Filtered => "filtered, not called".to_owned(),
        Outcome::Expired => "expired, not called".to_owned(),
        Outcome::InDoubt => format!("in doubt{reason}"),
        other => format!("{}{reason}", other.as_str()),
    }
}

fn took(microseconds: i64) -> String {
    if microseconds <= 0 { String::new() } else { format!("{:.1} ms", microseconds as f64 / 1000.0) }
}

/// Local mode has one namespace most of the time.
fn short(name: &str) -> &str {
    name.strip_prefix("default/").unwrap_or(name)
}

fn columns(cells: [&str; 6]) -> String {
    let [time, trigger, event, function, result, took] = cells.map(printable);
    format!("{time:<13} {trigger:<16} {event:<24} {function:<16} {result:<24} {took}").trim_end().to_owned()
}

/// The text with its control characters escaped.
fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, character| {
        if character.is_control() && character != '\t' {
            let _ = write!(safe, "{}", character.escape_unicode());
        } else {
            safe.push(character);
        }
        safe
    })
}
