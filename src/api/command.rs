//! How a kind of resource is made, changed and shown by the command line, as data: a source describes its trigger
//! here, and the commands exist. Must never name a source, nor do anything.

use super::{GROUP, kind::TriggerKind};

/// A kind of custom resource, by its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `kind`
    pub kind: &'static str,
    /// Name in URLs and permissions.
    pub plural: &'static str,
    /// What people call one.
    pub noun: &'static str,
}

impl Resource {
    /// `function.kubeless.io/hello`, as kubectl names objects.
    pub fn named(&self, name: &str) -> String {
        format!("{}.{GROUP}/{name}", self.kind.to_lowercase())
    }

    /// Name of the custom resource definition, which is also what permissions are given for.
    pub fn crd(&self) -> String {
        format!("{}.{GROUP}", self.plural)
    }
}

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
    /// What `create` and `update` take beside the shared flags.
    pub flags: &'static [Flag],
    /// Columns of `list` between NAMESPACE and READY.
    pub columns: &'static [Column],
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
    /// JSON in a file.
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
