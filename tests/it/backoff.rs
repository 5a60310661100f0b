//! The pause after a failure (`BACKOFF_INTERVAL` of Kubeless) and where it is set. Must never wait for time to pass.

use kubeless::{
    config::{self, Checks, DispatcherConfig},
    dispatch::backoff::Backoff,
    ledger::Outcome,
};
use std::time::Duration;

/// How long it holds from `now`, in ms.
fn pause(backoff: &Backoff, now: u64) -> u64 {
    (0..100_000).find(|ms| !backoff.holds(now + ms)).expect("it ends")
}

#[test]
fn a_failure_holds_the_next_claim_longer_each_time_and_a_success_ends_that() {
    let backoff = Backoff::new(Duration::from_secs(2));
    assert!(!backoff.holds(0));
    let (mut now, mut longest) = (1, 0);
    for (at, base) in [500.0, 750.0, 1125.0, 1687.5, 2000.0, 2000.0].into_iter().enumerate() {
        backoff.ended(Outcome::Failed, now);
        // Calls that were claimed before the pause, and fail in it, are no reason for a longer one.
        backoff.ended(Outcome::Unanswered, now);
        let pause = pause(&backoff, now) as f64;
        assert!(pause >= base * 0.49 && pause <= base * 1.5 + 1.0, "pause {at}: {pause} of {base}");
        longest = longest.max(pause as u64);
        now += pause as u64 + 1;
    }
    assert!(longest <= 3000);
    backoff.ended(Outcome::Delivered, now);
    assert!(!backoff.holds(now), "a success ends nothing that is over");
    backoff.ended(Outcome::Unreachable, now);
    assert!(pause(&backoff, now) <= 751, "and begins anew");
}

#[test]
fn without_an_interval_nothing_is_held() {
    let backoff = Backoff::new(Duration::ZERO);
    backoff.ended(Outcome::Failed, 1);
    assert!(!backoff.holds(1));
    for other in [Outcome::Duplicate, Outcome::Filtered, Outcome::InDoubt] {
        let backoff = Backoff::new(Duration::from_secs(9));
        backoff.ended(other, 1);
        assert!(!backoff.holds(1), "{other:?} is no failure of the function");
    }
}

#[test]
fn the_variable_of_kubeless_sets_it_and_the_own_one_wins() {
    let read = |pairs: &'static [(&str, &str)]| {
        let variable = |name: &str| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned());
        let read: Result<DispatcherConfig, _> = config::load(None, variable, Vec::new(), Checks::All);
        read.map(|config| config.invoker.backoff_interval).map_err(|error| error.to_string())
    };
    assert_eq!(read(&[]), Ok(Duration::ZERO));
    assert_eq!(read(&[("BACKOFF_INTERVAL", "10s")]), Ok(Duration::from_secs(10)));
    let both = &[("BACKOFF_INTERVAL", "10s"), ("KUBELESS_INVOKER_BACKOFF_INTERVAL", "1s")];
    assert_eq!(read(both), Ok(Duration::from_secs(1)));
    let refused = read(&[("BACKOFF_INTERVAL", "soon")]).unwrap_err();
    assert!(
        refused.contains("BACKOFF_INTERVAL") && refused.contains("invoker.backoff_interval"),
        "{refused}"
    );
}
