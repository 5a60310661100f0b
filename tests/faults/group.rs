//! Members that join, leave and are frozen: rebalances under load, rolling restarts, SIGSTOP past the session.

use crate::support::{
    kafka,
    oracle::Report,
    scenario::{Plan, Scenario},
    wait,
};
use std::time::Duration;

const TRIGGER: &str = "  delivery:\n    maxInFlight: 16\n    claimWindow: 64\n";

#[test]
fn a_rolling_restart_of_two_replicas_under_load_loses_nothing() {
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 8, 1, TRIGGER);
    scenario
        .witness
        .always(crate::support::witness::Behaviour::Answer { status: 200, delay: Duration::from_millis(3) });
    scenario.produce(cluster, &Plan { count: 20_000, repeat_every: 0, keys: 500, back: 1 });
    let (mut first, mut second) = (scenario.start("first"), scenario.start("second"));
    for round in 0..3 {
        let name = format!("replica-{round}");
        scenario.witness.wait_for(scenario.witness.len() + 500, Duration::from_secs(60));
        first.sigterm();
        assert!(first.wait_exit(Duration::from_secs(40)).success(), "{}", first.output());
        first = scenario.start(&name);
        std::mem::swap(&mut first, &mut second);
    }
    let report = scenario.settle(Duration::from_secs(120));
    report.assert_clean();
    assert_eq!(report.outcome("delivered"), 20_000, "a graceful stop loses nothing: {:?}", report.outcomes);
}

#[test]
fn a_member_that_joins_and_leaves_under_load_loses_nothing() {
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 8, 1, TRIGGER);
    scenario.produce(cluster, &Plan { count: 20_000, repeat_every: 0, keys: 500, back: 1 });
    let mut stays = scenario.start("stays");
    scenario.witness.wait_for(500, Duration::from_secs(60));
    let mut guest = scenario.start("guest");
    scenario.witness.wait_for(6_000, Duration::from_secs(60));
    guest.sigterm();
    assert!(guest.wait_exit(Duration::from_secs(40)).success(), "{}", guest.output());
    let report = scenario.settle(Duration::from_secs(120));
    report.assert_clean();
    assert_eq!(report.outcome("delivered"), 20_000, "{:?}", report.outcomes);
    assert_eq!(Scenario::residual(&mut stays), 0.0);
}

#[test]
fn a_frozen_member_that_comes_back_invokes_nothing_twice() {
    let report = freeze_past_the_session(None);
    println!("frozen member: {:?}, in doubt {}", report.outcomes, report.in_doubt.len());
}

#[test]
fn a_frozen_member_that_dies_as_it_learns_of_its_loss_leaves_nothing_unnamed() {
    freeze_past_the_session(Some("lease_lost:1"));
}

/// Freezes a busy member until another has taken over, lets it go on (and die at `point`), and judges.
fn freeze_past_the_session(point: Option<&str>) -> Report {
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 4, 1, TRIGGER);
    scenario
        .witness
        .always(crate::support::witness::Behaviour::Answer { status: 200, delay: Duration::from_millis(20) });
    scenario.produce(cluster, &Plan { count: 6_000, repeat_every: 0, keys: 300, back: 1 });
    let launch = scenario.launch("frozen");
    let mut frozen = match point {
        Some(point) => launch.env("KUBELESS_POINT", point).start(),
        None => launch.start(),
    };
    frozen.wait_ready(Duration::from_secs(20));
    scenario.witness.wait_for(300, Duration::from_secs(30));
    frozen.sigstop();
    let mut successor = scenario.launch("successor").start();
    successor.wait_ready(Duration::from_secs(20));
    // The successor works: the session of the frozen member is over.
    let seen = scenario.witness.len();
    scenario.witness.wait_for(seen + 500, Duration::from_secs(60));
    frozen.sigcont();
    if point.is_some() {
        let died = wait::try_until(Duration::from_secs(60), || frozen.exited());
        assert!(died.is_some(), "the point was never passed:\n{}", frozen.output());
    }
    let report = scenario.settle(Duration::from_secs(120));
    report.assert_clean();
    drop(frozen);
    assert_eq!(Scenario::residual(&mut successor), 0.0);
    report
}
