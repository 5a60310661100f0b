//! The command line: wires commands to sources and local mode. Must never hold logic of its own.

use anyhow::{Context, anyhow};
use kubeless::{
    api::{self, kind::TriggerObject},
    cli::{DevRequest, Publisher, Wiring, run},
    cluster::manifests::{self, Limits, Manifests},
    local::{self, Broker, DevOptions, child, plan::Plan},
    sources,
};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

struct Program;

impl Wiring for Program {
    fn crds(&self) -> anyhow::Result<String> {
        let own = std::iter::once(api::function::crd as fn() -> _);
        let all = own.chain(sources::KINDS.iter().map(|kind| kind.trigger().crd));
        let texts: Vec<String> = all.map(|crd| api::crd_yaml(&crd())).collect::<Result<_, _>>()?;
        Ok(texts.join("---\n"))
    }

    fn validate(&self, paths: &[PathBuf]) -> anyhow::Result<(usize, Vec<String>)> {
        let (mut good, mut problems) = (0, Vec::new());
        for path in paths {
            let read = manifests::load(path, &kinds(), &Limits::default());
            good += read.functions.len() + read.triggers.len() + read.services.len() + read.slices.len();
            problems.extend(read.problems.iter().map(|problem| format!("{}: {problem}", path.display())));
        }
        Ok((good, problems))
    }

    fn publisher(&self, servers: &str) -> anyhow::Result<Box<dyn Publisher>> {
        Err(anyhow!("no source of this build can publish to {servers}"))
    }

    fn dev(&self, request: DevRequest) -> anyhow::Result<()> {
        let kubeless = std::env::current_exe().context("finding this program")?;
        let beside = kubeless.with_file_name("kubeless-dispatcher");
        let dispatcher = request.dispatcher.unwrap_or(beside);
        local::run(DevOptions { dir: request.dir, json: request.json, kubeless, dispatcher }, self)?;
        Ok(())
    }

    fn child(&self, parent: u32, command: &[OsString]) -> anyhow::Error {
        let error = child::become_child(parent, command);
        anyhow!(error).context(format!("starting {}", command.join(" ".as_ref()).display()))
    }
}

impl local::Ground for Program {
    fn plan(&self, dir: &Path) -> Plan {
        let read: Manifests = manifests::load(dir, &kinds(), &Limits::default());
        Plan::of(&read, |_: &TriggerObject| local::plan::TriggerFacts::default())
    }

    fn start_broker(&self, _: &[String]) -> Result<Box<dyn Broker>, String> {
        Err("no source of this build has one".to_owned())
    }
}

fn kinds() -> Vec<api::kind::TriggerKind> {
    sources::KINDS.iter().map(|kind| kind.trigger()).collect()
}

fn main() -> ExitCode {
    run(std::env::args_os(), &Program).into()
}
