//! From flags to fields of a trigger. Must never touch what no flag names.

use super::flags::LABEL;
use crate::{
    api::command::{Flag, TriggerCommand, Value as Form},
    cli::{
        UsageError,
        commands::function::{CREATED_BY, Pair},
    },
};
use anyhow::{Context, bail};
use clap::ArgMatches;
use serde_json::{Map, Value, json};

/// Largest file that becomes a field.
const MAX_FILE: u64 = 256 * 1024;

/// What is to be set: JSON pointer and value; null removes.
pub type Fields = Vec<(String, Value)>;

/// A trigger that says nothing yet.
pub fn blank(kind: &TriggerCommand, namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": crate::api::API_VERSION,
        "kind": kind.resource.kind,
        "metadata": { "name": name, "namespace": namespace, "labels": { (CREATED_BY.0): CREATED_BY.1 } },
        "spec": {},
    })
}

/// The flags that were given.
pub fn read(kind: &TriggerCommand, matches: &ArgMatches) -> anyhow::Result<Fields> {
    let mut fields = Fields::new();
    for flag in kind.flags {
        let value = match flag.value {
            Form::Bool => matches.get_one::<bool>(flag.name).map(|flag| json!(flag)),
            _ => matches.get_one::<String>(flag.name).map(|text| value(flag, text)).transpose()?,
        };
        let Some(value) = value else { continue };
        if fields.iter().any(|(pointer, _)| pointer == flag.pointer) {
            bail!(UsageError(format!("--{} sets what another flag sets, too: give one of them", flag.name)));
        }
        fields.push((flag.pointer.to_owned(), value));
    }
    for text in matches.get_many::<String>(LABEL).into_iter().flatten() {
        let pair = Pair::parse(LABEL, text)?;
        let value = match &pair {
            Pair::Set(_, value) => json!(value),
            Pair::Remove(_) => Value::Null,
        };
        fields.push((format!("/metadata/labels/{}", crate::api::escape(pair.key())), value));
    }
    Ok(fields)
}

fn value(flag: &Flag, text: &str) -> anyhow::Result<Value> {
    match flag.value {
        _ if text.is_empty() => Ok(Value::Null),
        Form::Text | Form::Bool => Ok(text.into()),
        Form::Labels => labels(flag, text),
        Form::Json => serde_json::from_str(text)
            .map_err(|error| UsageError(format!("--{} is not JSON: {error}", flag.name)).into()),
        Form::JsonFile => {
            let length = std::fs::metadata(text).with_context(|| format!("opening {text}"))?.len();
            anyhow::ensure!(length <= MAX_FILE, "{text} is larger than {} KiB", MAX_FILE >> 10);
            let content = std::fs::read_to_string(text).with_context(|| format!("reading {text}"))?;
            // YAML reads JSON, too.
            serde_saphyr::from_str(&content).with_context(|| format!("{text} is neither JSON nor YAML"))
        }
    }
}

/// `k1=v1,k2=v2`; set-based requirements are for manifests.
fn labels(flag: &Flag, text: &str) -> anyhow::Result<Value> {
    let mut labels = Map::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        match Pair::parse(flag.name, part.trim())? {
            Pair::Set(key, value) if !key.contains([' ', '!']) => {
                labels.insert(key, value.trim_start_matches('=').into());
            }
            _ => bail!(UsageError(format!(
                "--{} {text:?} is not a list of labels; write --{} k1=v1,k2=v2 (other selectors go into a manifest)",
                flag.name, flag.name
            ))),
        }
    }
    Ok(json!({ "matchLabels": labels }))
}

/// Sets the fields.
pub fn apply(fields: &Fields, object: &mut Value) {
    for (pointer, value) in fields {
        let mut at = &mut *object;
        let mut steps = pointer.split('/').skip(1).map(crate::api::unescape).peekable();
        while let Some(step) = steps.next() {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            let Value::Object(map) = at else { break };
            if steps.peek().is_none() {
                match value {
                    Value::Null => drop(map.remove(&step)),
                    value => drop(map.insert(step, value.clone())),
                }
                break;
            }
            at = map.entry(step).or_insert(Value::Null);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_set_made_and_removed() {
        let mut object = json!({ "spec": { "a": 1, "b": null } });
        let fields = vec![
            ("/spec/a".to_owned(), Value::Null),
            ("/spec/b/c".to_owned(), json!("x")),
            ("/metadata/labels/a~1b".to_owned(), json!("y")),
        ];
        apply(&fields, &mut object);
        assert_eq!(
            object,
            json!({ "spec": { "b": { "c": "x" } }, "metadata": { "labels": { "a/b": "y" } } })
        );
    }
}
