//! What the cluster holds, watched and kept: one store for each kind, and the stream of what changes in it. Must never end
//! because of an object or an answer: objects are kept as JSON, which cannot be malformed, and a watch that fails is
//! tried again for ever.

use futures_util::{StreamExt, stream::BoxStream};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, PartialObjectMeta, TypeMeta},
    core::DynamicResourceScope,
    runtime::{WatchStreamExt, reflector, reflector::Store, watcher},
};
use serde_json::Value;
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

/// Objects in one answer to a list: a Function may hold a megabyte.
const PAGE: u32 = 50;

/// What of an object is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All but who wrote which field.
    All,
    /// Not even asked for: names, labels, owners.
    Metadata,
    /// Of a Function: all but its code, dependencies and template.
    Summary,
}

/// Which objects are watched.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Their kind.
    pub resource: ApiResource,
    /// Their namespace; `None`: all.
    pub namespace: Option<String>,
    /// Their labels; `None`: any.
    pub labels: Option<String>,
    /// What is kept.
    pub keep: Keep,
    /// Whether changes of the status alone are passed over.
    pub wishes_only: bool,
}

/// A store and what changes in it. The store fills only while the stream is polled.
pub struct Watch {
    /// What is there.
    pub store: Store<DynamicObject>,
    /// Every object that came, changed or went.
    pub touched: BoxStream<'static, Result<DynamicObject, watcher::Error>>,
}

/// The API of a kind, in one namespace or all.
pub fn api(client: &Client, namespace: Option<&str>, resource: &ApiResource) -> Api<DynamicObject> {
    api_of(client, namespace, resource)
}

fn api_of<K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>>(
    client: &Client,
    namespace: Option<&str>,
    resource: &ApiResource,
) -> Api<K> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

/// Begins to watch, once somebody polls. `client` must allow answers that are silent for long.
pub fn watch(client: &Client, subject: &Subject) -> Watch {
    let namespace = subject.namespace.as_deref();
    let mut config = watcher::Config::default().page_size(PAGE);
    if let Some(labels) = &subject.labels {
        config = config.labels(labels);
    }
    let events = match subject.keep {
        Keep::Metadata => {
            let api: Api<PartialObjectMeta<DynamicObject>> = api_of(client, namespace, &subject.resource);
            watcher::watcher(api, config).map(|event| event.map(to_objects)).boxed()
        }
        Keep::All | Keep::Summary => {
            watcher::watcher(api(client, namespace, &subject.resource), config).boxed()
        }
    };
    let summary = subject.keep == Keep::Summary;
    let mut filter = Filter { wishes_only: subject.wishes_only, seen: HashMap::new() };
    let writer = reflector::store::Writer::new(subject.resource.clone());
    let store = writer.as_reader();
    let kind = subject.resource.kind.clone();
    let types = TypeMeta { api_version: subject.resource.api_version.clone(), kind: kind.clone() };
    let touched = events
        .default_backoff()
        .modify(move |object| {
            // Items of a list do not say what they are.
            object.types.get_or_insert_with(|| types.clone());
            trim(object, summary);
        })
        .reflect(writer)
        .filter_map(move |event| std::future::ready(filter.changed(&kind, event).map(Ok)))
        .boxed();
    Watch { store, touched }
}

/// Says which objects changed.
struct Filter {
    wishes_only: bool,
    /// What was seen of each object beside its status, as a hash.
    seen: HashMap<String, u64>,
}

impl Filter {
    /// A failed watch is said and tried again, but is no event: it would hold up all other watches of its controller.
    fn changed(
        &mut self,
        kind: &str,
        event: Result<watcher::Event<DynamicObject>, watcher::Error>,
    ) -> Option<DynamicObject> {
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                let hash = wishes(&object);
                let before = self.wishes_only.then(|| self.seen.insert(name(&object), hash)).flatten();
                (before != Some(hash)).then_some(object)
            }
            Ok(watcher::Event::Delete(object)) => {
                self.seen.remove(&name(&object));
                Some(object)
            }
            Ok(watcher::Event::Init | watcher::Event::InitDone) => None,
            Err(error) => {
                tracing::warn!(kind, %error, "Watch failed; trying again");
                None
            }
        }
    }
}

fn name(object: &DynamicObject) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&object.metadata.namespace), part(&object.metadata.name))
}

/// What of an object its writer wishes: everything but the status.
fn wishes(object: &DynamicObject) -> u64 {
    let meta = &object.metadata;
    let mut hasher = DefaultHasher::new();
    (&meta.uid, meta.generation, &meta.labels, &meta.annotations, &meta.finalizers).hash(&mut hasher);
    meta.deletion_timestamp.is_some().hash(&mut hasher);
    let owners = meta.owner_references.iter().flatten();
    owners.map(|owner| owner.uid.as_str()).collect::<Vec<_>>().hash(&mut hasher);
    hasher.finish()
}

fn trim(object: &mut DynamicObject, summary: bool) {
    object.metadata.managed_fields = None;
    if !summary {
        return;
    }
    let Some(map) = object.data.as_object_mut() else { return };
    map.remove("status");
    if let Some(Value::Object(spec)) = map.get_mut("spec") {
        for field in ["function", "deps", "deployment", "horizontalPodAutoscaler"] {
            spec.remove(field);
        }
        // With no code there must be no checksum of it either.
        spec.remove("checksum");
    }
}

fn to_objects(event: watcher::Event<PartialObjectMeta<DynamicObject>>) -> watcher::Event<DynamicObject> {
    let whole = |partial: PartialObjectMeta<DynamicObject>| DynamicObject {
        types: partial.types,
        metadata: partial.metadata,
        data: Value::Null,
    };
    match event {
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitApply(object) => watcher::Event::InitApply(whole(object)),
        watcher::Event::InitDone => watcher::Event::InitDone,
        watcher::Event::Apply(object) => watcher::Event::Apply(whole(object)),
        watcher::Event::Delete(object) => watcher::Event::Delete(whole(object)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use watcher::Event;

    fn function(generation: i64, ready: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "kubeless.io/v1beta1", "kind": "Function",
            "metadata": {"name": "f", "namespace": "n", "uid": "u", "generation": generation},
            "spec": {"function": "code", "deps": "d", "handler": "a.b", "checksum": "sha256:0", "timeout": "3"},
            "status": {"ready": ready},
        }))
        .unwrap()
    }

    #[test]
    fn a_status_alone_is_no_wish_and_a_deletion_always_is_one() {
        let mut filter = Filter { wishes_only: true, seen: HashMap::new() };
        let mut passes = |event| filter.changed("Function", Ok(event)).is_some();
        assert!(passes(Event::InitApply(function(1, "no"))));
        assert!(!passes(Event::Apply(function(1, "yes"))));
        assert!(passes(Event::Apply(function(2, "yes"))));
        assert!(passes(Event::Delete(function(2, "yes"))));
        assert!(passes(Event::Apply(function(2, "yes"))), "made again");
        let mut all = Filter { wishes_only: false, seen: HashMap::new() };
        for _ in 0..2 {
            assert!(all.changed("Deployment", Ok(Event::Apply(function(1, "no")))).is_some());
        }
        assert!(all.seen.is_empty());
    }

    #[test]
    fn a_summary_holds_no_code() {
        let mut object = function(1, "yes");
        trim(&mut object, true);
        assert_eq!(object.data["spec"], json!({"handler": "a.b", "timeout": "3"}));
        assert!(object.data.get("status").is_none());
    }
}
