//! From what the replicas say of a trigger to its conditions. Pure. Must never claim more than was seen: a replica that
//! did not answer is counted as one that did not.

use std::collections::BTreeMap;

use super::report::{State, SubscriptionReport, TriggerView};
use crate::{
    api::{
        Violation,
        conditions::{Fact, Status, reasons, types},
        trigger::EventCounts,
    },
    cluster::watch::Presence,
    ledger::Outcome,
};

/// Faults that a message lists; the log has all of them.
const SHOWN_FAULTS: usize = 3;

/// The subscriptions of one trigger on one replica.
#[derive(Clone, Copy, Debug)]
pub struct Replica<'a> {
    /// Where it answers; empty: this process.
    pub name: &'a str,
    /// Its subscriptions of the trigger.
    pub subscriptions: &'a [&'a SubscriptionReport],
}

/// What is known of one trigger.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// How the object stands with its checks.
    pub presence: &'a Presence,
    /// What this process makes of it; `None`: no sound version was ever seen.
    pub view: Option<&'a TriggerView>,
    /// The replicas that answered, this one first.
    pub replicas: &'a [Replica<'a>],
    /// Which others could not be asked, for people; empty: none.
    pub unheard: &'a str,
}

/// The status that a trigger should have.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Facts that `Ready` sums up, and `Ready`.
    pub facts: Vec<Fact>,
    /// Functions that receive its events.
    pub functions: usize,
    /// Counters over the replicas that answered.
    pub counts: EventCounts,
}

/// Judges one trigger.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let mut facts = vec![accepted(evidence.presence)];
    let functions = evidence.view.map_or(0, |view| view.functions.len());
    match evidence.view {
        None => {}
        Some(view) if view.served => facts.extend([resolved(view), connected(evidence, view)]),
        Some(view) => {
            let message = format!("this dispatcher has no source for {}", view.trigger.kind);
            // Before anything else that may be wrong: nothing else would help.
            facts.push(Fact::new(types::SOURCE_CONNECTED, false, reasons::NOT_SERVED, message));
            facts.push(resolved(view));
        }
    }
    let mut ready = crate::api::conditions::sum_up(&facts);
    if let Some(view) = evidence.view.filter(|view| view.paused && ready.status == Status::True) {
        let message = format!("{} function(s); new events stay at the source", view.functions.len());
        ready = Fact::new(types::READY, false, reasons::PAUSED, message);
    }
    facts.extend(evidence.view.filter(|view| view.served).map(|view| view.promise.clone()));
    facts.push(ready);
    Verdict { facts, functions, counts: counts(evidence.replicas) }
}

fn accepted(presence: &Presence) -> Fact {
    if presence.faults.is_empty() {
        return Fact::new(types::ACCEPTED, true, reasons::VALID, "");
    }
    let shown: Vec<String> = presence.faults.iter().take(SHOWN_FAULTS).map(Violation::to_string).collect();
    let mut message = shown.join(" | ");
    if presence.faults.len() > SHOWN_FAULTS {
        message.push_str(&format!(" | and {} more", presence.faults.len() - SHOWN_FAULTS));
    }
    if presence.kept {
        message.push_str(" | the last sound version stays in force until a restart");
    }
    Fact::new(types::ACCEPTED, false, reasons::INVALID, message)
}

fn resolved(view: &TriggerView) -> Fact {
    let fact = |holds, reason, message| Fact::new(types::FUNCTION_RESOLVED, holds, reason, message);
    match (&view.names, view.functions.is_empty()) {
        (_, false) => fact(true, reasons::FUNCTION_FOUND, view.functions.join(", ")),
        (Some(name), true) => {
            let message = format!("Function {name}: there is none of this name here that passes its checks");
            fact(false, reasons::FUNCTION_MISSING, message)
        }
        (None, true) => {
            let message = "no function of this namespace that passes its checks is selected".to_owned();
            fact(false, reasons::NOTHING_SELECTED, message)
        }
    }
}

/// Whether each subscription is connected on at least one replica: they share the work, whichever of them is connected.
fn connected(evidence: &Evidence<'_>, view: &TriggerView) -> Fact {
    let fact = |status: Status, reason, words: &[&str]| {
        let words: Vec<&str> = words.iter().copied().filter(|word| !word.is_empty()).collect();
        Fact::new(types::SOURCE_CONNECTED, status, reason, words.join("; "))
    };
    if let Some(why) = &view.held {
        return fact(Status::False, reasons::API_ERROR, &["nothing is claimed", why]);
    }
    if view.functions.is_empty() {
        return fact(Status::Unknown, reasons::PENDING, &["no function to receive its events"]);
    }
    let (mut waiting, mut aside) = (None, String::new());
    for function in &view.functions {
        let heard = hear(evidence.replicas, &view.trigger.object.namespace, function);
        match (heard.connected, heard.trouble) {
            (true, None) => {}
            (true, Some((replica, report))) => {
                aside = format!("on {}: {function}: {}", told(replica), report.status);
            }
            (false, Some((_, report))) => {
                let what = format!("{function}: {}", report.status);
                return fact(Status::False, known_reason(&report.reason), &[&what, evidence.unheard]);
            }
            (false, None) => waiting = waiting.or(Some(function)),
        }
    }
    match waiting {
        Some(function) => {
            let what = format!("{function} is being connected");
            fact(Status::Unknown, reasons::CONNECTING, &[&what, evidence.unheard])
        }
        None => fact(Status::True, reasons::CONNECTED, &[&aside, evidence.unheard]),
    }
}

/// What all replicas say of one subscription.
#[derive(Default)]
struct Heard<'a> {
    connected: bool,
    trouble: Option<(&'a str, &'a SubscriptionReport)>,
}

fn hear<'a>(replicas: &'a [Replica<'a>], namespace: &str, function: &str) -> Heard<'a> {
    let name = format!("{namespace}/{function}");
    let mut heard = Heard::default();
    for replica in replicas {
        for report in replica.subscriptions.iter().filter(|report| report.function == name) {
            match report.state {
                State::Connected => heard.connected = true,
                State::Troubled => heard.trouble = heard.trouble.or(Some((replica.name, report))),
                State::Starting => {}
            }
        }
    }
    heard
}

fn told(replica: &str) -> &str {
    if replica.is_empty() { "the replica that writes this" } else { replica }
}

/// Peers send words: only ours are believed.
fn known_reason(reason: &str) -> &'static str {
    let known = reasons::ALL.iter().find(|(word, _)| *word == reason);
    known.map_or(reasons::SOURCE_ERROR, |(word, _)| word)
}

fn counts(replicas: &[Replica<'_>]) -> EventCounts {
    let mut sum =
        EventCounts { replicas: u32::try_from(replicas.len()).unwrap_or(u32::MAX), ..EventCounts::default() };
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for counts in replicas.iter().flat_map(|replica| replica.subscriptions).filter_map(|s| s.counts.as_ref())
    {
        sum.received = sum.received.saturating_add(counts.received);
        sum.in_flight = sum.in_flight.saturating_add(u64::try_from(counts.in_flight).unwrap_or(0));
        // Of another replica's words only those that are ours are believed.
        for outcome in Outcome::ALL.map(Outcome::as_str) {
            if let Some(count) = counts.outcomes.get(outcome).filter(|count| **count > 0) {
                let sum = outcomes.entry(outcome.to_owned()).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
    }
    sum.outcomes = outcomes;
    sum
}
