//! `NATSTrigger`: the resource of this source and its checks, under the old JSON names. Must never open a connection.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client;
use crate::api::{
    Violation,
    checker::Checker,
    kind::{Trigger, TriggerKind, TriggerObject, always_dispatcher},
    selector,
    trigger::{Functions, SharedGroups, TriggerGroups, TriggerStatus},
};

/// The registration of this kind.
pub const KIND: TriggerKind = TriggerKind {
    kind: "NATSTrigger",
    finalizer: Some("kubeless.io/natstrigger"),
    crd: NATSTrigger::crd,
    decode,
    acts: always_dispatcher,
};

const SUBJECT_FIX: &str =
    "write tokens separated by dots, without spaces; * stands for one token, > at the end for one or more";

/// Messages of a NATS subject, one call per message and selected function.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kubeless.io",
    version = "v1beta1",
    kind = "NATSTrigger",
    namespaced,
    status = "TriggerStatus",
    derive = "PartialEq",
    shortname = "nt",
    category = "kubeless",
    category = "triggers",
    doc = "Messages of a NATS subject, one call per message and selected function.",
    selectable = ".spec.topic",
    printcolumn = r#"{"name": "Subject", "type": "string", "jsonPath": ".spec.topic"}"#,
    printcolumn = r#"{"name": "Selector", "type": "string", "jsonPath": ".spec.functionSelector.matchLabels"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Paused", "type": "boolean", "jsonPath": ".spec.paused", "priority": 1}"#
)]
#[x_kube(
    validation = (
        "!has(self.dedup.key) || !has(self.dedup.key.recordKey)",
        "a message has no key: use dedup.key.header or jsonPointer"
    ),
    validation = (
        "has(self.stream) || (!has(self.durable) && !has(self.startingPosition))",
        "durable and startingPosition only go with stream"
    ),
    validation = (
        "!has(self.stream) || !has(self.reply) || !self.reply",
        "a stream's messages are not answered: their reply subject is the stream's own"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct NATSTriggerSpec {
    /// Subject to listen to; `*` and `>` are wildcards.
    #[schemars(length(min = 1, max = 512), regex(pattern = "^[^ \\t\\r\\n]+$"))]
    pub topic: String,
    /// Functions of the same namespace that receive each message. Empty: every function of the namespace.
    #[serde(default)]
    pub function_selector: LabelSelector,
    /// JetStream stream to read `topic` from, better with three copies. Default: none, messages as they pass by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[^ .*>/\\\\\\t\\r\\n]+$"))]
    pub stream: Option<String>,
    /// Durable consumer of the stream; each function's own is `<durable>_<function>`. Default `<namespace>_<trigger>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[^ .*>/\\\\\\t\\r\\n]+$"))]
    pub durable: Option<String>,
    /// Where a consumer that is new begins in the stream. Default latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_position: Option<StartingPosition>,
    /// Whether the function's answer is published to a message's reply subject. Default false; not with `stream`.
    #[serde(default)]
    pub reply: bool,
    /// Servers as nats://host:port, separated by commas. Default: the dispatcher's own (`NATS_URL`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub url: Option<String>,
    /// Name of the Secret (or credentials folder) with user, token, key or certificates. Never a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub credentials: Option<String>,
    /// Encryption of the connection.
    #[serde(default)]
    pub tls: TlsSpec,
    /// What all triggers share.
    #[serde(flatten)]
    pub groups: TriggerGroups,
}

/// Where a consumer that is new begins in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StartingPosition {
    /// Messages that arrive from now on.
    Latest,
    /// The oldest message that the stream still holds.
    Earliest,
}

/// Encryption of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsSpec {
    /// Whether an unencrypted connection is refused. Default false: the server decides.
    pub enabled: bool,
}

impl Trigger for NATSTrigger {
    const KIND: &'static str = KIND.kind;

    fn groups(&self) -> SharedGroups<'_> {
        self.spec.groups.of(Functions::Selected(&self.spec.function_selector))
    }

    fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut check = |subject: &str, path: &str| {
            if !is_subject(subject) {
                let what = format!("{subject:?} is not a subject");
                violations.push(Violation::new(path, what, SUBJECT_FIX));
            }
        };
        check(&self.spec.topic, "/spec/topic");
        if let Some(dead_letter) = &self.spec.groups.delivery.dead_letter {
            let subject = dead_letter.topic.as_str();
            // Nothing can be published to a wildcard.
            check(if subject.contains(['*', '>']) { "" } else { subject }, "/spec/delivery/deadLetter/topic");
        }
        self.check_access(&mut violations);
        self.check_stream(&mut violations);
        if self.spec.groups.dedup.key.as_ref().is_some_and(|key| key.record_key.is_some()) {
            let what = "a message has no key";
            violations.push(Violation::new("/spec/dedup/key/recordKey", what, "use header or jsonPointer"));
        }
        violations
    }
}

impl NATSTrigger {
    fn check_stream(&self, violations: &mut Vec<Violation>) {
        let spec = &self.spec;
        if spec.reply && spec.stream.is_some() {
            let what = "a stream's messages are not answered: their reply subject is the stream's own";
            violations.push(Violation::new("/spec/reply", what, "remove reply, or stream"));
        }
        let orphans =
            [("durable", spec.durable.is_some()), ("startingPosition", spec.starting_position.is_some())];
        for (field, _) in orphans.into_iter().filter(|(_, there)| *there && spec.stream.is_none()) {
            let what = format!("{field} only goes with stream");
            let fix = "name the stream in spec.stream, or remove it";
            violations.push(Violation::new(format!("/spec/{field}"), what, fix));
        }
    }

    fn check_access(&self, violations: &mut Vec<Violation>) {
        if let Some(name) = self.spec.credentials.as_ref().filter(|name| !selector::is_dns_label(name)) {
            let what = format!("{name:?} is not the name of a Secret or credentials folder");
            let fix = "write its name (a-z, 0-9, '-'), not a path";
            violations.push(Violation::new("/spec/credentials", what, fix));
        }
        let Some(url) = &self.spec.url else { return };
        if url.contains('@') {
            let fix = "put user and password into a Secret and name it in spec.credentials";
            violations.push(Violation::new("/spec/url", "an address with a user or token inside", fix));
        } else if client::servers(url, "spec.url").is_err() {
            let fix = "write nats://host:port, several with commas";
            violations.push(Violation::new("/spec/url", format!("{url:?} is not a list of servers"), fix));
        }
    }
}

/// Whether one can subscribe to `subject`.
pub fn is_subject(subject: &str) -> bool {
    let tokens: Vec<&str> = subject.split('.').collect();
    let last = tokens.len() - 1;
    tokens.iter().enumerate().all(|(at, token)| {
        let plain = !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || c.is_control());
        // A wildcard is a whole token; the one for "all the rest" is the last.
        plain && (*token == "*" || (*token == ">" && at == last) || !token.contains(['*', '>']))
    })
}

/// Reads and checks a whole NATSTrigger; the typed object is a [`NATSTrigger`].
///
/// # Errors
/// Everything that is wrong with it.
pub fn decode(object: serde_json::Value) -> Result<TriggerObject, Vec<Violation>> {
    static CHECKER: Checker = Checker::new(NATSTrigger::crd);
    CHECKER.trigger::<NATSTrigger>(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_told_from_other_texts() {
        for good in ["a", "a.b", "orders.*", "*.created", "orders.>", ">", "A-b_9.ü"] {
            assert!(is_subject(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a.>.b", "a.b>", "a*", "a\tb"] {
            assert!(!is_subject(bad), "{bad}");
        }
    }
}
