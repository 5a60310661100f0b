//! Label selectors from trigger to functions, checked and compiled once. Must never look at namespaces: the
//! router only offers functions of the trigger's own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use std::collections::BTreeMap;

use super::Violation;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

/// Key under which [`Selector::required_pair`] gives a name: no label has the empty key.
pub const NAME_KEY: &str = "";

/// A compiled selector; all terms must hold. No terms: every function of the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Named(String),
    Equals(String, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
}

impl Selector {
    /// Checks and compiles `selector`, which stands at `path` of its resource.
    ///
    /// # Errors
    /// One violation for each operator, key or value list that Kubernetes would refuse.
    pub fn compile(selector: &LabelSelector, path: &str) -> Result<Self, Vec<Violation>> {
        let mut terms = Vec::new();
        let mut violations = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            let at = format!("{path}/matchLabels/{}", super::escape(key));
            check_key(key, &at, &mut violations);
            check_value(value, &at, &mut violations);
            terms.push(Term::Equals(key.clone(), value.clone()));
        }
        for (index, requirement) in selector.match_expressions.iter().flatten().enumerate() {
            let at = format!("{path}/matchExpressions/{index}");
            terms.extend(Term::compile(requirement, &at, &mut violations));
        }
        if violations.is_empty() { Ok(Self { terms }) } else { Err(violations) }
    }

    /// Selects the one object of this name, which stands at `path` of its resource.
    ///
    /// # Errors
    /// The name is none that a function can have.
    pub fn named(name: &str, path: &str) -> Result<Self, Vec<Violation>> {
        if is_dns_label(name) {
            return Ok(Self { terms: vec![Term::Named(name.to_owned())] });
        }
        let fix = "write 1 to 63 of a-z, 0-9, '-', starting and ending with a letter or digit";
        Err(vec![Violation::new(path, format!("{name:?} is not the name of a function"), fix)])
    }

    /// The one name that is selected; `None`: labels decide.
    pub fn name(&self) -> Option<&str> {
        self.terms.iter().find_map(|term| match term {
            Term::Named(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether an object with this name and these labels is selected. A missing label satisfies `NotIn`, as in
    /// Kubernetes.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.terms.iter().all(|term| term.matches(name, labels))
    }

    /// One `(key, value)` that every selected object must carry, for an inverted index; the key [`NAME_KEY`] stands
    /// for its name. `None`: there is none.
    pub fn required_pair(&self) -> Option<(&str, &str)> {
        self.terms.iter().find_map(|term| match term {
            Term::Named(name) => Some((NAME_KEY, name.as_str())),
            Term::Equals(key, value) => Some((key.as_str(), value.as_str())),
            Term::In(key, values) if values.len() == 1 => Some((key.as_str(), values[0].as_str())),
            _ => None,
        })
    }
}

impl Term {
    fn compile(
        requirement: &LabelSelectorRequirement,
        path: &str,
        violations: &mut Vec<Violation>,
    ) -> Option<Self> {
        let key = requirement.key.clone();
        let values = requirement.values.clone().unwrap_or_default();
        check_key(&key, &format!("{path}/key"), violations);
        for value in &values {
            check_value(value, &format!("{path}/values"), violations);
        }
        let (term, wants_values) = match requirement.operator.as_str() {
            "In" => (Self::In(key, values), true),
            "NotIn" => (Self::NotIn(key, values), true),
            "Exists" => (Self::Exists(key), false),
            "DoesNotExist" => (Self::DoesNotExist(key), false),
            other => {
                violations.push(Violation::new(
                    format!("{path}/operator"),
                    format!("unknown operator {other:?}"),
                    super::schema::one_of(other, &OPERATORS),
                ));
                return None;
            }
        };
        let given = requirement.values.as_ref().is_some_and(|values| !values.is_empty());
        if wants_values && !given {
            let fix = "add at least one value, or use Exists or DoesNotExist";
            violations.push(Violation::new(path, format!("{} needs values", requirement.operator), fix));
        } else if !wants_values && given {
            let at = format!("{path}/values");
            violations.push(Violation::new(
                at,
                format!("{} takes no values", requirement.operator),
                "remove values, or use In or NotIn",
            ));
        }
        Some(term)
    }

    fn matches(&self, name: &str, labels: &Labels) -> bool {
        match self {
            Self::Named(wanted) => wanted == name,
            Self::Equals(key, value) => labels.get(key) == Some(value),
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => !labels.get(key).is_some_and(|value| values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

fn check_key(key: &str, path: &str, violations: &mut Vec<Violation>) {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if !is_label_text(name) || name.is_empty() || prefix.is_some_and(|prefix| !is_subdomain(prefix)) {
        violations.push(Violation::new(
            path,
            format!("{key:?} is not a label key"),
            "write [prefix/]name, the name at most 63 of a-z, A-Z, 0-9, '-', '_', '.', starting and ending with a letter or digit",
        ));
    }
}

fn check_value(value: &str, path: &str, violations: &mut Vec<Violation>) {
    if !is_label_text(value) {
        violations.push(Violation::new(
            path,
            format!("{value:?} is not a label value"),
            "write at most 63 of a-z, A-Z, 0-9, '-', '_', '.', starting and ending with a letter or digit",
        ));
    }
}

fn is_label_text(text: &str) -> bool {
    let edge = |c: Option<u8>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
        && edge(text.bytes().next())
        && edge(text.bytes().last())
}

/// Whether `text` is a DNS-1123 label: what namespaces, Services and credentials are called.
pub fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

/// Whether `text` is a DNS-1123 subdomain as Kubernetes has it: what most objects are called. Only the whole is bounded; its
/// parts may be longer than a label.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

fn is_part(text: &str) -> bool {
    let alnum = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    !text.is_empty()
        && text.bytes().all(|c| alnum(c) || c == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}
