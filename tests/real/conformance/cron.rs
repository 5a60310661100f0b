//! The clock for the suite: an event is an instant, so to publish is to move the dispatcher's clock on. The register is a file
//! in the state folder, which outlives every dispatcher of a test.

use super::{Property, Source};
use crate::{conformance::run::LIMIT, support::wait};
use std::{collections::BTreeMap, fs, ops::Range, path::Path};

/// 2026-11-23T12:00:00Z: where the clock stands at first.
const NOON: i64 = 1_795_435_200;
/// `catchUpLimit` of the trigger.
const MADE_UP_FOR: usize = 1_000;

pub struct Cron {
    dir: tempfile::TempDir,
    now: i64,
    instants: BTreeMap<usize, i64>,
}

impl Cron {
    /// All dispatchers read it; it stands until it is moved.
    fn set_clock(&self) {
        let (path, new) = (self.dir.path().join("clock"), self.dir.path().join("clock.new"));
        fs::write(&new, (self.now * 1000).to_string()).expect("a file in our own folder");
        fs::rename(new, path).expect("the same folder");
    }

    /// The last instant that the register says is claimed or passed.
    fn last(&self) -> Option<i64> {
        let text = fs::read_to_string(self.dir.path().join("cron/default_trigger.json")).ok()?;
        let kept: serde_json::Value = serde_json::from_str(&text).ok()?;
        let last: jiff::Timestamp = kept["status"]["lastScheduledTime"].as_str()?.parse().ok()?;
        Some(last.as_second())
    }
}

impl Source for Cron {
    const KEEPS: bool = true;
    const KEEPS_WHILE_PAUSED: bool = false;
    const HOLDS: usize = MADE_UP_FOR;
    const KIND: &'static str = "CronJobTrigger";
    const WITHOUT: &'static [(Property, &'static str)] = &[
        (
            Property::AServerThatWasAwayRepeatsNothing,
            "with manifests in a folder the clock has no server; an API server that is away, and its register with it, is \
             what tests/real/cron is about",
        ),
        (
            Property::PoisonHasAnOutcome,
            "an instant has no bytes that could be unreadable; a payload or a schedule that is none is refused with its trigger",
        ),
    ];

    fn shared() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let cron = Self { dir, now: NOON, instants: BTreeMap::new() };
        cron.set_clock();
        cron
    }

    fn alone() -> Self {
        Self::shared()
    }

    fn spec(&self) -> String {
        let call = "  schedule: \"* * * * *\"\n  function-name: witness\n  executor: Dispatcher\n";
        format!("{call}  catchUp: All\n  catchUpLimit: {MADE_UP_FOR}\n  payload: {{\"by\": \"the clock\"}}\n")
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![("KUBELESS_CLOCK", self.dir.path().join("clock").display().to_string())]
    }

    fn state(&self) -> Option<&Path> {
        Some(self.dir.path())
    }

    fn publish(&mut self, numbers: Range<usize>, _padding: usize) {
        for number in numbers {
            self.now += 60;
            self.instants.insert(number, self.now);
        }
        self.set_clock();
    }

    fn id(&self, number: usize) -> String {
        let instant = self.instants.get(&number).expect("it was published");
        let instant = jiff::Timestamp::from_second(*instant).expect("in range");
        format!("file:CronJobTrigger:default/trigger/{instant}")
    }

    fn poison(&mut self) {
        unreachable!("declared");
    }

    fn kill_server(&mut self) {
        unreachable!("declared");
    }

    fn restart_server(&mut self) {
        unreachable!("declared");
    }

    fn resumed(&self) {
        // What it slept through is passed over with the first look after the pause.
        wait::until("it has looked at the clock", LIMIT, || (self.last() == Some(self.now)).then_some(()));
    }
}
