//! Kinesis: a row of the register for each shard is the claim, written on condition that nobody else wrote it since. All
//! shards of a stream are read, parents to their end before their children. Must never call a function for a record that
//! no accepted row claims.

mod aggregate;
mod client;
pub mod command;
mod decode;
mod engine;
mod item;
pub mod options;
mod place;
mod protocol;
mod register;
pub mod spec;
mod start;
mod store;

use super::{Embedded, Error, Publisher, Source, SourceKind};
use crate::{
    api::kind::{TriggerKind, TriggerObject},
    config::DispatcherConfig,
};
use options::Options;
use spec::KinesisTrigger;

/// The descriptor.
pub struct Kinesis;

impl SourceKind for Kinesis {
    fn name(&self) -> &'static str {
        "kinesis"
    }

    fn trigger(&self) -> TriggerKind {
        spec::KIND
    }

    fn open(&self, config: &DispatcherConfig) -> Result<Box<dyn Source>, Error> {
        let mut options = Options::read(config.sources.get(self.name()))?;
        options.memory_bytes = usize::try_from(config.memory.max_event_bytes).unwrap_or(usize::MAX);
        if options.register_dir.as_os_str().is_empty() {
            options.register_dir = config.state_dir.join(self.name());
        }
        Ok(Box::new(start::KinesisSource::new(options)))
    }

    fn publisher(&self, address: &str) -> Result<Box<dyn Publisher>, Error> {
        let _ = address;
        Err("publishing to Kinesis is not served; use the AWS command line".into())
    }

    fn embed(&self) -> Result<Option<Box<dyn Embedded>>, Error> {
        Ok(None)
    }

    fn names_server(&self, _trigger: &TriggerObject) -> bool {
        // Region and endpoint are its own: there is no default to stand in for.
        true
    }

    fn address_of(&self, trigger: &TriggerObject) -> String {
        trigger.downcast::<KinesisTrigger>().map(|t| t.spec.stream.clone()).unwrap_or_default()
    }

    fn point_at(&self, _config: &mut DispatcherConfig, _address: &str) {}
}
