//! The roles under `deploy/kustomize` grant what the programs say that they ask for, and nothing else. What they really ask for is
//! compared with the same lists by tests/real. `UPDATE=1` rewrites the files.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use kubeless::{
    cluster::access,
    controller::{
        args::ControllerArgs,
        permissions::{self, Place},
    },
    sources::TRIGGERS,
};
use std::{fmt::Write as _, fs, path::Path};

const HEAD: &str = "# What the programs may do. Generated from src/cluster/access.rs and src/controller/permissions.rs; UPDATE=1 cargo test\n\
     # --test it install_roles rewrites it.\n";
/// Objects of the installation itself are granted by their names.
const CONFIG_MAP: &str = "kubeless-config";
const LEASE: &str = "kubeless-controller";

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

/// `own`: what is asked of the installation's own namespace; else where functions live.
fn of_the_dispatcher(own: bool) -> Vec<Rule> {
    let rules = access::dispatcher(TRIGGERS).into_iter();
    rules
        // Only ever by name, in the namespaces and for the names that an operator grants: docs/kubernetes.md.
        .filter(|rule| !rule.by_name && rule.own == own)
        .map(|rule| Rule {
            group: rule.group.to_owned(),
            resources: rule.resources,
            verbs: rule.verbs.to_vec(),
            names: rule.names.to_vec(),
            why: rule.purpose.to_owned(),
        })
        .collect()
}

fn of_the_controller(place: Place) -> Vec<Rule> {
    let used = permissions::used(TRIGGERS).into_iter().filter(|used| used.place == place);
    used.flat_map(|used| {
        let rule = |verbs: Vec<&'static str>, names| Rule { verbs, names, ..plain(&used) };
        match (place, &*used.resource) {
            (Place::Own, "configmaps") => vec![rule(used.verbs.to_vec(), vec![CONFIG_MAP])],
            // What is to be created has no name that could be looked at.
            (Place::Own, "leases") => {
                let (create, others): (Vec<_>, Vec<_>) =
                    used.verbs.iter().partition(|verb| **verb == "create");
                vec![rule(create, Vec::new()), rule(others, vec![LEASE])]
            }
            _ => vec![plain(&used)],
        }
    })
    .collect()
}

fn plain(used: &permissions::Permission) -> Rule {
    Rule {
        group: used.group.to_owned(),
        resources: vec![used.resource.to_string()],
        verbs: used.verbs.to_vec(),
        names: Vec::new(),
        why: used.why.to_owned(),
    }
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
    let (dispatcher, controller) = ("kubeless-dispatcher", "kubeless-controller");
    let (served, own) = (of_the_controller(Place::Functions), of_the_controller(Place::Own));
    let installation = "kubeless-controller-installation";
    let dispatchers = "kubeless-dispatcher-installation";
    is_fresh(
        "base/roles.yaml",
        &[
            role("ClusterRole", dispatcher, dispatcher, &of_the_dispatcher(false)),
            role("Role", dispatchers, dispatcher, &of_the_dispatcher(true)),
            role("ClusterRole", controller, controller, &served),
            role("Role", installation, controller, &own),
        ],
    );
    is_fresh(
        "overlays/namespaced/roles.yaml",
        &[
            role("Role", dispatcher, dispatcher, &of_the_dispatcher(false)),
            role("Role", dispatchers, dispatcher, &of_the_dispatcher(true)),
            role("Role", controller, controller, &served),
            role("Role", installation, controller, &own),
        ],
    );
}

#[test]
fn what_guarded_owners_ask_for_is_granted_by_its_overlay_alone() {
    let name = "kubeless-controller-owners";
    let rules: Vec<Rule> = permissions::GUARDED_OWNERS.iter().map(plain).collect();
    is_fresh("overlays/openshift/roles.yaml", &[role("ClusterRole", name, "kubeless-controller", &rules)]);
}

#[test]
fn nothing_is_granted_that_is_not_named() {
    let all = of_the_dispatcher(false)
        .into_iter()
        .chain(of_the_dispatcher(true))
        .chain(of_the_controller(Place::Functions))
        .chain(of_the_controller(Place::Own));
    for rule in all {
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
    // The manifests give namespace and ConfigMap, so definitions are not asked.
    assert_eq!(of_the_controller(Place::Cluster).len(), 1);
}

/// The names that the roles name are those that the controller uses with the manifests' flags.
#[test]
fn names_are_the_controllers() {
    use clap::Parser;
    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        controller: ControllerArgs,
    }
    let manifest = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize/programs/controller.yaml"),
    )
    .unwrap();
    assert!(manifest.contains(&format!("- name: KUBELESS_CONFIG\n              value: {CONFIG_MAP}\n")));
    assert_eq!(Flags::parse_from(["kubeless-controller"]).controller.lease_name(), LEASE);
}
