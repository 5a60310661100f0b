//! Calls and scripted functions. Must never sleep: a test waits for what it needs to see.

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use kubeless::{
    claims::{Answer, Claimed, claim, lease::StartLease},
    cluster::target::{ObjectRef, Protocol, Target, TargetCell},
    event::{Attributes, Event, Position, headers::HeaderTemplate},
    invoker::{Call, Invoker, InvokerConfig},
};
use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
pub(super) const BODY: &[u8] = b"{\"n\":1}";

/// Runs a test on one thread, as the dispatcher runs the invoker; 30 s is a guard, not a measure.
pub(super) fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs")
    })
}

pub(super) fn event(id: &str, data: Option<Bytes>, headers: Vec<(HeaderName, HeaderValue)>) -> Event {
    let position =
        Position { stream: "orders".into(), shard: 0, sequence: 1, coordinates: None, epoch: 0, time_ms: 1 };
    let attributes = Attributes {
        id: id.into(),
        source: "test".into(),
        kind: "test".into(),
        subject: None,
        time_ms: 1,
        extensions: Vec::new(),
    };
    let content_type = HeaderValue::from_static("application/json");
    Event {
        position,
        business: None,
        lane: None,
        attributes,
        content_type,
        headers,
        data,
        weight: 0,
        exchange: None,
    }
}

pub(super) fn target(endpoints: &[SocketAddr], protocol: Protocol, call_timeout: Duration) -> TargetCell {
    Arc::new(ArcSwap::from_pointee(Target {
        function: ObjectRef::new("shop", "pay"),
        endpoints: endpoints.into(),
        near: 0,
        protocol,
        authority: "pay.shop.svc.cluster.local:8080".into(),
        call_timeout,
        max_in_flight: 64,
    }))
}

pub(super) fn lease() -> Arc<StartLease> {
    Arc::new(StartLease::new(u64::MAX))
}

pub(super) fn call_of(event: Event, target: &TargetCell, lease: &Arc<StartLease>) -> Claimed<Call> {
    let call = Call {
        event: Arc::new(event),
        template: Arc::new(HeaderTemplate::default()),
        target: Arc::clone(target),
        timeout: None,
        lease: Arc::clone(lease),
    };
    let (mut granted, _) = claim(vec![call], |batch| vec![Answer::Granted; batch.len()]);
    granted.pop().expect("granted")
}

/// A call with the usual body; its id travels in the test's own header.
pub(super) fn call(id: &str, target: &TargetCell) -> Claimed<Call> {
    let headers = vec![(HeaderName::from_static("x-id"), HeaderValue::from_str(id).expect("id"))];
    call_of(event(id, Some(Bytes::from_static(BODY)), headers), target, &lease())
}

pub(super) fn invoker() -> Invoker {
    Invoker::new(InvokerConfig::default())
}

pub(super) const LONG: Duration = Duration::from_secs(20);
pub(super) const SHORT: Duration = Duration::from_millis(200);

/// What a scripted function has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) connections: Cell<usize>,
    pub(super) requests: RefCell<Vec<String>>,
}

impl Seen {
    pub(super) fn requests(&self) -> usize {
        self.requests.borrow().len()
    }
}

/// A function: `script` gets each accepted connection with its number. Ends with the test's `LocalSet`.
pub(super) async fn function<S, F>(script: S) -> (SocketAddr, Rc<Seen>)
where
    S: Fn(usize, TcpStream, Rc<Seen>) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let seen = Rc::new(Seen::default());
    serve(listener, Rc::clone(&seen), script);
    (address, seen)
}

pub(super) fn serve<S, F>(listener: TcpListener, seen: Rc<Seen>, script: S)
where
    S: Fn(usize, TcpStream, Rc<Seen>) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = seen.connections.get();
            seen.connections.set(number + 1);
            tokio::task::spawn_local(script(number, stream, Rc::clone(&seen)));
        }
    });
}

/// Reads one whole request and notes it; false at the end of the connection.
pub(super) async fn read_request(stream: &mut TcpStream, seen: &Seen) -> bool {
    let mut text = Vec::new();
    loop {
        let mut byte = [0_u8; 1];
        match stream.read(&mut byte).await {
            Ok(1) => text.push(byte[0]),
            _ => return false,
        }
        if text.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8_lossy(&text).into_owned();
    let length = header(&head, "content-length").and_then(|v| v.parse().ok()).expect("content-length");
    let mut body = vec![0_u8; length];
    if stream.read_exact(&mut body).await.is_err() {
        return false;
    }
    text.extend(body);
    seen.requests.borrow_mut().push(String::from_utf8_lossy(&text).into_owned());
    true
}

pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Answers every request of every connection with the same bytes.
pub(super) async fn always(answer: &'static [u8], mut stream: TcpStream, seen: Rc<Seen>) {
    while read_request(&mut stream, &seen).await {
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// Closes with a reset instead of an orderly end.
pub(super) fn reset(stream: &TcpStream) {
    stream.set_zero_linger().expect("linger");
}
