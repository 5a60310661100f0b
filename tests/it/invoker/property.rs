//! Random functions, judged by what they saw: delivered means seen whole and answered 2xx, unreachable means not one
//! byte was seen, and no call is ever seen twice.

use super::support::*;
use futures_util::future::join_all;
use kubeless::{cluster::target::Protocol::Http1, invoker::Settled, ledger::Outcome};
use proptest::prelude::*;
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What a function does with its next request.
#[derive(Clone, Copy, Debug)]
enum Act {
    CloseAtOnce { with_reset: bool },
    ReadSome { bytes: usize, with_reset: bool },
    ReadAllAndClose { with_reset: bool },
    Answer { status: u16, announce_close: bool, close: bool },
    Truncate,
    Garbage,
    Hang,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        any::<bool>().prop_map(|with_reset| Act::CloseAtOnce { with_reset }),
        (1..150_usize, any::<bool>()).prop_map(|(bytes, with_reset)| Act::ReadSome { bytes, with_reset }),
        any::<bool>().prop_map(|with_reset| Act::ReadAllAndClose { with_reset }),
        (prop::sample::select(vec![200, 202, 307, 404, 500]), any::<bool>(), any::<bool>())
            .prop_map(|(status, announce_close, close)| Act::Answer { status, announce_close, close }),
        (prop::sample::select(vec![200, 204]), Just(false), Just(false))
            .prop_map(|(status, announce_close, close)| Act::Answer { status, announce_close, close }),
        Just(Act::Truncate),
        Just(Act::Garbage),
        Just(Act::Hang),
    ]
}

/// What was seen of one call.
#[derive(Clone, Copy, Debug, Default)]
struct Sight {
    touched: usize,
    whole: usize,
    answered_2xx: bool,
}

#[derive(Default)]
struct Judge {
    acts: RefCell<Vec<Act>>,
    sights: RefCell<BTreeMap<String, Sight>>,
}

impl Judge {
    fn note(&self, id: &str, note: impl FnOnce(&mut Sight)) {
        note(self.sights.borrow_mut().entry(id.to_owned()).or_default());
    }
}

/// Whose request is waiting in the socket, told without taking a byte: a small request leaves in one write. `None`:
/// the connection ended.
async fn waiting(stream: &TcpStream) -> Option<String> {
    let mut text = vec![0; 4096];
    let n = stream.peek(&mut text).await.ok().filter(|n| *n > 0)?;
    let text = String::from_utf8_lossy(&text[..n]).into_owned();
    Some(header(&text, "x-id").expect("a request in one piece").to_owned())
}

/// Plays the next acts on one connection; true acts come from one list over all connections.
async fn play(mut stream: TcpStream, seen: Rc<Seen>, judge: Rc<Judge>) {
    loop {
        let act = judge.acts.borrow_mut().pop().unwrap_or(Act::Answer {
            status: 200,
            announce_close: false,
            close: false,
        });
        if let Act::CloseAtOnce { with_reset } = act {
            if with_reset {
                reset(&stream);
            }
            return;
        }
        let Some(id) = waiting(&stream).await else {
            // Nobody wants this connection any more: the act is for another one.
            judge.acts.borrow_mut().push(act);
            return;
        };
        judge.note(&id, |sight| sight.touched += 1);
        if let Act::ReadSome { bytes, with_reset } = act {
            let _ = stream.read(&mut vec![0; bytes]).await;
            if with_reset {
                reset(&stream);
            }
            return;
        }
        if !read_request(&mut stream, &seen).await {
            return;
        }
        judge.note(&id, |sight| sight.whole += 1);
        if !answer(&mut stream, act, &judge, &id).await {
            return;
        }
    }
}

/// True while the connection goes on.
async fn answer(stream: &mut TcpStream, act: Act, judge: &Judge, id: &str) -> bool {
    match act {
        Act::Answer { status, announce_close, close } => {
            judge.note(id, |sight| sight.answered_2xx |= (200..300).contains(&status));
            let announce = if announce_close { "connection: close\r\n" } else { "" };
            let body = if status == 204 { "\r\n" } else { "content-length: 2\r\n\r\nok" };
            let text = format!("HTTP/1.1 {status} x\r\n{announce}{body}");
            stream.write_all(text.as_bytes()).await.is_ok() && !close && !announce_close
        }
        Act::ReadAllAndClose { with_reset } => {
            if with_reset {
                reset(stream);
            }
            false
        }
        Act::Truncate => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok").await;
            false
        }
        Act::Garbage => {
            let _ = stream.write_all(b"SSH-2.0-whatever\r\n\r\n").await;
            false
        }
        Act::Hang | Act::CloseAtOnce { .. } | Act::ReadSome { .. } => {
            let _ = stream.read_u8().await;
            false
        }
    }
}

fn verdict(settled: &Settled, sight: Sight) {
    match settled.outcome {
        Outcome::Delivered => assert!(sight.whole == 1 && sight.answered_2xx, "{settled:?} {sight:?}"),
        Outcome::Unreachable => assert_eq!(sight.touched, 0, "{settled:?} {sight:?}"),
        Outcome::Failed => assert!(sight.whole == 1 && !sight.answered_2xx, "{settled:?} {sight:?}"),
        Outcome::Unanswered => assert_eq!(settled.attempts >= 1, settled.sent_unix_ms > 0, "{settled:?}"),
        other => panic!("not an outcome of a call: {other:?}"),
    }
}

proptest! {
    // Timing is part of a case, so a stored seed would prove nothing.
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_of_a_call_is_what_the_function_saw(acts in prop::collection::vec(act(), 1..12), two in any::<bool>(), width in 1..4) {
        run(async move {
            let judge = Rc::new(Judge { acts: RefCell::new(acts), ..Judge::default() });
            let mut addresses = Vec::new();
            for _ in 0..if two { 2 } else { 1 } {
                let judge = Rc::clone(&judge);
                let (address, _) = function(move |_, stream, seen| play(stream, seen, Rc::clone(&judge))).await;
                addresses.push(address);
            }
            let (invoker, target) = (invoker(), target(&addresses, Http1, Duration::from_millis(30)));
            for round in 0..8 {
                let ids: Vec<String> = (0..width).map(|n| format!("{round}-{n}")).collect();
                let settled = join_all(ids.iter().map(|id| invoker.invoke(call(id, &target)))).await;
                for (id, settled) in ids.iter().zip(settled) {
                    let sight = judge.sights.borrow().get(id).copied().unwrap_or_default();
                    verdict(&settled, sight);
                }
            }
            // Also what was read after a call had given up.
            assert!(judge.sights.borrow().values().all(|s| s.whole <= 1 && s.touched <= 1), "{:?}", judge.sights);
        });
    }
}
