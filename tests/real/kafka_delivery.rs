//! Real Kafka, a real dispatcher, a function that remembers: everything arrives once, repeats are stopped, the
//! books balance and the register is what the protocol says.

use crate::support::{
    kafka,
    scenario::{Plan, Scenario},
};
use std::time::Duration;

const DEDUP: &str = "  dedup:\n    window: 1h\n    key:\n      header: id\n";

#[test]
fn a_hundred_thousand_events_once_each_and_five_percent_repeats_stopped() {
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 8, 1, DEDUP);
    scenario.produce(cluster, &Plan { count: 100_000, repeat_every: 20, keys: 1000, back: 1 });
    let mut dispatcher = scenario.start("one");
    let report = scenario.settle(Duration::from_secs(120));
    report.assert_clean();
    assert_eq!(report.outcome("delivered"), 95_000, "{report:?}");
    assert_eq!(report.outcome("duplicate"), 5_000, "{report:?}");
    assert_eq!(scenario.witness.invoked_twice(), Vec::<String>::new());
    assert_eq!(Scenario::residual(&mut dispatcher), 0.0);
    dispatcher.sigterm();
    assert!(dispatcher.wait_exit(Duration::from_secs(20)).success());
    for committed in cluster.client().committed(&scenario.group(), &scenario.topic) {
        assert_eq!(committed.offset, Some(12_500), "{committed:?}");
        assert!(committed.metadata.starts_with("kb1."), "{committed:?}");
        let register = kubeless::sources::kafka::register::decode(&committed.metadata, 12_500);
        let kubeless::sources::kafka::register::Decoded::Register(register) = register else {
            panic!("{register:?}")
        };
        assert_eq!(
            (register.open.len(), register.parked.len()),
            (0, 0),
            "a graceful stop leaves nothing open"
        );
    }
}
