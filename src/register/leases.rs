//! The register in Kubernetes: a Lease a key, in the dispatcher's own namespace, written under the resource version that was
//! read. Must never decide by what it read: only the answer to a write says who has a shard.

use super::{Later, Put, Store, Stored};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions},
};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

/// Label of all objects of one register.
const REGISTER: &str = "kubeless.io/register";
/// Annotations: the text, its key, and the register's full name for people.
const TEXT: &str = "kubeless.io/register-text";
const KEY: &str = "kubeless.io/register-key";
const OF: &str = "kubeless.io/register-of";
/// Objects of one answer.
const PAGE: u32 = 100;

/// See the module.
pub struct Leases {
    api: Api<Lease>,
}

impl Leases {
    /// A store in `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace) }
    }

    async fn get(&self, name: &str) -> Result<Option<Stored>, kube::Error> {
        // Without a resource version: the API server asks etcd, not its cache.
        Ok(self.api.get_opt(name).await?.as_ref().map(stored))
    }

    async fn put_now(
        &self,
        folder: &str,
        key: &str,
        text: &str,
        expected: Option<&Stored>,
    ) -> Result<Put, kube::Error> {
        let lease = object(folder, key, text, expected);
        let name = lease.name_any();
        let written = match expected {
            Some(_) => self.api.replace(&name, &PostParams::default(), &lease).await,
            None => self.api.create(&PostParams::default(), &lease).await,
        };
        match written {
            Ok(lease) => Ok(Put::Done(stored(&lease))),
            // Another version, there already, or gone.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                Ok(Put::Conflict(self.get(&name).await?))
            }
            Err(error) => Err(error),
        }
    }

    async fn list_now(&self, folder: &str) -> Result<Vec<(String, Stored)>, kube::Error> {
        let mut found = Vec::new();
        let mut next = ListParams::default().labels(&format!("{REGISTER}={}", short(folder))).limit(PAGE);
        loop {
            let page = self.api.list(&next).await?;
            for lease in &page.items {
                if let Some(key) = lease.annotations().get(KEY) {
                    found.push((key.clone(), stored(lease)));
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => next = next.continue_token(&token),
                None => return Ok(found),
            }
        }
    }
}

impl Store for Leases {
    fn list<'a>(&'a self, folder: &'a str) -> Later<'a, Result<Vec<(String, Stored)>, String>> {
        Box::pin(async move { self.list_now(folder).await.map_err(|e| explain(&e)) })
    }

    fn put<'a>(
        &'a self,
        folder: &'a str,
        key: &'a str,
        text: &'a str,
        expected: Option<&'a Stored>,
    ) -> Later<'a, Put> {
        Box::pin(async move {
            self.put_now(folder, key, text, expected).await.unwrap_or_else(|e| Put::Unknown(explain(&e)))
        })
    }

    fn delete<'a>(
        &'a self,
        folder: &'a str,
        key: &'a str,
        expected: &'a Stored,
    ) -> Later<'a, Result<(), String>> {
        Box::pin(async move {
            let preconditions = Preconditions { resource_version: Some(expected.tag.clone()), uid: None };
            let options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match self.api.delete(&name(folder, key), &options).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                Err(error) => Err(explain(&error)),
            }
        })
    }
}

fn explain(error: &kube::Error) -> String {
    format!("register (Leases): {}", crate::cluster::client::explain(error))
}

fn stored(lease: &Lease) -> Stored {
    let text = lease.annotations().get(TEXT).cloned().unwrap_or_default();
    Stored { text, tag: lease.resource_version().unwrap_or_default() }
}

fn object(folder: &str, key: &str, text: &str, expected: Option<&Stored>) -> Lease {
    let annotations = [(TEXT, text), (KEY, key), (OF, folder)].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let labels = [(REGISTER, short(folder).as_str()), ("created-by", "kubeless")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
    // For people who list Leases; the text decides.
    let holder = serde_json::from_str::<serde_json::Value>(text).ok();
    let holder = holder.and_then(|row| row["owner"].as_str().map(str::to_owned));
    Lease {
        metadata: ObjectMeta {
            name: Some(name(folder, key)),
            annotations: Some(BTreeMap::from(annotations)),
            labels: Some(BTreeMap::from(labels)),
            resource_version: expected.map(|stored| stored.tag.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec { holder_identity: holder, ..LeaseSpec::default() }),
    }
}

/// What fits into a label, whatever the names of trigger, function and stream.
fn short(folder: &str) -> String {
    format!("{:032x}", xxh3_128(folder.as_bytes()))
}

/// A valid name, even where a key has capitals or underscores: those of two keys that differ in such alone differ too.
fn name(folder: &str, key: &str) -> String {
    let plain: String =
        key.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let plain = plain.get(..plain.len().min(150)).unwrap_or_default();
    format!("kubeless-{}-{plain}-{:08x}", short(folder), xxh3_128(key.as_bytes()) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_and_differ_where_keys_do() {
        let long = "x".repeat(300);
        let keys =
            ["shard.shardId-000000000001", "shard.shardid-000000000001", "shard.a_b", "shard.a.b", &long];
        let names: std::collections::BTreeSet<String> =
            keys.iter().map(|key| name("a_b_c_D.17", key)).collect();
        assert_eq!(names.len(), keys.len());
        assert!(names.iter().all(|n| n.len() <= 253 && crate::api::selector::is_subdomain(n)), "{names:?}");
        assert!(short("anything").len() <= 63);
    }
}
