//! Documents and examples say what the program does: generated pages are equal to it (`UPDATE=1` rewrites them), written
//! ones leave nothing out, examples load. Must never check prose.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use kubeless::{
    api::{conditions, cronjob_trigger, http_trigger},
    cluster::{
        access,
        manifests::{self, Limits, Manifests},
    },
    invoker::Reason,
    ledger::Outcome,
    sources::{
        KINDS, TRIGGERS, cron, custom, http,
        kafka::{decode::Rejection, options::Options},
        nats,
    },
    telemetry::metrics,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Folders below `config/examples` that hold manifests.
fn examples() -> Vec<PathBuf> {
    let folders = fs::read_dir(root().join("config/examples")).unwrap().map(|entry| entry.unwrap().path());
    let is_manifest = |path: &Path| path.extension().is_some_and(|end| end == "yaml" || end == "yml");
    folders
        .filter(|folder| folder.is_dir())
        .filter(|folder| fs::read_dir(folder).unwrap().any(|file| is_manifest(&file.unwrap().path())))
        .collect()
}

#[test]
fn every_example_loads_and_each_trigger_selects_a_function() {
    let folders = examples();
    assert!(folders.len() >= 2, "{folders:?}");
    for folder in folders {
        let found: Manifests = manifests::load(&folder, TRIGGERS, &Limits::default());
        let told = folder.display();
        assert!(found.problems.is_empty(), "{told}: {:?}", found.problems);
        assert!(found.ignored.is_empty(), "{told}: {:?}", found.ignored);
        assert!(!found.triggers.is_empty(), "{told} has no trigger");
        for ((_, reference), trigger) in &found.triggers {
            let selector = &trigger.object.core.selector;
            let selected = found.functions.iter().any(|(name, function)| {
                let labels = function.object.metadata.labels.clone().unwrap_or_default();
                name.namespace == reference.namespace && selector.matches(&name.name, &labels)
            });
            assert!(selected, "{told}: {reference} selects no function");
        }
    }
}

/// Dotted names of all fields that a schema describes, groups left out.
fn leaves(schema: &serde_json::Value, path: &str, found: &mut BTreeSet<String>) {
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    match properties {
        Some(properties) if path != "functionSelector" && path != "dedup.key" => {
            for (name, inner) in properties {
                let dotted = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(inner, &dotted, found);
            }
        }
        _ => drop(found.insert(path.to_owned())),
    }
}

#[test]
fn the_page_of_a_trigger_leaves_nothing_out() {
    let page = read("docs/triggers/kafka.md");
    let crd = serde_json::to_value((KINDS[0].trigger().crd)()).unwrap();
    let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
    let mut wanted = BTreeSet::new();
    leaves(spec, "", &mut wanted);
    assert!(wanted.contains("delivery.deadLetter.topic"), "{wanted:?}");
    wanted.extend(Outcome::ALL.map(|outcome| outcome.as_str().to_owned()));
    wanted.extend(Reason::ALL.iter().map(|reason| reason.as_str().to_owned()));
    wanted.extend(Rejection::REASONS.map(str::to_owned));
    wanted.extend(toml::Table::try_from(Options::default()).unwrap().keys().cloned());
    let missing: Vec<_> = wanted.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/triggers/kafka.md does not name {missing:?}");
}

#[test]
fn the_page_of_the_nats_trigger_leaves_nothing_out() {
    let page = read("docs/triggers/nats.md");
    let crd = serde_json::to_value((nats::spec::KIND.crd)()).unwrap();
    let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
    let mut wanted = BTreeSet::new();
    leaves(spec, "", &mut wanted);
    wanted.extend(toml::Table::try_from(nats::options::Options::default()).unwrap().keys().cloned());
    let missing: Vec<_> = wanted.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/triggers/nats.md does not name {missing:?}");
}

#[test]
fn the_page_of_the_clock_leaves_nothing_out() {
    let page = read("docs/triggers/cron.md");
    let crd = serde_json::to_value((cronjob_trigger::KIND.crd)()).unwrap();
    let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
    let mut wanted = BTreeSet::new();
    leaves(spec, "", &mut wanted);
    // What no clock has.
    wanted.retain(|name| !name.starts_with("dedup") && !name.starts_with("delivery.deadLetter"));
    wanted.extend(toml::Table::try_from(cron::options::Options::default()).unwrap().keys().cloned());
    wanted.extend(["missed", "in_doubt", "unanswered"].map(str::to_owned));
    let missing: Vec<_> = wanted.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/triggers/cron.md does not name {missing:?}");
}

#[test]
fn the_page_of_requests_leaves_nothing_out() {
    let page = read("docs/triggers/http.md");
    let crd = serde_json::to_value((http_trigger::KIND.crd)()).unwrap();
    let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
    let mut wanted = BTreeSet::new();
    leaves(spec, "", &mut wanted);
    // A request has no topic beside it.
    wanted.retain(|name| !name.starts_with("delivery.deadLetter"));
    wanted.extend(toml::Table::try_from(http::options::Options::default()).unwrap().keys().cloned());
    let missing: Vec<_> = wanted.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/triggers/http.md does not name {missing:?}");
}

#[test]
fn the_page_of_the_custom_trigger_leaves_nothing_out() {
    let page = read("docs/triggers/custom.md");
    let crd = serde_json::to_value((custom::spec::KIND.crd)()).unwrap();
    let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
    let mut wanted = BTreeSet::new();
    leaves(spec, "", &mut wanted);
    // A pushed event has no topic beside it.
    wanted.retain(|name| !name.starts_with("delivery.deadLetter"));
    wanted.extend(toml::Table::try_from(custom::options::Options::default()).unwrap().keys().cloned());
    let missing: Vec<_> = wanted.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/triggers/custom.md does not name {missing:?}");
}

#[test]
fn every_crash_point_is_in_the_architecture() {
    let page = read("docs/ARCHITECTURE.md");
    let (mut folders, mut names) = (vec![root().join("src")], BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let found = text.split("testkit::point(\"").skip(1).filter_map(|rest| rest.split('"').next());
            names.extend(found.map(str::to_owned));
        }
    }
    assert!(names.contains("claim_sent"), "{names:?}");
    let missing: Vec<_> = names.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/ARCHITECTURE.md, Crash points, does not name {missing:?}");
}

#[test]
fn generated_pages_are_fresh() {
    for (name, page) in [("metrics", metrics::to_markdown()), ("conditions", conditions::markdown())] {
        let path = root().join(format!("docs/{name}.md"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &page).unwrap();
        }
        let stored = fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == page, "{} is stale: run UPDATE=1 cargo test --test it docs", path.display());
    }
}

#[test]
fn the_rights_of_the_dispatcher_are_told() {
    let path = root().join("docs/kubernetes.md");
    let page = fs::read_to_string(&path).unwrap();
    let (begin, end) = ("it docs -->\n", "<!-- end of rules -->");
    let (from, to) = (page.find(begin).unwrap() + begin.len(), page.find(end).unwrap());
    let table = access::to_markdown(&access::dispatcher(TRIGGERS));
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, format!("{}{table}{}", &page[..from], &page[to..])).unwrap();
    } else {
        assert!(
            page[from..to] == table,
            "docs/kubernetes.md is stale: run UPDATE=1 cargo test --test it docs"
        );
    }
}

#[test]
fn permissions_page_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/permissions.md");
    let page = kubeless::controller::permissions::page(kubeless::sources::TRIGGERS);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "docs/permissions.md is stale: run UPDATE=1 cargo test --test it docs");
}

#[test]
fn names_follow_the_conventions() {
    let mut names = BTreeSet::new();
    for metric in metrics::ALL {
        assert!(names.insert(metric.name), "{} occurs twice", metric.name);
        assert!(
            metric.name.starts_with("kubeless_") || metric.name.starts_with("process_"),
            "{}",
            metric.name
        );
        assert_eq!(metric.kind == metrics::Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
        let is_histogram = metric.kind == metrics::Kind::Histogram;
        assert_eq!(is_histogram, !metric.buckets.is_empty(), "{}", metric.name);
        assert!(
            !is_histogram || metric.name.ends_with("_seconds"),
            "{}: sums are kept in nanoseconds",
            metric.name
        );
        assert!(metric.buckets.is_sorted(), "{}", metric.name);
        assert!(metric.help.ends_with('.'), "{}", metric.name);
    }
}
