//! The status of our resources: facts of one pass into conditions, written only if anything changed. Must never touch the
//! status of an object that somebody else serves.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Map, Value, json};

use super::{apply::MANAGER, cache, error::Error, events::Announcer};
use crate::{
    api::{
        API_VERSION,
        conditions::{self, Fact, types},
    },
    testkit,
};

/// What a pass found out about an object.
#[derive(Debug, Default)]
pub struct Report {
    /// Facts; `Ready` is made of them.
    pub facts: Vec<Fact>,
    /// Facts that are told but are no part of `Ready`.
    pub asides: Vec<Fact>,
    /// Further fields of the status.
    pub fields: Map<String, Value>,
    /// What stopped the pass.
    pub trouble: Option<Error>,
}

impl Report {
    /// Sets a field of the status.
    pub fn field(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// Adds a fact.
    pub fn fact(&mut self, fact: Fact) {
        self.facts.push(fact);
    }

    /// Adds a fact that is no part of `Ready`.
    pub fn aside(&mut self, fact: Fact) {
        self.asides.push(fact);
    }

    /// Adds the fact that `kind` does not hold because of an error, which is kept.
    #[must_use]
    pub fn stopped(mut self, kind: &'static str, error: Error) -> Self {
        self.facts.push(Fact::new(kind, false, error.reason(), error.to_string()));
        self.trouble = Some(error);
        self
    }
}

/// The conditions that an object has now.
pub fn conditions(object: &DynamicObject) -> Vec<Condition> {
    let found = object.data.pointer("/status/conditions").cloned();
    found.and_then(|found| serde_json::from_value(found).ok()).unwrap_or_default()
}

/// The status after a pass.
pub fn next(object: &DynamicObject, report: &Report, now: Timestamp) -> Value {
    let generation = object.metadata.generation;
    let before = conditions(object);
    let mut after: Vec<Condition> = Vec::new();
    // In the order of the facts; what none speaks of any more is gone.
    let ready = conditions::sum_up(&report.facts);
    for fact in report.facts.iter().chain(&report.asides).chain([&ready]) {
        let mut one: Vec<Condition> = before.iter().filter(|old| old.type_ == fact.kind).cloned().collect();
        conditions::set(&mut one, fact, generation, now);
        after.extend(one);
    }
    let mut status = report.fields.clone();
    status.insert("observedGeneration".to_owned(), json!(generation));
    status.insert("conditions".to_owned(), json!(after));
    status.retain(|_, value| !value.is_null());
    Value::Object(status)
}

/// Gives up what was said of an object that the dispatcher acts on now: it must not stand beside the dispatcher's words.
///
/// # Errors
/// What the API server says, unless it is that the object is gone.
pub async fn hand_back(client: &Client, resource: &ApiResource, object: &DynamicObject) -> Result<(), Error> {
    // The one condition that the dispatcher never sets.
    if conditions::find(&conditions(object), types::DEPLOYED).is_none() {
        return Ok(());
    }
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let body = json!({
        "apiVersion": API_VERSION,
        "kind": resource.kind,
        "metadata": { "name": name, "namespace": namespace, "uid": object.metadata.uid },
    });
    let api = cache::api(client, Some(namespace), resource);
    match api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&body)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(Error::api(format!("give up the status of {namespace}/{name}"))(error)),
    }
}

/// Writes the status if it differs, and says what changed.
///
/// # Errors
/// What the API server says, unless it is that the object is gone.
pub async fn write(
    client: &Client,
    resource: &ApiResource,
    announcer: &Announcer,
    object: &DynamicObject,
    report: &Report,
) -> Result<bool, Error> {
    let status = next(object, report, Timestamp::now());
    if object.data.get("status") == Some(&status) {
        return Ok(false);
    }
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let name = object.metadata.name.as_deref().unwrap_or_default();
    testkit::point("controller_before_status");
    let api = cache::api(client, Some(namespace), resource);
    let body = json!({
        "apiVersion": API_VERSION,
        "kind": resource.kind,
        "metadata": { "name": name, "namespace": namespace, "uid": object.metadata.uid },
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER).force();
    match api.patch_status(name, &parameters, &Patch::Apply(&body)).await {
        Ok(_) => {}
        // Deleted, or replaced by another one of the same name: that one gets its own pass.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(false),
        Err(error) => return Err(Error::api(format!("write the status of {namespace}/{name}"))(error)),
    }
    let reference = kube::Resource::object_ref(object, resource);
    let after: Vec<Condition> = status
        .get("conditions")
        .cloned()
        .and_then(|list| serde_json::from_value(list).ok())
        .unwrap_or_default();
    announcer.transitions(&reference, &conditions(object), &after).await;
    Ok(true)
}
