//! One object made as it should be: read, guarded, adopted if Kubeless made it, applied. Must never overwrite what is not
//! ours, and never write what is as wanted already.

use dashmap::DashMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions},
    runtime::reflector::{ObjectRef, Store},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::{
    cache,
    desired::{APPLIED, Kind, Object},
    error::Error,
    live::{self, Whose},
};
use crate::{telemetry::ControllerMetrics, testkit};

/// Owner of the fields that we write.
pub const MANAGER: &str = "kubeless-controller";

/// Writes objects. Shared by all passes of a controller.
pub struct Applier {
    client: Client,
    stores: BTreeMap<Kind, Store<DynamicObject>>,
    /// What the API server made of our last wish: the digest, and the version that it gave. As long as both stand, the
    /// object is as wanted even if it reads differently (1000m became 1).
    settled: DashMap<(Kind, String), (String, u64)>,
    metrics: ControllerMetrics,
}

impl Applier {
    /// Writes with `client`; reads first from `stores`.
    pub fn new(
        client: Client,
        stores: BTreeMap<Kind, Store<DynamicObject>>,
        metrics: ControllerMetrics,
    ) -> Self {
        Self { client, stores, settled: DashMap::new(), metrics }
    }

    /// Returns once every store knows all that is there.
    pub async fn read(&self) {
        for store in self.stores.values() {
            // Fails only when the watch is dropped, and with it whoever waits here.
            let _ = store.wait_until_ready().await;
        }
    }

    /// The object as the store has it.
    pub fn cached(&self, kind: Kind, namespace: &str, name: &str) -> Option<DynamicObject> {
        let reference = ObjectRef::new_with(name, kind.resource()).within(namespace);
        self.stores.get(&kind)?.get(&reference).map(|object| (*object).clone())
    }

    /// All objects of a kind in the store for which `wanted` holds.
    pub fn cached_all(&self, kind: Kind, wanted: impl Fn(&DynamicObject) -> bool) -> Vec<DynamicObject> {
        let Some(store) = self.stores.get(&kind) else { return Vec::new() };
        store.state_filter(wanted).iter().map(|object| (**object).clone()).collect()
    }

    /// Makes it so; the object as it then is.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::Leaving`], or what the API server says.
    pub async fn apply(&self, wanted: &Object, owner: &OwnerReference) -> Result<DynamicObject, Error> {
        let (namespace, name) = (wanted.namespace(), wanted.name());
        let kind = wanted.kind;
        let full_name = format!("{namespace}/{name}");
        let found = match self.cached(kind, namespace, name) {
            Some(found) => Some(found),
            // Not in the store: not there, not seen yet, or not ours.
            None => self.get(kind, namespace, name).await?,
        };
        let Some(found) = found else {
            return self.patch(wanted, None).await;
        };
        match live::whose(&found.metadata, owner) {
            Whose::Foreign => return Err(Error::Conflict { kind: kind.names().2, name: full_name }),
            // The cluster collects what belongs to an owner that is gone.
            Whose::Predecessors => return Err(Error::Leaving { kind: kind.names().2, name: full_name }),
            Whose::Ours if found.metadata.deletion_timestamp.is_some() => {
                return Err(Error::Leaving { kind: kind.names().2, name: full_name });
            }
            Whose::Ours => {}
        }
        if self.is_settled(wanted, &found) {
            return Ok(found);
        }
        let live = serde_json::to_value(&found).unwrap_or_default();
        if live::is_as_wanted(&live, wanted) {
            return Ok(found);
        }
        if !live::was_applied(&found.metadata) {
            self.adopt(wanted, &found).await?;
        }
        self.patch(wanted, found.metadata.uid.as_deref()).await
    }

    fn is_settled(&self, wanted: &Object, found: &DynamicObject) -> bool {
        let key = (wanted.kind, format!("{}/{}", wanted.namespace(), wanted.name()));
        // A store that lags shows the version before our own write.
        self.settled.get(&key).is_some_and(|known| known.0 == digest(wanted) && version(found) <= known.1)
    }

    /// An object as the API server has it now.
    ///
    /// # Errors
    /// What the API server says, unless it is that there is none.
    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<DynamicObject>, Error> {
        let api = cache::api(&self.client, Some(namespace), &kind.resource());
        let what = format!("read {} {namespace}/{name}", kind.names().2);
        api.get_opt(name).await.map_err(Error::api(what))
    }

    async fn patch(&self, wanted: &Object, uid: Option<&str>) -> Result<DynamicObject, Error> {
        let (namespace, name, kind) = (wanted.namespace(), wanted.name(), wanted.kind);
        testkit::point("controller_before_apply");
        let api = cache::api(&self.client, Some(namespace), &kind.resource());
        let mut body = wanted.value.clone();
        if let Some(uid) = uid {
            // Another object of the same name that came meanwhile is not what we looked at.
            body["metadata"]["uid"] = uid.into();
        }
        let what = format!("apply {} {namespace}/{name}", kind.names().2);
        let applied = api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&body)).await;
        let applied = applied.map_err(Error::api(what))?;
        self.metrics.wrote(kind.names().2);
        self.bound_settled();
        self.settled.insert((kind, format!("{namespace}/{name}")), (digest(wanted), version(&applied)));
        testkit::point("controller_after_apply");
        Ok(applied)
    }

    /// Takes an object over from Kubeless, which did not apply but replace: what it wrote is replaced too and belongs to
    /// us alone afterwards, so that fields which are not wanted any more do not stay for ever.
    async fn adopt(&self, wanted: &Object, found: &DynamicObject) -> Result<(), Error> {
        let (namespace, name, kind) = (wanted.namespace(), wanted.name(), wanted.kind);
        let api = cache::api(&self.client, Some(namespace), &kind.resource());
        let what = || format!("take over {} {namespace}/{name}", kind.names().2);
        // As a patch: the right to replace any object at will is not needed for it.
        let steps = live::replacement(&serde_json::to_value(found).unwrap_or_default(), wanted);
        let steps = serde_json::from_value(steps)
            .map_err(|error| Error::api(what())(kube::Error::SerdeError(error)))?;
        let patch = Patch::Json::<()>(steps);
        api.patch(name, &PatchParams::default(), &patch).await.map_err(Error::api(what()))?;
        testkit::point("controller_half_adopted");
        let owners = json!({ "metadata": { "managedFields": [live::sole_owner(wanted, MANAGER)] } });
        api.patch(name, &PatchParams::default(), &Patch::Merge(&owners)).await.map_err(Error::api(what()))?;
        tracing::info!(kind = kind.names().2, name = %format!("{namespace}/{name}"), "Taken over from Kubeless");
        Ok(())
    }

    /// Removes an object, if it still is the one that was looked at.
    ///
    /// # Errors
    /// What the API server says, unless it is that there is none.
    pub async fn delete(&self, kind: Kind, found: &DynamicObject) -> Result<(), Error> {
        let namespace = found.metadata.namespace.as_deref().unwrap_or_default();
        let name = found.metadata.name.as_deref().unwrap_or_default();
        let api = cache::api(&self.client, Some(namespace), &kind.resource());
        let same = Preconditions { uid: found.metadata.uid.clone(), resource_version: None };
        let options = DeleteParams { preconditions: Some(same), ..DeleteParams::background() };
        self.settled.remove(&(kind, format!("{namespace}/{name}")));
        testkit::point("controller_before_delete");
        match api.delete(name, &options).await {
            Ok(_) => {
                self.metrics.wrote(kind.names().2);
                Ok(())
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(Error::api(format!("delete {} {namespace}/{name}", kind.names().2))(error)),
        }
    }

    /// Removes an object by name if this owner has one.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn delete_own(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        owner: &OwnerReference,
    ) -> Result<(), Error> {
        let found = if self.stores.contains_key(&kind) {
            self.cached(kind, namespace, name)
        } else {
            self.get(kind, namespace, name).await?
        };
        match found {
            Some(found) if owns(&found, owner) => self.delete(kind, &found).await,
            _ => Ok(()),
        }
    }

    /// Names that nothing has any more must not stay; what is forgotten too early costs one write that changes nothing.
    fn bound_settled(&self) {
        let known: usize = self.stores.values().map(Store::len).sum();
        if self.settled.len() > 1000 + 2 * known {
            self.settled.clear();
        }
    }
}

/// Whether an object names this owner.
pub fn owns(object: &DynamicObject, owner: &OwnerReference) -> bool {
    object.metadata.owner_references.iter().flatten().any(|other| other.uid == owner.uid)
}

fn digest(wanted: &Object) -> String {
    let value: &Value = &wanted.value["metadata"]["annotations"][APPLIED];
    value.as_str().unwrap_or_default().to_owned()
}

fn version(object: &DynamicObject) -> u64 {
    object.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}
