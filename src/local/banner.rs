//! What local mode says first: what runs, what of it is embedded and what that does not prove, and lines to copy.
//! Must never print a line that does not work when copied.

use super::plan::{Plan, TriggerPlan};
use std::path::Path;

/// Columns of wrapped text: an 80-column terminal less the indent.
const COLUMNS: usize = 64;

/// What is known once everything was started.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The user's folder.
    pub dir: &'a Path,
    /// Address of the embedded broker.
    pub broker: Option<&'a str>,
    /// What the embedded broker is and what it does not prove, in its source's words.
    pub broker_is: &'a str,
    /// Address of the dispatcher's admin pages.
    pub admin: &'a str,
    /// What the folder asks for.
    pub plan: &'a Plan,
}

/// The first lines.
pub fn banner(facts: &Facts<'_>) -> String {
    let mut text = format!(
        "kubeless {}   local mode: no cluster, no containers. State in {} (delete it to start over)\n",
        crate::telemetry::VERSION,
        facts.dir.join(super::layout::FOLDER).display()
    );
    if let Some(address) = facts.broker {
        text.push_str(&format!("  broker      {address}\n"));
        for line in wrapped(facts.broker_is) {
            text.push_str(&format!("              {line}\n"));
        }
    }
    for trigger in &facts.plan.triggers {
        text.push_str(&trigger_line(trigger));
    }
    for problem in &facts.plan.problems {
        text.push_str(&format!("  skipped     {problem}\n"));
    }
    text.push_str(&format!(
        "  metrics     http://{0}/metrics   health http://{0}/readyz?verbose\n",
        facts.admin
    ));
    text
}

/// The text in lines that fit an ordinary terminal behind the indent of the banner.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// One trigger in one line.
pub fn trigger_line(trigger: &TriggerPlan) -> String {
    let functions = match trigger.functions.as_slice() {
        [] => "no function yet".to_owned(),
        names => names.join(", "),
    };
    let whose = if trigger.embedded { "" } else { " at its own servers" };
    format!("  trigger     {}: topic {}{whose} -> {functions}\n", trigger.name, trigger.topic)
}

/// Lines to copy into another terminal; `program` is how this one is called from there.
pub fn try_this(facts: &Facts<'_>, program: &str, tool_exists: impl Fn(&str) -> bool) -> String {
    let mut text = String::from("\nTry in another terminal:\n");
    if let (Some(topic), Some(servers)) = (facts.plan.embedded_topics().next(), facts.broker) {
        let send = format!("  {program} send {topic} '{{\"id\":42}}' --id order-42 --broker {servers}");
        text.push_str(&format!("{send}\n{send}   # the same event again: it is not delivered twice\n"));
        if tool_exists("kcat") {
            text.push_str(&format!("  echo '{{\"id\":43}}' | kcat -P -b {servers} -t {topic}\n"));
        }
        let state = facts.dir.join(super::layout::FOLDER).join("state");
        text.push_str(&format!("  {program} events get order-42 --state-dir {}\n", state.display()));
    }
    text.push_str(&format!("  curl -s http://{}/metrics | grep kubeless_events\n", facts.admin));
    text
}
