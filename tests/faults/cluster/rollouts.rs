//! Pods come and go under load: new code, new dispatchers, a killed function, none at all. Only a process that is killed in the
//! middle of a call may leave that call unanswered.

use super::stage::{LIMIT, Stage};
use crate::support::{installed, wait, witness::Behaviour};
use rustix::process::{Pid, Signal, kill_process};
use std::{fs, time::Duration};

/// Most calls that can be in the air: `delivery.maxInFlight` in each of two dispatchers.
const IN_FLIGHT: usize = 2 * 64;

/// Calls that take a while: whatever happens, happens to some of them.
fn slow(millis: u64) -> Behaviour {
    Behaviour::Answer { status: 200, delay: Duration::from_millis(millis) }
}

#[test]
fn a_rolling_update_of_the_function_loses_nothing() {
    let mut stage = Stage::set("update");
    stage.witness.always(slow(100));
    stage.scale(2);
    let load = stage.load();
    stage.goes_on(200);
    for round in ["ROUND=1", "ROUND=2"] {
        stage.cli.ok(&["function", "update", "witness", "--env", round, "--wait=180s"]);
        stage.goes_on(100);
    }
    stage.take(load);
    stage.all_delivered("function updated twice");
    stage.strike();
}

#[test]
fn a_rolling_update_of_the_dispatchers_loses_nothing() {
    let mut stage = Stage::set("dispatchers");
    stage.witness.always(slow(100));
    let load = stage.load();
    stage.goes_on(200);
    let before = stage.installed.dispatchers();
    let deployment = installed::DEPLOYMENTS[1];
    stage.installed.cluster.kubectl(&["rollout", "restart", deployment, "-n", installed::NAMESPACE]);
    wait::until("every dispatcher is another one", LIMIT, || {
        stage.judge();
        let now = stage.installed.dispatchers();
        (now.len() == before.len() && now.iter().all(|one| !before.contains(one))).then_some(())
    });
    stage.goes_on(200);
    stage.take(load);
    stage.all_delivered("dispatchers restarted");
    stage.strike();
}

#[test]
fn a_killed_function_costs_at_most_what_was_in_flight() {
    let mut stage = Stage::set("killed");
    stage.scale(2);
    // Enough at once that some are with the Pod that ends.
    stage.witness.always(slow(1000));
    stage.produce(200);
    stage.goes_on(20);
    let uid = stage.pods()[0]["metadata"]["uid"].as_str().unwrap().to_owned();
    assert!(kill_container(&uid) > 0, "the runtime of Pod {uid} runs");
    stage.witness.always(Behaviour::OK);
    let load = stage.load();
    stage.goes_on(300);
    stage.take(load);
    let report = stage.settle("function process killed");
    // What ran in it, and what was claimed behind that and met its start deadline meanwhile: each by name, none twice.
    let (delivered, unanswered) = (report.outcome("delivered"), report.outcome("unanswered"));
    let unreachable = report.outcome("unreachable");
    assert_eq!(delivered + unanswered + unreachable, stage.produced(), "{:?}", report.outcomes);
    assert!(unanswered >= 1 && unanswered + unreachable <= IN_FLIGHT, "{:?}", report.outcomes);
    stage.strike();
}

#[test]
fn scaled_to_nothing_and_back_claims_nothing_meanwhile_and_loses_nothing() {
    let mut stage = Stage::set("scaled");
    let load = stage.load();
    stage.goes_on(200);
    for replicas in [3, 1] {
        stage.scale(0);
        stage.claiming(false);
        let (committed, seen) = (stage.committed(), stage.witness.len());
        wait::until("more records to wait", LIMIT, || {
            (stage.client().end_offsets(&stage.topic).iter().sum::<i64>() > committed + 100).then_some(())
        });
        assert_eq!(
            (stage.committed(), stage.witness.len()),
            (committed, seen),
            "nothing is claimed for nobody"
        );
        stage.scale(replicas);
        stage.goes_on(200);
    }
    stage.take(load);
    stage.all_delivered("scaled 1, 0, 3, 0, 1");
    stage.strike();
}

/// SIGKILL to every process of a Pod that runs our runtime: no endpoint is told beforehand.
fn kill_container(uid: &str) -> usize {
    let mut killed = 0;
    for process in fs::read_dir("/proc").expect("this is Linux").flatten() {
        let read = |name: &str| fs::read_to_string(process.path().join(name)).unwrap_or_default();
        let Ok(pid) = process.file_name().display().to_string().parse() else { continue };
        if read("cgroup").contains(uid) && read("cmdline").contains("kubeless_runtime") {
            kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("it runs");
            killed += 1;
        }
    }
    killed
}
