//! What every trigger kind shares: the groups users write, and [`TriggerCore`], the checked value that router
//! and dispatch work with. Must never know a source.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Violation, duration, filter, filter::FilterSpec, selector::Selector};
use crate::{
    cluster::target::{ObjectRef, TriggerRef},
    event::filter::Filter,
    ledger::Outcome,
};

/// Bounds of `delivery.timeout`.
pub const TIMEOUT_RANGE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(86_400));
/// Bounds of `delivery.expireAfter`.
pub const EXPIRE_RANGE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(30 * 86_400));
/// Bounds of `dedup.window`.
pub const WINDOW_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));

/// Promise about how often a function sees an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeliveryMode {
    /// Claimed durably before the call; called once or not at all.
    #[default]
    AtMostOnce,
}

/// Which events of a source wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Ordering {
    /// Events of one key run one at a time, in order; events without a key run beside all others.
    #[default]
    Key,
    /// Events of one partition run one at a time, in order.
    Partition,
    /// Events run in any order.
    None,
}

/// Outcomes that can be kept on a dead-letter topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterOutcome {
    /// A complete answer that is not 2xx.
    Failed,
    /// Sent, and no complete answer came: the function may have run.
    Unanswered,
    /// Provably never sent.
    Unreachable,
    /// Undecodable or over a limit.
    Rejected,
    /// Older than `expireAfter` when its turn came.
    Expired,
    /// Claimed by a process that died before it recorded an outcome.
    InDoubt,
}

impl DeadLetterOutcome {
    /// All of them: the default.
    pub const ALL: [Self; 6] =
        [Self::Failed, Self::Unanswered, Self::Unreachable, Self::Rejected, Self::Expired, Self::InDoubt];

    /// The outcome of the ledger that this selects.
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Failed => Outcome::Failed,
            Self::Unanswered => Outcome::Unanswered,
            Self::Unreachable => Outcome::Unreachable,
            Self::Rejected => Outcome::Rejected,
            Self::Expired => Outcome::Expired,
            Self::InDoubt => Outcome::InDoubt,
        }
    }
}

/// How events are handed to the function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeliverySpec {
    /// Promise about repeats. `AtMostOnce`: claimed durably before the call, called once or not at all.
    pub mode: DeliveryMode,
    /// Calls of one subscription that may run at once. Default 64.
    #[schemars(range(min = 1, max = 4096), extend("format" = "int32"))]
    pub max_in_flight: u32,
    /// Events of one subscription that may be claimed and not finished: what a crash can leave in doubt. It adapts to
    /// the function below this; a fast one needs several hundred beside an ordinary commit. Default 2048.
    #[schemars(range(min = 16, max = 4096), extend("format" = "int32"))]
    pub claim_window: u32,
    /// Longest wait for the function's answer, e.g. "30s". Default: the function's timeout plus the margin.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]{1,9}(ms|s|m|h)$"))]
    pub timeout: Option<String>,
    /// An event older than this when its turn comes is not delivered, e.g. "1h". Default: never too old.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]{1,9}(ms|s|m|h)$"))]
    pub expire_after: Option<String>,
    /// Where events that were not delivered are kept. Default: nowhere (they are counted and journaled).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetterSpec>,
}

impl Default for DeliverySpec {
    fn default() -> Self {
        Self {
            mode: DeliveryMode::AtMostOnce,
            max_in_flight: 64,
            claim_window: 2048,
            timeout: None,
            expire_after: None,
            dead_letter: None,
        }
    }
}

/// Where events that were not delivered are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterSpec {
    /// Topic (or stream) that receives the original record with the outcome in its headers.
    #[schemars(length(min = 1, max = 249))]
    pub topic: String,
    /// Outcomes that are kept. Default: all of them.
    #[serde(default = "all_outcomes")]
    #[schemars(length(min = 1, max = 6))]
    pub outcomes: Vec<DeadLetterOutcome>,
}

fn all_outcomes() -> Vec<DeadLetterOutcome> {
    DeadLetterOutcome::ALL.to_vec()
}

/// How repeated business events are recognised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DedupSpec {
    /// Whether an id that was claimed within the window is dropped. Default true.
    pub enabled: bool,
    /// How long an id is remembered, "1s" to "24h". Default "10m".
    #[schemars(regex(pattern = "^[0-9]{1,9}(ms|s|m|h)$"))]
    pub window: String,
    /// Ids remembered at once; when full, the source waits. Default 1000000.
    #[schemars(range(min = 1000, max = 100_000_000), extend("format" = "int64"))]
    pub max_entries: u64,
    /// What identifies an event that is not a CloudEvent. Default: only CloudEvents (source and id) are recognised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<DedupKeySpec>,
}

impl Default for DedupSpec {
    fn default() -> Self {
        Self { enabled: true, window: "10m".to_owned(), max_entries: 1_000_000, key: None }
    }
}

/// What identifies an event: exactly one of the members.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = (
    "[has(self.header), has(self.jsonPointer), has(self.recordKey)].filter(x, x).size() == 1",
    "exactly one of header, jsonPointer, recordKey"
))]
#[serde(rename_all = "camelCase")]
pub struct DedupKeySpec {
    /// Name of a record header whose value is the id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub header: Option<String>,
    /// JSON pointer (RFC 6901) into a JSON body, e.g. "/order/id".
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub json_pointer: Option<String>,
    /// The record's key is the id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_key: Option<bool>,
}

/// The groups that every trigger kind has, as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TriggerGroups {
    /// How events are handed to the function.
    pub delivery: DeliverySpec,
    /// How repeated business events are recognised.
    pub dedup: DedupSpec,
    /// CloudEvents subscription filters; all must match. Default: every event.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub filter: Vec<FilterSpec>,
    /// Which events wait for each other. Default Key.
    pub ordering: Ordering,
    /// Leaves new events at the source until it is false again. Default false.
    pub paused: bool,
}

impl TriggerGroups {
    /// The same with the functions that they are for.
    pub fn of<'a>(&'a self, functions: Functions<'a>) -> SharedGroups<'a> {
        SharedGroups {
            functions,
            delivery: &self.delivery,
            dedup: &self.dedup,
            filter: &self.filter,
            ordering: self.ordering,
            paused: self.paused,
        }
    }
}

/// What became of a trigger's events, summed up over the dispatcher's replicas that answered, each since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EventCounts {
    /// Events taken over from the source.
    #[schemars(extend("format" = "int64"))]
    pub received: u64,
    /// Claimed events that have no outcome yet.
    #[schemars(extend("format" = "int64"))]
    pub in_flight: u64,
    /// Events that ended, by outcome.
    #[schemars(schema_with = "outcome_counts")]
    pub outcomes: BTreeMap<String, u64>,
    /// Replicas that answered. The numbers begin again with each replica that starts.
    #[schemars(extend("format" = "int32"))]
    pub replicas: u32,
}

fn outcome_counts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "description": "Events that ended, by outcome.",
        "additionalProperties": {"type": "integer", "format": "int64"}
    })
}

/// What is known about a running trigger. Kinds that know more have a status of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TriggerStatus {
    /// `metadata.generation` that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions; `Ready` sums them up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Functions that receive its events now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub functions: Option<u32>,
    /// What became of its events. Brought up to date at most every half minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<EventCounts>,
}

/// Checked `delivery`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Promise about repeats.
    pub mode: DeliveryMode,
    /// Calls of one subscription at once, 1 to 4096.
    pub max_in_flight: usize,
    /// Claimed and not finished events of one subscription, 16 to 4096.
    pub claim_window: usize,
    /// Longest wait for an answer; `None`: [`crate::cluster::target::Target::call_timeout`].
    pub timeout: Option<Duration>,
    /// Oldest event that is still delivered; `None`: any.
    pub expire_after: Option<Duration>,
    /// Where the rest is kept.
    pub dead_letter: Option<DeadLetter>,
}

/// Checked `delivery.deadLetter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Topic or stream.
    pub topic: Arc<str>,
    /// Outcomes that are kept, sorted, without repeats.
    pub outcomes: Vec<DeadLetterOutcome>,
}

impl DeadLetter {
    /// Whether events with this outcome are kept.
    pub fn keeps(&self, outcome: Outcome) -> bool {
        self.outcomes.iter().any(|kept| kept.outcome() == outcome)
    }
}

/// Checked `dedup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedup {
    /// Whether repeats are dropped at all.
    pub enabled: bool,
    /// How long an id is remembered.
    pub window: Duration,
    /// Ids remembered at once.
    pub max_entries: usize,
    /// Identity of events that are not CloudEvents.
    pub key: Option<DedupKey>,
}

/// What identifies an event that is not a CloudEvent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DedupKey {
    /// Value of this record header.
    Header(Arc<str>),
    /// Value at this RFC 6901 pointer of a JSON body.
    JsonPointer(Arc<str>),
    /// The record's key.
    RecordKey,
}

/// The part of a trigger that is the same for every kind, checked and compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerCore {
    /// `kind` of its objects.
    pub kind: &'static str,
    /// Namespace and name.
    pub reference: ObjectRef,
    /// `metadata.uid`, or a stable value made from namespace and name where there is none (a folder).
    pub uid: Arc<str>,
    /// Which functions of the namespace receive the events.
    pub selector: Selector,
    /// How events are handed over.
    pub delivery: Delivery,
    /// How repeats are recognised.
    pub dedup: Dedup,
    /// Which events are wanted.
    pub filter: Filter,
    /// Which events wait for each other.
    pub ordering: Ordering,
    /// Whether new events are left at the source for now.
    pub paused: bool,
}

/// Which functions a trigger names, as written.
#[derive(Clone, Copy, Debug)]
pub enum Functions<'a> {
    /// `spec.functionSelector`
    Selected(&'a LabelSelector),
    /// `spec.function-name`
    Named(&'a str),
}

/// The shared groups of one trigger as written, borrowed from its spec.
#[derive(Clone, Copy, Debug)]
pub struct SharedGroups<'a> {
    /// Which functions it names.
    pub functions: Functions<'a>,
    /// `spec.delivery`
    pub delivery: &'a DeliverySpec,
    /// `spec.dedup`
    pub dedup: &'a DedupSpec,
    /// `spec.filter`
    pub filter: &'a [FilterSpec],
    /// `spec.ordering`
    pub ordering: Ordering,
    /// `spec.paused`
    pub paused: bool,
}

impl TriggerCore {
    /// Identity of the trigger.
    pub fn key(&self) -> TriggerRef {
        TriggerRef::new(self.kind, self.reference.clone())
    }

    /// Checks and compiles the shared groups of an object of `kind`.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn compile(
        kind: &'static str,
        metadata: &ObjectMeta,
        groups: SharedGroups<'_>,
    ) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::new();
        let reference = super::reference(metadata);
        let delivery = compile_delivery(groups.delivery, &mut violations);
        let dedup = compile_dedup(groups.dedup, &mut violations);
        let mut keep = |faults: Vec<Violation>| violations.extend(faults);
        let selector = match groups.functions {
            Functions::Selected(selector) => Selector::compile(selector, "/spec/functionSelector"),
            Functions::Named(name) => Selector::named(name, "/spec/function-name"),
        };
        let selector = selector.map_err(&mut keep);
        let filter = filter::compile(groups.filter, "/spec/filter").map_err(&mut keep);
        match (selector, filter, delivery, dedup) {
            (Ok(selector), Ok(filter), Some(delivery), Some(dedup)) if violations.is_empty() => Ok(Self {
                kind,
                uid: uid(kind, metadata, &reference),
                reference,
                selector,
                delivery,
                dedup,
                filter,
                ordering: groups.ordering,
                paused: groups.paused,
            }),
            _ => Err(violations),
        }
    }
}

fn compile_delivery(spec: &DeliverySpec, violations: &mut Vec<Violation>) -> Option<Delivery> {
    let before = violations.len();
    let mut read = |text: &Option<String>, range, path: &str| {
        text.as_ref().and_then(|text| duration::checked(text, range, path, violations))
    };
    let timeout = read(&spec.timeout, TIMEOUT_RANGE, "/spec/delivery/timeout");
    let expire_after = read(&spec.expire_after, EXPIRE_RANGE, "/spec/delivery/expireAfter");
    let dead_letter = spec.dead_letter.as_ref().map(|spec| {
        let mut outcomes = spec.outcomes.clone();
        outcomes.sort_unstable();
        outcomes.dedup();
        DeadLetter { topic: spec.topic.as_str().into(), outcomes }
    });
    (violations.len() == before).then_some(Delivery {
        mode: spec.mode,
        max_in_flight: spec.max_in_flight as usize,
        claim_window: spec.claim_window as usize,
        timeout,
        expire_after,
        dead_letter,
    })
}

fn compile_dedup(spec: &DedupSpec, violations: &mut Vec<Violation>) -> Option<Dedup> {
    let window = duration::checked(&spec.window, WINDOW_RANGE, "/spec/dedup/window", violations);
    let key = match &spec.key {
        None => Some(None),
        Some(key) => compile_key(key, violations).map(Some),
    };
    let max_entries = usize::try_from(spec.max_entries).unwrap_or(usize::MAX);
    Some(Dedup { enabled: spec.enabled, window: window?, max_entries, key: key? })
}

fn compile_key(spec: &DedupKeySpec, violations: &mut Vec<Violation>) -> Option<DedupKey> {
    match (&spec.header, &spec.json_pointer, spec.record_key) {
        (Some(header), None, None) => Some(DedupKey::Header(header.as_str().into())),
        (None, Some(pointer), None) if pointer.starts_with('/') => {
            Some(DedupKey::JsonPointer(pointer.as_str().into()))
        }
        (None, Some(pointer), None) => {
            let what = format!("{pointer:?} is not a JSON pointer");
            let fix = format!("begin with a slash: \"/{}\"", pointer.replace('.', "/"));
            violations.push(Violation::new("/spec/dedup/key/jsonPointer", what, fix));
            None
        }
        (None, None, Some(true)) => Some(DedupKey::RecordKey),
        (None, None, Some(false)) => {
            let fix = "write recordKey: true, or remove key";
            violations.push(Violation::new("/spec/dedup/key/recordKey", "recordKey: false names no id", fix));
            None
        }
        _ => {
            let fix = "write exactly one of header, jsonPointer, recordKey";
            violations.push(Violation::new("/spec/dedup/key", "does not name exactly one id", fix));
            None
        }
    }
}

fn uid(kind: &str, metadata: &ObjectMeta, reference: &ObjectRef) -> Arc<str> {
    match metadata.uid.as_deref() {
        Some(uid) if !uid.is_empty() => uid.into(),
        _ => format!("file:{kind}:{reference}").into(),
    }
}
