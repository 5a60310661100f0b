//! Functions that are gone, hang, reset, redirect or fail: one call each at most, and the outcome tells the truth.

use crate::support::{
    kafka,
    scenario::{Plan, Scenario},
    witness::Behaviour,
};
use std::time::Duration;

const TRIGGER: &str = "  delivery:\n    timeout: 2s\n    maxInFlight: 32\n    claimWindow: 64\n";

#[test]
fn every_misbehaviour_is_one_call_and_one_true_outcome() {
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 4, 1, TRIGGER);
    scenario.witness.script(|seen| match seen.offset % 8 {
        0 => Behaviour::Answer { status: 500, delay: Duration::ZERO },
        1 => Behaviour::Redirect307,
        2 => Behaviour::ResetBeforeHead,
        3 => Behaviour::ResetAfterHead,
        4 if seen.offset % 64 == 4 => Behaviour::Hang,
        5 => Behaviour::Answer { status: 204, delay: Duration::ZERO },
        _ => Behaviour::OK,
    });
    scenario.produce(cluster, &Plan { count: 3_200, repeat_every: 0, keys: 400, back: 1 });
    let mut dispatcher = scenario.launch("one").arg("--set").arg("invoker.timeout_margin=500ms").start();
    dispatcher.wait_ready(Duration::from_secs(20));
    let report = scenario.settle(Duration::from_secs(120));
    report.assert_clean();
    // 4 partitions × 800 records: offsets 0..800.
    assert_eq!(report.outcome("failed"), 4 * 200, "500 and 307: {:?}", report.outcomes);
    assert_eq!(report.outcome("unanswered"), 4 * (200 + 13), "resets and hangs: {:?}", report.outcomes);
    assert_eq!(report.outcome("delivered"), 4 * (800 - 400 - 13), "{:?}", report.outcomes);
    assert_eq!(Scenario::residual(&mut dispatcher), 0.0);
}

#[test]
fn a_function_without_ready_endpoints_costs_no_event() {
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 2, 1, TRIGGER);
    let address = scenario.witness.address();
    scenario.manifests.endpoints("witness", &[]);
    scenario.produce(cluster, &Plan { count: 500, repeat_every: 0, keys: 50, back: 1 });
    let mut dispatcher = scenario.start("one");
    let group = scenario.group();
    // The take-over commit shows that the subscription runs; it claims nothing.
    let committed = || cluster.client().committed(&group, &scenario.topic);
    crate::support::wait::until("the take-over commits", Duration::from_secs(30), || {
        committed().iter().all(|c| c.offset.is_some()).then_some(())
    });
    assert!(committed().iter().all(|c| c.offset == Some(0)), "{:?}", committed());
    assert_eq!(scenario.witness.len(), 0);
    scenario.manifests.endpoints("witness", &[address]);
    scenario.witness.wait_for(100, Duration::from_secs(20));
    // And away again in the middle: what was claimed may be lost as unreachable, the rest waits.
    scenario.manifests.endpoints("witness", &[]);
    scenario.manifests.endpoints("witness", &[address]);
    let report = scenario.settle(Duration::from_secs(60));
    report.assert_clean();
    assert_eq!(Scenario::residual(&mut dispatcher), 0.0);
}

#[test]
fn a_function_that_refuses_connections_loses_no_more_than_was_claimed() {
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 2, 1, TRIGGER);
    scenario.produce(cluster, &Plan { count: 400, repeat_every: 0, keys: 50, back: 1 });
    scenario.witness.refuse();
    let dispatcher = scenario.start("one");
    let refused = crate::support::wait::try_until(Duration::from_secs(30), || {
        (scenario.judge().outcome("unreachable") > 0).then_some(())
    });
    assert!(refused.is_some(), "claimed events end as unreachable:\n{}", dispatcher.output());
    scenario.witness.reopen();
    let report = scenario.settle(Duration::from_secs(60));
    report.assert_clean();
    assert!(report.outcome("delivered") > 0, "{:?}", report.outcomes);
}
