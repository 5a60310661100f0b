//! How a source tells the rest of the product about its trigger kind, without the rest knowing the source.
//! Must never name a source.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Resource;
use serde::de::DeserializeOwned;
use std::{any::Any, sync::Arc};

use super::{
    Violation,
    trigger::{SharedGroups, TriggerCore},
};

/// One trigger kind: its definition and how an object of it is read. Registered by the source that serves it.
#[derive(Clone, Copy, Debug)]
pub struct TriggerKind {
    /// `kind` of its objects; the `apiVersion` is [`super::API_VERSION`].
    pub kind: &'static str,
    /// Finalizer that Kubeless put on its objects: taken away, else they could not be deleted. `None`: it had no such kind.
    pub finalizer: Option<&'static str>,
    /// The custom resource definition.
    pub crd: fn() -> CustomResourceDefinition,
    /// Reads and checks one whole object (`apiVersion` … `spec`); reports everything that is wrong with it.
    pub decode: fn(serde_json::Value) -> Result<TriggerObject, Vec<Violation>>,
    /// Who acts on an object and speaks of it in its status, by what it says itself, sound or not. For a sound one the same as
    /// [`TriggerObject::served_by`].
    pub acts: fn(&serde_json::Value) -> ServedBy,
}

/// Who acts on a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedBy {
    /// The dispatcher: a source of it hands the events over.
    Dispatcher,
    /// The controller: it makes Kubernetes objects that do.
    Controller,
}

/// [`TriggerKind::acts`] of kinds that only the dispatcher acts on.
pub fn always_dispatcher(_: &serde_json::Value) -> ServedBy {
    ServedBy::Dispatcher
}

/// A custom resource that is a trigger.
pub trait Trigger: Resource<DynamicType = ()> + DeserializeOwned + Any + Send + Sync {
    /// `kind` of its objects.
    const KIND: &'static str;

    /// What all triggers share, as written.
    fn groups(&self) -> SharedGroups<'_>;

    /// What the schema cannot say about its own fields.
    fn violations(&self) -> Vec<Violation>;

    /// Who acts on it.
    fn served_by(&self) -> ServedBy {
        ServedBy::Dispatcher
    }
}

/// A checked trigger of any kind: the shared part, and the whole object for the source that knows its type.
#[derive(Clone, Debug)]
pub struct TriggerObject {
    /// `kind` of the object.
    pub kind: &'static str,
    /// What router and dispatch need.
    pub core: Arc<TriggerCore>,
    /// Who acts on it.
    pub served_by: ServedBy,
    object: Arc<dyn Any + Send + Sync>,
}

impl TriggerObject {
    /// Compiles what all triggers share and wraps the typed object, whose own fields are checked.
    ///
    /// # Errors
    /// Everything that is wrong with the shared groups.
    pub fn new<T: Trigger>(object: T) -> Result<Self, Vec<Violation>> {
        let core = TriggerCore::compile(T::KIND, object.meta(), object.groups())?;
        Ok(Self {
            kind: T::KIND,
            core: Arc::new(core),
            served_by: object.served_by(),
            object: Arc::new(object),
        })
    }

    /// The typed object, if it is a `T`.
    pub fn downcast<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        Arc::clone(&self.object).downcast().ok()
    }
}
