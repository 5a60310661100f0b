//! A filter clause in CEL: compiled and bounded when the trigger is read, evaluated once an event. Must never fail an
//! event or a thread: whatever cannot be evaluated does not match.

use super::{Event, headers::rfc3339_ms};
use cel::{
    Context, IdedExpr, Program, Value,
    common::ast::{CallExpr, EntryExpr, Expr, LiteralValue},
    objects::Map,
};
use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc};

/// Longest expression, in bytes.
pub const MAX_EXPRESSION_BYTES: usize = 1024;
/// Most nodes of an expression, macros unfolded.
pub const MAX_NODES: usize = 256;
/// Longest data, in bytes, that an expression looks at; longer data is not parsed, and `data` is null.
pub const MAX_DATA_BYTES: usize = 64 * 1024;

/// What may be named in an expression.
const VARIABLES: [&str; 2] = ["event", "data"];
/// Functions beside the operators. Those that make a text or a list longer than what they were given are left out.
const FUNCTIONS: [&str; 21] = [
    "contains",
    "size",
    "max",
    "min",
    "startsWith",
    "endsWith",
    "matches",
    "string",
    "double",
    "int",
    "uint",
    "duration",
    "timestamp",
    "getFullYear",
    "getMonth",
    "getDayOfMonth",
    "getDate",
    "getDayOfWeek",
    "getHours",
    "getMinutes",
    "getSeconds",
];

thread_local! {
    // Its functions are the same for every event.
    static ROOT: Context<'static> = Context::default();
}

/// A compiled expression over `event` (the CloudEvents attributes, as texts) and `data` (JSON data, else null).
#[derive(Clone)]
pub struct Cel {
    source: Arc<str>,
    program: Arc<Program>,
    reads_data: bool,
}

/// Why an expression is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than [`MAX_EXPRESSION_BYTES`].
    #[error("the expression has {0} bytes; {MAX_EXPRESSION_BYTES} are allowed")]
    TooLong(usize),
    /// Not CEL.
    #[error("not a CEL expression: {0}")]
    Syntax(String),
    /// More than [`MAX_NODES`].
    #[error("the expression has more than {MAX_NODES} parts")]
    TooLarge,
    /// A loop in a loop: its cost is the product of two lengths that the event decides.
    #[error("a loop (all, exists, exists_one) inside another one")]
    NestedLoops,
    /// `map` and `filter` copy what they have built for every element.
    #[error("it builds a list in a loop (map, filter); use all, exists or exists_one")]
    ListLoop,
    /// A name that is not there.
    #[error("there is no {0:?}")]
    Unknown(String),
    /// `matches` with a pattern that is not written in the expression, or that is no pattern.
    #[error("matches takes a pattern that is written out: {0}")]
    Pattern(String),
}

impl Cel {
    /// Compiles and bounds `source`.
    ///
    /// # Errors
    /// [`Error`]: what is wrong with it.
    pub fn compile(source: &str) -> Result<Self, Error> {
        if source.len() > MAX_EXPRESSION_BYTES {
            return Err(Error::TooLong(source.len()));
        }
        // The library's parser is not ours to trust with what a person wrote.
        let program = std::panic::catch_unwind(|| Program::compile(source))
            .map_err(|_| Error::Syntax("the parser gave up".to_owned()))?
            .map_err(|errors| Error::Syntax(first_line(&errors.to_string())))?;
        let mut walk = Walk { nodes: 0, scope: Vec::new(), reads_data: false };
        walk.expression(program.expression(), false)?;
        let reads_data = walk.reads_data;
        Ok(Self { source: source.into(), program: Arc::new(program), reads_data })
    }

    /// Whether the event matches. An expression that fails (a member that is absent, types that do not fit) or gives
    /// anything but `true` does not match.
    pub fn matches(&self, event: &Event) -> bool {
        let value = std::panic::catch_unwind(AssertUnwindSafe(|| {
            ROOT.with(|root| {
                let mut context = root.new_inner_scope();
                context.add_variable_from_value("event", attributes(event));
                context.add_variable_from_value("data", self.data(event));
                self.program.execute(&context)
            })
        }));
        matches!(value, Ok(Ok(Value::Bool(true))))
    }

    fn data(&self, event: &Event) -> Value {
        let json = || {
            let kind = event.content_type.to_str().ok()?.split(';').next()?.trim().to_ascii_lowercase();
            let data = event.data.as_ref().filter(|data| data.len() <= MAX_DATA_BYTES)?;
            let is_json = kind == "application/json" || kind == "text/json" || kind.ends_with("+json");
            is_json.then(|| serde_json::from_slice::<serde_json::Value>(data).ok())?
        };
        self.reads_data.then(json).flatten().map_or(Value::Null, value)
    }
}

impl std::fmt::Debug for Cel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cel({:?})", self.source)
    }
}

impl PartialEq for Cel {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Cel {}

fn attributes(event: &Event) -> Value {
    let text = |value: &str| Value::String(Arc::new(value.to_owned()));
    let known = &event.attributes;
    let mut map: HashMap<String, Value> = HashMap::with_capacity(8 + known.extensions.len());
    for (name, value) in &known.extensions {
        if let (Some(name), Ok(value)) = (name.as_str().strip_prefix("ce-"), value.to_str()) {
            map.insert(name.to_owned(), text(value));
        }
    }
    map.insert("specversion".to_owned(), text("1.0"));
    map.insert("id".to_owned(), text(&known.id));
    map.insert("source".to_owned(), text(&known.source));
    map.insert("type".to_owned(), text(&known.kind));
    if let Some(subject) = &known.subject {
        map.insert("subject".to_owned(), text(subject));
    }
    if let Some(time) = rfc3339_ms(known.time_ms) {
        map.insert("time".to_owned(), text(&String::from_utf8_lossy(&time)));
    }
    if let Ok(kind) = event.content_type.to_str() {
        map.insert("datacontenttype".to_owned(), text(kind));
    }
    Value::Map(Map::from(map))
}

/// Whole numbers become `int`, others `double`. Depth is bounded by the JSON reader.
fn value(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(truth) => Value::Bool(truth),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(whole) => Value::Int(whole),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::String(Arc::new(text)),
        serde_json::Value::Array(items) => Value::List(Arc::new(items.into_iter().map(value).collect())),
        serde_json::Value::Object(members) => {
            let members: HashMap<String, Value> =
                members.into_iter().map(|(name, member)| (name, value(member))).collect();
            Value::Map(Map::from(members))
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Looks at every part of an expression.
struct Walk {
    nodes: usize,
    /// Variables of loops.
    scope: Vec<String>,
    reads_data: bool,
}

impl Walk {
    fn expression(&mut self, part: &IdedExpr, in_loop: bool) -> Result<(), Error> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Error::TooLarge);
        }
        match &part.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.expression(&select.operand, in_loop),
            Expr::List(list) => list.elements.iter().try_for_each(|part| self.expression(part, in_loop)),
            Expr::Call(call) => self.call(call, in_loop),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.expression(&entry.key, in_loop)?;
                    self.expression(&entry.value, in_loop)
                }
                EntryExpr::StructField(field) => self.expression(&field.value, in_loop),
            }),
            Expr::Struct(of) => Err(Error::Unknown(of.type_name.clone())),
            Expr::Comprehension(_) if in_loop => Err(Error::NestedLoops),
            Expr::Comprehension(of) if matches!(of.accu_init.expr, Expr::List(_)) => Err(Error::ListLoop),
            Expr::Comprehension(of) => {
                self.expression(&of.iter_range, in_loop)?;
                let before = self.scope.len();
                self.scope.extend([of.iter_var.clone(), of.accu_var.clone()]);
                self.scope.extend(of.iter_var2.clone());
                for part in [&of.accu_init, &of.loop_cond, &of.loop_step, &of.result] {
                    self.expression(part, true)?;
                }
                self.scope.truncate(before);
                Ok(())
            }
        }
    }

    fn name(&mut self, name: &str) -> Result<(), Error> {
        self.reads_data |= name == "data";
        let known = VARIABLES.contains(&name) || self.scope.iter().any(|variable| variable == name);
        if known { Ok(()) } else { Err(Error::Unknown(name.to_owned())) }
    }

    fn call(&mut self, call: &CallExpr, in_loop: bool) -> Result<(), Error> {
        let name = call.func_name.as_str();
        if !is_operator(name) && !FUNCTIONS.contains(&name) {
            return Err(Error::Unknown(name.to_owned()));
        }
        if name == "matches" {
            pattern(call.args.last())?;
        }
        if let Some(target) = &call.target {
            self.expression(target, in_loop)?;
        }
        call.args.iter().try_for_each(|part| self.expression(part, in_loop))
    }
}

/// The parser's own names for operators (`_&&_`, `@in`) are no names that a person could write.
fn is_operator(name: &str) -> bool {
    !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}

/// A pattern from an event could be one that is costly to compile.
fn pattern(argument: Option<&IdedExpr>) -> Result<(), Error> {
    let Some(Expr::Literal(LiteralValue::String(text))) = argument.map(|part| &part.expr) else {
        return Err(Error::Pattern("it is an expression here".to_owned()));
    };
    regex::Regex::new(text.inner()).map(drop).map_err(|error| {
        let text = error.to_string();
        Error::Pattern(text.lines().last().unwrap_or_default().to_owned())
    })
}
