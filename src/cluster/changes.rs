//! [`Changes`]: what readers must apply and delete, whoever found it out (a folder or a cluster). Must never say that
//! an object changed when it did not, nor leave out one that did.

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use std::sync::Arc;

use super::target::ObjectRef;
use crate::api::{function::Function, kind::TriggerObject};

/// Changes of one kind.
#[derive(Clone, Debug)]
pub struct Delta<K, T> {
    /// New or changed objects.
    pub apply: Vec<Arc<T>>,
    /// Objects that are gone.
    pub delete: Vec<K>,
}

impl<K, T> Default for Delta<K, T> {
    fn default() -> Self {
        Self { apply: Vec::new(), delete: Vec::new() }
    }
}

impl<K, T> Delta<K, T> {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.apply.is_empty() && self.delete.is_empty()
    }
}

/// Changes of all kinds.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Functions.
    pub functions: Delta<ObjectRef, Function>,
    /// Triggers, by kind and name.
    pub triggers: Delta<(&'static str, ObjectRef), TriggerObject>,
    /// Services.
    pub services: Delta<ObjectRef, Service>,
    /// EndpointSlices.
    pub slices: Delta<ObjectRef, EndpointSlice>,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
            && self.triggers.is_empty()
            && self.services.is_empty()
            && self.slices.is_empty()
    }
}
