//! `kubeless validate PATH...`: checks manifests as the API server and the dispatcher will. Must never change or
//! contact anything.

use crate::{
    api::kind::TriggerKind,
    cli::{
        Exit, Wiring,
        output::{self, Format, Table, talk},
    },
    cluster::manifests::{self, Limits, Manifests, Problem, walk},
};
use anyhow::Context;
use serde::Serialize;
use std::{
    collections::BTreeSet,
    io::{Read, Write},
    path::{Path, PathBuf},
};

const EXAMPLES: &str = "Examples:
  kubeless validate config/
  kubeless validate orders.yaml -o json
  kubeless function deploy hello -r python3.11 --handler a.b -f a.py --dry-run | kubeless validate -
";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = "Exit code 5 says that problems were found.")]
pub struct Args {
    /// Folders or files of manifests, or - for standard input.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Output format: table is a line for each problem.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A problem for machines.
#[derive(Debug, Serialize)]
struct Told<'a> {
    file: String,
    line: u64,
    column: u64,
    what: &'a str,
    fix: &'a str,
}

/// What one path holds.
struct Checked {
    path: PathBuf,
    found: Manifests,
}

/// Runs the command: problems are the data, the count is talk.
pub fn run(args: &Args, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
    let kinds = wiring.trigger_kinds();
    let checked = args.paths.iter().map(|path| check(path, &kinds)).collect::<Result<Vec<_>, _>>()?;
    let mut out = output::stdout();
    match args.output {
        Format::Json | Format::Yaml => {
            let told: Vec<Told<'_>> = checked.iter().flat_map(Checked::told).collect();
            output::list(&mut out, args.output, &told, |_| Table::plain(), |problem| problem.file.clone())?;
        }
        _ => {
            for line in checked.iter().flat_map(Checked::lines) {
                writeln!(out, "{}", output::printable_lines(&line))?;
            }
        }
    }
    let problems: usize = checked.iter().map(Checked::problems).sum();
    talk(&summary(&checked, problems));
    Ok(if problems == 0 { Exit::Ok } else { Exit::ProblemsFound })
}

fn check(path: &Path, kinds: &[TriggerKind]) -> anyhow::Result<Checked> {
    let limits = Limits::default();
    if path.is_dir() {
        return Ok(Checked { path: path.to_owned(), found: manifests::load(path, kinds, &limits) });
    }
    let name = path.display().to_string();
    let text = match path == Path::new("-") {
        true => standard_input(limits.max_file_bytes)?,
        false => walk::read(path, limits.max_file_bytes)
            .map_err(|(what, fix)| anyhow::anyhow!("{name}: {what}; {fix}"))?,
    };
    Ok(Checked { path: path.to_owned(), found: manifests::read_text(&name, &text, kinds, &limits) })
}

fn standard_input(most: u64) -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().lock().take(most).read_to_string(&mut text).context("reading standard input")?;
    Ok(text)
}

impl Checked {
    fn problems(&self) -> usize {
        self.found.problems.len() + self.found.more_problems
    }

    /// Where a problem is, seen from where the command runs.
    fn place(&self, problem: &Problem) -> String {
        match self.path.is_dir() {
            true => self.path.join(&*problem.file).display().to_string(),
            false => self.path.display().to_string(),
        }
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        self.found
            .problems
            .iter()
            .map(|problem| Problem { file: self.place(problem).into(), ..problem.clone() }.to_string())
    }

    fn told(&self) -> impl Iterator<Item = Told<'_>> {
        self.found.problems.iter().map(|problem| Told {
            file: self.place(problem),
            line: problem.line,
            column: problem.column,
            what: &problem.what,
            fix: &problem.fix,
        })
    }
}

fn summary(checked: &[Checked], problems: usize) -> String {
    let plural = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let held = |found: &Manifests| {
        found.functions.len() + found.triggers.len() + found.services.len() + found.slices.len()
    };
    let good: usize = checked.iter().map(|path| held(&path.found)).sum();
    let others: Vec<_> = checked.iter().flat_map(|path| &path.found.ignored).collect();
    let kinds: BTreeSet<&str> = others.iter().map(|other| other.kind.as_str()).collect();
    let mut text = format!("{} valid, {}", plural(good, "object"), plural(problems, "problem"));
    if !others.is_empty() {
        let kinds: Vec<&str> = kinds.into_iter().collect();
        text += &format!("; not looked at: {} ({})", plural(others.len(), "object"), kinds.join(", "));
    }
    let more: usize = checked.iter().map(|path| path.found.more_problems).sum();
    if more > 0 {
        text += &format!("; {more} of the problems are not shown");
    }
    output::printable(&text)
}
