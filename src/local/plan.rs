//! What a folder of manifests asks local mode to run: plain values, compared to find what an edit changed.
//! Must never start anything.

use crate::{
    api::{
        function::{DEFAULT_TIMEOUT, Function},
        kind::TriggerObject,
        reference,
    },
    cluster::{manifests::Manifests, target::ObjectRef},
};
use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Namespace.
    pub namespace: String,
    /// Name in it.
    pub name: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One function to run. Two equal values need no restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionPlan {
    /// Namespace and name.
    pub name: Name,
    /// `echo`, `python3.11`, …
    pub runtime: String,
    /// `module.function`.
    pub handler: String,
    /// Source text.
    pub code: String,
    /// How `code` is written; only text is run in local mode.
    pub content_type: String,
    /// Dependencies in the runtime's own form (requirements.txt).
    pub deps: String,
    /// Longest run of one call.
    pub timeout: Duration,
    /// Port of its Service.
    pub port: u16,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
}

/// One trigger, as far as the banner and the embedded servers need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerPlan {
    /// Namespace and name.
    pub name: Name,
    /// The source that serves it.
    pub source: &'static str,
    /// Topic or subject it listens to.
    pub topic: String,
    /// Functions it selects.
    pub functions: Vec<String>,
    /// Whether it names no servers and so uses the embedded one.
    pub embedded: bool,
}

/// Everything a folder asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Functions by name.
    pub functions: BTreeMap<Name, FunctionPlan>,
    /// Triggers in order.
    pub triggers: Vec<TriggerPlan>,
    /// What was skipped and why, one sentence each with file and line.
    pub problems: Vec<String>,
}

/// What a source says about one of its triggers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TriggerFacts {
    /// The source that serves it.
    pub source: &'static str,
    /// Topic or subject it listens to.
    pub topic: String,
    /// Whether it names no servers.
    pub embedded: bool,
    /// Why the embedded server cannot serve it, and what to do.
    pub beyond: Option<&'static str>,
}

impl Plan {
    /// What the manifests ask for; `describe` is the sources' knowledge of their own triggers, `None` for those that
    /// no source serves.
    pub fn of(manifests: &Manifests, describe: impl Fn(&TriggerObject) -> Option<TriggerFacts>) -> Self {
        let mut problems: Vec<String> = manifests.problems.iter().map(ToString::to_string).collect();
        if manifests.more_problems > 0 {
            problems.push(format!("and {} more", manifests.more_problems));
        }
        let functions = manifests.functions.values().map(|loaded| function_plan(&loaded.object));
        let mut triggers = Vec::new();
        for loaded in manifests.triggers.values() {
            let core = &loaded.object.core;
            let facts = describe(&loaded.object);
            let beyond = facts
                .as_ref()
                .map_or(Some("is not served by local mode"), |facts| facts.beyond.filter(|_| facts.embedded));
            let (Some(TriggerFacts { source, topic, embedded, .. }), None) = (facts, beyond) else {
                let (file, line, kind) = (&loaded.file, loaded.line, loaded.object.kind);
                let why = beyond.unwrap_or_default();
                problems.push(format!("{file}:{line}: {kind} {}: {why}", core.reference));
                continue;
            };
            let selected = manifests.functions.iter().filter(|(reference, function)| {
                reference.namespace == core.reference.namespace
                    && core.selector.matches(
                        &reference.name,
                        &function.object.metadata.labels.clone().unwrap_or_default(),
                    )
            });
            let functions = selected.map(|(reference, _)| reference.name.to_string()).collect();
            let name = Name::from(&core.reference);
            triggers.push(TriggerPlan { name, source, topic, functions, embedded });
        }
        Self { functions: functions.map(|plan| (plan.name.clone(), plan)).collect(), triggers, problems }
    }
}

impl Plan {
    /// Topics that embedded servers must have, each with its source.
    pub fn embedded_topics(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let embedded = self.triggers.iter().filter(|trigger| trigger.embedded);
        embedded.map(|trigger| (trigger.source, trigger.topic.as_str()))
    }
}

impl From<&ObjectRef> for Name {
    fn from(reference: &ObjectRef) -> Self {
        Self { namespace: reference.namespace.to_string(), name: reference.name.to_string() }
    }
}

fn function_plan(function: &Function) -> FunctionPlan {
    let spec = &function.spec;
    FunctionPlan {
        name: Name::from(&reference(&function.metadata)),
        runtime: spec.runtime.clone(),
        handler: spec.handler.clone(),
        code: spec.function.clone(),
        content_type: spec.function_content_type.clone(),
        deps: spec.deps.clone(),
        // Checked when the manifest was read.
        timeout: function.timeout().unwrap_or(DEFAULT_TIMEOUT),
        port: function.service_port().port,
        env: environment(spec.deployment.as_ref()),
    }
}

/// Plain variables of the first container of `spec.deployment`; values from Secrets and the like do not exist here.
fn environment(deployment: Option<&serde_json::Map<String, serde_json::Value>>) -> BTreeMap<String, String> {
    let pointer = "/spec/template/spec/containers/0/env";
    let variables =
        deployment.and_then(|map| serde_json::Value::Object(map.clone()).pointer(pointer).cloned());
    let text = |value: &serde_json::Value, key: &str| value.get(key)?.as_str().map(str::to_owned);
    let list = variables.as_ref().and_then(serde_json::Value::as_array).into_iter().flatten();
    list.filter_map(|variable| Some((text(variable, "name")?, text(variable, "value")?))).collect()
}

/// Changes whenever a manifest is written: paths, sizes and times of the files that a reader of the folder reads.
pub fn fingerprint(dir: &std::path::Path) -> Vec<(PathBuf, u64, Option<std::time::SystemTime>)> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let (path, Ok(data)) = (entry.path(), entry.metadata()) else { continue };
            let is_manifest =
                path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
            if data.is_dir() {
                folders.push(path);
            } else if is_manifest {
                found.push((path, data.len(), data.modified().ok()));
            }
        }
    }
    found.sort();
    found
}
