//! Custom resources as the JSON that the API server holds: read, made, changed, removed. Must never go through a Rust
//! type, which would drop the fields it does not know.

use super::{
    Session,
    explain::{self, Asked},
    shown,
};
use crate::{
    api::{
        schema,
        selector::{is_dns_label, is_subdomain},
    },
    cli::UsageError,
};
use anyhow::anyhow;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::{
    Request,
    params::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Map, Value};

/// Objects of one page of a list: the API server keeps its answers small, and so do we.
const PAGE: u32 = 500;
/// Objects of a whole list; more than a person reads, and a bound for what a broken server sends.
const MAX_OBJECTS: usize = 100_000;
/// How often a change is tried anew on what somebody else has just written.
const ATTEMPTS: usize = 5;
/// Names that an error lists.
const MAX_NAMES: usize = 10;

/// A kind of custom resource.
pub use crate::api::command::Resource as Kind;

/// Functions.
pub const FUNCTIONS: Kind = Kind::ours("Function", "functions", "function");

/// Whether and how a change is only tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// It is made.
    Really,
    /// The API server checks it and stores nothing.
    DryRun,
}

/// What a deletion came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Gone,
    /// It goes when those who hold it let go (the finalizers, separated by commas).
    Pending(String),
    /// There was none.
    Missing,
}

/// What a change came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    /// Nothing had to be written.
    Unchanged(Value),
    /// The object as it is now.
    Written(Value),
}

impl Session {
    fn url(kind: &Kind, namespace: Option<&str>) -> String {
        let space = namespace.map(|name| format!("namespaces/{name}/")).unwrap_or_default();
        format!("/apis/{}/{}/{space}{}", kind.group, kind.version, kind.plural)
    }

    fn asked<'a>(&'a self, verb: &'static str, kind: &Kind, name: &'a str) -> Asked<'a> {
        Asked { verb, kind: *kind, namespace: Some(&self.namespace), name, server: &self.connection.server }
    }

    /// All objects of a kind in the session's namespace, or in all.
    pub async fn list(&self, kind: &Kind, all: bool, selector: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let namespace = (!all).then_some(self.namespace.as_str());
        let asked = Asked { namespace, ..self.asked("list", kind, "") };
        let what = format!("reading {} from {}", kind.plural, self.connection.server);
        let pages = self.pages(kind, namespace, selector);
        shown(&what, pages).await.map_err(|error| explain::api(&asked, &error))
    }

    /// [`Self::list`] in the session's namespace, for what is shown only if it can be had.
    pub async fn quiet_list(&self, kind: &Kind) -> kube::Result<Vec<Value>> {
        self.pages(kind, Some(&self.namespace), None).await
    }

    async fn pages(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        selector: Option<&str>,
    ) -> kube::Result<Vec<Value>> {
        let mut params = ListParams::default().limit(PAGE);
        params.label_selector = selector.map(str::to_owned);
        let mut found = Vec::new();
        loop {
            let request = Request::new(Self::url(kind, namespace)).list(&params);
            let mut page: Value =
                self.connection.client.request(request.map_err(kube::Error::BuildRequest)?).await?;
            let next = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            if let Value::Array(items) = page["items"].take() {
                found.extend(items.into_iter().map(|item| typed(item, kind)));
            }
            if next.is_empty() || found.len() >= MAX_OBJECTS {
                return Ok(found);
            }
            params.continue_token = Some(next);
        }
    }

    /// One object; if there is none the error names those that there are.
    pub async fn get(&self, kind: &Kind, name: &str) -> anyhow::Result<Value> {
        let what = format!("reading {} {name} from {}", kind.noun, self.connection.server);
        match shown(&what, self.try_get(kind, name)).await {
            Ok(object) => Ok(object),
            Err(error) if explain::is_missing_object(&error) => Err(self.missing(kind, name).await),
            Err(error) => Err(explain::api(&self.asked("get", kind, name), &error)),
        }
    }

    /// Whether there is an object of this name.
    pub async fn has(&self, kind: &Kind, name: &str) -> kube::Result<bool> {
        match self.try_get(kind, name).await {
            Ok(_) => Ok(true),
            Err(error) if explain::is_missing_object(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn try_get(&self, kind: &Kind, name: &str) -> kube::Result<Value> {
        let request = Request::new(Self::url(kind, Some(&self.namespace))).get(name, &GetParams::default());
        self.connection.client.request(request.map_err(kube::Error::BuildRequest)?).await
    }

    /// The error for an object that is not there.
    pub async fn missing(&self, kind: &Kind, name: &str) -> anyhow::Error {
        let here = self.pages(kind, Some(&self.namespace), None).await.unwrap_or_default();
        let names: Vec<&str> = here.iter().filter_map(|object| object["metadata"]["name"].as_str()).collect();
        let (noun, namespace) = (kind.noun, &self.namespace);
        let hint = match (schema::nearest(name, &names), names.len()) {
            (Some(near), _) => format!("did you mean {near}?"),
            (None, 0) => format!("there is no {noun} in this namespace; -A lists all, -n names another"),
            (None, count) => {
                let shown = names[..count.min(MAX_NAMES)].join(", ");
                format!("there are: {shown}{}", if count > MAX_NAMES { ", …" } else { "" })
            }
        };
        anyhow!("{noun} {name:?} not found in namespace {namespace}: {hint}")
    }

    /// Makes an object.
    pub async fn create(&self, kind: &Kind, object: &Value, commit: Commit) -> anyhow::Result<Value> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let params = PostParams { dry_run: commit == Commit::DryRun, ..manager() };
        let bytes = serde_json::to_vec(object)?;
        let request = Request::new(Self::url(kind, Some(&self.namespace))).create(&params, bytes)?;
        let what = format!("creating {} {name}", kind.noun);
        let asked = self.asked("create", kind, name);
        shown(&what, self.connection.client.request(request))
            .await
            .map_err(|error| explain::api(&asked, &error))
    }

    /// Changes an object: reads it, edits it, writes what differs under the version that was read. Somebody else's
    /// change in between is read anew and kept.
    pub async fn update(
        &self,
        kind: &Kind,
        name: &str,
        commit: Commit,
        edit: impl Fn(&mut Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<Changed> {
        for _ in 0..ATTEMPTS {
            let old = self.get(kind, name).await?;
            let mut new = old.clone();
            edit(&mut new)?;
            let Some(mut patch) = merge_patch(&old, &new) else {
                return Ok(Changed::Unchanged(old));
            };
            // The version makes it a compare-and-set: the lists of a merge patch are replaced whole.
            patch["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
            let params = PatchParams {
                dry_run: commit == Commit::DryRun,
                field_manager: manager().field_manager,
                ..PatchParams::default()
            };
            let request = Request::new(Self::url(kind, Some(&self.namespace))).patch(
                name,
                &params,
                &Patch::Merge(&patch),
            )?;
            let what = format!("changing {} {name}", kind.noun);
            match shown(&what, self.connection.client.request(request)).await {
                Ok(written) => return Ok(Changed::Written(written)),
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                Err(error) => return Err(explain::api(&self.asked("patch", kind, name), &error)),
            }
        }
        Err(anyhow!(
            "{} {name:?} was changed by others {ATTEMPTS} times while this change was on its way; nothing was \
             written: see who writes it (kubectl get {} {name} -o yaml --show-managed-fields) and run this again",
            kind.noun,
            kind.plural
        ))
    }

    /// Removes an object.
    pub async fn delete(&self, kind: &Kind, name: &str, commit: Commit) -> anyhow::Result<Deleted> {
        let params = DeleteParams { dry_run: commit == Commit::DryRun, ..DeleteParams::default() };
        let request = Request::new(Self::url(kind, Some(&self.namespace))).delete(name, &params)?;
        let what = format!("deleting {} {name}", kind.noun);
        match shown(&what, self.connection.client.request::<Value>(request)).await {
            Ok(left) => {
                let held = left["metadata"]["finalizers"].as_array().into_iter().flatten();
                let held: Vec<&str> = held.filter_map(Value::as_str).collect();
                Ok(if held.is_empty() { Deleted::Gone } else { Deleted::Pending(held.join(", ")) })
            }
            Err(error) if explain::is_missing_object(&error) => Ok(Deleted::Missing),
            Err(error) => Err(explain::api(&self.asked("delete", kind, name), &error)),
        }
    }
}

/// The conditions of an object.
pub fn conditions(object: &Value) -> Vec<Condition> {
    serde_json::from_value(object["status"]["conditions"].clone()).unwrap_or_default()
}

/// Refuses a name that the API server would refuse later, in other words.
pub fn check_name(kind: &Kind, name: &str) -> Result<(), UsageError> {
    // Functions become Services, whose names are the strictest.
    let (fits, rule) = match kind == &FUNCTIONS {
        true => (
            is_dns_label(name) && name.starts_with(|first: char| first.is_ascii_lowercase()),
            "a-z, 0-9 and '-', beginning with a letter, at most 63",
        ),
        false => (is_subdomain(name), "a-z, 0-9, '-' and '.', beginning and ending with a letter or digit"),
    };
    match fits {
        true => Ok(()),
        false => Err(UsageError(format!("{name:?} cannot be the name of a {}; use {rule}", kind.noun))),
    }
}

fn manager() -> PostParams {
    PostParams { field_manager: Some("kubeless-cli".to_owned()), ..PostParams::default() }
}

/// Items of a list lack what every single object says of itself.
fn typed(mut item: Value, kind: &Kind) -> Value {
    if let Value::Object(map) = &mut item {
        map.entry("apiVersion").or_insert_with(|| kind.api_version().into());
        map.entry("kind").or_insert_with(|| kind.kind.into());
    }
    item
}

/// The JSON merge patch (RFC 7386) that makes `new` of `old`; `None` if they are equal.
pub fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (old, new) if old == new => None,
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                patch.insert(key.clone(), Value::Null);
            }
            for (key, value) in new {
                match old.get(key) {
                    Some(before) => {
                        if let Some(change) = merge_patch(before, value) {
                            patch.insert(key.clone(), change);
                        }
                    }
                    None => drop(patch.insert(key.clone(), value.clone())),
                }
            }
            Some(Value::Object(patch))
        }
        (_, new) => Some(new.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_holds_what_differs() {
        let old = json!({ "a": 1, "b": { "c": [1, 2], "d": 1 }, "e": 1 });
        assert_eq!(merge_patch(&old, &old), None);
        let new = json!({ "a": 1, "b": { "c": [1], "d": 1 }, "f": 2 });
        assert_eq!(merge_patch(&old, &new), Some(json!({ "b": { "c": [1] }, "e": null, "f": 2 })));
    }

    #[test]
    fn names() {
        for name in ["hello", "a1", "a-b"] {
            assert!(check_name(&FUNCTIONS, name).is_ok(), "{name}");
        }
        for name in ["1a", "a.b", "Hello", "", "a_b"] {
            assert!(check_name(&FUNCTIONS, name).is_err(), "{name}");
        }
    }
}
