//! What is watched: one kind of object, where the API server keeps it and how one object is read. Must never keep of an
//! object what nobody here needs.

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{api::ApiResource, core::GroupVersionKind};
use serde_json::Value;
use std::sync::Arc;

use crate::api::{
    API_VERSION, GROUP, VERSION, Violation,
    function::{self, Function},
    kind::{TriggerKind, TriggerObject},
};

/// One kind of object.
#[derive(Clone, Debug)]
pub enum Subject {
    /// Functions.
    Functions,
    /// Services, by the label selector of functions' objects; empty: all.
    Services(String),
    /// EndpointSlices, by the label selector of functions' objects; empty: all.
    Slices(String),
    /// Triggers of one kind.
    Triggers(TriggerKind),
}

/// One object, read and checked.
#[derive(Clone, Debug)]
pub(super) enum Object {
    Function(Arc<Function>),
    Service(Arc<Service>),
    Slice(Arc<EndpointSlice>),
    Trigger(Arc<TriggerObject>),
}

impl Subject {
    /// `kind` of its objects.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Functions => "Function",
            Self::Services(_) => "Service",
            Self::Slices(_) => "EndpointSlice",
            Self::Triggers(kind) => kind.kind,
        }
    }

    /// Where the API server keeps them.
    pub fn resource(&self) -> ApiResource {
        let known = |group: &str, version: &str, plural: &str| {
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, self.kind()), plural)
        };
        match self {
            Self::Functions => known(GROUP, VERSION, "functions"),
            Self::Services(_) => known("", "v1", "services"),
            Self::Slices(_) => known("discovery.k8s.io", "v1", "endpointslices"),
            Self::Triggers(kind) => known(GROUP, VERSION, &(kind.crd)().spec.names.plural),
        }
    }

    /// Which of them are wanted; `None`: all.
    pub fn selector(&self) -> Option<&str> {
        match self {
            Self::Services(selector) | Self::Slices(selector) if !selector.is_empty() => Some(selector),
            _ => None,
        }
    }

    /// Reads and checks one object as the API server wrote it.
    pub(super) fn read(&self, mut object: Value) -> Result<Object, Vec<Violation>> {
        // Items of a list do not repeat what they are.
        if matches!(self, Self::Functions | Self::Triggers(_))
            && let Value::Object(map) = &mut object
        {
            map.entry("apiVersion").or_insert_with(|| API_VERSION.into());
            map.entry("kind").or_insert_with(|| self.kind().into());
        }
        forget_history(&mut object);
        match self {
            Self::Functions => {
                let mut function = function::decode(object)?;
                // The code and the workload are the controller's: they may be a megabyte each.
                let spec = &mut function.spec;
                (spec.function, spec.deps) = (String::new(), String::new());
                (spec.deployment, spec.horizontal_pod_autoscaler) = (None, None);
                Ok(Object::Function(Arc::new(function)))
            }
            Self::Services(_) => typed(object).map(|object| Object::Service(Arc::new(object))),
            Self::Slices(_) => typed(object).map(|object| Object::Slice(Arc::new(object))),
            Self::Triggers(kind) => (kind.decode)(object).map(|object| Object::Trigger(Arc::new(object))),
        }
    }
}

fn forget_history(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    metadata.remove("managedFields");
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

fn typed<T: serde::de::DeserializeOwned>(object: Value) -> Result<T, Vec<Violation>> {
    serde_json::from_value(object).map_err(|error| {
        vec![Violation::new("", error.to_string(), "compare with the Kubernetes API reference")]
    })
}
