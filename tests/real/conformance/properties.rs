//! The properties. Must hold for every source; what a source declares that it cannot promise is allowed where it says so, and
//! counted.

use super::{
    Source,
    run::{LIMIT, Run},
};
use crate::support::{metrics, wait, witness::Behaviour};
use std::time::Duration;

/// One rule of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    DeliversAllOnce,
    AGracefulStopDrains,
    AKillRepeatsNothing,
    AServerThatWasAwayRepeatsNothing,
    PoisonHasAnOutcome,
    ASlowFunctionBoundsMemory,
    ATriggerIsPausedEditedAndDeleted,
}

impl Property {
    pub const ALL: [Self; 7] = [
        Self::DeliversAllOnce,
        Self::AGracefulStopDrains,
        Self::AKillRepeatsNothing,
        Self::AServerThatWasAwayRepeatsNothing,
        Self::PoisonHasAnOutcome,
        Self::ASlowFunctionBoundsMemory,
        Self::ATriggerIsPausedEditedAndDeleted,
    ];
}

/// Shortest reason for which a property is left out: a sentence that says what is not there, and what stands in for it.
const SHORTEST_REASON: usize = 60;

/// Holds `S` to a property, or says why it cannot mean anything there.
pub fn hold<S: Source>(property: Property) {
    use Property as P;
    if let Some((_, reason)) = S::WITHOUT.iter().find(|(without, _)| *without == property) {
        let needs_a_server = [P::AServerThatWasAwayRepeatsNothing, P::PoisonHasAnOutcome];
        assert!(needs_a_server.contains(&property), "{}: {property:?} means something everywhere", S::KIND);
        assert!(reason.len() >= SHORTEST_REASON, "{}, {property:?}: {reason:?} says too little", S::KIND);
        println!("{} is not held to {property:?}: {reason}", S::KIND);
        return;
    }
    match property {
        P::DeliversAllOnce => delivers_all_once::<S>(),
        P::AGracefulStopDrains => a_graceful_stop_drains_what_runs::<S>(),
        P::AKillRepeatsNothing => kill_nine_of_the_dispatcher_repeats_nothing::<S>(),
        P::AServerThatWasAwayRepeatsNothing => a_server_that_goes_and_comes_repeats_nothing::<S>(),
        P::PoisonHasAnOutcome => poison_has_an_outcome_and_blocks_nothing::<S>(),
        P::ASlowFunctionBoundsMemory => a_slow_function_bounds_memory::<S>(),
        P::ATriggerIsPausedEditedAndDeleted => a_trigger_is_paused_edited_and_deleted_while_it_runs::<S>(),
    }
}

/// Thousands of large events from which on the size of the process tells more than what its client takes for itself.
const TELLING_FLOOD: usize = 8;

const SLOW: Behaviour = Behaviour::Answer { status: 200, delay: Duration::from_millis(20) };

fn delivers_all_once<S: Source>() {
    let mut run = Run::new(S::shared(), "");
    let mut dispatcher = run.start("one");
    for _ in 0..4 {
        run.wait_room(500);
        run.publish(500);
    }
    let books = run.settle();
    run.assert_sound(&books, &mut dispatcher);
    assert_eq!(books.count("delivered"), 2_000, "{:?}", books.counts);
    assert_eq!((run.witness.len(), run.witness.distinct()), (2_000, 2_000));
    let received = metrics::scrape(dispatcher.admin()).get("kubeless_events_received_total", &[]);
    assert_eq!(received, Some(2_000.0));
}

fn a_graceful_stop_drains_what_runs<S: Source>() {
    let mut run = Run::new(S::shared(), "  delivery:\n    maxInFlight: 8\n    claimWindow: 32\n");
    run.witness.always(SLOW);
    let mut first = run.start("first");
    run.publish(400);
    run.witness.wait_for(50, LIMIT);
    first.sigterm();
    assert!(first.wait_exit(LIMIT).success(), "{}", first.output());
    let at_exit = run.books();
    assert_eq!(
        at_exit.count("delivered"),
        run.witness.len() as u64,
        "what was called has ended: {:?}",
        at_exit.counts
    );
    if !S::KEEPS {
        // What was received is worked off before the end.
        assert_eq!(at_exit.count("delivered"), 400, "{:?}", at_exit.counts);
    }
    let mut second = run.start("second");
    run.publish(50);
    let books = run.settle();
    run.assert_sound(&books, &mut second);
    assert_eq!(books.count("delivered"), 450, "a graceful stop loses nothing: {:?}", books.counts);
}

fn kill_nine_of_the_dispatcher_repeats_nothing<S: Source>() {
    let mut run = Run::new(S::shared(), "  delivery:\n    maxInFlight: 8\n    claimWindow: 32\n");
    run.witness.always(SLOW);
    for round in 0..3 {
        let mut victim = run.start(&format!("victim-{round}"));
        run.publish(200);
        run.witness.wait_for(run.witness.len() + 20, LIMIT);
        victim.kill9();
    }
    let mut last = run.start("last");
    let numbers = run.publish(100);
    run.witness.always(Behaviour::OK);
    run.wait_ended(numbers);
    let books = if S::KEEPS { run.settle() } else { run.books() };
    run.assert_sound(&books, &mut last);
    println!("{}: 3 kills of {} published: {:?}", S::KIND, run.published, books.counts);
    if S::KEEPS {
        let open = books.count("in_doubt");
        assert!(open <= 3 * 32, "more in doubt than was claimed: {open}");
    }
}

/// Most events that a killed server may have had under way: what runs at once, asked for once ahead.
const UNDER_WAY: u64 = 128;

fn a_server_that_goes_and_comes_repeats_nothing<S: Source>() {
    let mut run = Run::new(S::alone(), "");
    let mut dispatcher = run.start("one");
    run.publish(300);
    run.witness.wait_for(100, LIMIT);
    run.source.kill_server();
    if !S::KEEPS {
        // What the server had not sent is gone with it, and no one can know how much that was.
        run.published = run.books().total() as usize;
    }
    let admin = dispatcher.admin();
    if !S::KEEPS {
        wait::until("the loss is seen", LIMIT, || {
            (metrics::scrape(admin).get("kubeless_source_connected", &[]) == Some(0.0)).then_some(())
        });
    }
    run.source.restart_server();
    run.wait_connected(&mut dispatcher);
    run.published = 300;
    let numbers = run.publish(300);
    run.wait_ended(numbers);
    let books = if S::KEEPS { run.settle() } else { run.books() };
    run.assert_sound(&books, &mut dispatcher);
    if S::KEEPS {
        let lost = if S::CLAIMS_BY_DELIVERY { books.count("in_doubt") } else { 0 };
        assert_eq!(books.count("delivered") + lost, 600, "{:?}", books.counts);
        assert!(lost <= UNDER_WAY, "{:?}", books.counts);
    } else {
        let gaps = metrics::scrape(admin).get("kubeless_source_gap_seconds_count", &[]);
        assert!(gaps >= Some(1.0), "the interval without a connection is told: {gaps:?}");
    }
}

fn poison_has_an_outcome_and_blocks_nothing<S: Source>() {
    let mut run = Run::new(S::shared(), "");
    let mut dispatcher = run.start("one");
    for _ in 0..3 {
        run.poison();
        run.publish(10);
    }
    let books = run.settle();
    run.assert_sound(&books, &mut dispatcher);
    assert_eq!((books.count("rejected"), books.count("delivered")), (3, 30), "{:?}", books.counts);
}

fn a_slow_function_bounds_memory<S: Source>() {
    const WARM: usize = 100;
    let budget = S::FLOOD as f64 * 1024.0 * 1024.0;
    let run = Run::new(S::shared(), "  delivery:\n    maxInFlight: 16\n");
    let mut run = run.with(&["--set", &format!("memory.max_event_bytes={}MiB", S::FLOOD)]);
    let mut dispatcher = run.start("one");
    let admin = dispatcher.admin();
    // What a client takes for its first events is no matter of how many wait.
    run.publish_with(WARM, 8_000);
    run.settle();
    run.ready(false);
    wait::until("nobody is there to be called", LIMIT, || {
        let (_, page) = metrics::get(admin, "/debug/subscriptions").ok()?;
        let page: serde_json::Value = serde_json::from_str(&page).ok()?;
        (page[0]["claiming"] == false).then_some(())
    });
    let resident = || {
        let page = metrics::scrape(admin);
        let held = page.get("kubeless_held_event_bytes", &[]).expect("it says what it holds");
        // One batch may be under way while the last one fills the budget.
        assert!(held <= 2.0 * budget, "{held} bytes of events are held where {budget} may be");
        page.get("process_resident_memory_bytes", &[]).unwrap_or(0.0)
    };
    let before = resident();
    // Eight times the budget in all.
    for _ in 0..S::FLOOD {
        run.publish_with(1_000, 8_000);
    }
    let mut most = 0.0_f64;
    let keeps = S::KEEPS && run.published <= S::HOLDS;
    if !keeps {
        // Those that did not fit are counted, while the function is not there at all.
        wait::until("the buffer is full", S::PATIENCE, || {
            most = most.max(resident());
            (run.books().count("missed") > 1_000).then_some(())
        });
    }
    assert_eq!(run.witness.len(), WARM, "no endpoint, no call");
    run.ready(true);
    let books = wait::until("all have ended", 2 * LIMIT, || {
        most = most.max(resident());
        let books = run.books();
        (books.total() >= run.published as u64).then_some(books)
    });
    run.assert_sound(&books, &mut dispatcher);
    println!("{}: resident {before:.0} before, {most:.0} at most: {:?}", S::KIND, books.counts);
    if S::FLOOD >= TELLING_FLOOD {
        // Its own buffer, the client's, and what the allocator keeps of both.
        assert!(most - before < 8.0 * budget, "{before} bytes before, {most} at most");
    }
    assert_eq!(books.total(), run.published as u64, "each has one outcome: {:?}", books.counts);
    if keeps {
        assert_eq!(books.count("delivered"), run.published as u64, "{:?}", books.counts);
    }
}

fn a_trigger_is_paused_edited_and_deleted_while_it_runs<S: Source>() {
    let mut run = Run::new(S::shared(), "");
    let mut dispatcher = run.start("one");
    let admin = dispatcher.admin();
    let page = || -> serde_json::Value {
        let (_, page) = metrics::get(admin, "/debug/subscriptions").expect("the page answers");
        serde_json::from_str(&page).expect("a list")
    };
    run.publish(100);
    run.settle();
    run.edit("  paused: true\n");
    wait::until("it is paused", S::PATIENCE, || (page()[0]["claiming"] == false).then_some(()));
    if S::KEEPS_WHILE_PAUSED {
        run.publish(50);
    } else {
        if !S::KEEPS {
            // Nobody is subscribed while it is paused.
            wait::until("it is unsubscribed", LIMIT, || {
                (metrics::scrape(admin).get("kubeless_source_connected", &[]) == Some(0.0)).then_some(())
            });
        }
        run.source.publish(90_000..90_050, 100);
    }
    assert_eq!(run.witness.len(), 100, "nothing is called while paused");
    // Resumed with another limit.
    run.edit("  delivery:\n    maxInFlight: 3\n");
    wait::until("it is resumed", LIMIT, || (page()[0]["claiming"] == true).then_some(()));
    run.wait_connected(&mut dispatcher);
    run.source.resumed();
    run.publish(100);
    let books = run.settle();
    run.assert_sound(&books, &mut dispatcher);
    assert_eq!(books.count("delivered"), run.published as u64, "{:?}", books.counts);
    run.delete();
    wait::until("it is gone", LIMIT, || page().as_array().is_some_and(Vec::is_empty).then_some(()));
    let calls = run.witness.len();
    run.source.publish(91_000..91_010, 100);
    assert_eq!(run.witness.len(), calls);
    dispatcher.sigterm();
    assert!(dispatcher.wait_exit(LIMIT).success(), "{}", dispatcher.output());
    assert_eq!(run.witness.len(), calls, "a deleted trigger calls nothing");
}
