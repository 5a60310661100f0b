//! `kubeless trigger KIND list`: the columns that its source names, and how it is. Must never know a kind.

use crate::{
    api::{
        command::TriggerCommand,
        conditions::{find, types},
    },
    cli::{
        Exit,
        age::age,
        listing::{GONE, Listing, Rows, is_gone},
        output::{Cell, Tone},
        session::{Session, objects::conditions},
    },
};
use clap::{ArgMatches, FromArgMatches};
use jiff::Timestamp;
use serde_json::Value;

/// Runs the command.
pub async fn run(kind: &TriggerCommand, matches: &ArgMatches, session: &Session) -> anyhow::Result<Exit> {
    let listing = Listing::from_arg_matches(matches)?;
    let names: Vec<String> =
        matches.get_many::<String>(super::flags::NAME).into_iter().flatten().cloned().collect();
    let found = listing.read(session, &kind.resource, &names).await?;
    listing.show(session, &kind.resource, &names, found, &Triggers(kind)).await
}

struct Triggers<'a>(&'a TriggerCommand);

impl Rows for Triggers<'_> {
    fn head(&self) -> Vec<&str> {
        let own = self.0.columns.iter().map(|column| column.title);
        ["NAME", "NAMESPACE"].into_iter().chain(own).chain(["READY", "REASON", "AGE"]).collect()
    }

    fn row(&self, trigger: &Value) -> Vec<Cell> {
        let text = |field: &str| trigger["metadata"][field].as_str().unwrap_or_default();
        let mut row: Vec<Cell> = vec![text("name").into(), text("namespace").into()];
        let own = self.0.columns.iter();
        row.extend(own.map(|column| Cell::from(shown(trigger.pointer(column.pointer)))));
        row.extend(ready(trigger));
        row.push(age(trigger["metadata"]["creationTimestamp"].as_str(), Timestamp::now()).into());
        row
    }
}

fn ready(trigger: &Value) -> [Cell; 2] {
    if is_gone(trigger) {
        return [Cell::new("-", Tone::Plain), Cell::new(GONE, Tone::Pending)];
    }
    let conditions = conditions(trigger);
    match find(&conditions, types::READY) {
        Some(ready) => {
            let tone = match ready.status.as_str() {
                "True" => Tone::Good,
                "False" => Tone::Bad,
                _ => Tone::Pending,
            };
            [Cell::new(&ready.status, tone), Cell::new(&ready.reason, Tone::Plain)]
        }
        None => [Cell::new("Unknown", Tone::Pending), Cell::new("<none>", Tone::Plain)],
    }
}

/// A field as people write it; a selector as its labels.
pub fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "<none>".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "<none>".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(map))
            if map.contains_key("matchLabels") || map.contains_key("matchExpressions") =>
        {
            selector(&Value::Object(map.clone()))
        }
        // An empty selector is every function.
        Some(Value::Object(map)) if map.is_empty() => "<all>".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn selector(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten().map(|expression| {
        let text = |field: &str| expression[field].as_str().unwrap_or_default();
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        match text("operator") {
            "Exists" => text("key").to_owned(),
            "DoesNotExist" => format!("!{}", text("key")),
            operator => format!("{} {} ({})", text("key"), operator.to_lowercase(), values.join(",")),
        }
    });
    let all: Vec<String> = labels.chain(expressions).collect();
    if all.is_empty() { "<all>".to_owned() } else { all.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_read_as_people_write_them() {
        let selector = json!({ "matchLabels": { "a": "b", "c": "d" },
            "matchExpressions": [{ "key": "e", "operator": "NotIn", "values": ["x", "y"] }, { "key": "f", "operator": "Exists" }] });
        assert_eq!(shown(Some(&selector)), "a=b,c=d,e notin (x,y),f");
        assert_eq!(shown(Some(&json!({}))), "<all>");
        assert_eq!(shown(None), "<none>");
    }
}
