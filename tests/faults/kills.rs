//! `kill -9` of the dispatcher at each named point and at random times: nothing invoked twice, everything that the
//! crash cost is named, and it is at most the claim window.

use crate::support::{
    kafka,
    process::Dispatcher,
    scenario::{Plan, Scenario},
    wait,
};
use std::time::Duration;

/// Most events claimed and unfinished at once in these tests.
const CLAIM_WINDOW: usize = 64;
const TRIGGER: &str = "  delivery:\n    maxInFlight: 16\n    claimWindow: 64\n  dedup:\n    window: 1h\n    key:\n      header: id\n";

/// Points of the claim → call → outcome path, with the passage at which the process dies.
const POINTS: &[(&str, u32)] = &[
    ("before_assign", 1),
    ("after_poll", 20),
    ("before_dedup", 10),
    ("before_claim", 1),
    ("before_claim", 12),
    ("claim_sent", 1),
    ("claim_sent", 9),
    ("claim_unknown", 1),
    ("claim_unknown", 11),
    ("after_claim", 2),
    ("after_claim", 10),
    ("before_connect", 1),
    ("after_connect", 1),
    ("after_first_byte", 40),
    ("before_response_head", 60),
    ("before_response_body", 60),
    ("after_response_head", 60),
    ("before_outcome", 4),
    ("after_outcome", 25),
    ("before_done_flush", 1),
    ("shutdown_drain", 1),
    ("in_revoke", 1),
    ("after_revoke", 1),
];

#[test]
fn nothing_is_invoked_twice_whatever_point_the_dispatcher_dies_at() {
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 4, 1, TRIGGER);
    for (point, passage) in POINTS {
        scenario.produce(cluster, &Plan { count: 400, repeat_every: 20, keys: 40, back: 1 });
        let launch = scenario.launch("victim").env("KUBELESS_POINT", format!("{point}:{passage}"));
        let mut victim = launch.start();
        // Points on the way out need the way out.
        let leaving = matches!(*point, "in_revoke" | "after_revoke" | "shutdown_drain");
        if leaving {
            scenario.settle(Duration::from_secs(60));
            victim.sigterm();
        }
        let died = wait::try_until(Duration::from_secs(60), || victim.exited());
        assert!(died.is_some(), "{point}:{passage} was never passed:\n{}", victim.output());
        let mut successor = scenario.start("successor");
        // Every lost event is named within 60 s of the successor's start.
        scenario.settle(Duration::from_secs(60)).assert_clean();
        stop(&mut successor);
    }
    assert_crashes_cost_at_most_the_claim_window(&scenario);
    let report = scenario.judge();
    println!(
        "{} crash points: {} produced, {} invoked, {} in doubt of which {} never reached the function",
        POINTS.len(),
        report.produced,
        report.invocations,
        report.in_doubt.len(),
        report.lost.len()
    );
}

#[test]
fn nothing_is_invoked_twice_over_random_kills() {
    let kills = if std::env::var_os("KUBELESS_CAMPAIGN").is_some() { 1000 } else { 50 };
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 4, 1, TRIGGER);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..kills {
        scenario.produce(cluster, &Plan { count: 300, repeat_every: 20, keys: 40, back: 1 });
        let mut dispatcher = scenario.launch("victim").start();
        // The kill comes after a random number of calls, so that it falls into every phase of the work.
        let calls = scenario.witness.len() + random.usize(1..250);
        scenario.witness.wait_until(Duration::from_secs(20), |seen| seen.len() >= calls);
        dispatcher.kill9();
    }
    let mut last = scenario.start("last");
    let report = scenario.settle(Duration::from_secs(60));
    report.assert_clean();
    let most = assert_crashes_cost_at_most_the_claim_window(&scenario);
    println!(
        "{kills} kills: {} produced, {} invoked, {} in doubt, {} never reached the function, at most {most} a kill",
        report.produced,
        report.invocations,
        report.in_doubt.len(),
        report.lost.len()
    );
    stop(&mut last);
}

fn assert_crashes_cost_at_most_the_claim_window(scenario: &Scenario) -> usize {
    let owners = scenario.in_doubt_by_owner();
    let most = owners.values().map(std::collections::BTreeSet::len).max().unwrap_or(0);
    assert!(most <= CLAIM_WINDOW, "{most} in doubt by one crash");
    most
}

fn stop(dispatcher: &mut Dispatcher) {
    dispatcher.sigterm();
    assert!(dispatcher.wait_exit(Duration::from_secs(30)).success(), "{}", dispatcher.output());
}
