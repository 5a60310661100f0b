//! What a local session says: talk on standard error, one line for each event on standard output. Must never print
//! control characters that came from an event.

use crate::ledger::{Outcome, journal::Line};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::Write as _,
    io::Write,
};
use xxhash_rust::xxh3::xxh3_128;

/// Deliveries whose outcome is remembered, to recognise an `in_doubt` that comes after its event's own outcome: a
/// successor names what stood open in the register, which is at most a claim window old.
const REMEMBERED: usize = 16_384;

/// Narrowest and widest column of event ids.
const EVENT_WIDTHS: (usize, usize) = (16, 40);

/// Writes the live lines and counts what it wrote.
#[derive(Debug)]
pub struct Live {
    json: bool,
    header_printed: bool,
    event_width: usize,
    counts: BTreeMap<&'static str, u64>,
    recent: Recent,
}

/// The outcomes that were printed last, by delivery.
#[derive(Debug, Default)]
struct Recent {
    outcomes: HashMap<u128, Outcome>,
    order: VecDeque<u128>,
}

impl Recent {
    /// What was printed for the same delivery before, if it was printed lately.
    fn replace(&mut self, line: &Line) -> Option<Outcome> {
        let Line { trigger, function, epoch, time_ms, .. } = line;
        let position = line.position();
        let key = format!("{trigger}\0{function}\0{position}\0{epoch}\0{time_ms}");
        let key = xxh3_128(key.as_bytes());
        let before = self.outcomes.get(&key).copied();
        if before.is_none() {
            self.order.push_back(key);
        }
        if before.is_none_or(|outcome| outcome == Outcome::InDoubt) {
            self.outcomes.insert(key, line.outcome);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.outcomes.remove(&oldest);
        }
        before
    }
}

impl Live {
    /// Text for people, or JSON lines for programs.
    pub fn new(json: bool) -> Self {
        Self {
            json,
            header_printed: false,
            event_width: EVENT_WIDTHS.0,
            counts: BTreeMap::new(),
            recent: Recent::default(),
        }
    }

    /// One event ended. An event has one outcome: its own is worth more than a successor's doubt (rule N6).
    pub fn event(&mut self, line: &Line) -> std::io::Result<()> {
        match self.recent.replace(line) {
            Some(Outcome::InDoubt) => self.uncount(Outcome::InDoubt, line.count),
            Some(_) if line.outcome == Outcome::InDoubt => return Ok(()),
            // An ending without a call is written before the commit passes over it: a crash in between repeats it.
            Some(before) if before == line.outcome => return Ok(()),
            _ => {}
        }
        *self.counts.entry(line.outcome.as_str()).or_default() += line.count;
        let mut out = anstream::stdout().lock();
        if self.json {
            let text = serde_json::to_string(line).map_err(std::io::Error::other)?;
            return writeln!(out, "{text}");
        }
        let time = line.ts.get(11..23).unwrap_or(&line.ts);
        let event = if line.id.is_empty() { line.position() } else { line.id.clone() };
        // Ids of one kind are about as long as each other: the column is as wide as the longest so far.
        self.event_width = self.event_width.max(event.chars().count().min(EVENT_WIDTHS.1));
        let width = self.event_width;
        if !self.header_printed {
            self.header_printed = true;
            writeln!(out, "{}", columns(["TIME", "TRIGGER", "EVENT", "FUNCTION", "TOOK", "RESULT"], width))?;
        }
        let (result, took) = (result(line), took(line.took_us));
        let cells = [time, short(&line.trigger), &event, short(&line.function), &took, &result];
        writeln!(out, "{}", columns(cells, width))
    }

    fn uncount(&mut self, outcome: Outcome, count: u64) {
        if let Some(counted) = self.counts.get_mut(outcome.as_str()) {
            *counted = counted.saturating_sub(count);
        }
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

fn columns(cells: [&str; 6], event_width: usize) -> String {
    let [time, trigger, event, function, took, result] = cells.map(printable);
    format!("{time:<13} {trigger:<16} {event:<event_width$} {function:<16} {took:>9}  {result}")
        .trim_end()
        .to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sequence: i64, outcome: Outcome) -> Line {
        let text = format!(
            r#"{{"ts":"2026-01-01T00:00:00Z","trigger":"a/b","function":"a/c","id":"e","stream":"t","shard":0,"sequence":{sequence},"epoch":0,"time_ms":1,"outcome":"{}","owner":"00"}}"#,
            outcome.as_str()
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn an_own_outcome_supersedes_a_doubt_whichever_comes_first() {
        let mut live = Live::new(true);
        for (sequence, outcome) in [
            (1, Outcome::Delivered),
            (1, Outcome::InDoubt),
            (2, Outcome::InDoubt),
            (2, Outcome::Failed),
            (3, Outcome::InDoubt),
        ] {
            live.event(&line(sequence, outcome)).unwrap();
        }
        assert_eq!(live.summary(), "3 events: 1 delivered, 0 duplicates stopped, 1 in doubt, 1 failed");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::default();
        for sequence in 0..20_000 {
            assert_eq!(recent.replace(&line(sequence, Outcome::Delivered)), None);
        }
        assert_eq!((recent.outcomes.len(), recent.order.len()), (REMEMBERED, REMEMBERED));
    }
}
