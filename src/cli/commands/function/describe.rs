//! `kubeless function describe NAME`: everything about one function in one view. Must never hide that something could
//! not be looked at.

use super::rows::{self, CONTAINER, NONE, some};
use crate::{
    api::{
        command::TriggerCommand,
        conditions::{find, types},
        function::{DEFAULT_TIMEOUT, Function},
        selector::{Labels, Selector},
    },
    cli::{
        Exit, Wiring,
        age::age,
        output::{self, Cell, Format, Table, Tone, talk},
        session::{
            Session,
            objects::{FUNCTIONS, Kind, conditions},
        },
        workload::{self, Workload},
    },
};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::Value;
use std::io::Write;

/// Events that are shown.
const EVENTS: usize = 10;

const EXAMPLES: &str = "Examples:
  kubeless function describe hello
  kubeless function describe hello -o yaml
";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Name of the function.
    name: String,
    /// Output format.
    #[arg(short, long, alias = "out", value_enum, default_value_t)]
    output: Format,
}

/// Runs the command.
pub async fn run(args: &Args, session: &Session, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
    let function = session.get(&FUNCTIONS, &args.name).await?;
    match args.output {
        Format::Json | Format::Yaml => {
            output::document(&mut output::stdout(), args.output, &output::presentable(&function))?;
            return Ok(Exit::Ok);
        }
        Format::Name => {
            writeln!(output::stdout(), "{}", FUNCTIONS.named(&args.name))?;
            return Ok(Exit::Ok);
        }
        Format::Table | Format::Wide => {}
    }
    let workload = Workload::read(session, &args.name).await;
    let triggers = triggers(session, &function, &wiring.triggers()).await;
    let now = Timestamp::now();
    let mut out = output::stdout();
    write!(out, "{}", properties(&function, workload.deployment.as_ref(), now))?;
    section(&mut out, "Conditions", &conditions_of(&function, now))?;
    section(&mut out, "Pods", &pods(&workload, now))?;
    section(&mut out, "Triggers", &triggers)?;
    section(&mut out, "Events", &events(&workload, now))?;
    for unseen in &workload.unseen {
        talk(&output::printable_lines(&format!("could not look at {unseen}")));
    }
    Ok(Exit::Ok)
}

/// A table below its title.
///
/// # Errors
/// Nothing can be written.
pub fn section(out: &mut impl Write, title: &str, table: &Table) -> std::io::Result<()> {
    if table.len() <= 1 {
        return writeln!(out, "{title}: {NONE}");
    }
    writeln!(out, "{title}:")?;
    table.to_string().lines().try_for_each(|line| writeln!(out, "  {line}"))
}

/// Names and values; a value of several parts has a line for each.
fn properties(function: &Value, deployment: Option<&Deployment>, now: Timestamp) -> Table {
    let text = |pointer: &str| function.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let container = |field: &str| text(&format!("{CONTAINER}/{field}")).to_owned();
    let mut table = Table::plain();
    let mut add = |name: &str, values: &[String]| {
        let label = format!("{name}:");
        let all = if values.is_empty() { &[String::new()] } else { values };
        for (index, value) in all.iter().enumerate() {
            table.row(&[if index == 0 { label.as_str() } else { "" }, &some(value)]);
        }
    };
    let labels = rows::pairs(function["metadata"]["labels"].as_object().into_iter().flatten());
    let dependencies = text("/spec/deps").lines().map(str::to_owned).collect::<Vec<_>>();
    add("Name", &[text("/metadata/name").to_owned()]);
    add("Namespace", &[text("/metadata/namespace").to_owned()]);
    add("Handler", &[text("/spec/handler").to_owned()]);
    add("Runtime", &[text("/spec/runtime").to_owned()]);
    add("Code", &[code(function)]);
    add("Label", &labels);
    add("Envvar", &rows::environment(function));
    add("Memory", &[container("resources/limits/memory")]);
    add("CPU", &[container("resources/limits/cpu")]);
    add("Dependencies", &dependencies);
    add("Timeout", &[timeout(text("/spec/timeout"))]);
    add(
        "Image",
        &[match text("/status/image") {
            "" => container("image"),
            image => image.to_owned(),
        }],
    );
    add("URL", &[text("/status/url").to_owned()]);
    add("Age", &[age(function["metadata"]["creationTimestamp"].as_str(), now)]);
    table.cells(vec!["Status:".into(), rows::status(function, deployment)]);
    table
}

fn code(function: &Value) -> String {
    let text = |field: &str| function["spec"][field].as_str().unwrap_or_default();
    let kind = match text("function-content-type") {
        "" => "text",
        kind => kind,
    };
    match text("function") {
        "" => String::new(),
        url if kind.contains("url") => format!("{kind} {url} {}", text("checksum")),
        code => format!("{kind}, {} bytes {}", code.len(), text("checksum")),
    }
}

fn timeout(seconds: &str) -> String {
    match seconds {
        "" => format!("{} s (default)", DEFAULT_TIMEOUT.as_secs()),
        seconds => format!("{seconds} s"),
    }
}

/// The conditions of any object of ours.
pub fn conditions_of(object: &Value, now: Timestamp) -> Table {
    let mut table = Table::new(&["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"]);
    for condition in conditions(object) {
        let tone = match condition.status.as_str() {
            "True" => Tone::Good,
            "False" => Tone::Bad,
            _ => Tone::Pending,
        };
        let since = age(Some(&condition.last_transition_time.0.to_string()), now);
        table.cells(vec![
            condition.type_.into(),
            Cell::new(condition.status, tone),
            condition.reason.into(),
            since.into(),
            condition.message.into(),
        ]);
    }
    table
}

fn pods(workload: &Workload, now: Timestamp) -> Table {
    let mut table = Table::new(&["NAME", "READY", "STATUS", "RESTARTS", "AGE", "TROUBLE"]);
    for pod in &workload.pods {
        let status = pod.status.clone().unwrap_or_default();
        let containers = status.container_statuses.unwrap_or_default();
        let ready = containers.iter().filter(|container| container.ready).count();
        let restarts: i32 = containers.iter().map(|container| container.restart_count).sum();
        let troubles: Vec<String> = workload::statuses(pod).filter_map(workload::trouble).collect();
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string());
        table.cells(vec![
            pod.metadata.name.clone().unwrap_or_default().into(),
            format!("{ready}/{}", containers.len()).into(),
            status.phase.unwrap_or_default().into(),
            restarts.to_string().into(),
            age(created.as_deref(), now).into(),
            Cell::new(troubles.join("; "), Tone::Bad),
        ]);
    }
    table
}

fn events(workload: &Workload, now: Timestamp) -> Table {
    let mut table = Table::new(&["LAST", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    let newest = workload.events.len().saturating_sub(EVENTS);
    for event in &workload.events[newest..] {
        let seen = workload::last_seen(event).map(|time| time.to_string());
        let about = &event.involved_object;
        let object = format!(
            "{}/{}",
            about.kind.as_deref().unwrap_or_default().to_lowercase(),
            about.name.as_deref().unwrap_or_default()
        );
        let kind = event.type_.as_deref().unwrap_or_default();
        table.cells(vec![
            age(seen.as_deref(), now).into(),
            Cell::new(kind, if kind == "Warning" { Tone::Pending } else { Tone::Plain }),
            event.reason.as_deref().unwrap_or_default().into(),
            object.into(),
            event.message.as_deref().unwrap_or_default().trim().into(),
        ]);
    }
    table
}

/// The triggers that hand events to this function, of every kind that the cluster has.
async fn triggers(session: &Session, function: &Value, commands: &[TriggerCommand]) -> Table {
    let mut table = Table::new(&["KIND", "NAME", "READY", "REASON"]);
    for command in commands {
        // A kind that is not installed, or may not be seen, has nothing to show here.
        let Ok(found) = session.quiet_list(&command.resource).await else { continue };
        for trigger in found.iter().filter(|trigger| selects(trigger, function)) {
            add_trigger(&mut table, &command.resource, trigger);
        }
    }
    table
}

fn add_trigger(table: &mut Table, kind: &Kind, trigger: &Value) {
    let conditions = conditions(trigger);
    let ready = find(&conditions, types::READY);
    let (status, reason) = ready.map_or(("", ""), |ready| (ready.status.as_str(), ready.reason.as_str()));
    let name = trigger["metadata"]["name"].as_str().unwrap_or_default();
    table.row(&[kind.kind, name, &some(status), &some(reason)]);
}

/// By name where the trigger has one, else by its selector.
fn selects(trigger: &Value, function: &Value) -> bool {
    let spec = &trigger["spec"];
    let name = function["metadata"]["name"].as_str().unwrap_or_default();
    if let Some(wanted) = spec["function-name"].as_str() {
        return wanted == name;
    }
    let labels: Labels = serde_json::from_value(function["metadata"]["labels"].clone()).unwrap_or_default();
    serde_json::from_value(spec["functionSelector"].clone())
        .ok()
        .and_then(|selector| Selector::compile(&selector, "").ok())
        .is_some_and(|selector| selector.matches(name, &labels))
}

/// The typed function, as far as it can be read: what old clusters stored may hold more.
pub fn typed(function: &Value) -> anyhow::Result<Function> {
    Ok(serde_json::from_value(function.clone())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn triggers_select_by_name_or_by_labels() {
        let function = json!({ "metadata": { "name": "hello", "labels": { "topic": "orders" } } });
        for (spec, wanted) in [
            (json!({ "function-name": "hello" }), true),
            (json!({ "function-name": "other" }), false),
            (json!({ "functionSelector": { "matchLabels": { "topic": "orders" } } }), true),
            (json!({ "functionSelector": { "matchLabels": { "topic": "x" } } }), false),
            (json!({ "functionSelector": {} }), true),
        ] {
            assert_eq!(selects(&json!({ "spec": spec }), &function), wanted, "{spec}");
        }
    }

    #[test]
    fn every_property_is_there_even_if_empty() {
        let function =
            json!({ "metadata": { "name": "f", "namespace": "n" }, "spec": { "function": "abc" } });
        let text = properties(&function, None, Timestamp::UNIX_EPOCH).to_string();
        for part in
            ["Name:          f", "Handler:       <none>", "Code:          text, 3 bytes", "180 s (default)"]
        {
            assert!(text.contains(part), "{part} missing in\n{text}");
        }
    }
}
