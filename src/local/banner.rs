//! What local mode says first: what runs, what of it is embedded and what that does not prove, and lines to copy.
//! Must never print a line that does not work when copied.

use super::{
    plan::{Plan, TriggerPlan},
    servers::Servers,
};
use std::path::Path;

/// Columns of wrapped text: an 80-column terminal less the indent.
const COLUMNS: usize = 64;
/// Triggers for which there is a line to copy.
const MAX_LINES: usize = 5;

/// What is known once everything was started.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The user's folder.
    pub dir: &'a Path,
    /// Embedded servers that the folder needs: address, and what it is and does not prove, in its source's words.
    pub used: &'a [(String, String)],
    /// All embedded servers.
    pub servers: &'a Servers,
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
    for (address, notice) in facts.used {
        text.push_str(&server_lines(address, notice));
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

/// An embedded server: its address, and what it does not prove.
pub fn server_lines(address: &str, notice: &str) -> String {
    let notice = wrapped(notice).into_iter().map(|line| format!("              {line}\n"));
    format!("  server      {address}\n{}", notice.collect::<String>())
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
    format!("  trigger     {}: {} {}{whose} -> {functions}\n", trigger.name, trigger.source, trigger.topic)
}

/// Lines to copy into another terminal; `program` is how this one is called from there.
pub fn try_this(facts: &Facts<'_>, program: &str, tool_exists: impl Fn(&str) -> bool) -> String {
    let mut text = String::from("\nTry in another terminal:\n");
    let sendable =
        facts.plan.triggers.iter().filter_map(|trigger| Some((trigger, facts.servers.address_of(trigger)?)));
    // A pattern is nothing to send to.
    let sendable: Vec<_> = sendable.filter(|(trigger, _)| !trigger.topic.contains(['*', '>'])).collect();
    for (trigger, address) in sendable.iter().take(MAX_LINES) {
        let topic = &trigger.topic;
        text.push_str(&format!(
            "  {program} send {topic} '{{\"id\":42}}' --id order-42 --broker {address}\n"
        ));
    }
    if let Some((trigger, address)) = sendable.first() {
        let (topic, state) = (&trigger.topic, facts.dir.join(super::layout::FOLDER).join("state"));
        if tool_exists("kcat") && !address.contains("://") {
            text.push_str(&format!("  echo '{{\"id\":43}}' | kcat -P -b {address} -t {topic}\n"));
        }
        text.push_str("  # the same event again is not delivered twice\n");
        text.push_str(&format!("  {program} events get order-42 --state-dir {}\n", state.display()));
    }
    text.push_str(&format!("  curl -s http://{}/metrics | grep kubeless_events\n", facts.admin));
    text
}
