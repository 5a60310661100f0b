//! YAML documents as trees that remember where each value stands. Must never expand without bound: the parser
//! runs under a budget against bombs.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

const MAX_NESTING: usize = 64;
const MAX_NODES: usize = 200_000;

/// Line and column, from 1; 0 is unknown.
pub type At = (u64, u64);

/// A value and where it stands in its document.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where the value begins.
    pub at: At,
    /// What it is.
    pub content: Content,
}

/// What a [`Node`] is.
#[derive(Clone, Debug)]
pub enum Content {
    /// null, a flag, a number or a text
    Scalar(Value),
    /// a list
    List(Vec<Node>),
    /// a mapping: key, where the key stands, value
    Mapping(Vec<(String, At, Node)>),
}

/// Why a document cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct SyntaxError {
    /// Where in the document.
    pub at: At,
    /// The parser's words, on one line.
    pub what: String,
}

/// Cuts a file at its `---` lines: the documents with the number of lines before each.
///
/// Documents are parsed one by one so that a broken one does not take the others with it. A `---` at the
/// beginning of a line always ends a document in YAML, even inside a block of text.
pub fn split(text: &str) -> Vec<(u64, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut first_line) = (0, 0);
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.strip_prefix("---");
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']))
            && offset > start
        {
            parts.push((first_line, &text[start..offset]));
            (start, first_line) = (offset, number as u64);
        }
        offset += line.len();
    }
    parts.push((first_line, &text[start..]));
    parts.retain(|(_, part)| !is_blank(part));
    parts
}

fn is_blank(part: &str) -> bool {
    part.trim_start_matches('\u{feff}').lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with(['#', '%']) || line == "---" || line == "..."
    })
}

/// Parses one document.
///
/// # Errors
/// [`SyntaxError`] for malformed YAML, duplicate keys and documents over the budget.
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut options = serde_saphyr::Options::default();
    let mut budget = serde_saphyr::Budget::default();
    budget.max_depth = MAX_NESTING;
    budget.max_nodes = MAX_NODES;
    budget.max_events = 4 * MAX_NODES;
    budget.max_documents = 2;
    budget.max_aliases = 1_000;
    budget.max_anchors = 1_000;
    options.budget = Some(budget);
    // YAML 1.1 would read the names yes, no, on and off as flags; Kubernetes manifests mean texts.
    options.strict_booleans = true;
    serde_saphyr::from_str_with_options::<Node>(text, options).map_err(|error| {
        let at = error.location().map_or((0, 0), |location| (location.line(), location.column()));
        let words = error.without_snippet().to_string();
        let line = words.lines().find(|line| !line.trim().is_empty()).unwrap_or("malformed YAML");
        // Advice for callers of the parser and positions that count from the document's own start help nobody here.
        let line =
            [", set ", " at line "].iter().fold(line, |line, end| line.split(end).next().unwrap_or(line));
        SyntaxError { at, what: format!("not valid YAML: {}", line.trim()) }
    })
}

impl Node {
    /// The value behind `key`, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.content {
            Content::Mapping(entries) => entries.iter().find(|(name, ..)| name == key).map(|(.., node)| node),
            _ => None,
        }
    }

    /// The text, if this is one.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The same tree as JSON, without positions.
    pub fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Content::Mapping(entries) => Value::Object(
                entries.iter().map(|(key, _, node)| (key.clone(), node.to_value())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// Where the value at a JSON pointer stands: its key, its list item, or the nearest parent that exists.
    pub fn locate(&self, pointer: &str) -> At {
        let (mut node, mut at) = (self, self.at);
        for segment in pointer.split('/').skip(1).map(crate::api::unescape) {
            let next = match &node.content {
                Content::Mapping(entries) => {
                    entries.iter().find(|(key, ..)| *key == segment).map(|(_, at, node)| (*at, node))
                }
                Content::List(items) => {
                    segment.parse().ok().and_then(|index: usize| items.get(index)).map(|node| (node.at, node))
                }
                Content::Scalar(_) => None,
            };
            let Some((next_at, next_node)) = next else {
                break;
            };
            at = if next_at.0 == 0 { at } else { next_at };
            node = next_node;
        }
        at
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        let at = (spanned.referenced.line(), spanned.referenced.column());
        Ok(Self { at, content: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Bool(flag)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Content, E> {
        Ok(Content::Scalar(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Content, E> {
        Ok(Content::Scalar(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Content, E> {
        let number = Number::from_f64(number).ok_or_else(|| E::custom("not a finite number"))?;
        Ok(Content::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Scalar(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Node>()? {
            let name = match &key.content {
                Content::Scalar(Value::String(text)) => text.clone(),
                Content::Scalar(value) => value.to_string(),
                _ => return Err(A::Error::custom("a key must be a plain text")),
            };
            entries.push((name, key.at, access.next_value()?));
        }
        Ok(Content::Mapping(entries))
    }
}
