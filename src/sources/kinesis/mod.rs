//! Kinesis: a row of the register for each shard is the claim, written on condition that nobody else wrote it since. All
//! shards of a stream are read, parents to their end before their children. Must never call a function for a record that
//! no accepted row claims.

mod aggregate;
mod client;
pub mod command;
mod dead_letter;
mod decode;
pub mod embedded;
mod engine;
mod item;
pub mod options;
mod place;
mod protocol;
pub mod publisher;
mod register;
pub mod spec;
mod start;
mod table;

use super::{Embedded, Error, Publisher, Source, SourceKind, Topics};
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
        Ok(Box::new(publisher::KinesisPublisher::new(address)?))
    }

    fn topics(&self, address: &str) -> Result<Box<dyn Topics>, Error> {
        Ok(Box::new(publisher::KinesisPublisher::new(address)?))
    }

    fn is_address(&self, address: &str) -> bool {
        address.starts_with("kinesis://") || address.starts_with("kinesis+")
    }

    fn embed(&self) -> Result<Option<Box<dyn Embedded>>, Error> {
        Ok(Some(Box::new(embedded::EmbeddedKinesis::start()?)))
    }

    fn names_server(&self, trigger: &TriggerObject) -> bool {
        trigger.downcast::<KinesisTrigger>().is_some_and(|t| !t.spec.endpoint.is_empty())
    }

    fn address_of(&self, trigger: &TriggerObject) -> String {
        trigger.downcast::<KinesisTrigger>().map(|t| t.spec.stream.clone()).unwrap_or_default()
    }

    fn point_at(&self, config: &mut DispatcherConfig, address: &str) {
        let table = config.sources.entry(self.name().to_owned()).or_default();
        let url = address.strip_prefix("kinesis+").unwrap_or(address);
        table.insert("endpoint".to_owned(), url.into());
        table.insert("anonymous".to_owned(), true.into());
        // One reader on this machine: its successor need not wait for long.
        table.insert("failover_time".to_owned(), "3s".into());
    }
}
