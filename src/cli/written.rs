//! How commands that change objects say what they did, and how they only try it. Must never print talk on standard
//! output: a line such as `function.kubeless.io/hello created` is data, as with kubectl.

use super::{
    output::{self, Format},
    session::objects::{Commit, Kind},
};
use clap::ValueEnum;
use serde_json::Value;
use std::io::Write;

/// Values of `--dry-run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Nothing is sent.
    Client,
    /// The API server checks it and stores nothing.
    Server,
    /// It is done.
    None,
}

/// Values of `-o` where objects are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// As `kubectl apply -f -` reads them.
    Yaml,
    /// One document.
    Json,
    /// One name a line.
    Name,
}

/// The flags of commands that change objects.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct Writing {
    /// Prints the objects. Default: what was done; yaml on a dry run.
    #[arg(short, long, value_name = "FORMAT", alias = "out")]
    output: Option<Form>,
    /// Only tries: client (sends nothing) or server (the API server checks it). --dryrun is the former.
    #[arg(long, value_name = "WHERE", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "client", hide_possible_values = true)]
    dry_run: Option<DryRun>,
    /// Same as --dry-run=client, as in Kubeless.
    #[arg(long, conflicts_with = "dry_run", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide = true)]
    dryrun: Option<bool>,
}

impl Writing {
    /// Whether anything is to be stored at all, or sent.
    pub fn dry_run(&self) -> DryRun {
        match (self.dry_run, self.dryrun) {
            (Some(chosen), _) => chosen,
            (None, Some(true)) => DryRun::Client,
            (None, _) => DryRun::None,
        }
    }

    /// For the API server.
    pub fn commit(&self) -> Commit {
        if self.dry_run() == DryRun::Server { Commit::DryRun } else { Commit::Really }
    }

    /// Prints objects and what became of them (`created`).
    pub fn print(&self, done: &[(Kind, Value, &str)]) -> anyhow::Result<()> {
        let mut out = output::stdout();
        let dry = self.dry_run() != DryRun::None;
        let objects: Vec<Value> = done.iter().map(|(_, object, _)| output::presentable(object)).collect();
        match self.output.or(dry.then_some(Form::Yaml)) {
            Some(Form::Json) => match objects.as_slice() {
                [object] => output::document(&mut out, Format::Json, object)?,
                all => output::document(&mut out, Format::Json, &output::kubernetes_list(all))?,
            },
            Some(Form::Yaml) => output::yaml_stream(&mut out, &objects)?,
            Some(Form::Name) => {
                for (kind, object, _) in done {
                    writeln!(out, "{}", kind.named(name(object)))?;
                }
            }
            None => {
                for (kind, object, what) in done {
                    writeln!(out, "{} {what}", kind.named(name(object)))?;
                }
            }
        }
        Ok(())
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
