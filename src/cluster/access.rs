//! What the dispatcher asks of an API server: every verb on every resource, the list that roles are written from. Must
//! never leave out a request that the code makes, nor hold one that it does not.

use super::watch::Subject;
use crate::api::kind::TriggerKind;

/// The Lease's name, unless `status.lease` says another.
pub const LEASE: &str = "kubeless-dispatcher";

/// Some verbs on some resources of one API group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// API group; the core group is empty.
    pub group: &'static str,
    /// Resources (and subresources) of it.
    pub resources: Vec<String>,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// Whether the right should be given for named objects only (`resourceNames`), which an operator chooses.
    pub by_name: bool,
    /// Names that it is given for; empty: any.
    pub names: &'static [&'static str],
    /// Whether it is needed in the dispatcher's own namespace, not where functions live.
    pub own: bool,
    /// What for, and what happens without.
    pub purpose: &'static str,
}

/// Everything that the dispatcher may ask, in a Role of each namespace that it serves or in one ClusterRole.
pub fn dispatcher(kinds: &[TriggerKind]) -> Vec<Rule> {
    let triggers: Vec<String> = kinds.iter().map(|kind| Subject::Triggers(*kind).resource().plural).collect();
    let statuses = triggers.iter().map(|plural| format!("{plural}/status")).collect();
    let leases = || vec!["leases".to_owned()];
    let mut ours = triggers;
    ours.insert(0, "functions".to_owned());
    let rule = |group, resources: Vec<String>, verbs, purpose| Rule {
        group,
        resources,
        verbs,
        by_name: false,
        names: &[],
        own: false,
        purpose,
    };
    let named = |rule: Rule| Rule { by_name: true, ..rule };
    vec![
        rule(
            "kubeless.io",
            ours,
            &["list", "watch"],
            "what to serve; without it the dispatcher is not ready",
        ),
        rule(
            "kubeless.io",
            vec!["cronjobtriggers/status".to_owned()],
            &["get", "patch"],
            "claims of calls by the clock; without it a CronJobTrigger with `executor: Dispatcher` is not served",
        ),
        rule("", vec!["services".to_owned()], &["list", "watch"], "ports and framing of functions"),
        rule(
            "discovery.k8s.io",
            vec!["endpointslices".to_owned()],
            &["list", "watch"],
            "ready pods of functions; if it is refused, their Services' own addresses are called",
        ),
        named(rule(
            "",
            vec!["secrets".to_owned()],
            &["get"],
            "credentials that triggers name; not needed if no trigger names any, or with `kubernetes.credentials = \"files\"`",
        )),
        rule(
            "kubeless.io",
            statuses,
            &["patch"],
            "conditions and counters, written by the replica that is elected",
        ),
        Rule {
            own: true,
            ..rule("coordination.k8s.io", leases(), &["create"], "the election of that replica")
        },
        Rule {
            own: true,
            names: &[LEASE],
            ..rule("coordination.k8s.io", leases(), &["get", "update"], "the election of that replica")
        },
        Rule {
            own: true,
            ..rule(
                "coordination.k8s.io",
                leases(),
                &["create", "delete", "get", "list", "update"],
                "registers of sources that have none of their own; not needed where they are kept in a folder",
            )
        },
    ]
}

/// The list as a table of a document.
pub fn to_markdown(rules: &[Rule]) -> String {
    let mut table = String::from(
        "| API group | resources | verbs | where | by name only | what for |\n|---|---|---|---|---|---|\n",
    );
    for rule in rules {
        let words =
            |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let group = if rule.group.is_empty() { "(core)" } else { rule.group };
        let resources: Vec<&str> = rule.resources.iter().map(String::as_str).collect();
        table.push_str(&format!(
            "| {group} | {} | {} | {} | {} | {} |\n",
            words(&resources),
            words(rule.verbs),
            if rule.own { "own namespace" } else { "functions" },
            if rule.by_name { "operator's choice".to_owned() } else { words(rule.names) },
            rule.purpose
        ));
    }
    table
}
