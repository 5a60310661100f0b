//! The judge: what was produced, what the function saw and what the journals say must fit together. Must never
//! share code with the product, and never take the product's word for an invocation.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
};

/// A delivery: topic, partition, offset. Events are keyed by (subscription, delivery).
pub type Delivery = (String, i32, i64);

/// One record that was produced and acknowledged.
#[derive(Clone, Debug)]
pub struct Produced {
    pub at: Delivery,
    /// The business id, where the trigger deduplicates by one: two records with the same one are one event.
    pub business: Option<String>,
}

/// One invocation, by the witness's own account.
#[derive(Clone, Debug)]
pub struct Invoked {
    pub at: Delivery,
    pub id: String,
}

impl From<&super::witness::Seen> for Invoked {
    fn from(seen: &super::witness::Seen) -> Self {
        Self { at: (seen.topic.clone(), seen.partition, seen.offset), id: seen.id.clone() }
    }
}

/// One outcome line of a journal.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub at: Delivery,
    pub outcome: String,
}

/// What the oracle found. `violations` must be empty.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub produced: usize,
    pub invocations: usize,
    /// Events by their one outcome.
    pub outcomes: BTreeMap<String, usize>,
    /// Every event in doubt.
    pub in_doubt: BTreeSet<Delivery>,
    /// In doubt, and the witness never saw it: what the crash really cost.
    pub lost: BTreeSet<Delivery>,
    pub violations: Vec<String>,
}

impl Report {
    /// Panics with the first violations, if there are any.
    #[track_caller]
    pub fn assert_clean(&self) {
        let first: Vec<&str> = self.violations.iter().take(20).map(String::as_str).collect();
        assert!(first.is_empty(), "{} violations, the first:\n{}", self.violations.len(), first.join("\n"));
    }

    pub fn outcome(&self, name: &str) -> usize {
        self.outcomes.get(name).copied().unwrap_or(0)
    }
}

/// Reads the outcome lines of one journal (or of every file of a folder of journals) for one subscription. A torn
/// last line, as a crash leaves it, is no outcome. Lines without an outcome are other records of the journal.
pub fn read_journal(path: &Path, trigger: &str, function: &str) -> Vec<Recorded> {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        return files.iter().flat_map(|file| read_journal(file, trigger, function)).collect();
    }
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("journal {}: {e}", path.display()));
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.split('\n').collect();
    let mut found = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        match serde_json::from_str::<serde_json::Value>(line) {
            Ok(line) => found.extend(recorded(&line, trigger, function)),
            // split leaves an empty piece after the last newline: only a torn line has no newline behind it.
            Err(_) if line.is_empty() || n + 1 == lines.len() => {}
            Err(error) => panic!("{}:{}: {error}", path.display(), n + 1),
        }
    }
    found
}

fn recorded(line: &serde_json::Value, trigger: &str, function: &str) -> Option<Recorded> {
    // Names may stand alone or behind their namespace.
    let names = |field: &str, name: &str| {
        line[field].as_str().is_some_and(|found| found == name || found.ends_with(&format!("/{name}")))
    };
    if !names("trigger", trigger) || !names("function", function) {
        return None;
    }
    let shard = i32::try_from(line["shard"].as_i64()?).ok()?;
    let at = (line["stream"].as_str()?.to_owned(), shard, line["sequence"].as_i64()?);
    Some(Recorded { at, outcome: line["outcome"].as_str()?.to_owned() })
}

/// Judges one subscription. `journals` holds the lines of every process that ever ran for it, in any order.
pub fn judge(produced: &[Produced], invoked: &[Invoked], journals: &[Recorded]) -> Report {
    let mut report = Report { produced: produced.len(), invocations: invoked.len(), ..Report::default() };
    let known: HashMap<&Delivery, Option<&str>> =
        produced.iter().map(|p| (&p.at, p.business.as_deref())).collect();
    let mut calls: BTreeMap<&Delivery, usize> = BTreeMap::new();
    let mut ids: BTreeMap<&str, BTreeSet<&Delivery>> = BTreeMap::new();
    for call in invoked {
        *calls.entry(&call.at).or_default() += 1;
        match known.get(&call.at) {
            None => report.violations.push(format!("{}: invoked, but never produced", show(&call.at))),
            Some(Some(business)) => {
                ids.entry(business).or_default().insert(&call.at);
            }
            Some(None) => {}
        }
    }
    for (at, count) in calls.iter().filter(|(_, count)| **count > 1) {
        report.violations.push(format!("{}: invoked {count} times", show(at)));
    }
    for (id, at) in ids.iter().filter(|(_, at)| at.len() > 1) {
        let at: Vec<String> = at.iter().map(|at| show(at)).collect();
        report.violations.push(format!("business id {id}: invoked for {}", at.join(" and ")));
    }
    for (at, outcome) in merge(journals, &known, &mut report.violations) {
        *report.outcomes.entry(outcome.to_owned()).or_default() += 1;
        let seen = calls.contains_key(at);
        match outcome {
            "delivered" | "failed" if !seen => {
                report.violations.push(format!("{}: {outcome}, but the function never saw it", show(at)));
            }
            "unreachable" | "duplicate" | "filtered" | "expired" | "rejected" | "missed" if seen => {
                report.violations.push(format!("{}: {outcome}, but the function saw it", show(at)));
            }
            "in_doubt" => {
                report.in_doubt.insert(at.clone());
                if !seen {
                    report.lost.insert(at.clone());
                }
            }
            "delivered" | "failed" | "unanswered" | "unreachable" | "duplicate" | "filtered" | "expired"
            | "rejected" | "missed" => {}
            other => report.violations.push(format!("{}: unknown outcome {other}", show(at))),
        }
    }
    let told: BTreeSet<&Delivery> = journals.iter().map(|line| &line.at).collect();
    for one in produced.iter().filter(|one| !told.contains(&one.at)) {
        let fate = if calls.contains_key(&one.at) { "invoked" } else { "lost" };
        report.violations.push(format!("{}: {fate} without an outcome", show(&one.at)));
    }
    report
}

/// One outcome per event: a process's own outcome supersedes a successor's `in_doubt`; two own ones are a fault.
fn merge<'a>(
    journals: &'a [Recorded],
    known: &HashMap<&Delivery, Option<&str>>,
    violations: &mut Vec<String>,
) -> BTreeMap<&'a Delivery, &'a str> {
    let mut merged: BTreeMap<&Delivery, &str> = BTreeMap::new();
    for line in journals {
        if !known.contains_key(&line.at) {
            violations.push(format!("{}: {}, but never produced", show(&line.at), line.outcome));
            continue;
        }
        let entry = merged.entry(&line.at).or_insert(&line.outcome);
        match (*entry, line.outcome.as_str()) {
            // The first line of this event, or a second predecessor's report of the same doubt.
            (_, "in_doubt") => {}
            ("in_doubt", own) => *entry = own,
            (earlier, _) if std::ptr::eq(earlier, line.outcome.as_str()) => {}
            // An ending without a call is written before the commit passes over it: a crash in between repeats it.
            (earlier, own)
                if earlier == own && matches!(own, "duplicate" | "filtered" | "rejected" | "expired") => {}
            (earlier, own) => {
                violations.push(format!("{}: two outcomes, {earlier} and {own}", show(&line.at)));
            }
        }
    }
    merged
}

fn show(at: &Delivery) -> String {
    format!("{}/{}/{}", at.0, at.1, at.2)
}
