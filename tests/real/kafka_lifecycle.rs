//! Triggers that come, change, pause and go while events flow, where a subscription starts, and records that are no
//! events: each with its defined outcome.

use crate::support::{
    kafka,
    kafka_client::Record,
    metrics,
    oracle::Produced,
    scenario::{Plan, Scenario},
    wait,
    witness::Behaviour,
};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(40);

/// Writes the scenario's trigger anew with other lines.
fn edit(scenario: &Scenario, lines: &str) {
    let spec =
        format!("  bootstrapServers: \"{}\"\n  startingPosition: earliest\n{lines}", scenario.bootstrap);
    scenario.manifests.kafka_trigger("trigger", &scenario.topic, ("app", "witness"), &spec);
}

fn subscriptions(admin: std::net::SocketAddr) -> Vec<serde_json::Value> {
    let (_, page) = metrics::get(admin, "/debug/subscriptions").expect("the page answers");
    serde_json::from_str(&page).expect("a list")
}

#[test]
fn a_trigger_is_paused_resumed_edited_and_deleted_while_another_goes_on() {
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 2, 1, "");
    let mut dispatcher = scenario.start("one");
    scenario.produce(cluster, &Plan { count: 200, repeat_every: 0, keys: 20, back: 1 });
    scenario.settle(LIMIT).assert_clean();
    // A bad edit leaves the last good trigger in force and is counted.
    edit(&scenario, "  retries: 3\n");
    let admin = dispatcher.admin();
    wait::until("the bad edit is counted", LIMIT, || {
        metrics::scrape(admin).get("kubeless_manifest_problems", &[]).is_some_and(|n| n >= 1.0).then_some(())
    });
    scenario.produce(cluster, &Plan { count: 100, repeat_every: 0, keys: 20, back: 1 });
    scenario.settle(LIMIT).assert_clean();
    // Paused: nothing is claimed, the member stays.
    edit(&scenario, "  paused: true\n");
    wait::until("it is paused", LIMIT, || (subscriptions(admin).first()?["claiming"] == false).then_some(()));
    let before = scenario.witness.len();
    scenario.produce(cluster, &Plan { count: 100, repeat_every: 0, keys: 20, back: 1 });
    let committed = |scenario: &Scenario| -> i64 {
        let list = cluster.client().committed(&scenario.group(), &scenario.topic);
        list.iter().filter_map(|c| c.offset).sum()
    };
    assert_eq!(committed(&scenario), 300);
    assert_eq!(scenario.witness.len(), before, "nothing is called while paused");
    // Resumed with another limit, in place: the consumer is not restarted.
    edit(&scenario, "  delivery:\n    maxInFlight: 3\n");
    scenario.settle(LIMIT).assert_clean();
    // Deleted: no claim any more, the group is left.
    scenario.manifests.remove("trigger-trigger");
    wait::until("the subscription is gone", LIMIT, || subscriptions(admin).is_empty().then_some(()));
    let calls = scenario.witness.len();
    cluster.client().produce_many(&scenario.topic, [Record::new("late").partition(0)]);
    assert_eq!(committed(&scenario), 400);
    assert_eq!(scenario.witness.len(), calls);
}

#[test]
fn latest_starts_at_the_end_and_says_so_at_once() {
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 2, 1, "");
    cluster.client().produce_many(&scenario.topic, (0..20).map(|n| Record::new("old").partition(n % 2)));
    let spec = format!("  bootstrapServers: \"{}\"\n", scenario.bootstrap);
    scenario.manifests.kafka_trigger("trigger", &scenario.topic, ("app", "witness"), &spec);
    let _dispatcher = scenario.start("one");
    let group = scenario.group();
    wait::until("the start position is committed", LIMIT, || {
        let list = cluster.client().committed(&group, &scenario.topic);
        (list.len() == 2 && list.iter().all(|c| c.offset == Some(10))).then_some(())
    });
    scenario.produced.push(Produced { at: (scenario.topic.clone(), 0, 10), business: None });
    cluster.client().produce_many(&scenario.topic, [Record::new("new").partition(0)]);
    let report = scenario.settle(LIMIT);
    report.assert_clean();
    assert_eq!(scenario.witness.len(), 1, "the old ones are not called");
}

#[test]
fn records_that_are_no_events_end_as_rejected_and_block_nothing() {
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 1, 1, "");
    scenario.witness.keep_requests();
    let records = vec![
        Record::new("{\"plain\":1}").key("k"),
        Record { payload: None, ..Record::default() }.key("k"),
        Record::new(""),
        Record::new(vec![0xff, 0x00, 0xfe]),
        Record::new(vec![b'x'; 900_000]).key("big but allowed"),
        Record::new("{}").header("ce_specversion", "1.0").header("ce_id", "1").header("ce_type", "t"),
        Record::new("not json").header("content-type", "application/cloudevents+json"),
        Record::new("{\"n\":1}")
            .header("ce_specversion", "1.0")
            .header("ce_id", "order-1")
            .header("ce_source", "/shop")
            .header("ce_type", "order")
            .header("host", "evil")
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    for offset in 0..records.len() {
        scenario.produced.push(Produced { at: (scenario.topic.clone(), 0, offset as i64), business: None });
    }
    cluster.client().produce_many(&scenario.topic, records.into_iter().map(|r| r.partition(0)));
    let mut dispatcher = scenario.start("one");
    let report = scenario.settle(LIMIT);
    report.assert_clean();
    assert_eq!(report.outcome("rejected"), 2, "no source, no JSON: {:?}", report.outcomes);
    assert_eq!(report.outcome("delivered"), 6, "{:?}", report.outcomes);
    let seen = scenario.witness.seen();
    let head = |offset: i64| {
        let call = seen.iter().find(|s| s.offset == offset).expect("it was called");
        call.head.to_ascii_lowercase()
    };
    assert!(head(1).contains("event-tombstone: true"), "{}", head(1));
    assert!(head(0).contains("event-type: application/json"), "{}", head(0));
    let order = head(7);
    for line in [
        "event-id: order-1",
        "ce-source: /shop",
        "ce-type: order",
        "traceparent: 00-0af76519",
        "event-namespace: kafkatriggers.kubeless.io",
    ] {
        assert!(order.contains(line), "{line} is missing in {order}");
    }
    assert!(!order.contains("evil"), "a record's host header never becomes ours: {order}");
    assert_eq!(Scenario::residual(&mut dispatcher), 0.0);
}

#[test]
fn what_was_not_delivered_is_on_the_dead_letter_topic() {
    let cluster = kafka::shared();
    let letters = format!("letters-{}", std::process::id());
    cluster.client().create_topic(&letters, 1, 1);
    let trigger = format!("  delivery:\n    deadLetter:\n      topic: {letters}\n");
    let mut scenario = Scenario::new(cluster, 1, 1, &trigger);
    scenario.witness.script(|seen| match seen.offset {
        3 => Behaviour::Answer { status: 503, delay: Duration::ZERO },
        _ => Behaviour::OK,
    });
    scenario.produce(cluster, &Plan { count: 10, repeat_every: 0, keys: 10, back: 1 });
    let mut dispatcher = scenario.start("one");
    scenario.settle(LIMIT).assert_clean();
    let admin = dispatcher.admin();
    wait::until("the dead letter is acknowledged", LIMIT, || {
        let page = metrics::scrape(admin);
        (page.get("kubeless_dead_letters_total", &[("result", "written")]) == Some(1.0)).then_some(())
    });
    assert_eq!(cluster.client().end_offsets(&letters), vec![1]);
}

#[test]
fn records_that_retention_removed_before_their_claim_are_missed_and_counted() {
    let cluster = kafka::shared();
    let mut scenario = Scenario::new(cluster, 1, 1, "");
    let mut first = scenario.start("one");
    scenario.produce(cluster, &Plan { count: 50, repeat_every: 0, keys: 5, back: 1 });
    scenario.settle(LIMIT).assert_clean();
    first.sigterm();
    assert!(first.wait_exit(LIMIT).success());
    cluster.client().produce_many(&scenario.topic, (0..40).map(|_| Record::new("lost").partition(0)));
    cluster.client().delete_records(&scenario.topic, 0, 80);
    let mut second = scenario.start("two");
    let admin = second.admin();
    wait::until("the loss is counted", LIMIT, || {
        let missed = metrics::scrape(admin).get("kubeless_events_total", &[("outcome", "missed")]);
        (missed == Some(30.0)).then_some(())
    });
    scenario.witness.wait_for(60, LIMIT);
    wait::until("the books balance", LIMIT, || {
        (metrics::scrape(admin).get("kubeless_conservation_residual", &[]) == Some(0.0)).then_some(())
    });
}
