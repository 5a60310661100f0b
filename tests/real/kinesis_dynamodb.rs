//! Kinesis with its register in DynamoDB: the table is made and reads like any lease table, leases are shared, stolen from the
//! dead and the frozen, and a table that throttles, loses answers or is away costs no call twice.

use crate::support::{
    dynamodb::{self, DynamoDb},
    kinesis::{self, Scene},
    metrics,
    process::{Dispatcher, Launch},
    throttle::{DENIED, Fate, THROTTLED, Throttle},
    wait,
    witness::Behaviour,
};
use std::{collections::BTreeMap, time::Duration};

const HORIZON: &str =
    "  startingPosition: TRIM_HORIZON\n  delivery:\n    maxInFlight: 16\n    claimWindow: 64\n";
/// Two servers beside each dispatcher, on a machine that may be busy with everything else.
const LONG: Duration = Duration::from_secs(180);

fn launch(scene: &Scene, name: &str, endpoint: &str) -> Launch {
    let mut launch = scene.launch(name);
    let table = format!("register_table={}", scene.stream);
    // A request that waits for a busy machine is no reason to lose a shard.
    let patient = ["failover_time=6s", "request_timeout=15s", "register=dynamodb"];
    for setting in patient.into_iter().chain([&*format!("register_endpoint={endpoint}"), &*table]) {
        launch = launch.arg("--set").arg(format!("sources.kinesis.{setting}"));
    }
    for (name, value) in DynamoDb::identity() {
        launch = launch.env(name, value);
    }
    launch
}

fn start(scene: &Scene, name: &str, endpoint: &str) -> Dispatcher {
    let mut dispatcher = launch(scene, name, endpoint).start();
    dispatcher.wait_ready(LONG);
    dispatcher
}

fn stop(dispatcher: &mut Dispatcher) {
    dispatcher.sigterm();
    let status = dispatcher.wait_exit(LONG);
    assert!(status.success(), "{status}:\n{}", dispatcher.output());
}

/// How many leases each holder has.
fn shares(server: &DynamoDb, scene: &Scene) -> Vec<usize> {
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    for item in server.items(&scene.stream) {
        if let Some(Ok(owner)) = item.get("leaseOwner").map(|owner| owner.as_s()) {
            *owners.entry(owner.clone()).or_default() += 1;
        }
    }
    owners.into_values().collect()
}

fn wait_page(dispatcher: &mut Dispatcher, what: &str, words: &str) {
    let admin = dispatcher.admin();
    wait::until(what, LONG, || {
        let (_, page) = metrics::get(admin, "/debug/subscriptions").ok()?;
        page.contains(words).then_some(())
    });
}

#[test]
fn kinesis_leases_in_dynamodb_are_shared_and_stolen_from_the_dead_and_the_frozen() {
    let (kinesis, server) = (kinesis::shared(), dynamodb::shared());
    let mut scene = Scene::new(kinesis, 4, HORIZON);
    let mut one = start(&scene, "one", &server.endpoint());
    scene.produce(kinesis, 100, 30);
    scene.settle(LONG).assert_clean();
    let mut two = start(&scene, "two", &server.endpoint());
    wait::until("two shards each", LONG, || (shares(server, &scene) == [2, 2]).then_some(()));
    scene.witness.always(Behaviour::Answer { status: 200, delay: Duration::from_millis(20) });
    scene.produce(kinesis, 100, 30);
    scene.witness.wait_for(110, LONG);
    one.sigstop();
    wait::until("the other has them all", LONG, || (shares(server, &scene) == [4]).then_some(()));
    scene.produce(kinesis, 100, 30);
    one.sigcont();
    scene.settle(LONG).assert_clean();
    scene.produce(kinesis, 100, 30);
    scene.witness.wait_for(310, LONG);
    two.kill9();
    let report = scene.settle(LONG);
    report.assert_clean();
    println!("{:?}, {} of them lost", report.outcomes, report.lost.len());
    assert_eq!(Scene::residual(&mut one).abs(), 0.0);
    stop(&mut one);
    // What people and their tools look for in such a table.
    let items = server.items(&scene.stream);
    let leases: Vec<_> = items.iter().filter(|item| item.contains_key("checkpoint")).collect();
    assert_eq!(leases.len(), 4, "{items:?}");
    for lease in leases {
        assert!(!lease.contains_key("leaseOwner"), "given back: {lease:?}");
        assert!(lease["leaseCounter"].as_n().is_ok() && lease["shardId"].as_s().is_ok(), "{lease:?}");
        let digits = |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        assert!(lease["checkpoint"].as_s().is_ok_and(digits), "{lease:?}");
    }
}

#[test]
fn kinesis_goes_on_when_dynamodb_throttles_loses_answers_and_was_away() {
    let kinesis = kinesis::shared();
    let mut server = DynamoDb::start();
    // Some are refused, and of some that were done nobody hears: the identical write finds out.
    let fate = |n| match n % 5 {
        1 => Fate::Refused(THROTTLED),
        3 => Fate::Lost,
        _ => Fate::Passed,
    };
    let way = Throttle::start_with(server.port(), "putitem", fate);
    let mut scene = Scene::new(kinesis, 2, HORIZON);
    scene.produce(kinesis, 100, 20);
    let mut dispatcher = start(&scene, "one", &way.endpoint());
    scene.settle(LONG).assert_clean();
    server.kill9();
    wait_page(&mut dispatcher, "its status says so", "DynamoDB table");
    scene.produce(kinesis, 100, 20);
    server.restart();
    let report = scene.settle(LONG);
    report.assert_clean();
    assert_eq!(report.outcomes.values().sum::<usize>(), 200, "{report:?}");
    assert_eq!(Scene::residual(&mut dispatcher).abs(), 0.0);
    assert!(way.touched() >= 4, "{} writes were touched", way.touched());
    stop(&mut dispatcher);
}

#[test]
fn kinesis_says_how_to_make_the_table_that_it_may_not_make() {
    let (kinesis, server) = (kinesis::shared(), dynamodb::shared());
    let way = Throttle::start_with(server.port(), "createtable", |_| Fate::Refused(DENIED));
    let mut scene = Scene::new(kinesis, 1, HORIZON);
    scene.produce(kinesis, 10, 2);
    let mut dispatcher = launch(&scene, "one", &way.endpoint()).start();
    let command = format!("aws dynamodb create-table --region us-east-1 --table-name {}", scene.stream);
    wait_page(&mut dispatcher, "its status says what to run", &command);
    assert_eq!(scene.witness.len(), 0);
    stop(&mut dispatcher);
    // Somebody who may makes it; nothing is lost by the wait.
    let mut dispatcher = start(&scene, "one", &server.endpoint());
    scene.settle(LONG).assert_clean();
    stop(&mut dispatcher);
}
