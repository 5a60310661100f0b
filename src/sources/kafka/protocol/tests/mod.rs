//! The rebalance state machine under random sequences of steps: members, coordinator, wire, crashes. The production
//! protocol does the work; `oracle` judges by what registers, functions and journals saw. Seeded bugs show that it can.
//!
//! `KUBELESS_CAMPAIGN=<n>` multiplies the number of cases.

mod callbacks;
mod driver;
mod member;
mod mutants;
mod oracle;
mod polling;
mod rules;
mod simulation;
mod steps;
mod world;

use super::Mutations;
use member::Bug;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use simulation::Simulation;
use std::cell::Cell;
use steps::{Faults, Run, runs};

/// What a campaign saw, so that a test cannot pass by doing nothing.
#[derive(Debug, Default)]
struct Tally {
    cases: Cell<u64>,
    calls: Cell<u64>,
    names: Cell<u64>,
}

fn play(run: &Run, bug: Bug, mutations: Mutations, tally: &Tally) -> Result<(), TestCaseError> {
    let mut simulation = Simulation::new(run, bug, mutations);
    let end = simulation.play(run);
    tally.cases.set(tally.cases.get() + 1);
    tally.calls.set(tally.calls.get() + simulation.world.oracle.calls);
    tally.names.set(tally.names.get() + simulation.world.oracle.names);
    end.map_err(TestCaseError::fail)
}

fn runner(cases: u32, shrink: u32) -> TestRunner {
    let config = Config { cases, max_shrink_iters: shrink, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(
        config,
        TestRng::from_seed(RngAlgorithm::XorShift, b"kubeless, rebuilt"[..16].as_ref()),
    )
}

fn hold(faults: Faults, cases: u32, length: usize) -> Tally {
    let times = std::env::var("KUBELESS_CAMPAIGN").ok().and_then(|t| t.parse::<u32>().ok()).unwrap_or(1);
    let tally = Tally::default();
    let good = |run: Run| play(&run, Bug::None, Mutations::default(), &tally);
    match runner(cases * times.max(1), 20_000).run(&runs(faults, length), good) {
        Ok(()) => tally,
        Err(TestError::Fail(why, run)) => panic!("{why}\n{run:#?}"),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn i9_without_faults_everything_ends_once_and_nothing_is_in_doubt() {
    let tally = hold(Faults::None, 300, 120);
    assert!(tally.calls.get() > 3000 && tally.names.get() == 0, "{tally:?}");
}

#[test]
fn i1_to_i8_hold_under_any_faults() {
    let tally = hold(Faults::Any, 600, 200);
    assert!(tally.calls.get() > 3000 && tally.names.get() > 300, "{tally:?}");
}

#[test]
fn n3_and_l2_hold_while_processes_die_stand_still_and_are_thrown_out() {
    let tally = hold(Faults::Zombies, 300, 200);
    assert!(tally.calls.get() > 1000 && tally.names.get() > 100, "{tally:?}");
}

#[test]
fn k1_and_d2_hold_while_commits_and_answers_are_lost_doubled_and_late() {
    let tally = hold(Faults::Wire, 300, 200);
    assert!(tally.calls.get() > 1000 && tally.names.get() > 100, "{tally:?}");
}

#[test]
fn k8_a_foreign_rewind_is_caught_by_the_process_that_remembers() {
    let tally = hold(Faults::Rewinds, 200, 120);
    assert!(tally.calls.get() > 1000, "{tally:?}");
}
