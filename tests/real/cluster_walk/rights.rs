//! What the installation's service accounts were granted against what they asked for, by the API server's own audit log. Must never
//! read the product's lists of rights for the granted side: the Roles that were applied are asked.

use super::super::support::{cluster::Cluster, installed};
use serde_json::Value;
use std::collections::BTreeSet;

/// When the walk began: the audit log of a cluster that is kept holds more.
pub struct Begun(String);

impl Begun {
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().to_string())
    }
}

/// Nothing was refused, and all that is granted was used.
pub fn judge(cluster: &Cluster, begun: &Begun) {
    let audit = cluster.audit();
    for account in ["kubeless-controller", "kubeless-dispatcher"] {
        let user = format!("system:serviceaccount:{}:{account}", installed::NAMESPACE);
        let refused: Vec<&Value> = audit
            .iter()
            // Both are RFC 3339 in UTC, with at least the microseconds of the log: their texts compare as times.
            .filter(|event| {
                event["requestReceivedTimestamp"].as_str().is_some_and(|at| at > begun.0.as_str())
            })
            .filter(|event| event["user"]["username"] == user.as_str() && is_refusal(event))
            .map(|event| &event["requestURI"])
            .collect();
        assert!(refused.is_empty(), "{account} was refused: {refused:#?}");
        let used = cluster.used_by(&user);
        let granted = granted(cluster, account);
        assert!(!granted.is_empty(), "{account}: its roles are not found");
        let unused: BTreeSet<&String> = granted.difference(&used).collect();
        assert!(unused.is_empty(), "{account}: granted and never used: {unused:#?}");
        println!("{account}: {} rights granted, all of them used, none refused", granted.len());
    }
}

fn is_refusal(event: &Value) -> bool {
    event["annotations"]["authorization.k8s.io/decision"] == "forbid"
        || event["responseStatus"]["code"] == 403
}

/// `verb group/resource` of every rule that is bound to the account.
fn granted(cluster: &Cluster, account: &str) -> BTreeSet<String> {
    let mut granted = BTreeSet::new();
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    for kind in ["clusterroles", "roles"] {
        let list = cluster.get(installed::NAMESPACE, kind);
        for role in list["items"].as_array().into_iter().flatten() {
            let name = role["metadata"]["name"].as_str().unwrap_or_default();
            if name != account && name != format!("{account}-installation") {
                continue;
            }
            for rule in role["rules"].as_array().into_iter().flatten() {
                for group in texts(&rule["apiGroups"]) {
                    for resource in texts(&rule["resources"]) {
                        granted.extend(
                            texts(&rule["verbs"]).iter().map(|verb| format!("{verb} {group}/{resource}")),
                        );
                    }
                }
            }
        }
    }
    granted
}
