//! The claim protocol under random steps: two or three dispatchers, one register, a wire that loses, doubles and delays,
//! crashes. Seeded bugs show that the judge can see. Must never be made green by a weaker judge.
//!
//! `KUBELESS_CAMPAIGN=<n>` multiplies the number of runs.

mod world;

use super::Mutations;
use world::{Faults, World};

/// Runs of each set-up.
const RUNS: u64 = 1000;

fn runs() -> u64 {
    let times = std::env::var("KUBELESS_CAMPAIGN").ok().and_then(|times| times.parse::<u64>().ok());
    RUNS * times.unwrap_or(1).max(1)
}

/// The first violation of `mutations` under `faults`, and how many runs it took.
fn search(mutations: Mutations, faults: Faults) -> Result<World, (u64, String)> {
    let mut tally = World::new(0, mutations, faults);
    for seed in 0..runs() {
        let mut world = World::new(seed, mutations, faults);
        world.play().map_err(|why| (seed, why))?;
        tally.calls += world.calls;
        tally.named += world.named;
        tally.passed_over += world.passed_over;
        tally.resolved += world.resolved;
    }
    Ok(tally)
}

#[test]
fn one_call_an_instant_and_none_unaccounted_under_any_faults() {
    for (name, faults) in [
        ("none", Faults::NONE),
        ("lost answers", Faults { lost: true, ..Faults::NONE }),
        ("crashes", Faults { crashes: true, ..Faults::NONE }),
        ("all", Faults { lost: true, crashes: true, refusals: true }),
    ] {
        let tally = match search(Mutations::default(), faults) {
            Ok(tally) => tally,
            Err((seed, why)) => panic!("{name}, seed {seed}: {why}"),
        };
        println!(
            "{name}: {} calls, {} named, {} passed, {} resolved",
            tally.calls, tally.named, tally.passed_over, tally.resolved
        );
        assert!(tally.calls > runs() && tally.passed_over > 0, "{name}: it did nothing");
        assert!(tally.named > 0 || !faults.crashes, "{name}: nothing was named");
        assert_eq!(tally.resolved > 0, faults.lost, "{name}: resolved {}", tally.resolved);
    }
}

macro_rules! mutants {
    ($($name:ident: $flag:ident, $lost:literal, $crashes:literal => [$($rule:literal),+];)+) => {
        $(#[test]
        fn $name() {
            let mutations = Mutations { $flag: true, ..Mutations::default() };
            let faults = Faults { lost: $lost, crashes: $crashes, refusals: false };
            let Err((seed, why)) = search(mutations, faults) else { panic!("not caught in {} runs", runs()) };
            println!("{}: {why} after {seed} runs", stringify!($name));
            let rules = [$($rule),+];
            assert!(rules.iter().any(|rule| why.starts_with(rule)), "{why}");
        })+
    };
}

mutants! {
    c1_mutant_token_ignored: token_ignored, true, false => ["own claim", "forgotten by its owner"];
    c1_mutant_unknown_fires: unknown_fires, true, false => ["called without a claim", "called twice"];
    c1_mutant_get_is_proof: get_is_proof, true, false => ["own claim", "forgotten by its owner"];
    c2_mutant_no_carry: no_carry, false, false => ["an open instant vanished"];
    c2_mutant_early_close: early_close, false, false => ["an open instant vanished"];
    c3_mutant_names_the_living: names_the_living, false, false => ["named the living"];
    c0_mutant_no_condition: no_condition, false, false => ["claimed twice", "the register went back", "an open instant vanished"];
}
