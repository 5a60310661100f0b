//! `kubeless check`: what is missing on the cluster, and how to fix it. Must never change anything.

mod installed;
mod permissions;
mod prepared;

use crate::cli::{
    Exit, Wiring,
    output::{self, Cell, Format, Table, Tone},
    session::{Place, Session},
};
use serde::Serialize;
use std::io::Write;

const EXAMPLES: &str = "Examples:
  kubeless check --pre          before an installation: may I, and can this cluster?
  kubeless check                after it: is everything there and running?
  kubeless check -o json
";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = "Exit code 5 says that problems were found; warnings leave it at 0.")]
pub struct Args {
    /// Checks what an installation needs, not what it has made.
    #[arg(long)]
    pre: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    place: Place,
}

/// How one check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works without.
    Warning,
    /// Something does not work.
    Problem,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it went.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What to do, where something is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
}

impl Finding {
    /// All is well.
    pub fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), status: Status::Ok, detail: detail.into(), fix: String::new() }
    }

    /// It works without, but.
    pub fn warning(check: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status: Status::Warning, fix: fix.into(), ..Self::ok(check, detail) }
    }

    /// It does not work.
    pub fn problem(check: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status: Status::Problem, fix: fix.into(), ..Self::ok(check, detail) }
    }
}

/// Runs the command.
pub fn run(args: &Args, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
    let mut findings = Vec::new();
    let exit = args.place.run(async |session| {
        findings = all(args.pre, session, wiring).await;
        Ok(Exit::Ok)
    });
    match exit {
        Ok(Exit::Interrupted) => return Ok(Exit::Interrupted),
        Ok(_) => {}
        // No way to a cluster is a finding, too: whoever runs this wants to know just that.
        Err(error) => findings.push(Finding::problem(
            "cluster",
            format!("{error:#}"),
            "give --kubeconfig FILE or --context NAME; kubectl config get-contexts lists what there is",
        )),
    }
    let mut out = output::stdout();
    match args.output {
        Format::Table | Format::Wide => write!(out, "{}", report(&findings))?,
        format => {
            output::list(&mut out, format, &findings, |_| Table::plain(), |finding| finding.check.clone())?;
        }
    }
    let problems = findings.iter().any(|finding| finding.status == Status::Problem);
    Ok(if problems { Exit::ProblemsFound } else { Exit::Ok })
}

async fn all(pre: bool, session: &Session, wiring: &dyn Wiring) -> Vec<Finding> {
    let mut findings = prepared::server(session).await;
    // Nothing else can be asked of a server that does not answer.
    if findings.iter().any(|finding| finding.status == Status::Problem) {
        return findings;
    }
    if pre {
        findings.extend(prepared::check(session).await);
    } else {
        findings.extend(installed::check(session, wiring).await);
    }
    findings
}

/// A line for each check, and the fix below it.
fn report(findings: &[Finding]) -> String {
    let mut table = Table::plain();
    for finding in findings {
        let (word, tone) = match finding.status {
            Status::Ok => ("ok", Tone::Good),
            Status::Warning => ("warning", Tone::Pending),
            Status::Problem => ("PROBLEM", Tone::Bad),
        };
        table.cells(vec![
            Cell::new(word, tone),
            finding.check.as_str().into(),
            finding.detail.as_str().into(),
        ]);
    }
    let mut text = String::new();
    for (line, finding) in table.to_string().lines().zip(findings) {
        text += &format!("{line}\n");
        for (index, line) in finding.fix.lines().enumerate() {
            let lead = if index == 0 { "fix:" } else { "    " };
            text += &format!("           {lead} {}\n", output::printable(line));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fix_stands_below_its_problem() {
        let findings = [Finding::ok("a", "fine"), Finding::problem("crds", "missing", "do this\nthen that")];
        let text = anstream::adapter::strip_str(&report(&findings)).to_string();
        let wanted = [
            "ok       a     fine",
            "PROBLEM  crds  missing",
            "           fix: do this",
            "                then that",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), wanted);
    }
}
