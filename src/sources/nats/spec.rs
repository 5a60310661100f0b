//! `NATSTrigger`: the resource of this source and its checks, under the old JSON names. Must never open a connection.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::api::{
    Violation,
    checker::Checker,
    kind::{Trigger, TriggerKind, TriggerObject, always_dispatcher},
    trigger::{Functions, SharedGroups, TriggerGroups, TriggerStatus},
};

/// The registration of this kind.
pub const KIND: TriggerKind = TriggerKind {
    kind: "NATSTrigger",
    finalizer: "kubeless.io/natstrigger",
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
#[x_kube(validation = (
    "!has(self.dedup.key) || !has(self.dedup.key.recordKey)",
    "a message has no key: use dedup.key.header or jsonPointer"
))]
#[serde(rename_all = "camelCase")]
pub struct NATSTriggerSpec {
    /// Subject to listen to; `*` and `>` are wildcards.
    #[schemars(length(min = 1, max = 512), regex(pattern = "^[^ \\t\\r\\n]+$"))]
    pub topic: String,
    /// Functions of the same namespace that receive each message. Empty: every function of the namespace.
    #[serde(default)]
    pub function_selector: LabelSelector,
    /// What all triggers share.
    #[serde(flatten)]
    pub groups: TriggerGroups,
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
        if self.spec.groups.dedup.key.as_ref().is_some_and(|key| key.record_key.is_some()) {
            let what = "a message has no key";
            violations.push(Violation::new("/spec/dedup/key/recordKey", what, "use header or jsonPointer"));
        }
        violations
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
