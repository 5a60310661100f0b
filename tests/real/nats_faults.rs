//! NATS under faults: members of one queue group, servers that die right after a delivery, a frozen member. The function is the witness: nothing is called twice.

use crate::{
    conformance::{JetStream, Nats, Run, Source as _, run::LIMIT},
    support::{metrics, wait, witness::Behaviour},
};
use std::time::Duration;

const SLOW: Behaviour = Behaviour::Answer { status: 200, delay: Duration::from_millis(20) };
const NARROW: &str = "  delivery:\n    timeout: 1s\n    maxInFlight: 16\n    claimWindow: 32\n";

#[test]
fn two_members_of_a_queue_group_share_the_messages_and_one_may_leave() {
    let mut run = Run::new(Nats::shared(), "");
    run.witness.always(Behaviour::Answer { status: 200, delay: Duration::from_millis(2) });
    let (mut first, mut second) = (run.start("first"), run.start("second"));
    run.publish(1_000);
    run.settle();
    let received = |of: &mut crate::support::process::Dispatcher| {
        metrics::scrape(of.admin()).get("kubeless_events_received_total", &[]).unwrap_or(0.0)
    };
    let (one, two) = (received(&mut first), received(&mut second));
    assert!(one > 100.0 && two > 100.0, "the group shares: {one} and {two}");
    run.publish(500);
    first.sigterm();
    run.publish(500);
    assert!(first.wait_exit(LIMIT).success(), "{}", first.output());
    // On its way to the member that unsubscribed at that moment: the server forgot it.
    let settled = wait::try_until(LIMIT, || (run.books().total() >= 1_990).then(|| run.books()));
    let books = settled.unwrap_or_else(|| panic!("{:?}", run.books().counts));
    println!("two members, one left under load: {:?}", books.counts);
    run.assert_sound(&books, &mut second);
}

#[test]
fn what_a_killed_member_ran_is_named_by_the_other() {
    let mut run = Run::new(JetStream::shared(), NARROW);
    run.witness.always(SLOW);
    let (mut victim, mut other) = (run.start("victim"), run.start("other"));
    run.publish(1_500);
    run.witness.wait_for(200, LIMIT);
    victim.kill9();
    let books = run.settle();
    run.assert_sound(&books, &mut other);
    println!("one of two killed: {:?}", books.counts);
    let doubts = books.count("in_doubt");
    assert!((1..=32).contains(&doubts), "what the victim had, and no more: {:?}", books.counts);
    let named = books.by_id.values().filter(|outcome| *outcome == "in_doubt").count();
    assert_eq!(named as u64, doubts, "each is named by its id");
    // What the server gives to the other after the victim's connection broke had its turn, perhaps; nothing was sent twice.
    assert_eq!(books.count("duplicate"), 0, "{:?}", books.counts);
}

#[test]
fn a_member_that_dies_while_it_names_leaves_the_names_to_the_others() {
    let mut run = Run::new(JetStream::shared(), NARROW);
    run.witness.always(SLOW);
    let mut steady = run.start("steady");
    // It says to the other that it will name an event, looks it up, and dies before it writes anything down.
    let mut second = run.launch_to_die("second", "before_named:1");
    second.wait_ready(LIMIT);
    run.wait_connected(&mut second);
    let mut first = run.start("first");
    run.publish(600);
    run.witness.wait_for(100, LIMIT);
    first.kill9();
    // Each event of the first is named by the one of the two whose time comes sooner.
    let died = wait::try_until(LIMIT, || second.exited());
    assert!(died.is_some(), "it never named one:\n{}", second.output());
    let books = run.settle();
    run.assert_sound(&books, &mut steady);
    println!("one died while it named: {:?}", books.counts);
    assert!(books.count("in_doubt") >= 1, "{:?}", books.counts);
}

#[test]
fn a_frozen_member_that_comes_back_calls_nothing_twice() {
    let mut run = Run::new(JetStream::shared(), NARROW);
    run.witness.always(SLOW);
    let (mut frozen, mut other) = (run.start("frozen"), run.start("other"));
    run.publish(1_000);
    run.witness.wait_for(100, LIMIT);
    frozen.sigstop();
    // Everything but what the frozen one holds ends, and that is named.
    run.settle();
    frozen.sigcont();
    run.publish(200);
    let books = run.settle();
    println!("frozen past ack_wait: {:?}", books.counts);
    run.assert_sound(&books, &mut other);
}

#[test]
fn servers_killed_right_after_a_delivery_deliver_nothing_again() {
    let mut run = Run::new(JetStream::alone(), NARROW);
    run.witness.always(SLOW);
    let mut dispatcher = run.start("one");
    for round in 0..3 {
        run.publish(300);
        run.witness.wait_for(run.witness.len() + 50, LIMIT);
        if round == 0 {
            let leader = run.source.consumer_leader();
            let own = run.source.own.as_mut().expect("servers of its own");
            own.kill9(leader);
            run.witness.wait_for(run.witness.len() + 50, LIMIT);
            run.source.own.as_mut().expect("servers of its own").restart(leader);
        } else {
            run.source.kill_server();
            run.source.restart_server();
        }
        run.wait_connected(&mut dispatcher);
    }
    let books = run.settle();
    println!("leader killed, all killed twice: {:?}", books.counts);
    run.assert_sound(&books, &mut dispatcher);
}

#[test]
fn a_consumer_deleted_under_the_dispatcher_is_made_again_behind_what_was_delivered() {
    let mut run = Run::new(JetStream::shared(), NARROW);
    let mut dispatcher = run.start("one");
    run.publish(200);
    run.settle();
    run.source.delete_consumer("default_trigger_witness");
    run.publish(200);
    let books = run.settle();
    run.assert_sound(&books, &mut dispatcher);
    assert_eq!(books.count("delivered"), 400, "{:?}", books.counts);
}

/// Points of the way of one message, with the passage at which the process dies.
const POINTS: [&str; 9] = [
    "after_poll:20",
    "before_claim:3",
    "after_claim:3",
    "after_connect:1",
    "after_first_byte:20",
    "before_response_head:20",
    "after_response_head:20",
    "before_outcome:5",
    "after_outcome:10",
];

#[test]
fn nothing_is_called_twice_whatever_point_a_member_dies_at() {
    let mut run = Run::new(JetStream::shared(), NARROW);
    run.witness.always(Behaviour::Answer { status: 200, delay: Duration::from_millis(5) });
    // Takes its share, and hears what the server says of the dead.
    let mut steady = run.start("steady");
    for point in POINTS {
        let mut victim = run.launch_to_die(&format!("victim-{}", point.replace(':', "-")), point);
        let died = wait::try_until(LIMIT, || {
            run.publish(50);
            victim.exited()
        });
        assert!(died.is_some(), "{point} was never passed:\n{}", victim.output());
    }
    let books = run.settle();
    println!("{} crash points, {} published: {:?}", POINTS.len(), run.published, books.counts);
    run.assert_sound(&books, &mut steady);
    assert!(books.count("in_doubt") <= 32 * POINTS.len() as u64, "{:?}", books.counts);
}
