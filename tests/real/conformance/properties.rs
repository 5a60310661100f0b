//! The properties. Must hold for every source; what a source declares that it cannot promise is allowed where it says so, and
//! counted.

use super::{
    Source,
    run::{LIMIT, Run},
};
use crate::support::{metrics, wait, witness::Behaviour};
use std::time::Duration;

const SLOW: Behaviour = Behaviour::Answer { status: 200, delay: Duration::from_millis(20) };

pub fn delivers_all_once<S: Source>() {
    let mut run = Run::new(S::shared(), "");
    let mut dispatcher = run.start("one");
    for _ in 0..4 {
        run.publish(500);
    }
    let books = run.settle();
    run.assert_sound(&books, &mut dispatcher);
    assert_eq!(books.count("delivered"), 2_000, "{:?}", books.counts);
    assert_eq!((run.witness.len(), run.witness.distinct()), (2_000, 2_000));
    let received = metrics::scrape(dispatcher.admin()).get("kubeless_events_received_total", &[]);
    assert_eq!(received, Some(2_000.0));
}

pub fn a_graceful_stop_drains_what_runs<S: Source>() {
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

pub fn kill_nine_of_the_dispatcher_repeats_nothing<S: Source>() {
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
    let all_new = || numbers.clone().all(|n| run.books().by_id.contains_key(&format!("e-{n}")));
    wait::until("what came last has ended", LIMIT, || all_new().then_some(()));
    let books = if S::KEEPS { run.settle() } else { run.books() };
    run.assert_sound(&books, &mut last);
    println!("{}: 3 kills of {} published: {:?}", S::KIND, run.published, books.counts);
    if S::KEEPS {
        let open = books.count("in_doubt");
        assert!(open <= 3 * 32, "more in doubt than was claimed: {open}");
    }
}

pub fn a_server_that_goes_and_comes_repeats_nothing<S: Source>() {
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
    let back = || numbers.clone().all(|n| run.books().by_id.contains_key(&format!("e-{n}")));
    wait::until("what was published afterwards has ended", LIMIT, || back().then_some(()));
    let books = if S::KEEPS { run.settle() } else { run.books() };
    run.assert_sound(&books, &mut dispatcher);
    if S::KEEPS {
        assert_eq!(books.count("delivered"), 600, "{:?}", books.counts);
    } else {
        let gaps = metrics::scrape(admin).get("kubeless_source_gap_seconds_count", &[]);
        assert!(gaps >= Some(1.0), "the interval without a connection is told: {gaps:?}");
    }
}

pub fn poison_has_an_outcome_and_blocks_nothing<S: Source>() {
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

pub fn a_slow_function_bounds_memory<S: Source>() {
    const BUDGET: f64 = 8.0 * 1024.0 * 1024.0;
    let run = Run::new(S::shared(), "  delivery:\n    maxInFlight: 16\n");
    let mut run = run.with(&["--set", "memory.max_event_bytes=8MiB"]);
    run.ready(false);
    let mut dispatcher = run.start("one");
    let admin = dispatcher.admin();
    let resident = || metrics::scrape(admin).get("process_resident_memory_bytes", &[]).unwrap_or(0.0);
    let before = resident();
    // 64 MB in all.
    for _ in 0..8 {
        run.publish_with(1_000, 8_000);
    }
    let mut most = 0.0_f64;
    if !S::KEEPS {
        // Those that did not fit are counted, while the function is not there at all.
        wait::until("the buffer is full", LIMIT, || (run.books().count("missed") > 1_000).then_some(()));
        most = most.max(resident());
    }
    assert_eq!(run.witness.len(), 0, "no endpoint, no call");
    run.ready(true);
    let books = wait::until("all have ended", LIMIT, || {
        most = most.max(resident());
        let books = run.books();
        (books.total() >= run.published as u64).then_some(books)
    });
    run.assert_sound(&books, &mut dispatcher);
    println!("{}: resident {before:.0} before, {most:.0} at most: {:?}", S::KIND, books.counts);
    // Its own buffer, the client's, and what the allocator keeps of both.
    assert!(most - before < 8.0 * BUDGET, "{before} bytes before, {most} at most");
    assert_eq!(books.total(), run.published as u64, "each has one outcome: {:?}", books.counts);
    if S::KEEPS {
        assert_eq!(books.count("delivered"), run.published as u64, "{:?}", books.counts);
    }
}

pub fn a_trigger_is_paused_edited_and_deleted_while_it_runs<S: Source>() {
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
    wait::until("it is paused", LIMIT, || (page()[0]["claiming"] == false).then_some(()));
    if S::KEEPS {
        run.publish(50);
    } else {
        // Nobody is subscribed while it is paused.
        wait::until("it is unsubscribed", LIMIT, || {
            (metrics::scrape(admin).get("kubeless_source_connected", &[]) == Some(0.0)).then_some(())
        });
        run.source.publish(90_000..90_050, 100);
    }
    assert_eq!(run.witness.len(), 100, "nothing is called while paused");
    // Resumed with another limit.
    run.edit("  delivery:\n    maxInFlight: 3\n");
    wait::until("it is resumed", LIMIT, || (page()[0]["claiming"] == true).then_some(()));
    run.wait_connected(&mut dispatcher);
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
