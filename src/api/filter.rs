//! `spec.filter` of a trigger: CloudEvents subscription dialects and CEL, read from YAML into [`crate::event::filter`].
//! Must never accept what it does not understand: an unknown dialect is a fault, not a pass.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;

use super::{Violation, schema};
use crate::event::{
    cel::{self, Cel},
    filter::{Attribute, Clause, Dialect, Expression, Filter},
};

/// Levels of `all`, `any` and `not` inside one clause.
pub const MAX_DEPTH: usize = 8;
/// Expressions of one trigger, all clauses together.
pub const MAX_EXPRESSIONS: usize = 256;

const DIALECTS: [&str; 7] = ["exact", "prefix", "suffix", "all", "any", "not", "cel"];

/// One clause: exactly one of `exact`, `prefix`, `suffix` (attribute to text), `all`, `any` (lists), `not`, `cel` (text).
///
/// Kept as JSON because it is recursive and CRD schemas are not; [`compile`] checks it in full.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FilterSpec(pub Map<String, Value>);

impl JsonSchema for FilterSpec {
    fn schema_name() -> Cow<'static, str> {
        "FilterSpec".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let compare = |text: &str| {
            json_schema!({
                "type": "object", "description": text, "minProperties": 1, "maxProperties": 16,
                "additionalProperties": {"type": "string", "maxLength": 1024}
            })
        };
        let nested = json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let list = |text: &str| json_schema!({"type": "array", "description": text, "maxItems": 64, "items": nested});
        json_schema!({
            "type": "object",
            "description": "One clause: exactly one of exact, prefix, suffix, all, any, not, cel. A missing attribute never matches exact, prefix or suffix.",
            "minProperties": 1,
            "maxProperties": 1,
            "properties": {
                "exact": compare("Attribute to the value it must have."),
                "prefix": compare("Attribute to how its value must begin."),
                "suffix": compare("Attribute to how its value must end."),
                "all": list("Clauses that must all match."),
                "any": list("Clauses of which at least one must match."),
                "not": {
                    "type": "object",
                    "description": "A clause that must not match.",
                    "x-kubernetes-preserve-unknown-fields": true
                },
                "cel": {
                    "type": "string",
                    "description": "A CEL expression over event (the attributes, as texts) and data (JSON data up to 64 KiB, else null) that must be true. One that fails, because a member is absent say, is not true.",
                    "minLength": 1,
                    "maxLength": cel::MAX_EXPRESSION_BYTES
                }
            }
        })
    }
}

/// Checks and compiles the clauses, which stand at `path` of their resource.
///
/// # Errors
/// One violation for each clause, dialect, attribute or value that cannot be understood.
pub fn compile(clauses: &[FilterSpec], path: &str) -> Result<Filter, Vec<Violation>> {
    let mut reader = Reader { violations: Vec::new(), left: MAX_EXPRESSIONS };
    let mut compiled = Vec::with_capacity(clauses.len());
    for (index, clause) in clauses.iter().enumerate() {
        let at = format!("{path}/{index}");
        if let Some(expression) = reader.object(&clause.0, &at, 0) {
            let dialect = clause.0.keys().next().map_or("", String::as_str);
            compiled.push(Clause { path: format!("filter[{index}].{dialect}").into(), expression });
        }
    }
    if reader.violations.is_empty() { Ok(Filter::new(compiled)) } else { Err(reader.violations) }
}

struct Reader {
    violations: Vec<Violation>,
    left: usize,
}

impl Reader {
    fn fault<T>(&mut self, path: &str, what: impl Into<String>, fix: impl Into<String>) -> Option<T> {
        self.violations.push(Violation::new(path, what, fix));
        None
    }

    fn value(&mut self, value: &Value, path: &str, depth: usize) -> Option<Expression> {
        match value {
            Value::Object(map) => self.object(map, path, depth),
            _ => self.fault(path, "a clause is a mapping", format!("use one of: {}", DIALECTS.join(", "))),
        }
    }

    fn object(&mut self, map: &Map<String, Value>, path: &str, depth: usize) -> Option<Expression> {
        if depth > MAX_DEPTH {
            return self.fault(path, format!("nested deeper than {MAX_DEPTH}"), "flatten the filter");
        }
        let mut entries = map.iter();
        let (Some((dialect, value)), None) = (entries.next(), entries.next()) else {
            let what = format!("a clause has exactly one dialect, this one has {}", map.len());
            return self.fault(path, what, "write one clause for each; all clauses must match");
        };
        let at = format!("{path}/{}", super::escape(dialect));
        match dialect.as_str() {
            "exact" => self.compare(Dialect::Exact, value, &at),
            "prefix" => self.compare(Dialect::Prefix, value, &at),
            "suffix" => self.compare(Dialect::Suffix, value, &at),
            "all" => self.list(value, &at, depth).map(Expression::All),
            "any" => self.list(value, &at, depth).map(Expression::Any),
            "not" => self.value(value, &at, depth + 1).map(|part| Expression::Not(Box::new(part))),
            "cel" => self.cel(value, &at),
            other => {
                self.fault(&at, format!("unknown filter dialect {other:?}"), schema::one_of(other, &DIALECTS))
            }
        }
    }

    fn cel(&mut self, value: &Value, path: &str) -> Option<Expression> {
        let example = "write for example event.type == 'order.created' && data.amount > 100";
        let Some(text) = value.as_str() else {
            return self.fault(path, "an expression is a text", example);
        };
        if self.left == 0 {
            let what = format!("more than {MAX_EXPRESSIONS} comparisons in one filter");
            return self.fault(path, what, "split the trigger in two");
        }
        self.left -= 1;
        match Cel::compile(text) {
            Ok(cel) => Some(Expression::Cel(cel)),
            Err(error) => self.fault(path, error.to_string(), example),
        }
    }

    fn list(&mut self, value: &Value, path: &str, depth: usize) -> Option<Vec<Expression>> {
        let Some(items) = value.as_array().filter(|items| !items.is_empty()) else {
            return self.fault(path, "needs at least one clause", "write a list of clauses");
        };
        let parts: Vec<Option<Expression>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| self.value(item, &format!("{path}/{index}"), depth + 1))
            .collect();
        parts.into_iter().collect()
    }

    fn compare(&mut self, dialect: Dialect, value: &Value, path: &str) -> Option<Expression> {
        let Some(map) = value.as_object().filter(|map| !map.is_empty()) else {
            return self.fault(
                path,
                "needs an attribute and a text",
                "write for example type: com.example.order",
            );
        };
        let mut parts = Vec::with_capacity(map.len());
        for (name, wanted) in map {
            let at = format!("{path}/{}", super::escape(name));
            if self.left == 0 {
                let what = format!("more than {MAX_EXPRESSIONS} comparisons in one filter");
                return self.fault(&at, what, "split the trigger in two");
            }
            self.left -= 1;
            let attribute = match Attribute::parse(name) {
                Ok(attribute) => attribute,
                Err(error) => {
                    let fix = "use id, source, type, subject, datacontenttype, dataschema or an extension (lower-case letters and digits)";
                    return self.fault(&at, format!("{name:?}: {error}"), fix);
                }
            };
            let Some(wanted) = wanted.as_str() else {
                return self.fault(&at, "the value to compare with is not a text", "write it in quotes");
            };
            parts.push(Expression::Compare(dialect, attribute, wanted.into()));
        }
        if parts.len() == 1 { parts.pop() } else { Some(Expression::All(parts)) }
    }
}
