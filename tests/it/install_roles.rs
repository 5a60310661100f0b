//! The roles under `deploy/kustomize` grant what the programs say that they ask for, and nothing else. What they really ask for is
//! compared with the same lists by tests/real. `UPDATE=1` rewrites the files.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use kubeless::{cluster::access, sources::TRIGGERS};
use std::{fmt::Write as _, fs, path::Path};

const HEAD: &str = "# What the programs may do. Generated from src/cluster/access.rs; UPDATE=1 cargo test --test it install_roles\n\
     # rewrites it.\n";
struct Rule {
    group: String,
    resources: Vec<String>,
    verbs: Vec<&'static str>,
    names: Vec<&'static str>,
    why: String,
}

impl Rule {
    fn write(&self, text: &mut String) {
        let list = |words: &[&str]| words.join(", ");
        let resources: Vec<&str> = self.resources.iter().map(String::as_str).collect();
        let _ = writeln!(text, "  # {}", self.why);
        let _ =
            writeln!(text, "  - apiGroups: [{}]", if self.group.is_empty() { "\"\"" } else { &self.group });
        let _ = writeln!(text, "    resources: [{}]", list(&resources));
        if !self.names.is_empty() {
            let _ = writeln!(text, "    resourceNames: [{}]", list(&self.names));
        }
        let _ = writeln!(text, "    verbs: [{}]", list(&self.verbs));
    }
}

fn of_the_dispatcher() -> Vec<Rule> {
    let rules = access::dispatcher(TRIGGERS).into_iter();
    rules
        // Only ever by name, in the namespaces and for the names that an operator grants: docs/kubernetes.md.
        .filter(|rule| rule.resources != ["secrets"])
        .map(|rule| Rule {
            group: rule.group.to_owned(),
            resources: rule.resources,
            verbs: rule.verbs.to_vec(),
            names: Vec::new(),
            why: rule.purpose.to_owned(),
        })
        .collect()
}

/// A role and its binding to the account of the same program.
fn role(kind: &str, name: &str, account: &str, rules: &[Rule]) -> String {
    let meta = format!("metadata:\n  name: {name}\n  labels: {{app.kubernetes.io/part-of: kubeless}}\n");
    let mut text = format!("apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\n{meta}rules:\n");
    rules.iter().for_each(|rule| rule.write(&mut text));
    let _ = write!(
        text,
        "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}Binding\n{meta}\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {kind}, name: {name}}}\n\
         subjects: [{{kind: ServiceAccount, name: {account}}}]\n"
    );
    text
}

fn is_fresh(path: &str, parts: &[String]) {
    let text = format!("{HEAD}{}", parts.join("---\n"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize").join(path);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let same = fs::read_to_string(&file).unwrap() == text;
    assert!(same, "{path} is stale: run UPDATE=1 cargo test --test it install_roles");
}

#[test]
fn the_roles_are_what_the_programs_ask_for() {
    let dispatcher = "kubeless-dispatcher";
    is_fresh("base/roles.yaml", &[role("ClusterRole", dispatcher, dispatcher, &of_the_dispatcher())]);
    is_fresh("overlays/namespaced/roles.yaml", &[role("Role", dispatcher, dispatcher, &of_the_dispatcher())]);
}

#[test]
fn nothing_is_granted_that_is_not_named() {
    for rule in of_the_dispatcher() {
        let words = [&rule.group]
            .into_iter()
            .chain(&rule.resources)
            .map(String::as_str)
            .chain(rule.verbs.iter().copied());
        assert!(!words.into_iter().any(|word| word.contains('*')), "{}", rule.why);
        for never in ["secrets", "pods/exec", "roles", "clusterroles", "serviceaccounts/token", "nodes"] {
            assert!(!rule.resources.iter().any(|resource| resource == never), "{never}");
        }
    }
}
