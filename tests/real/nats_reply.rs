//! Requests over core NATS: the function's answer comes back on the reply subject, once, with status and errors as headers.

use crate::{
    conformance::{Nats, Run, Source as _, nats::message, run::LIMIT},
    support::{nats::Client, witness::Behaviour},
};
use async_nats::{HeaderMap, Message, Request};
use std::time::Duration;

/// What a request with the event `n` is told.
fn ask(client: &Client, prefix: &str, n: usize) -> Message {
    let told = message("", n, 0);
    let mut headers = HeaderMap::new();
    told.headers.iter().for_each(|(name, value)| headers.append(name.as_str(), value.as_str()));
    request(client, prefix, headers, told.body)
}

fn request(client: &Client, prefix: &str, headers: HeaderMap, body: Vec<u8>) -> Message {
    let request = Request::new().headers(headers).payload(body.into()).timeout(Some(LIMIT));
    let answer = client.block_on(client.raw().send_request(format!("{prefix}.request"), request));
    answer.expect("it is answered")
}

fn header<'a>(message: &'a Message, name: &str) -> &'a str {
    message.headers.as_ref().and_then(|headers| headers.get(name)).map_or("", |value| value.as_str())
}

#[test]
fn a_request_is_told_what_the_function_answered_once() {
    let mut run = Run::new(Nats::shared(), "  reply: true\n");
    let mut dispatcher = run.start("one");
    let (client, prefix) = (run.source.server().client(), run.source.prefix().to_owned());
    let answer = ask(&client, &prefix, 1);
    assert_eq!((&answer.payload[..], header(&answer, "kubeless-status")), (&b"ok"[..], "200"));
    assert_eq!(
        (header(&answer, "kubeless-outcome"), header(&answer, "Nats-Service-Error-Code")),
        ("delivered", "")
    );
    run.witness.always(Behaviour::Answer { status: 500, delay: Duration::from_millis(1) });
    let answer = ask(&client, &prefix, 2);
    assert_eq!(
        (header(&answer, "kubeless-outcome"), header(&answer, "Nats-Service-Error-Code")),
        ("failed", "500")
    );
    run.witness.always(Behaviour::ResetAfterHead);
    let answer = ask(&client, &prefix, 3);
    assert_eq!(
        (header(&answer, "kubeless-outcome"), header(&answer, "Nats-Service-Error-Code")),
        ("unanswered", "504")
    );
    let mut poison = HeaderMap::new();
    poison.insert("content-type", "application/cloudevents+json");
    let answer = request(&client, &prefix, poison, b"no JSON".to_vec());
    assert_eq!(
        (header(&answer, "kubeless-outcome"), header(&answer, "Nats-Service-Error-Code")),
        ("rejected", "400")
    );
    // Messages that ask for nothing are called all the same.
    run.witness.always(Behaviour::OK);
    run.published = 10;
    let numbers = run.publish(100);
    run.wait_ended(numbers);
    let books = run.books();
    run.assert_sound(&books, &mut dispatcher);
    assert_eq!(run.witness.len(), 103, "{:?}", books.counts);
    // The same event: not called again, and told so.
    let answer = ask(&client, &prefix, 1);
    assert_eq!(
        (header(&answer, "kubeless-outcome"), header(&answer, "Nats-Service-Error-Code")),
        ("duplicate", "409")
    );
    assert!(answer.payload.is_empty());
    assert_eq!(run.witness.len(), 103);
}

#[test]
fn an_answer_that_is_too_long_is_told_as_an_error() {
    let run = Run::new(Nats::shared(), "  reply: true\n").with(&["--set", "sources.nats.max_reply_bytes=1B"]);
    let _dispatcher = run.start("one");
    let answer = ask(&run.source.server().client(), run.source.prefix(), 1);
    assert_eq!((answer.payload.len(), header(&answer, "Nats-Service-Error-Code")), (0, "502"));
    assert_eq!(run.witness.len(), 1);
}
