//! What comes over NATS in the wild: bodies and headers that break limits, ids, wildcards, dead letters, more than the function
//! can take, a process that stands still. Each message has its defined outcome, and the counts are exact.

use crate::{
    conformance::{Nats, Run, Source, nats::message, run::LIMIT},
    support::{
        metrics,
        nats::{Message, NatsCluster},
        wait,
        witness::Behaviour,
    },
};
use futures_util::StreamExt as _;
use std::{ops::Range, time::Duration};

/// A server that takes bodies of 8 MB.
struct Wide {
    server: NatsCluster,
}

impl Wide {
    fn new() -> Self {
        let server = NatsCluster::start_with(1, "max_payload: 8MB\n");
        Self { server }
    }

    fn send(&self, messages: impl IntoIterator<Item = Message>) {
        self.server.client().publish(messages);
    }
}

impl Source for Wide {
    const KEEPS: bool = false;
    const KIND: &'static str = "NATSTrigger";

    fn shared() -> Self {
        Self::new()
    }
    fn alone() -> Self {
        Self::new()
    }
    fn spec(&self) -> String {
        format!("  topic: \"wild.>\"\n  url: \"{}\"\n", self.server.url())
    }
    fn publish(&mut self, numbers: Range<usize>, padding: usize) {
        self.send(numbers.map(|n| message("wild.n", n, padding)));
    }
    fn poison(&mut self) {}
    fn kill_server(&mut self) {}
    fn restart_server(&mut self) {}
}

#[test]
fn odd_messages_have_their_outcomes() {
    let mut run = Run::new(Wide::shared(), "");
    run.witness.keep_requests();
    let mut dispatcher = run.start("one");
    let mut crowded = Message::new("wild.a", "x");
    for n in 0..100 {
        crowded = crowded.header(&format!("h-{n}"), "v");
    }
    run.source.send([
        // Rejected: four.
        Message::new("wild.a", vec![b'x'; 3 << 20]),
        crowded,
        Message::new("wild.a", "x").header("h", "v".repeat(10_000)),
        Message::new("wild.a", "{}").header("ce-id", "1").header("ce-specversion", "1.0"),
        // Delivered: four, and one repeat.
        Message::new("wild.a.b", vec![0xff, 0x00, 0xfe]).header("host", "evil").header("Nats-Msg-Id", "m-1"),
        Message::new("wild.a.b", "again").header("Nats-Msg-Id", "m-1"),
        Message::new("wild.empty", ""),
        Message::new("wild.deep.er", "{\"n\":1}")
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        Message::new("wild.s", r#"{"specversion":"1.0","id":"e-s","source":"/s","type":"t","data":{"a":1}}"#)
            .header("Content-Type", "application/cloudevents+json"),
    ]);
    run.published = 9;
    let books = run.settle();
    run.assert_sound(&books, &mut dispatcher);
    assert_eq!(
        (books.count("rejected"), books.count("delivered"), books.count("duplicate")),
        (4, 4, 1),
        "{:?}",
        books.counts
    );
    let heads: Vec<String> = run.witness.seen().iter().map(|seen| seen.head.to_ascii_lowercase()).collect();
    let has = |wanted: &[&str]| heads.iter().any(|head| wanted.iter().all(|line| head.contains(line)));
    assert!(
        has(&["event-id: m-1", "event-subject: wild.a.b", "event-namespace: natstriggers.kubeless.io"]),
        "{heads:#?}"
    );
    assert!(
        has(&["event-subject: wild.deep.er", "traceparent: 00-0af76519", "event-type: application/json"]),
        "{heads:#?}"
    );
    assert!(has(&["event-id: e-s", "ce-source: /s", "ce-type: t"]), "{heads:#?}");
    assert!(!heads.iter().any(|head| head.contains("evil")), "a message's own header never becomes ours");
}

#[test]
fn what_is_more_than_the_function_can_take_is_counted_exactly() {
    let mut run = Run::new(Nats::shared(), "  delivery:\n    maxInFlight: 4\n")
        .with(&["--set", "sources.nats.max_waiting=64"]);
    run.witness.always(Behaviour::Answer { status: 200, delay: Duration::from_millis(5) });
    let mut dispatcher = run.start("one");
    for _ in 0..20 {
        run.publish_with(5_000, 10);
    }
    let books = run.settle();
    println!("overload: {:?}", books.counts);
    run.assert_sound(&books, &mut dispatcher);
    assert_eq!(books.total(), 100_000, "{:?}", books.counts);
    assert!(books.count("missed") > 50_000 && books.count("delivered") >= 64, "{:?}", books.counts);
}

#[test]
fn a_process_that_stood_still_counts_what_it_can_and_calls_nothing_twice() {
    let mut run = Run::new(Nats::shared(), "");
    let mut dispatcher = run.start("one");
    run.publish(100);
    run.settle();
    dispatcher.sigstop();
    // Less than what sockets and server hold for a client: nothing of it is lost.
    run.publish(2_000);
    dispatcher.sigcont();
    let books = run.settle();
    run.assert_sound(&books, &mut dispatcher);
    assert_eq!(books.count("delivered"), 2_100, "{:?}", books.counts);
}

#[test]
fn what_was_not_delivered_is_on_the_dead_letter_subject() {
    let mut run =
        Run::new(Nats::shared(), "  delivery:\n    deadLetter:\n      topic: letters.of.the.test\n");
    run.witness.script(|seen| match seen.id.as_str() {
        "e-3" => Behaviour::Answer { status: 503, delay: Duration::ZERO },
        _ => Behaviour::OK,
    });
    let mut dispatcher = run.start("one");
    let client = run.source.server().client();
    let mut letters = client.block_on(client.raw().subscribe("letters.of.the.test")).expect("a subscription");
    client.publish([]);
    run.publish(5);
    run.settle();
    let letter = client.block_on(async { tokio::time::timeout(LIMIT, letters.next()).await });
    let letter = letter.expect("a letter in time").expect("the subscription lives");
    let header = |name: &str| {
        let headers = letter.headers.as_ref().expect("it has headers");
        headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default()
    };
    assert_eq!((header("kubeless-outcome"), header("kubeless-status")), ("failed".into(), "503".into()));
    assert_eq!((header("ce-id"), header("kubeless-event-id")), ("e-3".into(), "e-3".into()));
    let admin = dispatcher.admin();
    wait::until("it is counted", LIMIT, || {
        let page = metrics::scrape(admin);
        (page.get("kubeless_dead_letters_total", &[("result", "written")]) == Some(1.0)).then_some(())
    });
}

#[test]
fn the_command_line_sends_to_nats() {
    let mut run = Run::new(Wide::shared(), "");
    let mut dispatcher = run.start("one");
    let url = run.source.server.url();
    let sent = std::process::Command::new(env!("CARGO_BIN_EXE_kubeless"))
        .args(["send", "wild.sent", "--broker", &url, "--id", "e-cli", "--data", "{\"n\":1}"])
        .output()
        .expect("the program starts");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    run.published = 1;
    let books = run.settle();
    run.assert_sound(&books, &mut dispatcher);
    assert_eq!(books.by_id.get("e-cli").map(String::as_str), Some("delivered"), "{:?}", books.by_id);
}
