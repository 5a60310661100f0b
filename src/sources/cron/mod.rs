//! Calls by the clock (`CronJobTrigger` with `executor: Dispatcher`): the register is the last scheduled instant, raised by
//! compare-and-set in the trigger's status, or in a file where manifests come from folders. Must never call at an instant
//! that the register does not name as claimed by this very start of the thread.

mod claiming;
pub mod clocks;
mod due;
mod facts;
pub mod options;
mod protocol;
mod register;
mod start;
pub mod store;
mod thread;

use super::{Embedded, Error, Publisher, Source, SourceKind};
use crate::{
    api::{
        cronjob_trigger::{self, CronJobTrigger},
        kind::{TriggerKind, TriggerObject},
    },
    config::DispatcherConfig,
};
use clocks::Clocks;
use options::Options;
pub use start::CronSource;

/// The descriptor.
pub struct Clock;

impl SourceKind for Clock {
    fn name(&self) -> &'static str {
        "cron"
    }

    fn trigger(&self) -> TriggerKind {
        cronjob_trigger::KIND
    }

    fn open(&self, config: &DispatcherConfig) -> Result<Box<dyn Source>, Error> {
        let options = Options::read(config.sources.get(self.name()))?;
        Ok(Box::new(CronSource::new(options, Clocks::default(), config.state_dir.join("cron"))))
    }

    fn publisher(&self, _address: &str) -> Result<Box<dyn Publisher>, Error> {
        Err("the clock takes no events".into())
    }

    fn embed(&self) -> Result<Option<Box<dyn Embedded>>, Error> {
        Ok(None)
    }

    fn names_server(&self, _trigger: &TriggerObject) -> bool {
        // It needs none.
        true
    }

    fn address_of(&self, trigger: &TriggerObject) -> String {
        let Some(typed) = trigger.downcast::<CronJobTrigger>() else { return String::new() };
        let zone = typed.spec.time_zone.as_deref().unwrap_or("UTC");
        format!("{} {zone}", typed.spec.schedule.trim())
    }

    fn point_at(&self, _config: &mut DispatcherConfig, _address: &str) {}
}
