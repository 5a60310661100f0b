//! Records of a real Kinesis endpoint to the witness function: all of them, each once, over shards, splits, merges, restarts and
//! edits.

use crate::support::{
    kinesis::{self, Scene},
    metrics,
    process::Dispatcher,
    wait,
    witness::Behaviour,
};
use md5::{Digest as _, Md5};
use std::time::Duration;

const HORIZON: &str = "  startingPosition: TRIM_HORIZON\n";
const LONG: Duration = Duration::from_secs(60);

fn stop(dispatcher: &mut Dispatcher) {
    dispatcher.sigterm();
    let status = dispatcher.wait_exit(Duration::from_secs(40));
    assert!(status.success(), "{status}:\n{}", dispatcher.output());
}

fn assert_in_order(scene: &Scene, keys: i64) {
    let seen = scene.witness.seen();
    for key in 0..keys {
        let of_key: Vec<i64> = seen.iter().map(kinesis::number_of).filter(|n| n % keys == key).collect();
        assert!(of_key.is_sorted(), "key {key}: {of_key:?}");
    }
}

#[test]
fn kinesis_delivers_all_shards_in_the_order_of_their_keys() {
    let kinesis = kinesis::shared();
    let mut scene = Scene::new(kinesis, 3, HORIZON);
    scene.produce(kinesis, 600, 20);
    let mut dispatcher = scene.start("one");
    scene.settle(LONG).assert_clean();
    // A busy machine may let a request wait for too long; the next one is answered.
    let admin = dispatcher.admin();
    wait::until("it is connected", LONG, || {
        let (_, page) = metrics::get(admin, "/debug/subscriptions").ok()?;
        page.contains(r#""state": "connected""#).then_some(())
    });
    // A restart begins after what is claimed, and takes what came meanwhile.
    stop(&mut dispatcher);
    scene.produce(kinesis, 300, 20);
    let mut dispatcher = scene.start("one");
    let report = scene.settle(LONG);
    report.assert_clean();
    assert_eq!((report.invocations, report.outcome("delivered")), (900, 900));
    assert_eq!(Scene::residual(&mut dispatcher).abs(), 0.0);
    assert_in_order(&scene, 20);
    stop(&mut dispatcher);
    assert!(scene.rows().iter().all(|row| row["owner"].is_null() && row["open"] == serde_json::json!([])));
}

#[test]
fn kinesis_splits_and_merges_under_load_lose_nothing_and_keep_the_order() {
    let kinesis = kinesis::shared();
    let mut scene = Scene::new(kinesis, 2, HORIZON);
    scene.witness.always(Behaviour::Answer { status: 200, delay: Duration::from_millis(3) });
    let mut dispatcher = scene.start("one");
    for round in 0..3 {
        scene.produce(kinesis, 200, 25);
        let open = kinesis.open_shards(&scene.stream);
        if round % 2 == 0 {
            open.iter().for_each(|shard| kinesis.split(&scene.stream, shard));
        } else {
            // Neighbours by their keys: the children of one parent are listed one after the other.
            kinesis.merge(&scene.stream, (&open[0], &open[1]));
        }
        scene.produce(kinesis, 200, 25);
    }
    let report = scene.settle(LONG);
    report.assert_clean();
    assert_eq!(report.outcome("delivered"), 1200);
    assert_in_order(&scene, 25);
    assert_eq!(Scene::residual(&mut dispatcher).abs(), 0.0);
    wait::until("the parents' rows say that they ended", LONG, || {
        let ended = scene.rows().iter().filter(|row| row["ended"] == true).count();
        (ended >= 4).then_some(())
    });
    stop(&mut dispatcher);
}

#[test]
fn kinesis_latest_begins_now_and_a_restart_where_it_was() {
    let kinesis = kinesis::shared();
    let mut scene = Scene::new(kinesis, 2, "");
    // Nobody remembers these: they were there before the trigger.
    kinesis.put(&scene.stream, &[("a".into(), kinesis::body(90_000)), ("b".into(), kinesis::body(90_001))]);
    let mut dispatcher = scene.start("one");
    scene.wait_held(2);
    stop(&mut dispatcher);
    // Not one record was read so far, and yet the beginning is known.
    scene.produce(kinesis, 50, 5);
    let mut dispatcher = scene.start("one");
    scene.settle(LONG).assert_clean();
    stop(&mut dispatcher);
}

#[test]
fn kinesis_triggers_are_paused_edited_deleted_and_made_anew() {
    let kinesis = kinesis::shared();
    let mut scene = Scene::new(kinesis, 1, HORIZON);
    let mut dispatcher = scene.start("one");
    scene.produce(kinesis, 20, 5);
    scene.settle(LONG).assert_clean();
    scene.trigger(&format!("{HORIZON}  paused: true\n"));
    let claiming = |dispatcher: &mut Dispatcher, wanted: bool| {
        let admin = dispatcher.admin();
        wait::until("the edit took effect", LONG, || {
            let (_, page) = crate::support::metrics::get(admin, "/debug/subscriptions").ok()?;
            page.replace(' ', "").contains(&format!("\"claiming\":{wanted}")).then_some(())
        });
    };
    claiming(&mut dispatcher, false);
    scene.produce(kinesis, 20, 5);
    // What was claimed before the edit has ended; from here on nothing new is.
    assert_eq!(scene.witness.len(), 20);
    // Edited in place, and with a restart of the source.
    scene.trigger(&format!(
        "{HORIZON}  ordering: Partition\n  filter:\n  - exact: {{type: io.kubeless.kinesis.record}}\n"
    ));
    scene.settle(LONG).assert_clean();
    assert_eq!(scene.witness.len(), 40);
    scene.manifests.remove("kinesis-trigger");
    wait::until("the register is given back", LONG, || {
        scene.rows().iter().all(|row| row["owner"].is_null()).then_some(())
    });
    scene.produce(kinesis, 20, 5);
    scene.trigger(HORIZON);
    let report = scene.settle(LONG);
    report.assert_clean();
    assert_eq!(report.outcome("delivered"), 60);
    stop(&mut dispatcher);
}

#[test]
fn kinesis_aggregated_records_end_one_by_one_and_repeats_are_stopped_over_a_restart() {
    let kinesis = kinesis::shared();
    let mut scene = Scene::new(kinesis, 1, &format!("{HORIZON}  dedup:\n    key:\n      jsonPointer: /n\n"));
    let mut dispatcher = scene.start("one");
    let bodies: Vec<Vec<u8>> = (0..30).map(kinesis::body).collect();
    for chunk in bodies.chunks(10) {
        let placed = kinesis.put(&scene.stream, &[("whole".into(), aggregated(chunk))]);
        let base = scene.produced.len();
        for sub in 0..10 {
            scene.remember(base + sub, format!("{}/{}/{sub}", placed[0].0, placed[0].1));
        }
    }
    let report = scene.settle(LONG);
    report.assert_clean();
    assert_eq!(report.outcome("delivered"), 30);
    stop(&mut dispatcher);
    // The window is read back from the stream: another process stops what this one has called for.
    kinesis.put(&scene.stream, &[("other".into(), kinesis::body(7)), ("other".into(), kinesis::body(31))]);
    let mut dispatcher = scene.start("two");
    scene.witness.wait_for(31, LONG);
    let outcome = |name: &str| scene.lines().iter().filter(|line| line["outcome"] == name).count();
    wait::until("both have their outcomes", LONG, || {
        ((outcome("duplicate"), outcome("delivered")) == (1, 31)).then_some(())
    });
    assert_eq!(scene.witness.invoked_twice(), Vec::<String>::new());
    stop(&mut dispatcher);
}

#[test]
fn kinesis_keeps_what_was_not_delivered_on_a_stream() {
    let kinesis = kinesis::shared();
    let dead = format!("dead-{}", std::process::id());
    kinesis.create_stream(&dead, 1);
    let letters = format!("{HORIZON}  delivery:\n    deadLetter:\n      topic: {dead}\n");
    let mut scene = Scene::new(kinesis, 2, &letters);
    scene.witness.always(Behaviour::Answer { status: 500, delay: Duration::ZERO });
    scene.produce(kinesis, 20, 5);
    let mut dispatcher = scene.start("one");
    let report = scene.settle(LONG);
    report.assert_clean();
    assert_eq!(report.outcome("failed"), 20);
    let records = kinesis.wait_records(&dead, 20);
    assert_eq!(records.len(), 20);
    for record in records {
        let event: serde_json::Value = serde_json::from_slice(&record).expect("a CloudEvent");
        assert_eq!((&event["kubelessoutcome"], &event["kubelessstatus"]), (&"failed".into(), &"500".into()));
        let position = event["kubelessposition"].as_str().expect("a place");
        let place = position.strip_prefix(&format!("{}/", scene.stream)).expect("of the stream");
        assert!(scene.places.contains_key(place), "{position}");
    }
    // The service tells how far behind a read was; these were read to the end.
    wait::until("the shards are read to their end", LONG, || {
        let page = metrics::scrape(dispatcher.admin());
        (page.get("kubeless_source_lag_seconds", &[("trigger", "trigger")]) == Some(0.0)).then_some(())
    });
    stop(&mut dispatcher);
}

#[test]
fn kinesis_says_once_what_a_stream_may_have_forgotten() {
    let kinesis = kinesis::shared();
    let mut scene = Scene::new(kinesis, 1, HORIZON);
    scene.produce(kinesis, 5, 1);
    let mut dispatcher = scene.start("one");
    scene.settle(LONG).assert_clean();
    stop(&mut dispatcher);
    scene.edit_rows(|row| {
        for time in ["seenMs", "timeMs"] {
            row[time] = (row[time].as_i64().expect("a time") - 25 * 3_600_000).into();
        }
    });
    for _ in 0..2 {
        let mut dispatcher = scene.start("one");
        scene.produce(kinesis, 5, 1);
        scene.witness.wait_for(scene.produced.len(), LONG);
        stop(&mut dispatcher);
    }
    let missed: Vec<_> = scene.lines().into_iter().filter(|line| line["outcome"] == "missed").collect();
    assert_eq!(missed.len(), 1, "{missed:?}");
}

/// As Amazon's producer library packs records: all under one key.
fn aggregated(bodies: &[Vec<u8>]) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| {
        let mut field = vec![tag];
        let mut length = bytes.len();
        while length > 127 {
            field.push((length & 127) as u8 | 128);
            length >>= 7;
        }
        field.push(length as u8);
        field.extend_from_slice(bytes);
        field
    };
    let mut message = field(0x0a, b"key");
    for body in bodies {
        let record = [&[0x08, 0x00][..], &field(0x1a, body)].concat();
        message.extend(field(0x1a, &record));
    }
    [&[0xF3, 0x89, 0x9A, 0xC2][..], &message, &Md5::digest(&message)[..]].concat()
}
