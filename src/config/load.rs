//! From file, environment and flags to one checked value: flag > `KUBELESS_*` > file > default. Must never accept a
//! value without saying, when it is wrong, which key of which origin it is and what would be right.

use super::{check, model::DispatcherConfig};
use std::{fmt, path::Path};
use toml::{Table, Value, de::DeTable};

/// Variables that Kubeless had for keys of all sources.
const OF_KUBELESS: [(&str, &str); 1] = [("BACKOFF_INTERVAL", "invoker.backoff_interval")];

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a file, at a line if the key stands there.
    File {
        /// Path as given.
        path: String,
        /// First line is 1.
        line: Option<usize>,
    },
    /// In an environment variable.
    Variable(String),
    /// On the command line.
    Flag(String),
    /// Nowhere.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{path}:{line}"),
            Self::File { path, line: None } => f.write_str(path),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One wrong option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted key; empty when a file cannot be read or parsed at all.
    pub key: String,
    /// Where it was written.
    pub origin: Origin,
    /// What is wrong, what is allowed, what to write.
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.key.is_empty() { "" } else { ": " };
        write!(f, "{}: {}{colon}{}", self.origin, self.key, self.problem)
    }
}

/// Everything wrong with a configuration, not only the first thing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error(pub Vec<Problem>);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not valid")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// One value from outside the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Dotted key.
    pub key: String,
    /// Value as text.
    pub value: String,
    /// Flag or variable.
    pub origin: Origin,
}

/// How much of a configuration must be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    /// Names and types: enough to show it.
    Types,
    /// Ranges and required options too: needed to run with it.
    All,
}

/// Reads the file (if any), applies `variables` by their names and then `flags` in order, and checks the result.
pub fn load(
    file: Option<&Path>,
    variables: impl Fn(&str) -> Option<String>,
    flags: Vec<Override>,
    checks: Checks,
) -> Result<DispatcherConfig, Error> {
    let (text, path) = match file {
        None => (String::new(), String::new()),
        Some(path) => {
            let shown = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .map_err(|error| one("", file_origin(&shown, None), format!("cannot be read: {error}")))?;
            (text, shown)
        }
    };
    let mut merged = read_file(&text, &path)?;
    let mut applied = from_environment(variables)?;
    applied.extend(flags);
    let mut problems = Vec::new();
    for change in &applied {
        if let Err(problem) = apply(&mut merged, change) {
            problems.push(problem);
        }
    }
    if !problems.is_empty() {
        return Err(Error(problems));
    }
    let config: DispatcherConfig =
        merged.try_into().map_err(|error| one("", file_origin(&path, None), error.to_string()))?;
    if checks == Checks::Types {
        return Ok(config);
    }
    let origin_of = |key: &str| {
        let change = applied.iter().rev().find(|change| change.key == key);
        change.map_or_else(|| in_file(&text, &path, key), |change| change.origin.clone())
    };
    let problems: Vec<Problem> = check::check(&config)
        .into_iter()
        .map(|finding| Problem {
            key: finding.key.to_owned(),
            origin: origin_of(finding.key),
            problem: finding.problem,
        })
        .collect();
    if problems.is_empty() { Ok(config) } else { Err(Error(problems)) }
}

/// The value as TOML that [`load`] reads back to the same value.
pub fn dump(config: &DispatcherConfig) -> String {
    toml::to_string(config).expect("a configuration has only TOML types and string keys")
}

/// The environment variable of a dotted key.
pub fn variable_of(key: &str) -> String {
    format!("KUBELESS_{}", key.replace('.', "_").to_uppercase())
}

/// Every dotted key of the closed part of the configuration with its default.
pub fn keys() -> Vec<(String, Value)> {
    let defaults = Table::try_from(DispatcherConfig::default()).unwrap_or_default();
    let mut keys = Vec::new();
    for (key, value) in defaults {
        match value {
            Value::Table(section) => {
                keys.extend(section.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
            }
            value => keys.push((key, value)),
        }
    }
    keys
}

fn read_file(text: &str, path: &str) -> Result<Table, Error> {
    let at = |error: &toml::de::Error| file_origin(path, error.span().map(|span| line_of(text, span.start)));
    let table: Table =
        toml::from_str(text).map_err(|error| one("", at(&error), error.message().to_owned()))?;
    // Read into the value as well, only for its errors: they know their place in the file.
    let _: DispatcherConfig = toml::from_str(text).map_err(|error| {
        let key = error.span().and_then(|span| key_at(text, span.start)).unwrap_or_default();
        one(&key, at(&error), explain(error.message()))
    })?;
    Ok(table)
}

/// The variables that are set for known keys.
fn from_environment(variables: impl Fn(&str) -> Option<String>) -> Result<Vec<Override>, Error> {
    let own = keys().into_iter().map(|(key, _)| (variable_of(&key), key));
    // Before the own name of the same key, which wins.
    let names = OF_KUBELESS.iter().map(|(name, key)| ((*name).to_owned(), (*key).to_owned())).chain(own);
    let overrides = names.filter_map(|(name, key)| {
        let value = variables(&name)?;
        Some(Override { key, value, origin: Origin::Variable(name) })
    });
    Ok(overrides.collect())
}

/// Sets one key, after checking alone whether the value is of the right type.
fn apply(table: &mut Table, change: &Override) -> Result<(), Problem> {
    let value = typed(&change.key, &change.value);
    let mut alone = Table::new();
    let checked = insert(&mut alone, &change.key, value.clone())
        .and_then(|()| DispatcherConfig::deserialize_from(alone))
        .and_then(|()| insert(table, &change.key, value));
    checked.map_err(|problem| Problem { key: change.key.clone(), origin: change.origin.clone(), problem })
}

impl DispatcherConfig {
    fn deserialize_from(table: Table) -> Result<(), String> {
        let read: Result<Self, _> = table.try_into();
        read.map(drop).map_err(|error| explain(error.message()))
    }
}

/// The text as the TOML type that the key's default has; open tables take any TOML value, else a string.
fn typed(key: &str, text: &str) -> Value {
    let default = keys().into_iter().find(|(known, _)| known == key).map(|(_, value)| value);
    let string = || Value::String(text.to_owned());
    match default {
        Some(Value::Integer(_)) => text.trim().parse().map_or_else(|_| string(), Value::Integer),
        Some(Value::Boolean(_)) => text.trim().parse().map_or_else(|_| string(), Value::Boolean),
        // Lists are written like PATH.
        Some(Value::Array(_)) => {
            Value::Array(text.split(':').filter(|part| !part.is_empty()).map(Into::into).collect())
        }
        Some(_) => string(),
        None => format!("value = {text}")
            .parse::<Table>()
            .ok()
            .and_then(|mut parsed| parsed.remove("value"))
            .unwrap_or_else(string),
    }
}

fn insert(table: &mut Table, key: &str, value: Value) -> Result<(), String> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((section, rest)) => {
            let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            let inner =
                entry.as_table_mut().ok_or_else(|| format!("`{section}` is a value, not a section"))?;
            insert(inner, rest, value)
        }
    }
}

/// serde's sentence, with a hint where it has none.
fn explain(message: &str) -> String {
    if message.contains("unknown field") {
        return format!("{message}; delete it or correct its name (--dump-config lists all)");
    }
    message.to_owned()
}

fn one(key: &str, origin: Origin, problem: String) -> Error {
    Error(vec![Problem { key: key.to_owned(), origin, problem }])
}

fn file_origin(path: &str, line: Option<usize>) -> Origin {
    Origin::File { path: path.to_owned(), line }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.get(..offset).unwrap_or(text).matches('\n').count() + 1
}

/// Every key of the file with the byte where it begins and where its value ends.
fn spans(text: &str) -> Vec<(String, std::ops::Range<usize>)> {
    let Ok(document) = DeTable::parse(text) else { return Vec::new() };
    let mut spans = Vec::new();
    collect(document.get_ref(), "", &mut spans);
    spans
}

fn collect(table: &DeTable<'_>, prefix: &str, spans: &mut Vec<(String, std::ops::Range<usize>)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        if let Some(inner) = value.get_ref().as_table() {
            collect(inner, &key, spans);
        }
        spans.push((key, name.span().start..value.span().end.max(name.span().end)));
    }
}

fn in_file(text: &str, path: &str, key: &str) -> Origin {
    if path.is_empty() {
        return Origin::Default;
    }
    let found = spans(text).into_iter().find(|(name, _)| name == key);
    file_origin(path, found.map(|(_, span)| line_of(text, span.start)))
}

/// The innermost key whose text covers `offset`.
fn key_at(text: &str, offset: usize) -> Option<String> {
    let covering = spans(text).into_iter().filter(|(_, span)| span.start <= offset && offset <= span.end);
    covering.max_by_key(|(_, span)| span.start).map(|(key, _)| key)
}
