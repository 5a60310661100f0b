//! What commands need from rooms that the command line does not know (sources, local mode): filled in by the
//! binary. Must never hold logic.

use crate::{
    api::{command::TriggerCommand, kind::TriggerKind},
    sources::Topics,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use std::{ffi::OsString, path::PathBuf};

/// One event to publish. How id, source and type are written is the business of the source (CloudEvents, binary
/// mode, in its protocol's binding); they are written only if `id` is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Topic or subject.
    pub topic: String,
    /// Key, for order and partition.
    pub key: Option<String>,
    /// CloudEvents `id`.
    pub id: Option<String>,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `type`.
    pub kind: String,
    /// Content type of `data`.
    pub content_type: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Body; `None` is a tombstone.
    pub data: Option<Vec<u8>>,
}

/// Publishes events.
pub trait Publisher {
    /// Publishes all, waits until they are acknowledged, and returns where each one went (`topic/partition/offset`).
    fn publish(&mut self, messages: Vec<Message>) -> anyhow::Result<Vec<String>>;
}

/// What `kubeless dev` was told.
#[derive(Clone, Debug)]
pub struct DevRequest {
    /// Folder of manifests.
    pub dir: PathBuf,
    /// JSON lines instead of columns.
    pub json: bool,
    /// Another dispatcher executable than the one beside this program.
    pub dispatcher: Option<PathBuf>,
}

/// Everything that is wired by the binary.
pub trait Wiring {
    /// The kinds of triggers, each with its command line.
    fn triggers(&self) -> Vec<TriggerCommand>;
    /// All custom resource definitions.
    fn definitions(&self) -> Vec<CustomResourceDefinition>;
    /// All custom resource definitions as one YAML stream.
    fn crds(&self) -> anyhow::Result<String>;
    /// Every trigger kind that is read and checked.
    fn trigger_kinds(&self) -> Vec<TriggerKind>;
    /// A publisher for these servers.
    fn publisher(&self, servers: &str) -> anyhow::Result<Box<dyn Publisher>>;
    /// Topics (or streams) of these servers.
    fn topics(&self, servers: &str) -> anyhow::Result<Box<dyn Topics>>;
    /// Runs local mode until a signal.
    fn dev(&self, request: DevRequest) -> anyhow::Result<()>;
    /// Becomes a child process; returns only if that fails.
    fn child(&self, parent: u32, command: &[OsString]) -> anyhow::Error;
}
