//! Desired against running functions: starts what is new or edited, keeps the old version serving until the new one
//! is ready, stops what is gone. Must never leave a function without its ready version because an edit is broken.

use super::{
    endpoints::Endpoints,
    instance::{Change, Ground, Instance, Report},
    output::say,
    plan::{FunctionPlan, Name},
};
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// The dispatcher sees a changed endpoint file within this time; only then is the old version asked to end.
const SWITCH_DELAY: Duration = Duration::from_millis(500);

/// All functions of a session.
#[derive(Debug)]
pub struct Functions {
    ground: Arc<Ground>,
    endpoints: Endpoints,
    running: BTreeMap<Name, BTreeMap<u64, Instance>>,
    serving: BTreeMap<Name, u64>,
    ending: JoinSet<()>,
    next_version: u64,
}

impl Functions {
    /// None are running yet.
    pub fn new(ground: Arc<Ground>, endpoints: Endpoints) -> Self {
        let (running, serving) = (BTreeMap::new(), BTreeMap::new());
        Self { ground, endpoints, running, serving, ending: JoinSet::new(), next_version: 1 }
    }

    /// Makes `wanted` run.
    pub fn apply(&mut self, wanted: &BTreeMap<Name, FunctionPlan>) -> io::Result<()> {
        let gone: Vec<Name> =
            self.running.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        for name in gone {
            say(&format!("  function    {name} removed"));
            self.endpoints.remove(&name)?;
            self.serving.remove(&name);
            for instance in self.running.remove(&name).unwrap_or_default().into_values() {
                self.end(instance);
            }
        }
        for (name, function) in wanted {
            let newest = self.running.get(name).and_then(|versions| versions.last_key_value());
            if newest.is_some_and(|(_, instance)| *instance.function == *function) {
                continue;
            }
            if newest.is_some() {
                say(&format!("  function    {name} changed"));
            }
            self.start(function)?;
        }
        Ok(())
    }

    /// Takes a report of an instance into account.
    pub fn report(&mut self, report: Report) -> io::Result<()> {
        let Report { function, version, change } = report;
        let name = &function.name;
        if !self.running.get(name).is_some_and(|versions| versions.contains_key(&version)) {
            return Ok(());
        }
        match change {
            Change::Ready(address, took) => {
                self.endpoints.set(&function, version, Some(address))?;
                let runtime = &function.runtime;
                say(&format!(
                    "  function    {name} ({runtime}) ready at {address} after {:.1} s",
                    took.as_secs_f64()
                ));
                self.serving.insert(name.clone(), version);
                self.end_versions(name, |other| other < version);
            }
            Change::Down(problem) => {
                self.endpoints.set(&function, version, None)?;
                let still = self.serving.get(name).is_some_and(|serving| *serving != version);
                let note = if still { "; the version before the edit goes on" } else { "" };
                say(&format!("  function    {name} {problem}{note}"));
            }
        }
        Ok(())
    }

    /// Stops everything and waits until every process is gone.
    pub async fn stop(mut self) {
        for instance in std::mem::take(&mut self.running).into_values().flat_map(BTreeMap::into_values) {
            instance.stop.cancel();
            // Its end may be reported: nobody reads any more, so the channel must not hold it up.
            self.ending.spawn(async move {
                let _ = instance.task.await;
            });
        }
        while self.ending.join_next().await.is_some() {}
    }

    fn start(&mut self, function: &FunctionPlan) -> io::Result<()> {
        let name = &function.name;
        let serving = self.serving.get(name).copied();
        // An earlier edit that never became ready is overtaken by this one.
        self.end_versions(name, |other| Some(other) != serving);
        let version = self.next_version;
        self.next_version += 1;
        if serving.is_none() {
            self.endpoints.set(function, version, None)?;
        }
        let instance = Instance::start(Arc::clone(&self.ground), Arc::new(function.clone()), version);
        self.running.entry(name.clone()).or_default().insert(version, instance);
        Ok(())
    }

    fn end_versions(&mut self, name: &Name, which: impl Fn(u64) -> bool) {
        let Some(versions) = self.running.get_mut(name) else { return };
        let ended: Vec<u64> = versions.keys().copied().filter(|version| which(*version)).collect();
        let instances: Vec<Instance> = ended.iter().filter_map(|version| versions.remove(version)).collect();
        for version in ended {
            self.endpoints.forget(name, version);
        }
        instances.into_iter().for_each(|instance| self.end(instance));
    }

    /// Ends an instance that receives no new calls; finished ends are collected on the way.
    fn end(&mut self, instance: Instance) {
        while self.ending.try_join_next().is_some() {}
        self.ending.spawn(async move {
            tokio::time::sleep(SWITCH_DELAY).await;
            instance.stop.cancel();
            let _ = instance.task.await;
        });
    }
}
