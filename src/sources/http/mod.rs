//! Requests (`HTTPTrigger` with `delivery.through: Dispatcher`): one listener for all triggers, a claim store in place of a
//! log's register, and the function's answer for the caller. Must never call for a request that no store has granted, nor
//! serve a host or path that no trigger names.

mod arrival;
mod door;
pub mod options;
mod publisher;
mod replies;
mod start;
mod ways;

use super::{Embedded, Error, Publisher, Source, SourceKind, push::local::LocalFront};
use crate::{
    api::{
        http_trigger::{self, HTTPTrigger},
        kind::{TriggerKind, TriggerObject},
    },
    config::DispatcherConfig,
};
use options::Options;
pub use start::HttpSource;

const NOTICE: &str =
    "requests to HTTP triggers, taken by the dispatcher itself; no Ingress, host names or TLS in front of it";

/// The descriptor.
pub struct Http;

impl SourceKind for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn trigger(&self) -> TriggerKind {
        http_trigger::KIND
    }

    fn open(&self, config: &DispatcherConfig) -> Result<Box<dyn Source>, Error> {
        let mut options = Options::read(config.sources.get(self.name()))?;
        options.memory_bytes = options::size(config.memory.max_event_bytes);
        let replicated = config.manifests.is_empty();
        Ok(Box::new(HttpSource::new(options, config.state_dir.join("http"), replicated)))
    }

    fn publisher(&self, address: &str) -> Result<Box<dyn Publisher>, Error> {
        Ok(Box::new(publisher::HttpPublisher::new(address)?))
    }

    fn is_address(&self, address: &str) -> bool {
        ["http://", "https://"].iter().any(|scheme| address.starts_with(scheme))
    }

    fn embed(&self) -> Result<Option<Box<dyn Embedded>>, Error> {
        Ok(Some(Box::new(LocalFront::find(NOTICE)?)))
    }

    fn names_server(&self, _trigger: &TriggerObject) -> bool {
        // The listener is the dispatcher's own.
        false
    }

    fn address_of(&self, trigger: &TriggerObject) -> String {
        let Some(typed) = trigger.downcast::<HTTPTrigger>() else { return String::new() };
        format!("{}{}", typed.spec.host_name, typed.path())
    }

    fn point_at(&self, config: &mut DispatcherConfig, address: &str) {
        let table = config.sources.entry(self.name().to_owned()).or_default();
        let listen = address.strip_prefix("http://").unwrap_or(address);
        table.insert("listen".to_owned(), listen.into());
    }
}
