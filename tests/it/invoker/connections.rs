//! Reuse, retries of what was provably not sent, the start lease, and what is on the wire.

use super::support::*;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use kubeless::{
    claims::lease::StartLease,
    cluster::{
        address::Reach,
        target::{Protocol::Http1, Target},
    },
    invoker::{Invoker, InvokerConfig},
    ledger::Outcome,
};
use std::{rc::Rc, sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt, net::TcpSocket, sync::Notify};

/// A port that is ours and refuses connections until it listens.
fn refusing() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind("127.0.0.1:0".parse().expect("address")).expect("bind");
    socket
}

#[test]
fn refused_connections_are_tried_again_until_a_listener_appears() {
    run(async {
        let socket = refusing();
        let target = target(&[socket.local_addr().expect("address")], Http1, LONG);
        let invoker = Rc::new(invoker());
        let calling = tokio::task::spawn_local({
            let (invoker, call) = (Rc::clone(&invoker), call("1", &target));
            async move { invoker.invoke(call).await }
        });
        while invoker.stats().retried < 2 {
            tokio::task::yield_now().await;
        }
        let seen = Rc::new(Seen::default());
        serve(socket.listen(8).expect("listen"), Rc::clone(&seen), |_, stream, seen| {
            always(OK, stream, seen)
        });
        let settled = calling.await.expect("no panic");
        assert_eq!((settled.outcome, seen.requests()), (Outcome::Delivered, 1));
        assert!(settled.attempts >= 3);
    });
}

#[test]
fn nobody_there_is_unreachable_within_the_timeout() {
    run(async {
        let socket = refusing();
        let settled =
            invoker().invoke(call("1", &target(&[socket.local_addr().expect("a")], Http1, SHORT))).await;
        assert_eq!((settled.outcome, settled.reason), (Outcome::Unreachable, Some("connect")));
        assert_eq!((settled.sent_unix_ms, settled.first_byte_unix_ms), (0, 0));
        assert!(settled.took >= SHORT && settled.attempts > 2, "{settled:?}");
        let settled = invoker().invoke(call("1", &target(&[], Http1, SHORT))).await;
        assert_eq!((settled.outcome, settled.reason), (Outcome::Unreachable, Some("no endpoint")));
        assert_eq!((settled.endpoint, settled.attempts), (None, 0));
    });
}

#[test]
fn endpoints_are_loaded_anew_for_each_attempt() {
    run(async {
        let (address, seen) = function(|_, stream, seen| always(OK, stream, seen)).await;
        let cell = target(&[], Http1, LONG);
        let invoker = invoker();
        let publish = async {
            tokio::task::yield_now().await;
            cell.store(Arc::new(Target { endpoints: [address].into(), ..cell.load().as_ref().clone() }));
        };
        let (settled, ()) = tokio::join!(invoker.invoke(call("1", &cell)), publish);
        assert_eq!(
            (settled.outcome, settled.endpoint, seen.requests()),
            (Outcome::Delivered, Some(address), 1)
        );
    });
}

#[test]
fn of_two_endpoints_the_dead_one_is_left_alone() {
    run(async {
        let dead = refusing();
        let (alive, seen) = function(|_, stream, seen| always(OK, stream, seen)).await;
        let target = target(&[dead.local_addr().expect("address"), alive], Http1, LONG);
        let invoker = invoker();
        for _ in 0..50 {
            let settled = invoker.invoke(call("1", &target)).await;
            assert_eq!((settled.outcome, settled.endpoint), (Outcome::Delivered, Some(alive)));
        }
        assert_eq!(seen.requests(), 50);
        assert!(invoker.stats().retried <= 1, "{:?}", invoker.stats());
    });
}

#[test]
fn an_idle_connection_that_the_peer_closed_costs_nothing() {
    for with_reset in [false, true] {
        run(async {
            let closed = Rc::new(Notify::new());
            let (close, told) = (Rc::new(Notify::new()), Rc::clone(&closed));
            let close_it = Rc::clone(&close);
            let (address, seen) = function(move |number, mut stream, seen| {
                let (close, told) = (Rc::clone(&close_it), Rc::clone(&told));
                async move {
                    if number > 0 {
                        return always(OK, stream, seen).await;
                    }
                    read_request(&mut stream, &seen).await;
                    stream.write_all(OK).await.expect("write");
                    close.notified().await;
                    if with_reset {
                        reset(&stream);
                    }
                    drop(stream);
                    told.notify_one();
                }
            })
            .await;
            let (invoker, target) = (invoker(), target(&[address], Http1, LONG));
            assert_eq!(invoker.invoke(call("1", &target)).await.outcome, Outcome::Delivered);
            assert_eq!(invoker.connections(), 1);
            close.notify_one();
            closed.notified().await;
            let settled = invoker.invoke(call("2", &target)).await;
            assert_eq!((settled.outcome, settled.attempts), (Outcome::Delivered, 1));
            assert_eq!((seen.requests(), seen.connections.get(), invoker.stats().stale), (2, 2, 1));
        });
    }
}

#[test]
fn an_answer_nobody_asked_for_is_never_taken_for_the_next_one() {
    run(async {
        let (address, seen) = function(|number, mut stream, seen| async move {
            if number > 0 {
                return always(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", stream, seen).await;
            }
            read_request(&mut stream, &seen).await;
            let twice = [OK, OK].concat();
            stream.write_all(&twice).await.expect("write");
            read_request(&mut stream, &seen).await;
        })
        .await;
        let (invoker, target) = (invoker(), target(&[address], Http1, LONG));
        assert_eq!(invoker.invoke(call("1", &target)).await.outcome, Outcome::Delivered);
        let settled = invoker.invoke(call("2", &target)).await;
        assert_eq!((settled.outcome, settled.status), (Outcome::Failed, Some(500)));
        assert_eq!((seen.requests(), seen.connections.get()), (2, 2));
    });
}

#[test]
fn a_stopped_lease_lets_no_byte_out() {
    run(async {
        let (address, seen) = function(|_, stream, seen| always(OK, stream, seen)).await;
        let (invoker, target) = (invoker(), target(&[address], Http1, LONG));
        let stopped = lease();
        stopped.stop();
        for over in [stopped, Arc::new(StartLease::new(1))] {
            let settled = invoker.invoke(call_of(event("1", None, Vec::new()), &target, &over)).await;
            assert_eq!((settled.outcome, settled.reason), (Outcome::Unreachable, Some("start deadline")));
            assert_eq!(settled.sent_unix_ms, 0);
        }
        assert_eq!(seen.connections.get(), 0);
    });
}

#[test]
fn a_lease_that_ends_between_attempts_ends_the_call() {
    run(async {
        let socket = refusing();
        let target = target(&[socket.local_addr().expect("address")], Http1, LONG);
        let (invoker, lease) = (invoker(), lease());
        let stop = async {
            while invoker.stats().retried < 1 {
                tokio::task::yield_now().await;
            }
            lease.stop();
        };
        let call = call_of(event("1", None, Vec::new()), &target, &lease);
        let (settled, ()) = tokio::join!(invoker.invoke(call), stop);
        assert_eq!((settled.outcome, settled.reason), (Outcome::Unreachable, Some("start deadline")));
    });
}

#[test]
fn framing_is_ours_alone() {
    run(async {
        let (address, seen) = function(|_, stream, seen| always(OK, stream, seen)).await;
        let (invoker, target) = (invoker(), target(&[address], Http1, LONG));
        // CR and LF cannot even be put into a header value.
        assert!(HeaderValue::from_bytes(b"x\r\ncontent-length: 0").is_err());
        assert!(HeaderValue::from_str("x\ny").is_err());
        let hostile = [
            ("content-length", "0"),
            ("transfer-encoding", "chunked"),
            ("host", "evil"),
            ("connection", "close"),
            ("expect", "100-continue"),
            ("upgrade", "h2c"),
        ]
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        for data in [Some(Bytes::from_static(BODY)), None] {
            let length = data.as_ref().map_or(0, Bytes::len);
            let call = call_of(event("1", data, hostile.to_vec()), &target, &lease());
            assert_eq!(invoker.invoke(call).await.outcome, Outcome::Delivered);
            let request = seen.requests.borrow().last().expect("a request").to_ascii_lowercase();
            assert!(request.starts_with("post / http/1.1\r\n"), "{request}");
            assert_eq!(request.matches("content-length").count(), 1);
            assert_eq!(header(&request, "content-length"), Some(length.to_string().as_str()));
            assert_eq!(request.matches("\r\nhost:").count(), 1);
            assert_eq!(header(&request, "host"), Some("pay.shop.svc.cluster.local:8080"));
            for gone in ["transfer-encoding", "connection:", "expect", "upgrade", "idempotency-key", "accept"]
            {
                assert!(!request.contains(gone), "{gone} in {request}");
            }
        }
        assert_eq!(seen.connections.get(), 1);
    });
}

#[test]
fn ten_thousand_calls_of_sixteen_at_a_time_use_sixteen_connections() {
    run(async {
        let (address, seen) = function(|_, stream, seen| always(OK, stream, seen)).await;
        let invoker = Rc::new(invoker());
        let callers: Vec<_> = (0..16)
            .map(|_| {
                let (invoker, target) = (Rc::clone(&invoker), target(&[address], Http1, LONG));
                tokio::task::spawn_local(async move {
                    for _ in 0..625 {
                        assert_eq!(invoker.invoke(call("1", &target)).await.outcome, Outcome::Delivered);
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.expect("no panic");
        }
        assert_eq!(seen.requests(), 10_000);
        assert!(seen.connections.get() <= 16, "{}", seen.connections.get());
        assert_eq!(invoker.stats().reused + invoker.stats().opened, 10_000);
    });
}

#[test]
fn an_address_that_no_function_may_have_is_not_connected_to() {
    run(async {
        let (address, seen) = function(|_, stream, seen| always(OK, stream, seen)).await;
        let guarded = InvokerConfig { reach: Reach::pods([]), ..InvokerConfig::default() };
        let settled = Invoker::new(guarded).invoke(call("1", &target(&[address], Http1, SHORT))).await;
        assert_eq!(settled.outcome, Outcome::Unreachable);
        assert_eq!(settled.reason, Some("forbidden address"));
        assert_eq!(seen.connections.get(), 0);
    });
}

#[test]
fn purge_closes_what_was_idle_for_too_long() {
    run(async {
        let (address, _) = function(|_, stream, seen| always(OK, stream, seen)).await;
        let target = target(&[address], Http1, LONG);
        let forgetful =
            Invoker::new(InvokerConfig { idle_timeout: Duration::ZERO, ..InvokerConfig::default() });
        let _ = forgetful.invoke(call("1", &target)).await;
        assert_eq!(forgetful.connections(), 1);
        forgetful.purge();
        assert_eq!(forgetful.connections(), 0);
        let keeping = invoker();
        let _ = keeping.invoke(call("1", &target)).await;
        keeping.purge();
        assert_eq!(keeping.connections(), 1);
    });
}
