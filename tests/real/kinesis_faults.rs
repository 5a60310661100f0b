//! Kinesis with dispatchers that die, stand still and compete, and an endpoint that goes away: nothing is called for twice, and
//! whatever a crash cost is named.

use crate::support::{
    kinesis::{self, Kinesis, Scene},
    process::Dispatcher,
    throttle::Throttle,
    wait,
    witness::Behaviour,
};
use std::{collections::HashMap, time::Duration};

const HORIZON: &str =
    "  startingPosition: TRIM_HORIZON\n  delivery:\n    maxInFlight: 16\n    claimWindow: 64\n";
const LONG: Duration = Duration::from_secs(60);

/// Points of the way from record to outcome, with the passage at which the process dies.
const POINTS: &[(&str, u32)] = &[
    ("before_assign", 1),
    ("after_poll", 3),
    ("before_claim", 2),
    ("claim_sent", 6),
    ("claim_unknown", 2),
    ("claim_unknown", 6),
    ("after_claim", 3),
    ("after_first_byte", 20),
    ("before_outcome", 4),
    ("after_outcome", 6),
    ("before_done_flush", 1),
];

fn stop(dispatcher: &mut Dispatcher) {
    dispatcher.sigterm();
    let status = dispatcher.wait_exit(Duration::from_secs(40));
    assert!(status.success(), "{status}:\n{}", dispatcher.output());
}

/// Rows by who holds them.
fn owners(scene: &Scene) -> HashMap<String, usize> {
    let mut owners = HashMap::new();
    for row in scene.rows() {
        if let Some(owner) = row["owner"].as_str() {
            *owners.entry(owner.to_owned()).or_default() += 1;
        }
    }
    owners
}

#[test]
fn kinesis_invokes_nothing_twice_whatever_point_the_dispatcher_dies_at() {
    let kinesis = kinesis::shared();
    let mut scene = Scene::new(kinesis, 2, HORIZON);
    for (point, passage) in POINTS {
        scene.produce(kinesis, 120, 12);
        let mut victim = scene.launch("victim").env("KUBELESS_POINT", format!("{point}:{passage}")).start();
        let died = wait::try_until(LONG, || victim.exited());
        assert!(died.is_some(), "{point}:{passage} was never passed:\n{}", victim.output());
        let mut successor = scene.start("successor");
        let settled = wait::try_until(LONG, || {
            let report = scene.judge();
            (report.outcomes.values().sum::<usize>() >= scene.produced.len()).then_some(report)
        });
        let report =
            settled.unwrap_or_else(|| panic!("{point}:{passage}: not settled\n{}", successor.output()));
        assert!(report.violations.is_empty(), "{point}:{passage}: {:?}", report.violations);
        assert!(report.in_doubt.len() <= 64 * POINTS.len(), "{point}: {}", report.in_doubt.len());
        assert_eq!(Scene::residual(&mut successor).abs(), 0.0);
        stop(&mut successor);
    }
    let report = scene.judge();
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
fn kinesis_shards_are_shared_and_taken_over_from_the_dead_and_the_frozen() {
    let kinesis = kinesis::shared();
    let mut scene = Scene::new(kinesis, 4, HORIZON);
    scene.witness.always(Behaviour::Answer { status: 200, delay: Duration::from_millis(10) });
    let mut one = scene.start("one");
    scene.wait_held(4);
    scene.produce(kinesis, 300, 40);
    // A second one is given its share, by a drain: nothing is in doubt for it.
    let mut two = scene.start("two");
    wait::until("two shards each", LONG, || {
        (owners(&scene).values().copied().collect::<Vec<_>>() == [2, 2]).then_some(())
    });
    scene.produce(kinesis, 300, 40);
    let report = scene.settle(LONG);
    report.assert_clean();
    assert_eq!(report.outcome("delivered"), 600);
    // One stands still with calls under way; its shards go to the other, and it comes back to find them gone.
    scene.witness.always(Behaviour::Answer { status: 200, delay: Duration::from_millis(100) });
    scene.produce(kinesis, 200, 40);
    scene.witness.wait_for(620, LONG);
    one.sigstop();
    wait::until("the other has them all", LONG, || {
        (owners(&scene).values().copied().collect::<Vec<_>>() == [4]).then_some(())
    });
    scene.produce(kinesis, 100, 40);
    one.sigcont();
    scene.settle(LONG).assert_clean();
    wait::until("two shards each", LONG, || {
        (owners(&scene).values().copied().collect::<Vec<_>>() == [2, 2]).then_some(())
    });
    // One dies with calls under way.
    scene.produce(kinesis, 200, 40);
    scene.witness.wait_for(920, LONG);
    two.kill9();
    scene.produce(kinesis, 100, 40);
    let report = scene.settle(LONG);
    report.assert_clean();
    println!("{:?}, {} of them lost", report.outcomes, report.lost.len());
    assert_eq!(Scene::residual(&mut one).abs(), 0.0);
    stop(&mut one);
}

#[test]
fn kinesis_shards_split_and_merge_while_dispatchers_come_freeze_and_die() {
    let kinesis = kinesis::shared();
    let mut scene = Scene::new(kinesis, 2, HORIZON);
    scene.witness.always(Behaviour::Answer { status: 200, delay: Duration::from_millis(5) });
    let (mut one, mut two) = (scene.start("one"), scene.start("two"));
    scene.produce(kinesis, 150, 30);
    for shard in kinesis.open_shards(&scene.stream) {
        kinesis.split(&scene.stream, &shard);
    }
    scene.produce(kinesis, 150, 30);
    // Past its leases, in the middle of calls; the children of its parents are the other's meanwhile.
    scene.witness.wait_for(40, LONG);
    one.sigstop();
    let open = kinesis.open_shards(&scene.stream);
    kinesis.merge(&scene.stream, (&open[0], &open[1]));
    scene.produce(kinesis, 150, 30);
    wait::until("the other has all that is held", LONG, || (owners(&scene).len() == 1).then_some(()));
    one.sigcont();
    let open = kinesis.open_shards(&scene.stream);
    kinesis.split(&scene.stream, open.last().expect("the merged one"));
    scene.produce(kinesis, 150, 30);
    scene.witness.wait_for(300, LONG);
    two.kill9();
    let open = kinesis.open_shards(&scene.stream);
    kinesis.merge(&scene.stream, (&open[0], &open[1]));
    let mut three = scene.start("three");
    scene.produce(kinesis, 150, 30);
    let report = scene.settle(LONG);
    report.assert_clean();
    println!("{:?}, {} of them lost", report.outcomes, report.lost.len());
    for dispatcher in [&mut one, &mut three] {
        assert_eq!(Scene::residual(dispatcher).abs(), 0.0);
        stop(dispatcher);
    }
}

#[test]
fn kinesis_goes_on_when_the_endpoint_was_away() {
    let mut kinesis = Kinesis::start_durable();
    let mut scene = Scene::new(&kinesis, 2, HORIZON);
    let mut dispatcher = scene.start("one");
    scene.produce(&kinesis, 200, 20);
    scene.settle(LONG).assert_clean();
    kinesis.kill9();
    let admin = dispatcher.admin();
    wait::until("its status says so", LONG, || {
        let (_, page) = crate::support::metrics::get(admin, "/debug/subscriptions").ok()?;
        page.contains("shardId-").then_some(())
    });
    kinesis.restart();
    scene.produce(&kinesis, 200, 20);
    scene.settle(LONG).assert_clean();
    // Silent for longer than a request may take.
    kinesis.suspend();
    wait::until("its status says so", LONG, || {
        let (_, page) = crate::support::metrics::get(admin, "/debug/subscriptions").ok()?;
        page.contains("shardId-").then_some(())
    });
    kinesis.resume();
    scene.produce(&kinesis, 200, 20);
    let report = scene.settle(LONG);
    report.assert_clean();
    assert_eq!(report.outcome("delivered"), 600);
    stop(&mut dispatcher);
}

#[test]
fn kinesis_throttled_reads_wait_and_lose_nothing() {
    let kinesis = kinesis::shared();
    let throttle = Throttle::start(kinesis.port());
    let mut scene = Scene::new(kinesis, 2, HORIZON);
    scene.endpoint = throttle.endpoint();
    scene.trigger(HORIZON);
    scene.produce(kinesis, 300, 20);
    let mut dispatcher = scene.start("one");
    scene.settle(LONG).assert_clean();
    scene.produce(kinesis, 300, 20);
    let report = scene.settle(LONG);
    report.assert_clean();
    assert_eq!(report.outcome("delivered"), 600);
    assert!(throttle.touched() >= 4, "{} reads were refused", throttle.touched());
    stop(&mut dispatcher);
}
