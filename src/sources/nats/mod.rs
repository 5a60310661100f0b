//! NATS: a message goes to one member of a queue group, once; there is no register, so what is lost is counted instead. With
//! `spec.stream` it is JetStream, whose consumer on three servers is the register. A bucket of it also keeps claims of requests.
//! Each subscription is a queue group of its own, named as Kubeless named it. Must never share a connection between
//! subscriptions: what one of them loses could not be told from what another one does.

pub mod client;
pub mod command;
mod core;
mod dead_letter;
pub mod decode;
pub mod embedded;
mod intake;
mod link;
pub mod options;
pub mod publisher;
mod reply;
mod rows;
pub mod spec;
mod start;
mod stream;
mod takeover;

use super::{Embedded, Error, Publisher, Source, SourceKind};
use crate::{
    api::kind::{TriggerKind, TriggerObject},
    config::DispatcherConfig,
    dispatch::store::shared::Rows,
};
use options::Options;
use spec::NATSTrigger;
use std::{path::Path, sync::Arc};

/// The descriptor.
pub struct Nats;

impl SourceKind for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn trigger(&self) -> TriggerKind {
        spec::KIND
    }

    fn open(&self, config: &DispatcherConfig) -> Result<Box<dyn Source>, Error> {
        let env = |name: &str| std::env::var(name).ok();
        let mut options = Options::read(config.sources.get(self.name()), env)?;
        options.memory_bytes = usize::try_from(config.memory.max_event_bytes).unwrap_or(usize::MAX);
        if options.register_dir.as_os_str().is_empty() {
            options.register_dir = config.state_dir.join(self.name());
        }
        Ok(Box::new(start::NatsSource::new(options)))
    }

    fn publisher(&self, address: &str) -> Result<Box<dyn Publisher>, Error> {
        Ok(Box::new(publisher::NatsPublisher::new(address)?))
    }

    fn is_address(&self, address: &str) -> bool {
        ["nats://", "tls://", publisher::STORED].iter().any(|scheme| address.starts_with(scheme))
    }

    fn claim_store(&self, address: &str, credentials: Option<&Path>) -> Result<Arc<dyn Rows>, Error> {
        Ok(Arc::new(rows::BucketRows::new(address, credentials)?))
    }

    fn embed(&self) -> Result<Option<Box<dyn Embedded>>, Error> {
        Ok(Some(Box::new(embedded::EmbeddedServer::start()?)))
    }

    fn names_server(&self, trigger: &TriggerObject) -> bool {
        trigger.downcast::<NATSTrigger>().is_some_and(|t| t.spec.url.is_some())
    }

    fn beyond_embedded(&self, trigger: &TriggerObject) -> Option<&'static str> {
        let asks = trigger.downcast::<NATSTrigger>().is_some_and(|t| t.spec.stream.is_some());
        asks.then_some("the embedded server has no JetStream; name a server in spec.url (nats-server -js)")
    }

    fn address_of(&self, trigger: &TriggerObject) -> String {
        trigger.downcast::<NATSTrigger>().map(|t| t.spec.topic.clone()).unwrap_or_default()
    }

    fn point_at(&self, config: &mut DispatcherConfig, address: &str) {
        let table = config.sources.entry(self.name().to_owned()).or_default();
        table.insert("url".to_owned(), address.into());
    }
}
