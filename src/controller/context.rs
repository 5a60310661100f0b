//! What a pass may use: client, stores, configuration, Events, and how often an object failed. Must never hold anything
//! about an object that cannot be rebuilt: a process that starts anew finds all in the cluster.

use kube::{
    Client,
    api::{ApiResource, DynamicObject},
    runtime::reflector::{ObjectRef, Store},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

use super::{
    apply::Applier,
    desired::{exposure::Gateways, runtime::Defaults, security::Floor},
    error::Error,
    events::Announcer,
    reconcile::{Functions, resource},
    served::Served,
    settings::Settings,
};
use crate::{api::kubeless_config::KubelessConfig, telemetry::ControllerMetrics};

/// First pause after a failure; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause: errors are tried again for ever, and an operator who repaired something should not wait for long.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What the operator chose at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// Image with our programs.
    pub image: String,
    /// How far a function's template may go.
    pub floor: Floor,
    /// Ways from outside.
    pub gateways: Gateways,
    /// DNS domain of the cluster, for what is shown.
    pub cluster_domain: String,
}

/// Shared by all passes of one controller.
pub struct Context {
    /// For requests.
    pub client: Client,
    /// The kind that is reconciled.
    pub resource: ApiResource,
    /// Makes objects.
    pub applier: Applier,
    /// Functions, for the controllers of triggers.
    pub functions: Option<Store<DynamicObject>>,
    /// Optional kinds.
    pub served: Served,
    /// Events.
    pub announcer: Announcer,
    /// Configuration.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// The operator's choices.
    pub choices: Choices,
    /// Series of this controller.
    pub metrics: ControllerMetrics,
    /// Passes that failed in a row, by object.
    pub failures: Failures,
    /// The one namespace that is watched; `None`: all.
    pub scope: Option<String>,
    /// Told when an object may have left something behind that the cluster does not collect.
    pub leftovers: tokio::sync::Notify,
}

impl Context {
    /// Returns once every store knows all that is there.
    pub async fn read(&self) {
        self.applier.read().await;
        if let Some(functions) = &self.functions {
            let _ = functions.wait_until_ready().await;
        }
    }

    /// The configuration in force.
    ///
    /// # Errors
    /// [`Error::Config`] while nothing readable was ever seen.
    pub fn config(&self) -> Result<Arc<KubelessConfig>, Error> {
        let settings = self.settings.borrow().clone();
        let trouble = || settings.trouble.clone().unwrap_or_else(|| "not read yet".to_owned());
        settings.config.clone().ok_or_else(|| Error::Config(trouble()))
    }

    /// What the renderer needs of it.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub fn defaults(&self) -> Result<Defaults, Error> {
        let config = self.config()?;
        Ok(Defaults::of(&config, &self.choices.image, self.choices.floor))
    }

    /// A function by name, as the trigger controllers keep it.
    pub fn function(&self, namespace: &str, name: &str) -> Option<Arc<DynamicObject>> {
        let reference = ObjectRef::new_with(name, resource::<Functions>()).within(namespace);
        self.functions.as_ref()?.get(&reference)
    }
}

/// How often each object failed in a row.
#[derive(Debug, Default)]
pub struct Failures {
    counts: Mutex<HashMap<String, u32>>,
}

impl Failures {
    /// Counts a failure; how long to wait before the next pass.
    pub fn failed(&self, name: &str) -> Duration {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name.to_owned()).or_default();
        let pause = pause(*count);
        *count = count.saturating_add(1);
        pause
    }

    /// Forgets an object that is well or gone.
    pub fn forget(&self, name: &str) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Objects that failed last.
    pub fn len(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none did.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Doubling, bounded, and spread by a quarter so that many failures of one cause do not come back at once.
fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX));
    doubled.min(LONGEST_PAUSE).mul_f64(0.875 + 0.25 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_bound_and_begin_anew() {
        let failures = Failures::default();
        let first: Vec<f64> = (0..12).map(|_| failures.failed("a").as_secs_f64()).collect();
        assert!(first[0] < 1.2 && first[3] > 6.9 && first[11] <= 338.0 && first[11] > 260.0, "{first:?}");
        assert!(failures.failed("b").as_secs_f64() < 1.2);
        assert_eq!(failures.len(), 2);
        failures.forget("a");
        assert!(failures.failed("a").as_secs_f64() < 1.2);
    }
}
