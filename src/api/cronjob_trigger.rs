//! `CronJobTrigger`: calls of one function by the clock, under its old JSON names. Must never tell the time.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Violation,
    checker::Checker,
    kind::{ServedBy, Trigger, TriggerKind, TriggerObject},
    schedule,
    trigger::{Functions, SharedGroups, TriggerGroups},
};

/// The registration of this kind.
pub const KIND: TriggerKind = TriggerKind {
    kind: "CronJobTrigger",
    finalizer: Some("kubeless.io/cronjobtrigger"),
    crd: CronJobTrigger::crd,
    decode,
    acts,
};
/// What calls the function when `executor` says nothing: as in Kubeless.
pub const DEFAULT_EXECUTOR: Executor = Executor::CronJob;
/// Missed times that `catchUp: All` makes up for when `catchUpLimit` says nothing.
pub const DEFAULT_CATCH_UP_LIMIT: u32 = 10;

/// Calls of one function by the clock.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kubeless.io",
    version = "v1beta1",
    kind = "CronJobTrigger",
    plural = "cronjobtriggers",
    namespaced,
    status = "CronJobTriggerStatus",
    derive = "PartialEq",
    shortname = "ct",
    category = "kubeless",
    category = "triggers",
    doc = "Calls of one function by the clock.",
    selectable = ".spec.function-name",
    printcolumn = r#"{"name": "Schedule", "type": "string", "jsonPath": ".spec.schedule"}"#,
    printcolumn = r#"{"name": "Function", "type": "string", "jsonPath": ".spec.function-name"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name": "Last", "type": "date", "jsonPath": ".status.lastScheduledTime"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Zone", "type": "string", "jsonPath": ".spec.timeZone", "priority": 1}"#,
    printcolumn = r#"{"name": "Suspend", "type": "boolean", "jsonPath": ".spec.suspend", "priority": 1}"#,
    printcolumn = r#"{"name": "Paused", "type": "boolean", "jsonPath": ".spec.paused", "priority": 1}"#
)]
#[x_kube(
    validation = (
        "!has(self.catchUpLimit) || self.catchUp == 'All'",
        "catchUpLimit only goes with catchUp: All"
    ),
    validation = (
        "self.catchUp == 'None' || (has(self.executor) && self.executor == 'Dispatcher')",
        "a CronJob does not make up for missed times as it is told: write executor: Dispatcher"
    ),
    validation = ("!has(self.delivery.deadLetter)", "a scheduled call has no topic beside it: remove delivery.deadLetter"),
    validation = ("!has(self.dedup.key)", "a scheduled call is identified by its instant: remove dedup.key")
)]
#[serde(rename_all = "camelCase")]
pub struct CronJobTriggerSpec {
    /// Minute, hour, day of month, month, day of week; or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`, or, for
    /// `executor: CronJob`, `@every <duration>`.
    #[schemars(length(min = 1, max = 256))]
    pub schedule: String,
    /// Function of the same namespace that is called.
    #[serde(rename = "function-name")]
    #[schemars(length(min = 1, max = 63))]
    pub function_name: String,
    /// JSON that is sent as the body. Absent or null: a GET request without a body, as in Kubeless.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "any_json")]
    pub payload: Value,
    /// IANA name of the time zone, e.g. `Europe/Berlin`. Default UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// Leaves the function uncalled until it is false again, as in a CronJob. Default false.
    #[serde(default)]
    pub suspend: bool,
    /// What happens when a call is due while another runs. Default Allow.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// A call that could not start within this many seconds counts as missed. Default: until the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000), extend("format" = "int64"))]
    pub starting_deadline_seconds: Option<i64>,
    /// Which missed times are made up for. `None`: no one. `Last`: the last one. `All`: up to `catchUpLimit` of the last.
    /// Default None.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// Missed times that `catchUp: All` makes up for. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000), extend("format" = "int32"))]
    pub catch_up_limit: Option<u32>,
    /// See [`Executor`], whose text stands in the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<Executor>,
    /// What all triggers share.
    #[serde(flatten)]
    pub groups: TriggerGroups,
}

/// What happens when a call is due while another runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// Both run.
    #[default]
    Allow,
    /// The new one is missed.
    Forbid,
    /// The old one is not waited for any more.
    Replace,
}

impl ConcurrencyPolicy {
    /// The word that a CronJob uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Forbid => "Forbid",
            Self::Replace => "Replace",
        }
    }
}

/// Which missed times are made up for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CatchUp {
    /// No one.
    #[default]
    None,
    /// The last one.
    Last,
    /// The last ones, up to a limit.
    All,
}

/// What calls the function. `CronJob`: a Kubernetes CronJob, as in Kubeless, which may run twice or not at all.
/// `Dispatcher`: the dispatcher, which claims each time first. Default CronJob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Executor {
    /// A Kubernetes CronJob.
    CronJob,
    /// The dispatcher, which claims each time first.
    Dispatcher,
}

/// What is known about a cron trigger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CronJobTriggerStatus {
    /// `metadata.generation` that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions; `Ready` sums them up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Last scheduled instant that was claimed: none at or before it is ever called again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scheduled_time: Option<Time>,
    /// Scheduled instants after this one count: when a dispatcher first saw this trigger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Scheduled instants that passed without a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int64"))]
    pub missed: Option<u64>,
    /// Instants that are claimed and have no outcome yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub claim: Vec<CronClaim>,
}

/// A claimed instant without an outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CronClaim {
    /// The scheduled instant.
    pub instant: Time,
    /// Random and new for every start of a trigger's thread: after an answer that was lost it tells whose claim holds.
    #[schemars(length(max = 32))]
    pub token: String,
    /// When its call is over, whatever became of it: from then on others name it in doubt.
    pub deadline: Time,
    /// Name of the process.
    #[schemars(length(max = 253))]
    pub instance: String,
}

// Any JSON at all: the documentation of Kubeless says object, its code takes everything.
fn any_json(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "JSON that is sent as the body. Absent or null: a GET request without a body, as in Kubeless.",
        "nullable": true,
        "x-kubernetes-preserve-unknown-fields": true
    })
}

impl CronJobTrigger {
    /// What calls the function.
    pub fn executor(&self) -> Executor {
        self.spec.executor.unwrap_or(DEFAULT_EXECUTOR)
    }

    /// Missed times that are made up for at most.
    pub fn catch_up_limit(&self) -> u32 {
        match self.spec.catch_up {
            CatchUp::None => 0,
            CatchUp::Last => 1,
            CatchUp::All => self.spec.catch_up_limit.unwrap_or(DEFAULT_CATCH_UP_LIMIT),
        }
    }
}

impl Trigger for CronJobTrigger {
    const KIND: &'static str = KIND.kind;

    fn groups(&self) -> SharedGroups<'_> {
        let groups = self.spec.groups.of(Functions::Named(&self.spec.function_name));
        SharedGroups { paused: groups.paused || self.spec.suspend, ..groups }
    }

    fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        let spec = &self.spec;
        let mut say = |path: &str, what: &str, fix: &str| violations.push(Violation::new(path, what, fix));
        if let Err(error) = schedule::check(&spec.schedule) {
            say("/spec/schedule", &error.to_string(), schedule::FIX);
        } else if self.executor() == Executor::Dispatcher && schedule::is_interval(&spec.schedule) {
            let what = "@every counts from the start of a process, which names no instant to claim";
            say(
                "/spec/schedule",
                what,
                "write five fields, for example \"*/5 * * * *\", or executor: CronJob",
            );
        }
        if let Some(zone) = spec.time_zone.as_deref().filter(|zone| !schedule::is_zone(zone)) {
            let what = format!("{zone:?} is not a time zone");
            say("/spec/timeZone", &what, "write its IANA name, for example Europe/Berlin or Etc/UTC");
        }
        if spec.catch_up_limit.is_some() && spec.catch_up != CatchUp::All {
            say(
                "/spec/catchUpLimit",
                "catchUpLimit only goes with catchUp: All",
                "write catchUp: All, or remove it",
            );
        }
        if self.executor() == Executor::CronJob && spec.catch_up != CatchUp::None {
            let what = "a CronJob does not make up for missed times as it is told";
            say("/spec/catchUp", what, "write executor: Dispatcher, or remove it");
        }
        if spec.groups.delivery.dead_letter.is_some() {
            let what = "a scheduled call has no topic beside it where it could be kept";
            say("/spec/delivery/deadLetter", what, "remove it; outcomes are in the journal");
        }
        if spec.groups.dedup.key.is_some() {
            let what = "a scheduled call is identified by its instant";
            say("/spec/dedup/key", what, "remove it");
        }
        violations
    }

    fn served_by(&self) -> ServedBy {
        who(self.executor())
    }
}

/// Reads and checks a whole CronJobTrigger; the typed object is a [`CronJobTrigger`].
///
/// # Errors
/// Everything that is wrong with it.
pub fn decode(object: Value) -> Result<TriggerObject, Vec<Violation>> {
    static CHECKER: Checker = Checker::new(CronJobTrigger::crd);
    CHECKER.trigger::<CronJobTrigger>(object)
}

/// Who acts on an object that need not be sound.
fn acts(object: &Value) -> ServedBy {
    let said = object.pointer("/spec/executor").cloned().and_then(|said| serde_json::from_value(said).ok());
    who(said.unwrap_or(DEFAULT_EXECUTOR))
}

fn who(executor: Executor) -> ServedBy {
    match executor {
        Executor::Dispatcher => ServedBy::Dispatcher,
        Executor::CronJob => ServedBy::Controller,
    }
}
