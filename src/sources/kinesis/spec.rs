//! `KinesisTrigger`: the resource of this source and its checks, under the old JSON names. Must never open a connection or
//! read a credential.

use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    Violation,
    checker::Checker,
    kind::{Trigger, TriggerKind, TriggerObject, always_dispatcher},
    selector,
    trigger::{Functions, SharedGroups, TriggerGroups, TriggerStatus},
};

/// The registration of this kind. The finalizer is misspelt in Kubeless, and so it is here.
pub const KIND: TriggerKind = TriggerKind {
    kind: "KinesisTrigger",
    finalizer: Some("kubeless.io/kenisistrigger"),
    crd: KinesisTrigger::crd,
    decode,
    acts: always_dispatcher,
};

/// Records of a Kinesis stream, one call per record.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kubeless.io",
    version = "v1beta1",
    kind = "KinesisTrigger",
    plural = "kinesistriggers",
    namespaced,
    status = "TriggerStatus",
    derive = "PartialEq",
    shortname = "kst",
    category = "kubeless",
    category = "triggers",
    doc = "Records of a Kinesis stream, one call per record.",
    selectable = ".spec.stream",
    selectable = ".spec.function-name",
    printcolumn = r#"{"name": "Stream", "type": "string", "jsonPath": ".spec.stream"}"#,
    printcolumn = r#"{"name": "Region", "type": "string", "jsonPath": ".spec.aws-region"}"#,
    printcolumn = r#"{"name": "Function", "type": "string", "jsonPath": ".spec.function-name"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Shard", "type": "string", "jsonPath": ".spec.shard", "priority": 1}"#,
    printcolumn = r#"{"name": "Paused", "type": "boolean", "jsonPath": ".spec.paused", "priority": 1}"#
)]
#[x_kube(
    validation = (
        "(has(self.startingPosition) && self.startingPosition == 'AT_TIMESTAMP') == has(self.startingTimestamp)",
        "startingTimestamp goes with startingPosition: AT_TIMESTAMP, and only with it"
    ),
    validation = (
        "!has(self.dedup.key) || !has(self.dedup.key.header)",
        "a record has no headers: use dedup.key.jsonPointer or recordKey"
    ),
    validation = (
        "!has(self.delivery.deadLetter) || self.delivery.deadLetter.topic != self.stream",
        "an event would circle for ever: name another stream in delivery.deadLetter"
    )
)]
#[serde(rename_all = "kebab-case")]
pub struct KinesisTriggerSpec {
    /// Function of the same namespace that receives each record.
    #[schemars(length(min = 1, max = 63))]
    pub function_name: String,
    /// Region of the stream, e.g. `eu-central-1`.
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[a-z0-9-]+$"))]
    pub aws_region: String,
    /// Name of the stream.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[a-zA-Z0-9_.-]+$"))]
    pub stream: String,
    /// The one shard that is read, e.g. `shardId-000000000000`. Default: all, also after splits and merges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[a-zA-Z0-9_.-]+$"))]
    pub shard: Option<String>,
    /// Secret of the same namespace with the keys `aws_access_key_id` and `aws_secret_access_key`. Default: the identity of
    /// the dispatcher's Pod or instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret: Option<String>,
    /// URL of the service in place of Amazon's own. Default: that of the region.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 2048))]
    pub endpoint: String,
    /// Where a trigger that has never read begins. Default LATEST.
    #[serde(default, rename = "startingPosition")]
    pub starting_position: StartingPosition,
    /// Instant (RFC 3339) of `startingPosition: AT_TIMESTAMP`.
    #[serde(default, rename = "startingTimestamp", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub starting_timestamp: Option<String>,
    /// What all triggers share.
    #[serde(flatten)]
    pub groups: TriggerGroups,
}

/// Where a trigger that has never read begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StartingPosition {
    /// Records that arrive from now on.
    #[default]
    #[serde(rename = "LATEST")]
    Latest,
    /// The oldest record that the stream still holds.
    #[serde(rename = "TRIM_HORIZON")]
    TrimHorizon,
    /// The first record that arrived at or after `startingTimestamp`.
    #[serde(rename = "AT_TIMESTAMP")]
    AtTimestamp,
}

impl Trigger for KinesisTrigger {
    const KIND: &'static str = KIND.kind;

    fn groups(&self) -> SharedGroups<'_> {
        self.spec.groups.of(Functions::Named(&self.spec.function_name))
    }

    fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        let spec = &self.spec;
        if let Some(secret) = spec.secret.as_ref().filter(|secret| !selector::is_subdomain(secret)) {
            let what = format!("{secret:?} is not the name of a Secret");
            violations.push(Violation::new("/spec/secret", what, "write its name (a-z, 0-9, '-', '.')"));
        }
        let endpoint = spec.endpoint.as_str();
        if !endpoint.is_empty() && !is_service_url(endpoint) {
            let what = format!("{endpoint:?} is not the URL of a service");
            let fix = "write for example http://localhost:4566";
            violations.push(Violation::new("/spec/endpoint", what, fix));
        }
        self.check_start(&mut violations);
        if spec.groups.dedup.key.as_ref().is_some_and(|key| key.header.is_some()) {
            let (what, fix) = ("a record has no headers", "use jsonPointer or recordKey");
            violations.push(Violation::new("/spec/dedup/key/header", what, fix));
        }
        if let Some(dead_letter) = &spec.groups.delivery.dead_letter {
            let (name, at) = (dead_letter.topic.as_str(), "/spec/delivery/deadLetter/topic");
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
            if name.len() > 128 || !name.bytes().all(plain) {
                let fix = "write 1 to 128 of a-z, A-Z, 0-9, '_', '-' and '.'";
                violations.push(Violation::new(at, format!("{name:?} is not the name of a stream"), fix));
            }
            if name == spec.stream {
                let what =
                    "the dead-letter stream is the stream that is read: an event would circle for ever";
                violations.push(Violation::new(at, what, "name another stream"));
            }
        }
        violations
    }
}

impl KinesisTrigger {
    fn check_start(&self, violations: &mut Vec<Violation>) {
        let at = "/spec/startingTimestamp";
        match (self.spec.starting_position, &self.spec.starting_timestamp) {
            (StartingPosition::AtTimestamp, None) => violations.push(Violation::new(
                "/spec/startingPosition",
                "startingPosition: AT_TIMESTAMP needs startingTimestamp",
                "add startingTimestamp, for example \"2026-11-23T10:00:00Z\"",
            )),
            (StartingPosition::AtTimestamp, Some(text)) if text.parse::<jiff::Timestamp>().is_err() => {
                let fix = "write RFC 3339, for example \"2026-11-23T10:00:00Z\"";
                violations.push(Violation::new(at, format!("{text:?} is not an instant"), fix));
            }
            (StartingPosition::AtTimestamp, Some(_)) | (_, None) => {}
            (_, Some(_)) => violations.push(Violation::new(
                at,
                "startingTimestamp only goes with startingPosition: AT_TIMESTAMP",
                "write startingPosition: AT_TIMESTAMP, or remove startingTimestamp",
            )),
        }
    }
}

fn is_service_url(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    })
}

/// Reads and checks a whole KinesisTrigger; the typed object is a [`KinesisTrigger`].
///
/// # Errors
/// Everything that is wrong with it.
pub fn decode(object: serde_json::Value) -> Result<TriggerObject, Vec<Violation>> {
    static CHECKER: Checker = Checker::new(KinesisTrigger::crd);
    CHECKER.trigger::<KinesisTrigger>(object)
}
