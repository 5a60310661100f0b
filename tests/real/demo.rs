//! The demo as `make demo` runs it, with fewer events: its judge is content, its last line adds up, nothing stays
//! behind. Must never look inside the run: what a person sees is what is tested.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

const EVENTS: u64 = 2000;

/// `demo: received=… delivered=… …` as numbers.
fn last_line(text: &str) -> BTreeMap<String, u64> {
    let line = text.lines().last().unwrap_or_default();
    let members = line.strip_prefix("demo: ").unwrap_or_else(|| panic!("last line {line:?}"));
    let pairs = members.split(' ').map(|member| member.split_once('=').unwrap());
    pairs.map(|(name, number)| (name.to_owned(), number.parse().unwrap())).collect()
}

#[test]
fn the_demo_adds_up_and_leaves_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(root.join("scripts/demo.sh"))
        .env("DEMO_BIN", Path::new(env!("CARGO_BIN_EXE_kubeless")).parent().unwrap())
        .env("DEMO_EVENTS", EVENTS.to_string())
        .env("DEMO_RATE", "400")
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let counts = last_line(&text);
    let names: Vec<&str> = counts.keys().map(String::as_str).collect();
    assert_eq!(names, ["delivered", "duplicates", "in_doubt", "invoked_twice", "received"]);
    assert_eq!(counts["received"], EVENTS + EVENTS / 20, "{text}");
    assert_eq!(counts["delivered"] + counts["in_doubt"], EVENTS, "{text}");
    assert_eq!((counts["duplicates"], counts["invoked_twice"]), (EVENTS / 20, 0), "{text}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the demo left something behind");
}

#[test]
fn the_example_runs_the_witness_function() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let manifest = fs::read_to_string(examples.join("flights/flights.yaml")).unwrap();
    let function = fs::read_to_string(examples.join("functions/flights.py")).unwrap();
    let indented = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") };
    let inline: String = function.lines().map(indented).collect();
    assert!(manifest.contains(&inline), "flights.yaml does not hold functions/flights.py");
}
