//! Records of a real Kinesis endpoint to the witness function: all of them, each once, over shards, splits, merges, restarts,
//! kills and owners that stand still.

use crate::support::{
    kinesis::{self, Scene},
    process::Dispatcher,
};
use std::time::Duration;

const HORIZON: &str = "  startingPosition: TRIM_HORIZON\n";
const LONG: Duration = Duration::from_secs(60);

fn stop(dispatcher: &mut Dispatcher) {
    dispatcher.sigterm();
    let status = dispatcher.wait_exit(Duration::from_secs(40));
    assert!(status.success(), "{status}:\n{}", dispatcher.output());
}

#[test]
fn kinesis_delivers_all_shards_in_the_order_of_their_keys() {
    let kinesis = kinesis::shared();
    let mut scene = Scene::new(kinesis, 3, HORIZON);
    scene.produce(kinesis, 600, 20);
    let mut dispatcher = scene.start("one");
    scene.settle(LONG).assert_clean();
    // A restart begins after what is claimed, and takes what came meanwhile.
    stop(&mut dispatcher);
    scene.produce(kinesis, 300, 20);
    let mut dispatcher = scene.start("one");
    let report = scene.settle(LONG);
    report.assert_clean();
    assert_eq!((report.invocations, report.outcome("delivered")), (900, 900));
    assert_eq!(Scene::residual(&mut dispatcher).abs(), 0.0);
    let seen = scene.witness.seen();
    for key in 0..20 {
        let of_key: Vec<i64> = seen.iter().map(kinesis::number_of).filter(|n| n % 20 == key).collect();
        assert!(of_key.is_sorted(), "key {key}: {of_key:?}");
    }
    stop(&mut dispatcher);
    assert!(scene.rows().iter().all(|row| row["owner"].is_null() && row["open"] == serde_json::json!([])));
}
