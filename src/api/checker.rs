//! [`Checker`]: how a whole object of one kind is read, with everything that is wrong with it. Must never accept what
//! the API server would refuse.
//!
//! Three steps, so that each fault is told once and in the best words: the schema's structure, then the kind's own
//! checks, then what is left of the schema: patterns, counts of members, and the CEL rules, which are evaluated here
//! by the engine that `kube` brings, defaults applied first, as the API server does.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::cel::{CompiledSchema, ValidationError, Validator, compile_schema};
use regex::Regex;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock, PoisonError},
};

use super::{
    Violation,
    kind::{Trigger, TriggerObject},
    schema,
};

/// Reads objects of one kind. Made once; its schema is built at the first use.
#[derive(Debug)]
pub struct Checker {
    crd: fn() -> CustomResourceDefinition,
    ready: OnceLock<Ready>,
}

#[derive(Debug)]
struct Ready {
    spec: Value,
    patterns: HashMap<String, Regex>,
    rules: CompiledSchema,
    // The engine keeps its functions beside variables that may not be shared between threads.
    engine: Mutex<Validator>,
}

impl Checker {
    /// A checker of the kind that this definition defines.
    pub const fn new(crd: fn() -> CustomResourceDefinition) -> Self {
        Self { crd, ready: OnceLock::new() }
    }

    /// Reads one object: schema first, then the type, then `own`, the kind's own checks, then the rest of the schema.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read<T: DeserializeOwned>(
        &self,
        object: Value,
        own: impl FnOnce(&T) -> Vec<Violation>,
    ) -> Result<T, Vec<Violation>> {
        self.build(object, |typed: T| {
            let violations = own(&typed);
            if violations.is_empty() { Ok(typed) } else { Err(violations) }
        })
    }

    /// Reads one trigger in the same way and compiles what all triggers share.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn trigger<T: Trigger>(&self, object: Value) -> Result<TriggerObject, Vec<Violation>> {
        self.build(object, |typed: T| {
            let mut violations = typed.violations();
            match TriggerObject::new(typed) {
                Ok(trigger) if violations.is_empty() => Ok(trigger),
                Ok(_) => Err(violations),
                Err(more) => {
                    violations.extend(more);
                    Err(violations)
                }
            }
        })
    }

    fn build<T: DeserializeOwned, B>(
        &self,
        mut object: Value,
        check: impl FnOnce(T) -> Result<B, Vec<Violation>>,
    ) -> Result<B, Vec<Violation>> {
        let ready = self.ready.get_or_init(|| Ready::of(&(self.crd)()));
        schema::prepare(&mut object, &ready.spec)?;
        let spec = object.get("spec").cloned().unwrap_or_default();
        let built = check(schema::typed(object)?)?;
        let mut violations = Vec::new();
        ready.rest(&spec, &ready.spec, "/spec", &mut violations);
        if violations.is_empty() {
            ready.rules(&spec, &mut violations);
        }
        if violations.is_empty() { Ok(built) } else { Err(violations) }
    }
}

impl Ready {
    fn of(crd: &CustomResourceDefinition) -> Self {
        let spec = schema::spec_schema(crd);
        let mut patterns = HashMap::new();
        collect_patterns(&spec, &mut patterns);
        let rules = compile_schema(&spec);
        Self { spec, patterns, rules, engine: Mutex::new(Validator::new()) }
    }

    /// Patterns and counts of members, which the step for structure leaves to the kinds' better words.
    fn rest(&self, value: &Value, schema: &Value, path: &str, violations: &mut Vec<Violation>) {
        match value {
            Value::String(text) => {
                let pattern = schema.get("pattern").and_then(Value::as_str).unwrap_or_default();
                if self.patterns.get(pattern).is_some_and(|regex| !regex.is_match(text)) {
                    let fix = format!("write what matches {pattern}");
                    violations.push(Violation::new(path, format!("{text:?} is not allowed here"), fix));
                }
            }
            Value::Array(items) => {
                let inner = schema.get("items").unwrap_or(&Value::Null);
                for (index, item) in items.iter().enumerate() {
                    self.rest(item, inner, &format!("{path}/{index}"), violations);
                }
            }
            Value::Object(map) => {
                schema::check_count(
                    map.len(),
                    schema,
                    ("minProperties", "maxProperties"),
                    "members",
                    path,
                    violations,
                );
                for (key, value) in map {
                    if let Some(inner) = schema::property(schema, key) {
                        self.rest(value, inner, &format!("{path}/{}", super::escape(key)), violations);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn rules(&self, spec: &Value, violations: &mut Vec<Violation>) {
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(errors) = engine.validate_compiled(&self.rules, spec, None) {
            violations.extend(errors.as_slice().iter().map(broken));
        }
    }
}

/// A rule's message says what must hold, so it is the fix.
fn broken(error: &ValidationError) -> Violation {
    let path = error.field_path.replace('[', ".").replace(']', "");
    let steps = path.split('.').filter(|step| !step.is_empty() && *step != "spec");
    let pointer: String = steps.map(|step| format!("/{}", super::escape(step))).collect();
    Violation::new(
        format!("/spec{pointer}"),
        format!("breaks the rule {}", error.rule),
        error.message.clone(),
    )
}

fn collect_patterns(schema: &Value, patterns: &mut HashMap<String, Regex>) {
    match schema {
        Value::Object(map) => {
            if let Some(pattern) = map.get("pattern").and_then(Value::as_str)
                && let Ok(regex) = Regex::new(pattern)
            {
                patterns.insert(pattern.to_owned(), regex);
            }
            map.values().for_each(|inner| collect_patterns(inner, patterns));
        }
        Value::Array(items) => items.iter().for_each(|inner| collect_patterns(inner, patterns)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    #[derive(CustomResource, Clone, Debug, Serialize, Deserialize, KubeSchema)]
    #[kube(group = "example.com", version = "v1", kind = "Sample", namespaced)]
    #[serde(rename_all = "kebab-case")]
    struct SampleSpec {
        /// Members.
        #[serde(default)]
        ranges: Vec<Range>,
        /// A word.
        #[schemars(regex(pattern = "^[a-z]+$"))]
        a_word: String,
    }

    #[derive(Clone, Debug, Serialize, Deserialize, KubeSchema)]
    #[x_kube(validation = ("self.most >= self.least", "most is at least least"))]
    struct Range {
        /// Smallest.
        #[serde(default = "five")]
        least: i32,
        /// Largest.
        most: i32,
    }

    fn five() -> i32 {
        5
    }

    fn faults(spec: &Value) -> Vec<String> {
        static CHECKER: Checker = Checker::new(Sample::crd);
        let object = json!({"apiVersion": "example.com/v1", "kind": "Sample", "metadata": {"name": "s"}, "spec": spec});
        let read = CHECKER.read::<Sample>(object, |_| Vec::new());
        read.err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_are_evaluated_with_defaults_applied() {
        assert!(faults(&json!({"a-word": "x", "ranges": [{"most": 5}, {"least": 1, "most": 1}]})).is_empty());
        assert_eq!(
            faults(&json!({"a-word": "x", "ranges": [{"most": 9}, {"most": 4}]})),
            ["spec.ranges.1: breaks the rule self.most >= self.least; most is at least least"]
        );
    }

    #[test]
    fn patterns_come_after_the_structure() {
        assert_eq!(
            faults(&json!({"a-word": "X"})),
            ["spec.a-word: \"X\" is not allowed here; write what matches ^[a-z]+$"]
        );
        assert_eq!(
            faults(&json!({"a-word": 1})),
            ["spec.a-word: expected a string, found the number 1; write it in quotes: \"1\""]
        );
    }
}
