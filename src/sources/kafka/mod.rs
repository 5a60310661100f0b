//! Kafka: the committed offset is the claim. Each subscription has its own consumer group
//! `<namespace>_<trigger>_<function>_<topic>`, as Kubeless had, so that a migrated cluster resumes where it stopped.
//! Must never commit an offset whose events it does not claim, park or pass.

mod claiming;
pub mod client;
pub mod command;
mod commit;
mod consumer;
mod context;
mod dead_letter;
pub mod decode;
pub mod embedded;
mod engine;
mod ffi;
mod item;
pub mod options;
pub mod protocol;
pub mod publisher;
pub mod register;
pub mod spec;
mod start;
mod takeover;
pub mod topics;

use super::{Embedded, Error, Publisher, Source, SourceKind, Topics};
use crate::{
    api::kind::{TriggerKind, TriggerObject},
    config::DispatcherConfig,
};
use options::Options;
use spec::KafkaTrigger;

/// The descriptor.
pub struct Kafka;

impl SourceKind for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn trigger(&self) -> TriggerKind {
        spec::KIND
    }

    fn open(&self, config: &DispatcherConfig) -> Result<Box<dyn Source>, Error> {
        let env = |name: &str| std::env::var(name).ok();
        let mut options = Options::read(config.sources.get(self.name()), env)?;
        options.memory_bytes = usize::try_from(config.memory.max_event_bytes).unwrap_or(usize::MAX);
        Ok(Box::new(start::KafkaSource::new(options, client::Security::from_env(env)?)))
    }

    fn publisher(&self, address: &str) -> Result<Box<dyn Publisher>, Error> {
        Ok(Box::new(publisher::KafkaPublisher::new(address)?))
    }

    fn topics(&self, address: &str) -> Result<Box<dyn Topics>, Error> {
        Ok(Box::new(topics::KafkaTopics::new(address)?))
    }

    fn embed(&self) -> Result<Option<Box<dyn Embedded>>, Error> {
        Ok(Some(Box::new(embedded::EmbeddedBroker::start()?)))
    }

    fn names_server(&self, trigger: &TriggerObject) -> bool {
        trigger.downcast::<KafkaTrigger>().is_some_and(|t| t.spec.bootstrap_servers.is_some())
    }

    fn address_of(&self, trigger: &TriggerObject) -> String {
        trigger.downcast::<KafkaTrigger>().map(|t| t.spec.topic.clone()).unwrap_or_default()
    }

    fn point_at(&self, config: &mut DispatcherConfig, address: &str) {
        let table = config.sources.entry(self.name().to_owned()).or_default();
        table.insert("bootstrap_servers".to_owned(), address.into());
        // One member on this machine: its successor need not wait longer than the protocol's shortest session.
        table.insert("session_timeout".to_owned(), "6s".into());
        table.insert("heartbeat_interval".to_owned(), "1s".into());
    }
}
