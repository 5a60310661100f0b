//! How a kind of resource is made, changed and shown by the command line, as data: a source describes its trigger
//! here, and the commands exist. Must never name a source, nor do anything.

pub mod cronjob;
pub mod http;

use super::{GROUP, VERSION, kind::TriggerKind};

/// A kind of custom resource, by its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `kind`
    pub kind: &'static str,
    /// Name in URLs and permissions.
    pub plural: &'static str,
    /// What people call one.
    pub noun: &'static str,
    /// API group.
    pub group: &'static str,
    /// Version of the group.
    pub version: &'static str,
}

impl Resource {
    /// A kind of ours.
    pub const fn ours(kind: &'static str, plural: &'static str, noun: &'static str) -> Self {
        Self { kind, plural, noun, group: GROUP, version: VERSION }
    }

    /// `function.kubeless.io/hello`, as kubectl names objects.
    pub fn named(&self, name: &str) -> String {
        format!("{}.{}/{name}", self.kind.to_lowercase(), self.group)
    }

    /// What permissions are given for; of our kinds also the name of the custom resource definition.
    pub fn permission(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

/// Fills in what only the session knows, given the address of the cluster's API server.
pub type Complete = fn(object: &mut serde_json::Value, server: &str) -> Result<(), String>;

/// `kubeless trigger <name> create|update|delete|list`.
#[derive(Clone, Copy, Debug)]
pub struct TriggerCommand {
    /// Word after `trigger`.
    pub name: &'static str,
    /// What it makes.
    pub resource: Resource,
    /// How one is checked.
    pub trigger: TriggerKind,
    /// One sentence.
    pub about: &'static str,
    /// Lines of the help, each a whole command line that works as it stands.
    pub examples: &'static [&'static str],
    /// What `create` and `update` take beside the label flag.
    pub flags: &'static [Flag],
    /// Columns of `list` between NAMESPACE and READY.
    pub columns: &'static [Column],
    /// Fills in what a new object needs and no flag has said. `server` is the host of the API server, empty if none is
    /// known; the error is a sentence that names the flag.
    pub complete: Option<Complete>,
    /// How events are sent to its source; `None`: `publish` does not exist.
    pub publish: Option<Publish>,
}

/// What the flags say of the server, as the command line finds it: its address, if they name one; the error names the flag.
pub type Address = fn(said: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, String>;

/// `kubeless trigger <name> publish`.
#[derive(Clone, Copy, Debug)]
pub struct Publish {
    /// A whole command line that works as it stands.
    pub example: &'static str,
    /// Long name of the flag that says where to.
    pub topic: &'static str,
    /// Its value if it is not given.
    pub default_topic: Option<&'static str>,
    /// Long name of the flag of bodies.
    pub data: &'static str,
    /// Long name of the flag of the key.
    pub key: Option<&'static str>,
    /// Flags that say where the server is.
    pub server: &'static [ServerFlag],
    /// What those flags mean.
    pub address: Address,
    /// Whether an address of the local session is this source's.
    pub is_ours: fn(&str) -> bool,
    /// The verb that makes what events are sent to.
    pub make: Option<Make>,
}

/// A flag that says where a server is.
#[derive(Clone, Copy, Debug)]
pub struct ServerFlag {
    /// Long name, without dashes.
    pub name: &'static str,
    /// What stands for the value in the help.
    pub value_name: &'static str,
    /// One sentence.
    pub help: &'static str,
}

/// A verb that makes a topic or stream.
#[derive(Clone, Copy, Debug)]
pub struct Make {
    /// The verb.
    pub verb: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// A whole command line that works as it stands.
    pub example: &'static str,
    /// Long name of the flag of its name.
    pub name: &'static str,
    /// Long name of the flag of its parts.
    pub parts: &'static str,
}

/// A flag that sets one field.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Long name, without dashes.
    pub name: &'static str,
    /// One letter.
    pub short: Option<char>,
    /// What stands for the value in the help.
    pub value_name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// JSON pointer of the field.
    pub pointer: &'static str,
    /// How the text becomes a value.
    pub value: Value,
    /// Whether `create` needs it.
    pub required: bool,
    /// What the value names, if that has to be there.
    pub names: Option<Named>,
}

/// An object of the trigger's namespace that a flag names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A Function.
    Function,
    /// A Secret.
    Secret,
}

/// How the text of a flag becomes the value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// As it is.
    Text,
    /// `true` or `false`; the flag alone is `true`.
    Bool,
    /// `k1=v1,k2=v2` becomes `{matchLabels: {…}}`.
    Labels,
    /// JSON.
    Json,
    /// JSON or YAML in a file.
    JsonFile,
}

/// A column of a list.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Title.
    pub title: &'static str,
    /// JSON pointer of what it shows.
    pub pointer: &'static str,
}

impl Flag {
    /// A flag whose text is the field's value.
    pub const fn text(
        name: &'static str,
        value_name: &'static str,
        pointer: &'static str,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            short: None,
            value_name,
            help,
            pointer,
            value: Value::Text,
            required: false,
            names: None,
        }
    }

    /// A flag that is on or off.
    pub const fn switch(name: &'static str, pointer: &'static str, help: &'static str) -> Self {
        Self { value: Value::Bool, ..Self::text(name, "BOOL", pointer, help) }
    }

    /// The same, needed by `create`.
    #[must_use]
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// The same with another form of its value.
    #[must_use]
    pub const fn of(self, value: Value) -> Self {
        Self { value, ..self }
    }

    /// The same with one letter.
    #[must_use]
    pub const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    /// The same, naming an object that has to be there.
    #[must_use]
    pub const fn naming(self, named: Named) -> Self {
        Self { names: Some(named), ..self }
    }
}

/// Labels of the functions that receive the events.
pub const FUNCTION_SELECTOR: Flag = Flag::text(
    "function-selector",
    "K=V,…",
    "/spec/functionSelector",
    "Labels of the functions that receive the events.",
)
.of(Value::Labels)
.required();

/// Which events wait for each other.
pub const ORDERING: Flag = Flag::text(
    "ordering",
    "ORDER",
    "/spec/ordering",
    "Which events wait for each other: Key (default), Partition or None.",
);

/// Where undelivered events are kept.
pub const DEAD_LETTER: Flag = Flag::text(
    "dead-letter-topic",
    "TOPIC",
    "/spec/delivery/deadLetter/topic",
    "Where events that were not delivered are kept.",
);

/// Whether events are left at the source.
pub const PAUSED: Flag =
    Flag::switch("paused", "/spec/paused", "Leaves new events at their source; --paused=false goes on.");
