//! `CustomTrigger`: the resource of this source and its checks. Must never hold a token, only the name of what holds it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::api::{
    Violation,
    checker::Checker,
    kind::{Trigger, TriggerKind, TriggerObject, always_dispatcher},
    selector,
    trigger::{Functions, SharedGroups, TriggerGroups, TriggerStatus},
};

/// The registration of this kind.
pub const KIND: TriggerKind = TriggerKind {
    kind: "CustomTrigger",
    finalizer: None,
    crd: CustomTrigger::crd,
    decode,
    acts: always_dispatcher,
};

/// CloudEvents that a program of yours pushes, one call per event and selected function.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kubeless.io",
    version = "v1beta1",
    kind = "CustomTrigger",
    namespaced,
    status = "TriggerStatus",
    derive = "PartialEq",
    shortname = "cst",
    category = "kubeless",
    category = "triggers",
    doc = "CloudEvents that a program of yours pushes, one call per event and selected function.",
    printcolumn = r#"{"name": "Function", "type": "string", "jsonPath": ".spec.function-name"}"#,
    printcolumn = r#"{"name": "Selector", "type": "string", "jsonPath": ".spec.functionSelector.matchLabels"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Paused", "type": "boolean", "jsonPath": ".spec.paused", "priority": 1}"#
)]
#[x_kube(
    validation = (
        "!has(self.function__dash__name) || !has(self.functionSelector) || (!has(self.functionSelector.matchLabels) && !has(self.functionSelector.matchExpressions))",
        "function-name and functionSelector exclude each other"
    ),
    validation = (
        "!has(self.dedup.enabled) || self.dedup.enabled",
        "an event is claimed by its source and id: remove dedup.enabled"
    ),
    validation = (
        "!has(self.dedup.key)",
        "a CloudEvent is named by its source and id: remove dedup.key"
    ),
    validation = (
        "!has(self.delivery.deadLetter)",
        "a pushed event has no topic beside it: remove delivery.deadLetter"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct CustomTriggerSpec {
    /// The one function of the same namespace that receives each event. Excludes `functionSelector`.
    #[serde(default, rename = "function-name", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub function_name: Option<String>,
    /// Functions of the same namespace that receive each event. Empty: every function of the namespace.
    #[serde(default)]
    pub function_selector: LabelSelector,
    /// Name of the Secret (or credentials folder) whose key `token` holds what a program must show, one token a line. Without
    /// it only a listener on the loopback serves the trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub secret: Option<String>,
    /// What all triggers share.
    #[serde(flatten)]
    pub groups: TriggerGroups,
}

impl Trigger for CustomTrigger {
    const KIND: &'static str = KIND.kind;

    fn groups(&self) -> SharedGroups<'_> {
        let spec = &self.spec;
        let selected = Functions::Selected(&spec.function_selector);
        spec.groups.of(spec.function_name.as_deref().map_or(selected, Functions::Named))
    }

    fn violations(&self) -> Vec<Violation> {
        let (spec, mut violations) = (&self.spec, Vec::new());
        let mut say = |wrong: bool, path: &str, what: &str, fix: &str| {
            if wrong {
                violations.push(Violation::new(path, what, fix));
            }
        };
        let both = spec.function_name.is_some() && spec.function_selector != LabelSelector::default();
        say(
            both,
            "/spec/function-name",
            "function-name and functionSelector exclude each other",
            "remove one",
        );
        let odd = spec.secret.as_ref().is_some_and(|name| !selector::is_dns_label(name));
        let fix = "write its name (a-z, 0-9, '-'), not a path";
        say(odd, "/spec/secret", "it is not the name of a Secret or credentials folder", fix);
        let groups = &spec.groups;
        let what = "an event is claimed by its source and id";
        say(!groups.dedup.enabled, "/spec/dedup/enabled", what, "remove it");
        say(groups.dedup.key.is_some(), "/spec/dedup/key", what, "remove it and give each event its own id");
        let what = "a pushed event has no topic beside it where it could be kept";
        let fix = "remove it; whoever pushes is told the outcome";
        say(groups.delivery.dead_letter.is_some(), "/spec/delivery/deadLetter", what, fix);
        violations
    }
}

/// Reads and checks a whole CustomTrigger; the typed object is a [`CustomTrigger`].
///
/// # Errors
/// Everything that is wrong with it.
pub fn decode(object: serde_json::Value) -> Result<TriggerObject, Vec<Violation>> {
    static CHECKER: Checker = Checker::new(CustomTrigger::crd);
    CHECKER.trigger::<CustomTrigger>(object)
}
