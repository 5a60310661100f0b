//! Seeded bugs, in the protocol and in what drives it: each must be caught. Must never be made green by a weaker oracle.

use super::{
    Tally,
    member::Bug,
    play, runner,
    steps::{Faults, runs},
};
use crate::sources::kafka::protocol::Mutations;
use proptest::test_runner::TestError;

/// Runs until a violation whose text begins with one of `rules`; any other violation fails the test.
fn caught(name: &str, bug: Bug, mutations: Mutations, faults: Faults, rules: &[&str]) {
    let tally = Tally::default();
    let run = |run| play(&run, bug, mutations, &tally);
    let end = runner(3000, 0).run(&runs(faults, 200), run);
    let Err(TestError::Fail(why, _)) = end else { panic!("{name}: not caught in 3000 cases") };
    let why = why.to_string();
    println!("{name}: {why} after {} cases", tally.cases.get());
    assert!(rules.iter().any(|rule| why.contains(&format!(": {rule}: "))), "{name}: {why}");
}

macro_rules! mutants {
    ($($name:ident: $faults:ident, $bug:ident, { $($flag:ident)? } => [$($rule:literal),+];)+) => {
        $(#[test]
        fn $name() {
            let mutations = Mutations { $($flag: true,)? ..Mutations::default() };
            caught(stringify!($name), Bug::$bug, mutations, Faults::$faults, &[$($rule),+]);
        })+
    };
}

mutants! {
    k4_mutant_no_epoch: Any, None, { no_epoch } => ["I7", "I7m", "I1", "I3"];
    n1_mutant_no_carry: Any, None, { no_carry } => ["I6"];
    n2_mutant_report_early: Any, None, { report_early } => ["N2", "I6p"];
    n3_mutant_name_own: Any, None, { name_own } => ["I6p", "N3"];
    n3_mutant_reopen: Zombies, None, { reopen } => ["I7m"];
    l1_mutant_flush_unparks: None, None, { flush_unparks } => ["L1"];
    k8_mutant_no_guard: Rewinds, None, { no_guard } => ["I1"];
    n1_mutant_early_close: Any, None, { early_close } => ["I6"];
    n5_mutant_late_flush: Any, None, { late_flush } => ["I7", "I7m", "L1"];
    k2_mutant_unknown_is_granted: Any, UnknownIsGranted, {} => ["K0", "I1", "I3", "N3"];
    k1_mutant_retry_same_identity: Any, RetrySameIdentity, {} => ["I7", "I7m"];
    k1_mutant_no_taint_on_resend: Any, NoTaintOnResend, {} => ["I7", "I7m"];
    k3_mutant_generation_minus_one: Zombies, GenerationMinusOne, {} => ["I7"];
    n4_mutant_no_drain: None, NoDrain, {} => ["I9"];
    k0_mutant_invoke_first: Any, InvokeFirst, {} => ["K0"];
    k4_mutant_async_commit: Any, AsyncCommit, {} => ["I7", "I7m", "I1", "N3", "I9"];
    k5_mutant_hold_until_assign: Wire, HoldUntilAssign, {} => ["I8"];
    d2_mutant_enter_before_grant: Wire, EnterBeforeGrant, {} => ["I1b"];
    d1_mutant_rebuild_by_wall_clock: Any, RebuildByWallClock, {} => ["I1b"];
    l1_mutant_end_of_partition_first: None, EndOfPartitionFirst, {} => ["L1", "I1b"];
    l2_mutant_no_start_deadline: Zombies, NoStartDeadline, {} => ["order", "I1"];
}
