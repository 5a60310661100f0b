//! HTTP triggers through the dispatcher: real processes, real sockets, the witness as the function. Must never hold the product to
//! a time.

pub mod rig;
mod shared;

use crate::support::{wait, witness::Behaviour};
use rig::{Rig, ask, opened, residual, try_ask};
use std::{collections::BTreeSet, thread, time::Duration};

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_request_is_called_once_and_a_repeat_is_told_the_same() {
    let rig = Rig::new(&[], "");
    let (mut dispatcher, to) = rig.start("one");
    let key = [("idempotency-key", "order-1"), ("x-own", "yes")];
    let first = ask(to, "PUT /orders/42?size=xl", &key, "a");
    assert_eq!((first.status, first.header("event-id")), (200, Some("order-1")), "{first:?}");
    let again = ask(to, "PUT /orders/42?size=xl", &key, "a");
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")), "{again:?}");
    assert_eq!(again.body, first.body);
    assert_eq!(ask(to, "PUT /orders/42?size=xl", &key, "b").status, 422);
    assert_eq!(ask(to, "PUT /elsewhere", &key, "a").status, 404);
    assert_eq!(ask(to, "GET /orders/metrics", &[], "").status, 404, "the runtime's own page");
    let seen = rig.witness.seen();
    assert_eq!(seen.len(), 1);
    let head = seen[0].head.to_ascii_lowercase();
    assert!(head.starts_with("put /42?size=xl http/1.1") && head.contains("x-own: yes"), "{head}");
    assert!(!head.contains("idempotency-key"), "{head}");
    assert_eq!(seen[0].body, b"a");
    // Without an id each request is an event of its own.
    for _ in 0..2 {
        assert_eq!(ask(to, "POST /orders", &[], "c").status, 200);
    }
    assert_eq!(rig.witness.len(), 3);
    let outcomes: Vec<String> = rig.outcomes().into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!(outcomes, ["delivered", "delivered", "delivered", "duplicate", "rejected"]);
    assert!(residual(&mut dispatcher).abs() < f64::EPSILON);
}

#[test]
fn requests_that_race_under_one_id_make_one_call() {
    let rig = Rig::new(&[], "");
    rig.witness.always(Behaviour::Answer { status: 200, delay: Duration::from_millis(300) });
    let (_dispatcher, to) = rig.start("one");
    let event = [("ce-specversion", "1.0"), ("ce-id", "e-1"), ("ce-source", "/s"), ("ce-type", "t")];
    let told: Vec<u16> = thread::scope(|scope| {
        let racers: Vec<_> =
            (0..16).map(|_| scope.spawn(|| ask(to, "POST /orders", &event, "{}").status)).collect();
        racers.into_iter().map(|racer| racer.join().expect("an answer")).collect()
    });
    assert!(told.iter().all(|status| matches!(status, 200 | 409)), "{told:?}");
    assert!(told.contains(&200), "{told:?}");
    assert_eq!(rig.witness.len(), 1);
}

#[test]
fn what_was_not_sent_may_come_again_and_what_may_have_run_may_not() {
    let rig = Rig::new(&[], "");
    rig.witness.refuse();
    let (mut dispatcher, to) = rig.start("one");
    let refused = ask(to, "POST /orders", &[("idempotency-key", "k-1")], "a");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    rig.witness.reopen();
    assert_eq!(ask(to, "POST /orders", &[("idempotency-key", "k-1")], "a").status, 200);
    rig.witness.always(Behaviour::Hang);
    assert_eq!(ask(to, "POST /orders", &[("idempotency-key", "k-2")], "a").status, 504);
    rig.witness.always(Behaviour::ResetAfterHead);
    assert_eq!(ask(to, "POST /orders", &[("idempotency-key", "k-3")], "a").status, 502);
    rig.witness.always(Behaviour::OK);
    for key in ["k-2", "k-3"] {
        let again = ask(to, "POST /orders", &[("idempotency-key", key)], "a");
        assert_eq!((again.status, again.header("idempotent-replayed")), (502, Some("true")), "{again:?}");
    }
    let ids: Vec<String> = rig.witness.seen().into_iter().map(|seen| seen.id).collect();
    assert_eq!(ids, ["k-1", "k-2", "k-3"]);
    let outcomes: BTreeSet<_> = rig.outcomes().into_iter().collect();
    for (outcome, id) in [("unreachable", "k-1"), ("delivered", "k-1"), ("unanswered", "k-2")] {
        assert!(outcomes.contains(&(outcome.to_owned(), id.to_owned())), "{outcomes:?}");
    }
    assert!(residual(&mut dispatcher).abs() < f64::EPSILON);
}

#[test]
fn limits_hold_before_the_function_is_asked_and_http_2_is_spoken() {
    let rig = Rig::new(
        &["max_body_bytes=\"1KiB\"", "max_wait=\"200ms\""],
        "  filter:\n  - exact:\n      type: wanted\n",
    );
    let (mut dispatcher, to) = rig.start("one");
    let event = |kind| [("ce-specversion", "1.0"), ("ce-id", "e-1"), ("ce-source", "/s"), ("ce-type", kind)];
    assert_eq!(ask(to, "POST /orders", &event("wanted"), &"x".repeat(1025)).status, 413);
    assert_eq!(
        ask(to, "POST /orders", &[("content-type", "application/cloudevents-batch+json")], "[]").status,
        415
    );
    assert_eq!(ask(to, "POST /orders", &event("other"), "{}").status, 204);
    rig.manifests.endpoints("witness", &[]);
    crate::support::wait::until("the function is known to be away", LIMIT, || {
        let told = ask(to, "POST /orders", &event("wanted"), "{}");
        (told.status == 503 && told.header("retry-after").is_some()).then_some(())
    });
    let before = rig.witness.len();
    assert!(before <= 1, "at most the one before the slice was read");
    rig.manifests.endpoints("witness", &[rig.witness.address()]);
    crate::support::wait::until("the function is back", LIMIT, || {
        (h2c(to, &format!("/orders/{}", rig.witness.len())) == 200).then_some(())
    });
    assert!(residual(&mut dispatcher).abs() < f64::EPSILON);
}

/// A GET over HTTP/2 with prior knowledge; the event type makes it pass the filter.
fn h2c(to: std::net::SocketAddr, path: &str) -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(to).await.expect("it listens");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        let driver = tokio::spawn(connection);
        let request = http::Request::get(format!("http://any.example.com{path}"))
            .header("ce-specversion", "1.0")
            .header("ce-id", path)
            .header("ce-source", "/s")
            .header("ce-type", "wanted");
        let (answer, _) = client.send_request(request.body(()).expect("a request"), true).expect("a stream");
        let answer = tokio::time::timeout(LIMIT, answer).await.expect("in time").expect("an answer");
        driver.abort();
        answer.status().as_u16()
    })
}

#[test]
fn a_stop_finishes_what_runs_and_tells_its_caller() {
    let rig = Rig::new(&[], "");
    rig.witness.always(Behaviour::Answer { status: 200, delay: Duration::from_secs(1) });
    let (mut dispatcher, to) = rig.start("one");
    let caller = thread::spawn(move || ask(to, "POST /orders", &[("idempotency-key", "k-1")], "a").status);
    assert!(rig.witness.wait_until(LIMIT, |seen| !seen.is_empty()));
    dispatcher.sigterm();
    assert_eq!(caller.join().expect("an answer"), 200);
    assert!(dispatcher.wait_exit(LIMIT).success());
    let mut next = rig.launch("one").start();
    let to = opened(&mut next);
    assert_eq!(ask(to, "POST /orders", &[], "b").status, 200);
    assert_eq!(rig.outcomes().len(), 2);
}

/// Dies at `point` of its first request; returns the next dispatcher on the same state.
fn die_at(rig: &Rig, point: &str) -> (crate::support::process::Dispatcher, std::net::SocketAddr) {
    let mut dispatcher = rig.launch("one").env("KUBELESS_POINT", point).start();
    let to = opened(&mut dispatcher);
    let broken = try_ask(to, "POST /orders", &[("idempotency-key", "k-1")], "a");
    assert!(broken.is_err(), "{broken:?}");
    dispatcher.wait_exit(LIMIT);
    drop(dispatcher);
    rig.start("one")
}

#[test]
fn what_a_killed_dispatcher_had_claimed_is_named_and_never_called_again() {
    for (point, calls) in [("after_claim", 0), ("before_response_head", 1)] {
        let rig = Rig::new(&[], "");
        let (mut dispatcher, to) = die_at(&rig, point);
        rig.wait_outcome("in_doubt", "k-1");
        // The journal has it before the store.
        let again = wait::until("the store has it, too", LIMIT, || {
            let again = ask(to, "POST /orders", &[("idempotency-key", "k-1")], "a");
            (again.status != 409).then_some(again)
        });
        assert_eq!((again.status, again.header("idempotent-replayed")), (502, Some("true")), "{again:?}");
        assert_eq!(rig.witness.len(), calls, "{point}");
        assert_eq!(ask(to, "POST /orders", &[("idempotency-key", "k-2")], "a").status, 200);
        assert_eq!(rig.outcomes().iter().filter(|(outcome, _)| outcome == "in_doubt").count(), 1);
        assert!(residual(&mut dispatcher).abs() < f64::EPSILON);
    }
}

#[test]
fn ends_outlive_a_kill_and_a_store_in_memory_does_not() {
    for (options, replayed) in [(&[][..], Some("true")), (&["store=\"memory\""][..], None)] {
        let rig = Rig::new(options, "");
        let (mut dispatcher, to) = rig.start("one");
        let key = [("idempotency-key", "k-1")];
        assert_eq!(ask(to, "POST /orders", &key, "a").status, 200);
        dispatcher.kill9();
        let (_dispatcher, to) = rig.start("one");
        let again = ask(to, "POST /orders", &key, "a");
        assert_eq!((again.status, again.header("idempotent-replayed")), (200, replayed), "{options:?}");
    }
}

/// A folder of credentials with one file, and the option that names it.
fn credentials(file: &str, text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a temp folder");
    std::fs::create_dir(dir.path().join("callers")).expect("a folder in it");
    std::fs::write(dir.path().join("callers").join(file), text).expect("written");
    let option = format!("credentials_dir=\"{}\"", dir.path().display());
    (dir, option)
}

#[test]
fn callers_show_a_token_or_sign_the_body_and_others_make_no_call() {
    let (_dir, option) = credentials("token", "old-token\nnew-token\n");
    let rig = Rig::new(&[&option], "  auth:\n    secret: callers\n");
    let (mut dispatcher, to) = rig.start("one");
    for token in ["Bearer old-token", "Bearer new-token"] {
        assert_eq!(ask(to, "POST /orders", &[("authorization", token)], "a").status, 200, "{token}");
    }
    let without = ask(to, "POST /orders", &[], "a");
    assert_eq!((without.status, without.header("www-authenticate")), (401, Some("Bearer")), "{without:?}");
    assert_eq!(ask(to, "POST /orders", &[("authorization", "Bearer other")], "a").status, 401);
    let heads: Vec<String> = rig.witness.seen().into_iter().map(|seen| seen.head).collect();
    assert!(heads.len() == 2 && !heads.iter().any(|head| head.contains("-token")), "{heads:?}");
    assert!(!dispatcher.output().contains("-token"), "nor is it in the log");
    assert!(residual(&mut dispatcher).abs() < f64::EPSILON);

    // RFC 4231, case 2.
    let signed = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    let (_dir, option) = credentials("key", "Jefe");
    let spec = "  auth:\n    secret: callers\n    signatureHeader: X-Hub-Signature-256\n";
    let rig = Rig::new(&[&option, "max_body_bytes=64B"], spec);
    let (mut dispatcher, to) = rig.start("one");
    let header = [("x-hub-signature-256", signed)];
    assert_eq!(ask(to, "POST /orders", &header, "what do ya want for nothing?").status, 200);
    assert_eq!(ask(to, "POST /orders", &header, "what do you want for nothing?").status, 401);
    assert_eq!(ask(to, "POST /orders", &[], "what do ya want for nothing?").status, 401);
    // A body too long to be looked at proves nothing: nobody's event, nowhere written down.
    assert_eq!(ask(to, "POST /orders", &header, &"x".repeat(65)).status, 413);
    let outcomes: Vec<String> = rig.outcomes().into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!((rig.witness.len(), outcomes), (1, vec!["delivered".to_owned()]));
    assert!(residual(&mut dispatcher).abs() < f64::EPSILON);
}
