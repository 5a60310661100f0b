//! What an answer, or the lack of one, makes of a call.

use super::support::*;
use kubeless::{
    cluster::target::Protocol::Http1,
    invoker::{Invoker, InvokerConfig, Settled},
    ledger::Outcome,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One call to a function that reads the request, writes `answer` and then closes or (`stay`) waits for us.
async fn one(answer: &'static [u8], stay: bool) -> (Settled, usize, Invoker) {
    let (address, seen) = function(move |_, mut stream, seen| async move {
        if read_request(&mut stream, &seen).await {
            let _ = stream.write_all(answer).await;
            if stay {
                let _ = stream.read_u8().await;
            }
        }
    })
    .await;
    let invoker = invoker();
    let settled =
        invoker.invoke(call("1", &target(&[address], Http1, if stay { SHORT } else { LONG }))).await;
    let requests = seen.requests();
    (settled, requests, invoker)
}

fn check(got: &(Settled, usize, Invoker), outcome: Outcome, status: Option<u16>, reason: Option<&str>) {
    let (settled, requests, _) = got;
    assert_eq!((settled.outcome, settled.status, settled.reason), (outcome, status, reason), "{settled:?}");
    assert_eq!(*requests, 1, "the function must see exactly one request");
    assert_eq!(settled.attempts, 1);
    assert!(settled.sent_unix_ms > 0 && settled.first_byte_unix_ms >= settled.sent_unix_ms);
}

#[test]
fn complete_answers_are_outcomes_by_status() {
    run(async {
        let got = one(OK, true).await;
        check(&got, Outcome::Delivered, Some(200), None);
        assert_eq!(got.2.connections(), 1, "kept for the next call");
        let got = one(b"HTTP/1.1 204 No Content\r\n\r\n", true).await;
        check(&got, Outcome::Delivered, Some(204), None);
        let got = one(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", true).await;
        check(&got, Outcome::Failed, Some(500), Some("server error"));
        let got = one(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", true).await;
        check(&got, Outcome::Failed, Some(404), Some("client error"));
        let got =
            one(b"HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", true).await;
        check(&got, Outcome::Failed, Some(307), Some("redirect"));
        let got = one(b"HTTP/1.1 101 Up\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", true).await;
        check(&got, Outcome::Failed, Some(101), Some("status"));
        assert_eq!(got.2.connections(), 0);
    });
}

#[test]
fn chunked_interim_and_old_answers_are_complete() {
    run(async {
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        check(&one(chunked, true).await, Outcome::Delivered, Some(200), None);
        let interim = b"HTTP/1.1 103 Hint\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        check(&one(interim, true).await, Outcome::Delivered, Some(200), None);
        for closing in [
            &b"HTTP/1.0 200 OK\r\n\r\nuntil the end"[..],
            b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        ] {
            let got = one(closing, false).await;
            check(&got, Outcome::Delivered, Some(200), None);
            assert_eq!(got.2.connections(), 0, "not to be used again");
        }
    });
}

#[test]
fn an_answer_that_never_completes_is_unanswered() {
    run(async {
        check(&one(b"", true).await, Outcome::Unanswered, None, Some("timeout"));
        check(&one(b"", false).await, Outcome::Unanswered, None, Some("closed"));
        check(&one(b"HTTP/1.1 200 OK\r\nconte", false).await, Outcome::Unanswered, None, Some("closed"));
        check(&one(b"HTTP/1.1 200 OK\r\nconte", true).await, Outcome::Unanswered, None, Some("timeout"));
        let short = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok";
        check(&one(short, false).await, Outcome::Unanswered, None, Some("truncated"));
        check(&one(short, true).await, Outcome::Unanswered, None, Some("timeout"));
        let chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n";
        check(&one(chunks, false).await, Outcome::Unanswered, None, Some("truncated"));
    });
}

#[test]
fn garbage_is_unanswered() {
    run(async {
        check(
            &one(b"\x16\x03\x01 this is not HTTP\r\n\r\n", true).await,
            Outcome::Unanswered,
            None,
            Some("garbage"),
        );
        check(&one(b"HTTP/1.1 999999 x\r\n\r\n", true).await, Outcome::Unanswered, None, Some("garbage"));
        let lengths = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok";
        check(&one(lengths, true).await, Outcome::Unanswered, None, Some("garbage"));
        let chunk = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n";
        check(&one(chunk, true).await, Outcome::Unanswered, None, Some("garbage"));
    });
}

/// A function that writes `head` and then `piece` for ever.
async fn endless(head: &'static [u8], piece: &'static [u8]) -> Settled {
    let (address, seen) = function(move |_, mut stream, seen| async move {
        if read_request(&mut stream, &seen).await && stream.write_all(head).await.is_ok() {
            while stream.write_all(piece).await.is_ok() {
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
    let invoker = invoker();
    let settled = invoker.invoke(call("1", &target(&[address], Http1, LONG))).await;
    assert_eq!((seen.requests(), invoker.connections()), (1, 0));
    settled
}

#[test]
fn endless_answers_are_bounded() {
    run(async {
        let flood = endless(b"", b"HTTP/1.1 103 Hint\r\nlink: </a>\r\n\r\n").await;
        assert_eq!((flood.outcome, flood.reason), (Outcome::Unanswered, Some("head too large")));
        let head = endless(b"HTTP/1.1 200 OK\r\n", b"x-more: and more and more and more\r\n").await;
        assert_eq!((head.outcome, head.reason), (Outcome::Unanswered, Some("head too large")), "{head:?}");
        // The head was complete, so the status decides; nobody reads the rest.
        let ok = endless(b"HTTP/1.0 200 OK\r\n\r\n", b"more and more").await;
        assert_eq!((ok.outcome, ok.status), (Outcome::Delivered, Some(200)));
        let tiny = endless(b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n").await;
        assert_eq!((tiny.outcome, tiny.status), (Outcome::Failed, Some(500)));
    });
}

#[test]
fn a_body_over_the_limit_costs_the_connection_and_not_the_outcome() {
    run(async {
        let (address, _) = function(|_, stream, seen| {
            always(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world", stream, seen)
        })
        .await;
        let invoker = Invoker::new(InvokerConfig { max_response_bytes: 10, ..InvokerConfig::default() });
        let settled = invoker.invoke(call("1", &target(&[address], Http1, LONG))).await;
        assert_eq!((settled.outcome, invoker.connections()), (Outcome::Delivered, 0));
        let invoker = Invoker::new(InvokerConfig { max_response_bytes: 11, ..InvokerConfig::default() });
        let settled = invoker.invoke(call("1", &target(&[address], Http1, LONG))).await;
        assert_eq!((settled.outcome, invoker.connections()), (Outcome::Delivered, 1));
    });
}

#[test]
fn resets_after_bytes_left_are_final() {
    run(async {
        for read in [1, 20, usize::MAX] {
            let (address, seen) = function(move |_, mut stream, seen| async move {
                if read == usize::MAX {
                    read_request(&mut stream, &seen).await;
                } else {
                    stream.read_exact(&mut vec![0; read]).await.expect("read");
                }
                reset(&stream);
            })
            .await;
            let settled = invoker().invoke(call("1", &target(&[address], Http1, LONG))).await;
            assert_eq!((settled.outcome, settled.reason), (Outcome::Unanswered, Some("reset")));
            assert_eq!((seen.connections.get(), settled.attempts), (1, 1));
        }
    });
}

#[test]
fn a_close_without_reading_is_final_once_bytes_arrived() {
    run(async {
        let (address, seen) = function(|_, stream, _| async move {
            // The bytes are in the function's socket; it dies before it looks at them.
            stream.readable().await.expect("readable");
        })
        .await;
        let settled = invoker().invoke(call("1", &target(&[address], Http1, LONG))).await;
        assert_eq!((settled.outcome, settled.attempts), (Outcome::Unanswered, 1), "{settled:?}");
        assert_eq!(seen.connections.get(), 1);
    });
}
