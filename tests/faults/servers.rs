//! Brokers that die and coordinators that move, under load.

use crate::support::{
    kafka::{KafkaCluster, Options},
    scenario::{Plan, Scenario},
};
use std::time::Duration;

const TRIGGER: &str = "  delivery:\n    maxInFlight: 16\n    claimWindow: 64\n";

#[test]
fn a_broker_and_the_coordinator_die_and_come_back() {
    let mut cluster = KafkaCluster::start(3, &Options::short_sessions());
    let mut scenario = Scenario::new(&cluster, 6, 3, TRIGGER);
    scenario
        .witness
        .always(crate::support::witness::Behaviour::Answer { status: 200, delay: Duration::from_millis(5) });
    scenario.produce(&cluster, &Plan { count: 20_000, repeat_every: 0, keys: 500, back: 1 });
    let mut dispatcher = scenario.start("one");
    scenario.witness.wait_for(500, Duration::from_secs(60));
    let group = scenario.group();
    let coordinator = cluster.coordinator_of(&group);
    cluster.kill9(coordinator);
    scenario.witness.wait_for(scenario.witness.len() + 3_000, Duration::from_secs(90));
    let moved = cluster.coordinator_of(&group);
    assert_ne!(moved, coordinator, "the coordinator moved");
    cluster.restart(coordinator);
    cluster.wait_in_sync(&scenario.topic);
    // Another broker that does not coordinate: leaders move, the group stays.
    let other = (1..=3).find(|id| *id != moved && *id != coordinator).expect("three brokers");
    cluster.kill9(other);
    let report = scenario.settle(Duration::from_secs(150));
    report.assert_clean();
    println!("broker deaths: {:?}", report.outcomes);
    assert_eq!(report.in_doubt.len(), 0, "nobody died who had claimed: {:?}", report.outcomes);
    assert_eq!(Scenario::residual(&mut dispatcher), 0.0);
}
