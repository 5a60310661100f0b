//! docs/compatibility.md against the tree: each row says what became of a feature, and the tests that it names exist. Must never
//! judge prose.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const PAGE: &str = "docs/compatibility.md";
const VERDICTS: [&str; 5] = ["kept", "fixed", "added", "changed", "not "];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder.
fn files(folder: PathBuf, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match path.is_dir() {
            true => files(path, found),
            false => found.push(path),
        }
    }
}

/// Names of the tests of the tree: functions of Rust behind `#[test]`, those that `conformance!` makes, and functions of Python.
fn tests() -> BTreeSet<String> {
    let mut all = Vec::new();
    for folder in ["src", "tests", "deploy/runtimes"] {
        files(root().join(folder), &mut all);
    }
    let named = |text: &str, keyword: &str| -> Option<String> {
        let rest = text.split_once(keyword)?.1;
        Some(rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()?.to_owned())
    };
    let mut found = BTreeSet::new();
    for path in all {
        let end = path.extension().unwrap_or_default();
        if end != "rs" && end != "py" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        if end == "rs" {
            let marked = text.split("#[test]").skip(1);
            found.extend(marked.filter_map(|rest| named(rest, "fn ")));
            let made = text.split("conformance!").skip(1);
            found.extend(made.filter_map(|rest| named(rest, "(")));
        } else {
            found.extend(text.split("def ").filter_map(|rest| named(&format!("def {rest}"), "def ")));
        }
    }
    found
}

/// The rows of all tables: feature, verdict (the last cell but one), proof (the last cell).
fn rows(page: &str) -> Vec<[String; 3]> {
    let cells = |line: &str| -> Vec<String> {
        let line = line.replace("\\|", "\u{1}");
        line.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
    };
    let lines = page.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    let rows = lines.map(cells).filter(|row| row[0] != "feature" && row[0] != "field");
    rows.map(|row| [row[0].clone(), row[row.len() - 2].clone(), row[row.len() - 1].clone()]).collect()
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What is wrong with one row.
fn wrong(row: &[String; 3], tests: &BTreeSet<String>) -> Vec<String> {
    let [feature, verdict, proof] = row;
    let mut wrong = Vec::new();
    if !VERDICTS.iter().any(|word| verdict.contains(word)) {
        wrong.push(format!("{feature}: {verdict:?} does not say what became of it"));
    }
    let absent = verdict.starts_with("not ");
    let mut named = quoted(proof).filter(|name| !name.contains(' ')).peekable();
    if !absent && named.peek().is_none() && !proof.contains("the same") && !proof.contains("as above") {
        wrong.push(format!("{feature}: no test is named"));
    }
    for name in named {
        let path = name.contains('/');
        if (path && !root().join(name).exists()) || (!path && !tests.contains(name)) {
            wrong.push(format!("{feature}: there is no test {name}"));
        }
    }
    wrong
}

#[test]
fn every_row_of_the_compatibility_page_names_tests_that_exist() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let (tests, rows) = (tests(), rows(&page));
    assert!(tests.len() > 300 && rows.len() > 90, "{} tests, {} rows", tests.len(), rows.len());
    let wrong: Vec<String> = rows.iter().flat_map(|row| wrong(row, &tests)).collect();
    assert!(wrong.is_empty(), "{PAGE}:\n{}", wrong.join("\n"));
}

#[test]
fn a_row_without_a_verdict_or_with_a_test_that_is_gone_is_seen() {
    let tests = BTreeSet::from(["it_works".to_owned()]);
    let bad = |row: [&str; 3]| !wrong(&row.map(str::to_owned), &tests).is_empty();
    assert!(
        !bad(["a", "kept", "`it_works`"]) && !bad(["a", "not yet", "–"]) && !bad(["a", "kept", "the same"])
    );
    assert!(!bad(["a", "fixed: now", "one: `it_works`; `tests/it/main.rs`"]));
    for row in [
        ["a", "perhaps", "`it_works`"],
        ["a", "kept", "–"],
        ["a", "kept", "`it_worked`"],
        ["a", "kept", "`tests/it/x.rs`"],
    ] {
        assert!(bad(row), "{row:?}");
    }
}
