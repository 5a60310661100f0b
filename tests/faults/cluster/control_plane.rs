//! The API server and its store go away and come back: events go on with what is known, and the age of what is known is told.

use super::stage::{LIMIT, Stage};
use crate::support::{metrics, wait};
use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

/// How long the API server stays away, by the dispatcher's own account of the cache's age.
fn outage() -> Duration {
    let long = std::env::var_os("KUBELESS_CAMPAIGN").is_some();
    Duration::from_secs(if long { 120 } else { 20 })
}

/// Seconds since the last word of the API server about triggers.
fn age(dispatcher: SocketAddr) -> f64 {
    let page = metrics::scrape(dispatcher);
    let heard = page.get("kubeless_watch_last_heard_timestamp_seconds", &[("kind", "KafkaTrigger")]);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    now.as_secs_f64() - heard.expect("the age is told")
}

fn watches(dispatcher: SocketAddr, up: f64) -> Option<()> {
    let found = metrics::scrape(dispatcher).get("kubeless_watch_up", &[("kind", "KafkaTrigger")]);
    (found == Some(up)).then_some(())
}

#[test]
fn an_api_server_that_is_killed_costs_no_event_and_the_age_of_the_cache_is_told() {
    let mut stage = Stage::set("api");
    let dispatchers = stage.installed.dispatchers();
    let load = stage.load();
    stage.goes_on(200);
    stage.installed.cluster.kill9("kube-apiserver");
    let (begun, seen) = (Instant::now(), stage.witness.len());
    for dispatcher in &dispatchers {
        wait::until("the outage is seen", LIMIT, || watches(*dispatcher, 0.0));
        let (before, limit) = (age(*dispatcher), outage() + LIMIT);
        wait::until("the cache gets as old as the outage", limit, || {
            (age(*dispatcher) > outage().as_secs_f64()).then_some(())
        });
        println!("cache age {before:.1} s, then {:.1} s", age(*dispatcher));
        assert_eq!(metrics::get(*dispatcher, "/readyz").expect("it answers").0, 200, "it stays ready");
    }
    stage.goes_on(200);
    stage.installed.cluster.start_again("kube-apiserver");
    let calls = stage.witness.len() - seen;
    println!("the API server was away for {:.1?}, {calls} calls meanwhile", begun.elapsed());
    for dispatcher in &dispatchers {
        wait::until("the watches are up again", LIMIT, || watches(*dispatcher, 1.0));
        assert!(age(*dispatcher) < outage().as_secs_f64(), "the age falls");
    }
    // What changed since is learnt: the Pods of another number are called.
    stage.scale(2);
    stage.goes_on(200);
    stage.take(load);
    stage.all_delivered("API server killed");
    stage.strike();
}

#[test]
fn an_etcd_that_is_killed_and_started_again_costs_no_event() {
    let mut stage = Stage::set("etcd");
    let load = stage.load();
    stage.goes_on(200);
    stage.installed.cluster.kill9("etcd");
    let read = ["get", "--raw=/readyz/etcd", "--request-timeout=5s"];
    wait::until("the API server misses it", LIMIT, || stage.installed.cluster.try_kubectl(&read, "").err());
    stage.goes_on(300);
    stage.installed.cluster.start_again("etcd");
    stage.scale(2);
    stage.goes_on(200);
    stage.take(load);
    stage.all_delivered("etcd killed");
    stage.strike();
}
