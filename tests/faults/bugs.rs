//! The harness can see: each seeded protocol bug, switched on in the real binary, makes the oracle find a violation.

use crate::support::{
    kafka,
    scenario::{Plan, Scenario},
    wait,
    witness::Behaviour,
};
use std::time::Duration;

const TRIGGER: &str = "  delivery:\n    maxInFlight: 16\n    claimWindow: 64\n    timeout: 2s\n  dedup:\n    window: 1h\n    key:\n      header: id\n";

/// Waits until a call too many was seen, or everything has its outcome; what is still under way is no violation.
fn double_calls(scenario: &Scenario) -> Vec<String> {
    let doubles = || -> Vec<String> {
        let violations = scenario.judge().violations;
        violations.into_iter().filter(|v| v.contains("times") || v.contains("business id")).collect()
    };
    wait::try_until(Duration::from_secs(40), || {
        let settled = scenario.judge().outcomes.values().sum::<usize>() >= scenario.produced.len();
        (settled || !doubles().is_empty()).then_some(())
    });
    doubles()
}

/// Runs victims with `bug` that die at `point`, then a successor with the same bug, until the oracle complains.
fn caught_by_crash(bug: &str, point: &str, repeat_every: usize) -> Vec<String> {
    // Further back than claims reach (`claimWindow`): the first one was called before the crash, the second one was not.
    let back = 80;
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 2, 1, TRIGGER);
    for round in 1..=4 {
        scenario.produce(cluster, &Plan { count: 1_600, repeat_every, keys: 40, back });
        // Far enough in for such a repeat, and before the last claim however large each is.
        let point = format!("{point}:{}", 4 + round * 4);
        let mut victim =
            scenario.launch("victim").env("KUBELESS_BUG", bug).env("KUBELESS_POINT", point).start();
        let died = wait::try_until(Duration::from_secs(30), || victim.exited());
        assert!(died.is_some(), "{}", victim.output());
        let mut successor = scenario.launch("successor").env("KUBELESS_BUG", bug).start();
        successor.wait_ready(Duration::from_secs(20));
        let violations = double_calls(&scenario);
        if !violations.is_empty() {
            return violations;
        }
        successor.sigterm();
        successor.wait_exit(Duration::from_secs(30));
    }
    Vec::new()
}

#[track_caller]
fn assert_caught(violations: &[String], what: &str) {
    assert!(violations.iter().any(|v| v.contains(what)), "not seen: {violations:?}");
}

#[test]
fn an_invoke_before_the_commit_is_seen() {
    assert_caught(&caught_by_crash("invoke_before_commit", "claim_sent", 0), "times");
}

#[test]
fn a_window_that_is_not_rebuilt_is_seen() {
    assert_caught(&caught_by_crash("window_not_rebuilt", "after_claim", 3), "business id");
}

fn caught_by_function(bug: &str, behaviour: Behaviour) -> Vec<String> {
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 2, 1, TRIGGER);
    scenario.witness.script(move |seen| if seen.offset % 10 == 3 { behaviour } else { Behaviour::OK });
    scenario.produce(cluster, &Plan { count: 200, repeat_every: 0, keys: 50, back: 1 });
    let mut dispatcher = scenario.launch("one").env("KUBELESS_BUG", bug).start();
    dispatcher.wait_ready(Duration::from_secs(20));
    double_calls(&scenario)
}

#[test]
fn a_retry_after_a_reset_is_seen() {
    assert_caught(&caught_by_function("retry_on_reset", Behaviour::ResetBeforeHead), "times");
}

#[test]
fn a_redirect_that_is_followed_is_seen() {
    assert_caught(&caught_by_function("redirect_followed", Behaviour::Redirect307), "times");
}

/// A frozen member and its successor, both with `bug`.
fn caught_by_freeze(bug: &str) -> Vec<String> {
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 2, 1, TRIGGER);
    scenario.witness.always(Behaviour::Answer { status: 200, delay: Duration::from_millis(10) });
    // Usually seen in the first or second: a commit that left before the freeze shows nothing.
    for _ in 0..15 {
        scenario.produce(cluster, &Plan { count: 2_000, repeat_every: 0, keys: 100, back: 1 });
        let launch = |name: &str| scenario.launch(name).env("KUBELESS_BUG", bug);
        // It stops itself with a commit on its lips.
        let mut frozen = launch("frozen").env("KUBELESS_POINT", "claim_sent:12:stop").start();
        let seen = scenario.witness.len();
        scenario.witness.wait_for(seen + 50, Duration::from_secs(30));
        let mut successor = launch("successor").start();
        let seen = scenario.witness.len();
        scenario.witness.wait_for(seen + 600, Duration::from_secs(60));
        frozen.sigcont();
        let violations = double_calls(&scenario);
        if !violations.is_empty() {
            return violations;
        }
        for member in [&mut frozen, &mut successor] {
            member.kill9();
        }
    }
    Vec::new()
}

#[test]
fn an_unknown_claim_that_invokes_is_seen() {
    assert_caught(&caught_by_freeze("unknown_invokes"), "times");
}

#[test]
fn a_missing_epoch_check_is_seen() {
    assert_caught(&caught_by_freeze("no_epoch_check"), "times");
}
