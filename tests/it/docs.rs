//! Generated pages are equal to what the program says. `UPDATE=1` rewrites them.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use kubeless::telemetry::metrics;
use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn metrics_page_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = metrics::to_markdown();
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &page).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "docs/metrics.md is stale: run UPDATE=1 cargo test --test it docs");
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
