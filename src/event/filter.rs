//! [`Filter`]: which events a trigger wants, in the CloudEvents subscription dialects, compiled once. Must never
//! allocate for an event, but in a clause that asks for it (CEL).

use http::header::{HeaderName, HeaderValue};
use std::sync::Arc;

use super::{Attributes, Event, cel::Cel};

/// How a text attribute is compared. An attribute that the event does not have never matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The whole value, case sensitive.
    Exact,
    /// How the value begins.
    Prefix,
    /// How the value ends.
    Suffix,
}

/// Which CloudEvents attribute is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// `id`
    Id,
    /// `source`
    Source,
    /// `type`
    Type,
    /// `subject`
    Subject,
    /// `specversion`, always `1.0`
    SpecVersion,
    /// `datacontenttype`: the event's content type
    DataContentType,
    /// An extension or `dataschema`, found by its header name `ce-<name>`
    Extension(HeaderName),
}

/// Why a name cannot be used in a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// `time` has many spellings of one instant; text comparison would lie.
    #[error("time cannot be compared as text")]
    Time,
    /// Not 1 to 20 lower-case letters and digits.
    #[error("not a CloudEvents attribute name")]
    Malformed,
}

impl Attribute {
    /// The attribute called `name`.
    ///
    /// # Errors
    /// [`NameError`] for `time` and for names that CloudEvents does not allow.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let fits = !name.is_empty()
            && name.len() <= 20
            && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        match name {
            "id" => Ok(Self::Id),
            "source" => Ok(Self::Source),
            "type" => Ok(Self::Type),
            "subject" => Ok(Self::Subject),
            "specversion" => Ok(Self::SpecVersion),
            "datacontenttype" => Ok(Self::DataContentType),
            "time" => Err(NameError::Time),
            _ if fits => HeaderName::try_from(format!("ce-{name}"))
                .map(Self::Extension)
                .map_err(|_| NameError::Malformed),
            _ => Err(NameError::Malformed),
        }
    }

    fn value<'a>(&self, event: &'a Attributes, content_type: &'a HeaderValue) -> Option<&'a [u8]> {
        match self {
            Self::Id => Some(event.id.as_bytes()),
            Self::Source => Some(event.source.as_bytes()),
            Self::Type => Some(event.kind.as_bytes()),
            Self::Subject => event.subject.as_ref().map(|subject| subject.as_bytes()),
            Self::SpecVersion => Some(b"1.0"),
            Self::DataContentType => Some(content_type.as_bytes()),
            Self::Extension(name) => {
                event.extensions.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_bytes())
            }
        }
    }
}

/// One expression of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Compares one attribute with a text.
    Compare(Dialect, Attribute, Box<str>),
    /// Every part matches; an empty list matches.
    All(Vec<Self>),
    /// At least one part matches; an empty list does not.
    Any(Vec<Self>),
    /// The part does not match.
    Not(Box<Self>),
    /// A CEL expression over attributes and JSON data.
    Cel(Cel),
}

impl Expression {
    /// Whether the event matches. Recursion depth is the depth of the filter, bounded where it is read.
    pub fn matches(&self, event: &Event) -> bool {
        match self {
            Self::Compare(dialect, attribute, wanted) => {
                let wanted = wanted.as_bytes();
                attribute.value(&event.attributes, &event.content_type).is_some_and(|value| match dialect {
                    Dialect::Exact => value == wanted,
                    Dialect::Prefix => value.starts_with(wanted),
                    Dialect::Suffix => value.ends_with(wanted),
                })
            }
            Self::All(parts) => parts.iter().all(|part| part.matches(event)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(event)),
            Self::Not(part) => !part.matches(event),
            Self::Cel(cel) => cel.matches(event),
        }
    }
}

/// One entry of the trigger's `filter` list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Where it stands, for accounting and messages, e.g. `filter[1].not`.
    pub path: Arc<str>,
    /// What it says.
    pub expression: Expression,
}

/// The whole filter of a trigger: every clause must match. The default has none and passes every event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    clauses: Vec<Clause>,
}

impl Filter {
    /// A filter of these clauses.
    pub fn new(clauses: Vec<Clause>) -> Self {
        Self { clauses }
    }

    /// Whether every event passes.
    pub fn is_empty(&self) -> bool {
        self.clauses.is_empty()
    }

    /// Judges one event. No lock; no allocation but in a CEL clause.
    ///
    /// # Errors
    /// The first clause that the event does not match.
    pub fn check(&self, event: &Event) -> Result<(), &Clause> {
        match self.clauses.iter().find(|clause| !clause.expression.matches(event)) {
            None => Ok(()),
            Some(clause) => Err(clause),
        }
    }
}
