//! A stream with one copy, whose server forgets deliveries of its last moments when it is killed and makes them again. The
//! register of the dispatchers is the claim; the function is the witness: nothing is called twice, and each loss has a name.

use crate::{
    conformance::{Run, SingleCopy, Source as _, run::LIMIT},
    support::{metrics, process::Dispatcher, witness::Behaviour},
};
use std::time::Duration;

const SLOW: Behaviour = Behaviour::Answer { status: 200, delay: Duration::from_millis(10) };
const NARROW: &str = "  delivery:\n    timeout: 1s\n    maxInFlight: 16\n    claimWindow: 64\n";

/// Deliveries that a dispatcher did not take for a claim.
fn refused(dispatcher: &mut Dispatcher) -> f64 {
    metrics::scrape(dispatcher.admin()).get("kubeless_claims_total", &[("answer", "refused")]).unwrap_or(0.0)
}

#[test]
fn a_server_that_is_killed_right_after_deliveries_has_nothing_called_twice() {
    let mut run = Run::new(SingleCopy::alone(), NARROW);
    run.witness.always(SLOW);
    let mut dispatcher = run.start("one");
    let mut rounds = 0;
    // The server makes deliveries again more often than not; without one this test would prove nothing.
    while rounds < 6 || (refused(&mut dispatcher) < 1.0 && rounds < 30) {
        let before = run.witness.len();
        run.publish(200);
        run.witness.wait_for(before + 40, LIMIT);
        run.source.kill_server();
        run.source.restart_server();
        run.wait_connected(&mut dispatcher);
        rounds += 1;
    }
    run.publish(50);
    run.wait_ended(0..run.published);
    let (books, again) = (run.books(), refused(&mut dispatcher));
    println!(
        "{rounds} kills of the server, {} published, delivered again {again}: {:?}",
        run.published, books.counts
    );
    assert!(again >= 1.0, "the server delivered nothing again");
    run.assert_sound(&books, &mut dispatcher);
}

#[test]
fn server_and_dispatcher_die_together_and_the_next_one_calls_nothing_again() {
    let mut run = Run::new(SingleCopy::alone(), NARROW);
    run.witness.always(SLOW);
    let mut reader = run.start("reader-0");
    let (mut rounds, mut again) = (0, 0.0);
    while rounds < 3 || (again < 1.0 && rounds < 12) {
        rounds += 1;
        // Stands by: one reads at a time.
        let mut next = run.start(&format!("reader-{rounds}"));
        let before = run.witness.len();
        run.publish(200);
        run.witness.wait_for(before + 60, LIMIT);
        run.source.kill_server();
        reader.kill9();
        run.source.restart_server();
        run.wait_ended(0..run.published);
        again += refused(&mut next);
        reader = next;
    }
    let books = run.books();
    println!("{rounds} times both died, {} published, again {again}: {:?}", run.published, books.counts);
    assert!(again >= 1.0, "the server delivered nothing again");
    run.assert_sound(&books, &mut reader);
    assert!(books.count("in_doubt") >= 1, "what the dead ran is named: {:?}", books.counts);
}
