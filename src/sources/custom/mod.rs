//! Anyone's own source (`CustomTrigger`): a program in any language reads its upstream and pushes CloudEvents here; it is told which
//! of them are claimed and how they ended, so that it can acknowledge them. Must never say that an event may be acknowledged
//! which a function of the trigger could still be owed.

mod answer;
mod decode;
mod desk;
pub mod options;
pub mod spec;
mod start;

use super::{Embedded, Error, Publisher, Source, SourceKind, push::local::LocalFront};
use crate::{
    api::kind::{TriggerKind, TriggerObject},
    config::DispatcherConfig,
};
use options::Options;
use start::CustomSource;

const NOTICE: &str =
    "events of plug-ins, taken by the dispatcher itself; no network, token or other replica between";

/// The descriptor.
pub struct Custom;

impl SourceKind for Custom {
    fn name(&self) -> &'static str {
        "custom"
    }

    fn trigger(&self) -> TriggerKind {
        spec::KIND
    }

    fn open(&self, config: &DispatcherConfig) -> Result<Box<dyn Source>, Error> {
        let mut options = Options::read(config.sources.get(self.name()))?;
        options.memory_bytes = usize::try_from(config.memory.max_event_bytes).unwrap_or(usize::MAX);
        let replicated = config.manifests.is_empty();
        Ok(Box::new(CustomSource::new(options, config.state_dir.join(self.name()), replicated)))
    }

    fn publisher(&self, address: &str) -> Result<Box<dyn Publisher>, Error> {
        Err(format!(
            "{address}: events of a CustomTrigger are pushed by its own program (docs/triggers/custom.md)"
        )
        .into())
    }

    fn embed(&self) -> Result<Option<Box<dyn Embedded>>, Error> {
        Ok(Some(Box::new(LocalFront::find(NOTICE)?)))
    }

    fn names_server(&self, _trigger: &TriggerObject) -> bool {
        // The listener is the dispatcher's own.
        false
    }

    fn address_of(&self, trigger: &TriggerObject) -> String {
        desk::path_of(&trigger.core.reference)
    }

    fn point_at(&self, config: &mut DispatcherConfig, address: &str) {
        let table = config.sources.entry(self.name().to_owned()).or_default();
        let listen = address.strip_prefix("http://").unwrap_or(address);
        table.insert("listen".to_owned(), listen.into());
    }
}
