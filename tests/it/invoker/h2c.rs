//! HTTP/2 with prior knowledge: what is tried again there, and how many connections it takes.

use super::support::*;
use bytes::Bytes;
use h2::{Reason, RecvStream, server};
use http::{Request, Response};
use kubeless::{cluster::target::Protocol::H2c, ledger::Outcome};
use std::rc::Rc;
use tokio::net::TcpStream;

type Reply = server::SendResponse<Bytes>;

async fn read_all(request: Request<RecvStream>, seen: &Seen) -> String {
    let (head, mut body) = request.into_parts();
    let mut data = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        let _ = body.flow_control().release_capacity(piece.len());
        data.extend_from_slice(&piece);
    }
    let text = format!("{} {} {:?} {}", head.method, head.uri, head.headers, String::from_utf8_lossy(&data));
    seen.requests.borrow_mut().push(text.clone());
    text
}

fn ok(mut reply: Reply) {
    let mut body = reply.send_response(Response::new(()), false).expect("send head");
    body.send_data(Bytes::from_static(b"ok"), true).expect("send body");
}

async fn connection(stream: TcpStream, max_streams: u32) -> server::Connection<TcpStream, Bytes> {
    server::Builder::new().max_concurrent_streams(max_streams).handshake(stream).await.expect("handshake")
}

async fn always_ok(stream: TcpStream, max_streams: u32, seen: Rc<Seen>) {
    let mut connection = connection(stream, max_streams).await;
    while let Some(Ok((request, reply))) = connection.accept().await {
        let seen = Rc::clone(&seen);
        tokio::task::spawn_local(async move {
            read_all(request, &seen).await;
            ok(reply);
        });
    }
}

#[test]
fn delivers_over_one_connection() {
    run(async {
        let (address, seen) = function(|_, stream, seen| always_ok(stream, 100, seen)).await;
        let (invoker, target) = (invoker(), target(&[address], H2c, LONG));
        for _ in 0..20 {
            let settled = invoker.invoke(call("1", &target)).await;
            assert_eq!((settled.outcome, settled.status), (Outcome::Delivered, Some(200)), "{settled:?}");
        }
        assert_eq!((seen.requests(), seen.connections.get(), invoker.connections()), (20, 1, 1));
        let request = seen.requests.borrow()[0].clone();
        assert!(request.starts_with("POST http://pay.shop.svc.cluster.local:8080/ "), "{request}");
        assert!(request.contains("\"content-length\": \"7\"") && request.ends_with("{\"n\":1}"), "{request}");
        assert!(!request.contains("\"host\""), "{request}");
    });
}

#[test]
fn a_burst_uses_as_many_connections_as_the_stream_limit_asks_for() {
    run(async {
        let (address, seen) = function(|_, stream, seen| always_ok(stream, 4, seen)).await;
        let (invoker, target) = (Rc::new(invoker()), target(&[address], H2c, LONG));
        // The first call learns the peer's limit.
        assert_eq!(invoker.invoke(call("0", &target)).await.outcome, Outcome::Delivered);
        let calls: Vec<_> = (0..16)
            .map(|n| {
                let (invoker, call) = (Rc::clone(&invoker), call(&n.to_string(), &target));
                tokio::task::spawn_local(async move { invoker.invoke(call).await })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.expect("no panic").outcome, Outcome::Delivered);
        }
        assert_eq!(seen.requests(), 17);
        assert!((1..=8).contains(&seen.connections.get()), "{}", seen.connections.get());
    });
}

#[test]
fn a_refused_stream_is_tried_again_and_a_reset_one_is_not() {
    run(async {
        for (reason, outcome, requests) in
            [(Reason::REFUSED_STREAM, Outcome::Delivered, 1), (Reason::CANCEL, Outcome::Unanswered, 0)]
        {
            let (address, seen) = function(move |number, stream, seen| async move {
                let mut connection = connection(stream, 100).await;
                let mut first = number == 0;
                while let Some(Ok((request, mut reply))) = connection.accept().await {
                    if std::mem::take(&mut first) {
                        reply.send_reset(reason);
                        continue;
                    }
                    let seen = Rc::clone(&seen);
                    tokio::task::spawn_local(async move {
                        read_all(request, &seen).await;
                        ok(reply);
                    });
                }
            })
            .await;
            let settled = invoker().invoke(call("1", &target(&[address], H2c, LONG))).await;
            assert_eq!((settled.outcome, seen.requests()), (outcome, requests), "{settled:?}");
            assert_eq!(settled.attempts, if requests == 1 { 2 } else { 1 });
        }
    });
}

/// A hand-written peer: answers the handshake, waits for a HEADERS frame and then sends `frame`.
async fn after_headers(mut stream: TcpStream, frame: &'static [u8]) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.expect("settings");
    stream.read_exact(&mut [0_u8; 24]).await.expect("preface");
    loop {
        let mut head = [0_u8; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await.expect("payload");
        if head[3] == 1 {
            stream.write_all(frame).await.expect("frame");
            // Until we are hung up on.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
    }
}

/// GOAWAY, last stream 0 (ours was not processed) or 1 (it may have been), NO_ERROR.
const GOAWAY_0: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
const GOAWAY_1: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0";

#[test]
fn a_goaway_below_the_stream_is_tried_again_and_one_above_is_final() {
    run(async {
        for (frame, outcome) in [(GOAWAY_0, Outcome::Delivered), (GOAWAY_1, Outcome::Unanswered)] {
            let (address, seen) = function(move |number, stream, seen| async move {
                if number == 0 {
                    after_headers(stream, frame).await;
                } else {
                    always_ok(stream, 9, seen).await;
                }
            })
            .await;
            let settled = invoker().invoke(call("1", &target(&[address], H2c, SHORT))).await;
            assert_eq!(settled.outcome, outcome, "{settled:?}");
            let retried = usize::from(outcome == Outcome::Delivered);
            assert_eq!((seen.requests(), seen.connections.get()), (retried, 1 + retried));
        }
    });
}

#[test]
fn a_hang_or_a_lost_connection_is_final() {
    run(async {
        for hang in [true, false] {
            let (address, seen) = function(move |_, stream, seen| async move {
                let mut connection = connection(stream, 9).await;
                let (_request, _reply) = connection.accept().await.expect("a stream").expect("no error");
                seen.requests.borrow_mut().push(String::new());
                if hang {
                    let _ = connection.accept().await;
                }
            })
            .await;
            let settled = invoker().invoke(call("1", &target(&[address], H2c, SHORT))).await;
            assert_eq!((settled.outcome, seen.requests()), (Outcome::Unanswered, 1), "{settled:?}");
            assert_eq!(settled.attempts, 1);
        }
    });
}

#[test]
fn a_refused_connection_is_unreachable() {
    run(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("socket");
        socket.bind("127.0.0.1:0".parse().expect("address")).expect("bind");
        let settled =
            invoker().invoke(call("1", &target(&[socket.local_addr().expect("a")], H2c, SHORT))).await;
        assert_eq!((settled.outcome, settled.reason), (Outcome::Unreachable, Some("connect")));
    });
}
