//! [`Checker`]: how a whole object of one kind is read, with everything that is wrong with it. Must never accept what
//! the API server would refuse.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::OnceLock;

use super::{Violation, schema, trigger::TriggerCore};

/// Reads objects of one kind. Made once; its schema is built at the first use.
#[derive(Debug)]
pub struct Checker {
    crd: fn() -> CustomResourceDefinition,
    spec: OnceLock<Value>,
}

impl Checker {
    /// A checker of the kind that this definition defines.
    pub const fn new(crd: fn() -> CustomResourceDefinition) -> Self {
        Self { crd, spec: OnceLock::new() }
    }

    /// Reads one object: schema first, then the type, then `own`, the kind's own checks.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read<T: DeserializeOwned>(
        &self,
        object: Value,
        own: impl FnOnce(&T) -> Vec<Violation>,
    ) -> Result<T, Vec<Violation>> {
        let spec = self.spec.get_or_init(|| schema::spec_schema(&(self.crd)()));
        let typed = schema::decode(object, spec)?;
        let violations = own(&typed);
        if violations.is_empty() { Ok(typed) } else { Err(violations) }
    }

    /// Reads one trigger and compiles what all triggers share.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn trigger<T: DeserializeOwned>(
        &self,
        object: Value,
        own: impl FnOnce(&T) -> Vec<Violation>,
        core: impl FnOnce(&T) -> Result<TriggerCore, Vec<Violation>>,
    ) -> Result<(T, TriggerCore), Vec<Violation>> {
        let mut compiled = None;
        let typed = self.read(object, |typed| {
            let mut violations = own(typed);
            match core(typed) {
                Ok(core) => compiled = Some(core),
                Err(more) => violations.extend(more),
            }
            violations
        })?;
        match compiled {
            Some(core) => Ok((typed, core)),
            None => Err(vec![Violation::new("", "the shared groups say nothing", "report this as a defect")]),
        }
    }
}
