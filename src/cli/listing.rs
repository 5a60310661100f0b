//! Lists of objects: once or as they change, in every format. Must never know what its rows mean.

use super::{
    Exit,
    output::{self, Cell, Format, Table, talk},
    session::{Session, objects::Kind},
};
use crate::cluster::client;
use futures_util::StreamExt;
use kube::{
    Api,
    core::{ApiResource, DynamicObject},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::Value;
use std::{collections::HashMap, io::Write};

/// The flags of every list.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Listing {
    /// All namespaces.
    #[arg(short = 'A', long = "all-namespaces")]
    pub all: bool,
    /// Only objects with these labels, as in topic=orders,team!=a.
    #[arg(short = 'l', long = "selector", value_name = "SELECTOR")]
    selector: Option<String>,
    /// Output format.
    #[arg(short, long, value_name = "FORMAT", alias = "out", value_enum, default_value_t)]
    output: Format,
    /// Goes on with what changes, until Ctrl-C.
    #[arg(short, long)]
    watch: bool,
}

/// How objects become rows.
pub trait Rows {
    /// Titles.
    fn head(&self) -> Vec<&str>;
    /// The cells of one object.
    fn row(&self, object: &Value) -> Vec<Cell>;
}

impl Listing {
    /// Whether rows are wanted.
    pub const fn is_table(&self) -> bool {
        matches!(self.output, Format::Table | Format::Wide)
    }

    /// Whether more columns are wanted.
    pub fn is_wide(&self) -> bool {
        self.output == Format::Wide
    }

    /// The same, of objects with this label alone.
    pub fn with_label(&self, label: &str) -> Self {
        let selector = match &self.selector {
            Some(selector) => format!("{label},{selector}"),
            None => label.to_owned(),
        };
        Self { selector: Some(selector), ..self.clone() }
    }

    /// Reads the objects; of those that are named every one must be there.
    pub async fn read(&self, session: &Session, kind: &Kind, names: &[String]) -> anyhow::Result<Vec<Value>> {
        let mut found = session.list(kind, self.all, self.selector.as_deref()).await?;
        if names.is_empty() {
            return Ok(found);
        }
        for name in names {
            if !found.iter().any(|object| object["metadata"]["name"] == name.as_str()) {
                return Err(session.missing(kind, name).await);
            }
        }
        found.retain(|object| is_one_of(object, names));
        Ok(found)
    }

    /// Prints what was read and, with `--watch`, every change from then on.
    pub async fn show(
        &self,
        session: &Session,
        kind: &Kind,
        names: &[String],
        found: Vec<Value>,
        rows: &impl Rows,
    ) -> anyhow::Result<Exit> {
        if found.is_empty() && self.is_table() {
            talk(&self.nothing(session, kind));
        }
        if !self.watch {
            self.print(kind, &found, rows)?;
            return Ok(Exit::Ok);
        }
        let mut printer = Printer { format: self.output, kind, rows, widths: Vec::new() };
        printer.begin(&found)?;
        self.follow(session, names, found, printer).await
    }

    fn nothing(&self, session: &Session, kind: &Kind) -> String {
        let filtered = if self.selector.is_some() { " with these labels" } else { "" };
        match self.all {
            true => format!("no {} in any namespace{filtered}", kind.plural),
            false => format!(
                "no {} in namespace {}{filtered}; -A looks everywhere",
                kind.plural, session.namespace
            ),
        }
    }

    fn print(&self, kind: &Kind, found: &[Value], rows: &impl Rows) -> anyhow::Result<()> {
        let mut out = output::stdout();
        let objects = || found.iter().map(output::presentable).collect::<Vec<_>>();
        match self.output {
            Format::Table | Format::Wide if found.is_empty() => {}
            Format::Table | Format::Wide => {
                let mut table = Table::new(&rows.head());
                found.iter().for_each(|object| table.cells(rows.row(object)));
                write!(out, "{table}")?;
            }
            Format::Name => {
                for object in found {
                    writeln!(out, "{}", kind.named(text(object, "name")))?;
                }
            }
            Format::Json | Format::Yaml => {
                output::document(&mut out, self.output, &output::kubernetes_list(&objects()))?;
            }
        }
        Ok(())
    }

    async fn follow(
        &self,
        session: &Session,
        names: &[String],
        found: Vec<Value>,
        mut printer: Printer<'_, impl Rows>,
    ) -> anyhow::Result<Exit> {
        let mut seen: HashMap<(String, String), String> =
            found.iter().map(|object| (key(object), text(object, "resourceVersion").to_owned())).collect();
        let mut config = watcher::Config::default();
        config.label_selector.clone_from(&self.selector);
        let api = api(session, printer.kind, self.all);
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        let mut lost = false;
        while let Some(event) = events.next().await {
            let (object, gone) = match event {
                Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => (object, false),
                Ok(watcher::Event::Delete(object)) => (object, true),
                Ok(watcher::Event::Init | watcher::Event::InitDone) => continue,
                Err(error) => {
                    // Once, not at every attempt: it is tried again for as long as anybody waits.
                    if !std::mem::replace(&mut lost, true) {
                        talk(&format!(
                            "the watch broke off and is tried again: {}",
                            client::with_causes(&error)
                        ));
                    }
                    continue;
                }
            };
            lost = false;
            let object = serde_json::to_value(object)?;
            if !names.is_empty() && !is_one_of(&object, names) {
                continue;
            }
            let version = text(&object, "resourceVersion").to_owned();
            if gone {
                seen.remove(&key(&object));
                printer.one(&marked_as_gone(object))?;
            } else if seen.insert(key(&object), version.clone()).is_none_or(|before| before != version) {
                printer.one(&object)?;
            }
        }
        Ok(Exit::Ok)
    }
}

/// Rows one by one, under one head.
struct Printer<'a, R> {
    format: Format,
    kind: &'a Kind,
    rows: &'a R,
    widths: Vec<usize>,
}

impl<R: Rows> Printer<'_, R> {
    fn begin(&mut self, found: &[Value]) -> anyhow::Result<()> {
        if matches!(self.format, Format::Table | Format::Wide) {
            let mut table = Table::new(&self.rows.head());
            found.iter().for_each(|object| table.cells(self.rows.row(object)));
            return self.write(&table);
        }
        found.iter().try_for_each(|object| self.one(object))
    }

    fn one(&mut self, object: &Value) -> anyhow::Result<()> {
        let mut out = output::stdout();
        match self.format {
            Format::Table | Format::Wide => {
                drop(out);
                let mut table = Table::plain();
                table.cells(self.rows.row(object));
                return self.write(&table);
            }
            Format::Name => writeln!(out, "{}", self.kind.named(text(object, "name")))?,
            // One line an object, so that a reader knows where each ends.
            Format::Json => writeln!(out, "{}", serde_json::to_string(&output::presentable(object))?)?,
            Format::Yaml => {
                writeln!(out, "---")?;
                output::document(&mut out, Format::Yaml, &output::presentable(object))?;
            }
        }
        Ok(out.flush()?)
    }

    fn write(&mut self, table: &Table) -> anyhow::Result<()> {
        self.widths = table.widths(&self.widths);
        let mut lines = String::new();
        table.write(&mut lines, &self.widths)?;
        let mut out = output::stdout();
        out.write_all(lines.as_bytes())?;
        Ok(out.flush()?)
    }
}

/// Objects of a kind whose fields nobody has to know.
pub fn api(session: &Session, kind: &Kind, all: bool) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: kind.group.to_owned(),
        version: kind.version.to_owned(),
        api_version: kind.api_version(),
        kind: kind.kind.to_owned(),
        plural: kind.plural.to_owned(),
    };
    let client = session.connection.watches.clone();
    match all {
        true => Api::all_with(client, &resource),
        false => Api::namespaced_with(client, &session.namespace, &resource),
    }
}

/// What a row shows of an object that is not there any more.
pub const GONE: &str = "DELETED";

/// Whether [`Rows::row`] is asked about an object that is not there any more.
pub fn is_gone(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"] == GONE
}

fn marked_as_gone(mut object: Value) -> Value {
    object["metadata"]["deletionTimestamp"] = GONE.into();
    object
}

fn is_one_of(object: &Value, names: &[String]) -> bool {
    names.iter().any(|name| name == text(object, "name"))
}

fn key(object: &Value) -> (String, String) {
    (text(object, "namespace").to_owned(), text(object, "name").to_owned())
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}
