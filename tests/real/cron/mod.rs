//! Calls by the clock on a real API server and in a folder: once an instant whatever races, what a dead dispatcher leaves,
//! what clocks that are set and servers that are away do.

mod rig;

use super::support::{
    apiserver::{self, ApiServer, Part},
    manifests::Manifests,
    ports,
    process::{Dispatcher, Launch},
    wait,
    witness::{Behaviour, Witness},
};
use rig::{NOON, Place, Rig, SimulatedClock, journal};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);

/// Instants of a run with two dispatchers; `KUBELESS_TICKS` asks for others.
fn ticks() -> i64 {
    std::env::var("KUBELESS_TICKS").ok().and_then(|ticks| ticks.parse().ok()).unwrap_or(10_000)
}

/// Two dispatchers, one clock that runs as fast as they follow.
fn race(place: &Place<'_>, ticks: i64) {
    let witness = Witness::start_on(ports::own_address());
    let clock = SimulatedClock::at(NOON);
    let rig = Rig::new(place, &witness, &json!({"catchUp": "All", "catchUpLimit": 100}));
    let mut dispatchers = [rig.start(&clock, 2), rig.start(&clock, 2)];
    rig.wait_since();
    for tick in 1..=ticks {
        clock.advance(60_000);
        // Never more than three behind, so that both race for each.
        let enough = usize::try_from(tick - 3).unwrap_or(0);
        witness.wait_for(enough, LIMIT);
    }
    witness.wait_for(usize::try_from(ticks).expect("positive"), LIMIT);
    let granted: Vec<u64> = dispatchers.iter().map(rig::Dispatcher::granted).collect();
    for dispatcher in &mut dispatchers {
        dispatcher.stop();
    }
    println!("{ticks} instants, claims by dispatcher: {granted:?}");
    assert_eq!(witness.invoked_twice(), Vec::<String>::new());
    let wanted: Vec<String> = (1..=ticks).map(|tick| rig.id(NOON + tick * 60)).collect();
    let seen = witness.counts();
    let lost: Vec<&String> = wanted.iter().filter(|id| !seen.contains_key(*id)).collect();
    assert!(lost.is_empty() && seen.len() == wanted.len(), "{lost:?}");
    let mut ended = std::collections::BTreeMap::new();
    for line in dispatchers.iter().flat_map(rig::Dispatcher::journal) {
        *ended.entry((line.id, line.outcome.as_str())).or_insert(0) += 1;
    }
    let odd: Vec<_> =
        ended.iter().filter(|((_, outcome), count)| *outcome != "delivered" || **count != 1).collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert_eq!(ended.len(), wanted.len());
    assert!(dispatchers.iter().all(|dispatcher| dispatcher.residual() == 0));
    assert_eq!(rig.open(), 0, "the register lists nothing");
}

#[test]
fn two_dispatchers_call_once_at_every_instant_and_lose_none() {
    race(&Place::Cluster(apiserver::shared()), ticks());
}

#[test]
fn two_dispatchers_of_one_folder_call_once_at_every_instant() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    race(&Place::Folder(dir.path()), 200);
}

#[test]
fn an_api_server_that_is_away_costs_what_its_absence_lasts_and_not_more() {
    let mut api = ApiServer::start();
    let witness = Witness::start_on(ports::own_address());
    let clock = SimulatedClock::at(NOON);
    let place = Place::Cluster(&api);
    let rig = Rig::new(&place, &witness, &json!({"startingDeadlineSeconds": 90}));
    let mut dispatcher = rig.start(&clock, 2);
    rig.wait_since();
    clock.advance(60_000);
    witness.wait_for(1, LIMIT);
    wait::until("the call is closed", LIMIT, || (rig.open() == 0).then_some(()));
    drop(rig);
    api.kill9(Part::ApiServer);
    for _ in 0..5 {
        clock.advance(60_000);
    }
    wait::until("the trouble is shown", LIMIT, || dispatcher.status().contains("register").then_some(()));
    assert_eq!(witness.len(), 1, "nothing is called without a claim");
    api.start_again(Part::ApiServer);
    // The last of the five is within its deadline, the others are not.
    witness.wait_for(2, LIMIT);
    wait::until("the missed ones are counted", LIMIT, || (dispatcher.outcome("missed") == 4).then_some(()));
    wait::until("the trouble is over", LIMIT, || dispatcher.status().is_empty().then_some(()));
    dispatcher.stop();
    assert_eq!((witness.len(), dispatcher.residual()), (2, 0));
}

#[test]
fn a_clock_that_is_set_calls_nothing_early_and_nothing_twice() {
    let witness = Witness::start_on(ports::own_address());
    let clock = SimulatedClock::real();
    let place = Place::Cluster(apiserver::shared());
    // Every minute of the hour that the clock is set over would be due.
    let rig = Rig::new(&place, &witness, &json!({"catchUp": "All", "catchUpLimit": 100}));
    let minute = || kubeless::clock::unix_ms().div_euclid(60_000);
    let began = minute();
    let mut dispatcher = rig.start(&clock, 2);
    rig.wait_since();
    clock.step(3_600_000);
    wait::until("the clock is refused", LIMIT, || dispatcher.status().contains("apart").then_some(()));
    // A minute may have begun meanwhile, here and below.
    let called = witness.len();
    let begun = usize::try_from(minute() - began).expect("time goes on");
    assert!(called <= begun, "{called} calls in {begun} minutes");
    clock.step(-7_200_000);
    dispatcher.looked();
    wait::until("the clock is refused again", LIMIT, || dispatcher.status().contains("apart").then_some(()));
    clock.step(3_600_000);
    wait::until("the clock is right again", LIMIT, || dispatcher.status().is_empty().then_some(()));
    dispatcher.stop();
    let begun = usize::try_from(minute() - began).expect("time goes on");
    assert!(witness.len() <= begun && witness.invoked_twice().is_empty(), "{}", witness.len());
    assert_eq!(dispatcher.outcome("missed"), 0);
}

#[test]
fn policies_of_overlap_hold() {
    for (policy, seen, outcomes) in [
        ("Allow", 3, [("delivered", 3), ("missed", 0), ("unanswered", 0)]),
        ("Forbid", 1, [("delivered", 1), ("missed", 2), ("unanswered", 0)]),
        ("Replace", 3, [("delivered", 1), ("missed", 0), ("unanswered", 2)]),
    ] {
        let (dir, witness) = (tempfile::tempdir().expect("a folder"), Witness::start());
        witness.always(Behaviour::Answer { status: 200, delay: Duration::from_millis(1500) });
        let clock = SimulatedClock::at(NOON);
        let place = Place::Folder(dir.path());
        let rig = Rig::new(&place, &witness, &json!({"concurrencyPolicy": policy}));
        let mut dispatcher = rig.start(&clock, 2);
        rig.wait_since();
        for tick in 1..=3 {
            clock.advance(60_000);
            rig.wait_last(NOON + tick * 60);
        }
        wait::until("all have ended", LIMIT, || {
            let ended: u64 = outcomes.iter().map(|(name, _)| dispatcher.outcome(name)).sum();
            (ended == 3).then_some(())
        });
        dispatcher.stop();
        assert_eq!(witness.len(), seen, "{policy}");
        for (name, count) in outcomes {
            assert_eq!(dispatcher.outcome(name), count, "{policy} {name}");
        }
        assert_eq!((dispatcher.residual(), rig.open()), (0, 0), "{policy}");
    }
}

#[test]
fn a_function_without_endpoints_and_a_suspension_cost_no_call_too_many() {
    let (dir, witness) = (tempfile::tempdir().expect("a folder"), Witness::start());
    let clock = SimulatedClock::at(NOON);
    let place = Place::Folder(dir.path());
    let mut rig = Rig::new(&place, &witness, &json!({}));
    let mut dispatcher = rig.start(&clock, 2);
    rig.wait_since();
    rig.ready(&dispatcher, false);
    clock.advance(60_000);
    assert!(!dispatcher.is_ready());
    dispatcher.looked();
    assert_eq!(rig.last(), None, "a function that is absent costs no call");
    rig.ready(&dispatcher, true);
    witness.wait_for(1, LIMIT);
    // Suspended: neither called nor missed.
    dispatcher.pause(true);
    clock.advance(600_000);
    dispatcher.pause(false);
    wait::until("it has looked", LIMIT, || (rig.last() == Some(NOON + 660)).then_some(()));
    clock.advance(60_000);
    witness.wait_for(2, LIMIT);
    dispatcher.stop();
    assert_eq!((dispatcher.outcome("delivered"), dispatcher.outcome("missed")), (2, 0));
}

/// A dispatcher process in `namespace`, with short windows.
fn launch(api: &ApiServer, namespace: &str, dir: &Path, name: &str) -> Launch {
    let mut launch = Launch::dispatcher(dir, name)
        .arg("--kubeconfig")
        .arg(api.kubeconfig().display().to_string())
        .arg("--state-dir")
        .arg(dir.join(name).display().to_string())
        .arg("--admin-listen=127.0.0.1:0")
        .arg("--log-format=json");
    for set in [
        &*format!("kubernetes.functions_namespaces={namespace}"),
        "invoker.timeout_margin=100ms",
        "sources.cron.start_window=1s",
        "sources.cron.request_timeout=1s",
        "sources.cron.doubt_margin=4s",
    ] {
        launch = launch.arg("--set").arg(set);
    }
    launch
}

#[test]
fn what_a_killed_dispatcher_left_is_named_by_the_other_after_its_deadline() {
    let api = apiserver::shared();
    for (point, calls) in [("after_claim", 0), ("after_first_byte", 1)] {
        let (dir, witness) =
            (tempfile::tempdir().expect("a folder"), Witness::start_on(ports::own_address()));
        let place = Place::Cluster(api);
        let rig = Rig::new(&place, &witness, &json!({"schedule": "@yearly", "catchUp": "Last"}));
        // The beginning of this year was missed, and is made up for.
        rig.set_last(kubeless::clock::unix_ms() / 1000 - 370 * 86_400);
        let mut first =
            launch(api, rig.namespace(), dir.path(), "first").env("KUBELESS_POINT", point).start();
        first.wait_exit(LIMIT);
        assert_eq!(rig.open(), 1, "{point}: claimed and open");
        assert!(journal(&dir.path().join("first")).is_empty(), "{point}");
        let mut second: Dispatcher = launch(api, rig.namespace(), dir.path(), "second").start();
        second.wait_ready(LIMIT);
        let named = wait::until("it is named", LIMIT, || journal(&dir.path().join("second")).pop());
        assert_eq!((named.outcome.as_str(), named.count), ("in_doubt", 1), "{point}");
        assert!(named.id.starts_with(rig.uid()) && named.id.ends_with("-01-01T00:00:00Z"), "{named:?}");
        wait::until("the register is clean", LIMIT, || (rig.open() == 0).then_some(()));
        second.sigterm();
        assert!(second.wait_exit(LIMIT).success());
        assert_eq!(witness.len(), calls, "{point}: never a second call");
    }
}

#[test]
fn a_killed_dispatcher_of_a_folder_calls_once_when_it_comes_back() {
    let (dir, witness) = (tempfile::tempdir().expect("a folder"), Witness::start());
    witness.keep_requests();
    let manifests = Manifests::new(&dir.path().join("manifests"));
    manifests.function("witness", &[], &[witness.address()]);
    let trigger = json!({
        "apiVersion": "kubeless.io/v1beta1", "kind": "CronJobTrigger", "metadata": {"name": "nightly"},
        "spec": {"schedule": "@yearly", "function-name": "witness", "executor": "Dispatcher", "catchUp": "Last"},
    });
    manifests.write("trigger.yaml", &trigger.to_string());
    let kept = dir.path().join("state/cron/default_nightly.json");
    std::fs::create_dir_all(kept.parent().expect("a folder")).expect("made");
    let since: Value = json!({"uid": "file:CronJobTrigger:default/nightly", "version": 7,
        "status": {"since": "2020-06-01T00:00:00Z"}});
    std::fs::write(&kept, since.to_string()).expect("written");
    let launch = Launch::dispatcher(dir.path(), "dispatcher")
        .arg("--manifests")
        .arg(manifests.dir().display().to_string())
        .arg("--state-dir")
        .arg(dir.path().join("state").display().to_string())
        .arg("--admin-listen=127.0.0.1:0")
        .arg("--log-format=json");
    // Before the claim is written: the next one makes the call.
    launch.clone().env("KUBELESS_POINT", "claim_sent").start().wait_exit(LIMIT);
    assert_eq!(witness.len(), 0);
    let mut dispatcher = launch.start();
    witness.wait_for(1, LIMIT);
    let state = dir.path().join("state");
    let lines =
        wait::until("both lines are written", LIMIT, || Some(journal(&state)).filter(|l| l.len() == 2));
    dispatcher.sigterm();
    assert!(dispatcher.wait_exit(LIMIT).success());
    let outcomes: Vec<_> = lines.iter().map(|line| (line.outcome.as_str(), line.count > 1)).collect();
    assert!(outcomes.contains(&("missed", true)) && outcomes.contains(&("delivered", false)), "{outcomes:?}");
    let head = witness.seen()[0].head.to_ascii_lowercase();
    assert!(head.starts_with("get / http/1.1") && head.contains("event-namespace: cronjobtrigger"), "{head}");
}
