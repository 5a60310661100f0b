//! The oracle finds each kind of violation when one is seeded. Must never be weakened: what it cannot see, no
//! fault test can.

use crate::support::oracle::{Delivery, Invoked, Produced, Recorded, Report, judge, read_journal};

fn at(offset: i64) -> Delivery {
    ("t".into(), 0, offset)
}

/// Offsets 0..5; 3 repeats the business id of 1.
fn produced() -> Vec<Produced> {
    let business = |offset| if offset == 3 { "b1".to_owned() } else { format!("b{offset}") };
    (0..5).map(|offset| Produced { at: at(offset), business: Some(business(offset)) }).collect()
}

fn line(offset: i64, outcome: &str) -> Recorded {
    Recorded { at: at(offset), outcome: outcome.into() }
}

fn call(offset: i64) -> Invoked {
    Invoked { at: at(offset), id: format!("id{offset}") }
}

/// 0 to 2 delivered, 3 a duplicate, 4 lost in a crash.
fn good() -> (Vec<Invoked>, Vec<Recorded>) {
    let outcomes = ["delivered", "delivered", "delivered", "duplicate", "in_doubt"];
    let lines = outcomes.iter().zip(0..).map(|(outcome, offset)| line(offset, outcome)).collect();
    ((0..3).map(call).collect(), lines)
}

#[track_caller]
fn finds(report: &Report, wanted: &str) {
    assert!(
        report.violations.iter().any(|found| found.contains(wanted)),
        "{wanted}: {:?}",
        report.violations
    );
}

#[test]
fn a_run_without_fault_is_clean_and_names_what_was_lost() {
    let (calls, mut lines) = good();
    let report = judge(&produced(), &calls, &lines);
    report.assert_clean();
    assert_eq!((report.outcome("delivered"), report.outcome("duplicate")), (3, 1));
    assert!(report.lost.contains(&at(4)) && report.in_doubt.len() == 1);
    // A predecessor's own outcome supersedes the doubt, in either order.
    lines.push(line(2, "in_doubt"));
    lines.insert(0, line(1, "in_doubt"));
    let report = judge(&produced(), &calls, &lines);
    report.assert_clean();
    assert_eq!(report.outcome("delivered"), 3);
}

#[test]
fn a_second_invocation_is_found_by_position_and_by_business_id() {
    let (mut calls, lines) = good();
    calls.push(call(1));
    finds(&judge(&produced(), &calls, &lines), "t/0/1: invoked 2 times");
    calls.pop();
    calls.push(call(3));
    finds(&judge(&produced(), &calls, &lines), "business id b1: invoked for t/0/1 and t/0/3");
}

#[test]
fn a_missing_a_second_and_an_unknown_outcome_are_found() {
    let (calls, mut lines) = good();
    let lost = lines.pop().expect("five lines");
    finds(&judge(&produced(), &calls, &lines), "t/0/4: lost without an outcome");
    lines.push(lost);
    lines.push(line(2, "unanswered"));
    finds(&judge(&produced(), &calls, &lines), "t/0/2: two outcomes");
    lines.pop();
    lines.push(line(2, "delivered"));
    finds(&judge(&produced(), &calls, &lines), "t/0/2: two outcomes");
    lines.pop();
    lines[0].outcome = "fine".into();
    finds(&judge(&produced(), &calls, &lines), "unknown outcome fine");
}

#[test]
fn an_untrue_outcome_is_found() {
    let (mut calls, mut lines) = good();
    lines[4].outcome = "delivered".into();
    finds(&judge(&produced(), &calls, &lines), "t/0/4: delivered, but the function never saw it");
    lines[4].outcome = "unreachable".into();
    calls.push(call(4));
    finds(&judge(&produced(), &calls, &lines), "t/0/4: unreachable, but the function saw it");
}

#[test]
fn what_was_never_produced_is_found() {
    let (mut calls, mut lines) = good();
    calls.push(call(77));
    lines.push(line(78, "delivered"));
    let report = judge(&produced(), &calls, &lines);
    finds(&report, "t/0/77: invoked, but never produced");
    finds(&report, "t/0/78: delivered, but never produced");
}

#[test]
fn a_journal_is_read_with_its_torn_end_and_other_subscriptions_left_out() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("journal.jsonl");
    let line = |trigger: &str, outcome: &str| {
        format!(
            r#"{{"ts":1,"trigger":"{trigger}","function":"default/f","id":"i","stream":"t","shard":0,"sequence":9,"outcome":"{outcome}"}}"#
        )
    };
    let text =
        format!("{}\n{}\n{{\"ts\":1,\"tri", line("default/a", "delivered"), line("default/b", "failed"));
    std::fs::write(&path, text).expect("a file in our own folder");
    let found = read_journal(&path, "a", "f");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].at.clone(), found[0].outcome.as_str()), (at(9), "delivered"));
    assert_eq!(read_journal(dir.path(), "b", "f").len(), 1);
}
