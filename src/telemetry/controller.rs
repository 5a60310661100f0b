//! Handles on the series of one controller. Must never take an object's name as a label: a cluster may have very many.

use metrics::{Counter, Gauge, Histogram};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    handles::{counter, gauge, histogram},
    metrics as table,
};

/// Series of one controller. Clones share them.
#[derive(Clone, Debug)]
pub struct ControllerMetrics {
    ok: Counter,
    error: Counter,
    duration: Histogram,
    writes: Arc<BTreeMap<&'static str, Counter>>,
    /// `kubeless_controller_failing_objects`.
    pub failing: Gauge,
}

impl ControllerMetrics {
    /// Registers the series of a controller that writes objects of these kinds.
    pub fn new(controller: &'static str, kinds: &[&'static str]) -> Self {
        let write = |kind: &&'static str| (*kind, counter(&table::CONTROLLER_WRITES, &[controller, kind]));
        Self {
            ok: counter(&table::CONTROLLER_PASSES, &[controller, "ok"]),
            error: counter(&table::CONTROLLER_PASSES, &[controller, "error"]),
            duration: histogram(&table::CONTROLLER_PASS_DURATION, &[controller]),
            writes: Arc::new(kinds.iter().map(write).collect()),
            failing: gauge(&table::CONTROLLER_FAILING, &[controller]),
        }
    }

    /// One pass ended.
    pub fn passed(&self, took: Duration, ok: bool) {
        self.duration.record(took.as_secs_f64());
        if ok { &self.ok } else { &self.error }.increment(1);
    }

    /// One object was applied or deleted.
    pub fn wrote(&self, kind: &str) {
        if let Some(counter) = self.writes.get(kind) {
            counter.increment(1);
        }
    }
}

/// Series of the process.
#[derive(Clone, Debug)]
pub struct LeaderMetrics {
    /// `kubeless_controller_leading`.
    pub leading: Gauge,
    /// `kubeless_controller_config_problem`.
    pub config_problem: Gauge,
}

impl LeaderMetrics {
    /// Registers them.
    pub fn new() -> Self {
        Self {
            leading: gauge(&table::CONTROLLER_LEADING, &[]),
            config_problem: gauge(&table::CONTROLLER_CONFIG_PROBLEM, &[]),
        }
    }
}

impl Default for LeaderMetrics {
    fn default() -> Self {
        Self::new()
    }
}
