//! Calls per second of one invoker thread against a sink on another thread, and our own CPU time per call. Must never
//! be read without its limit: the sink thread's share of the machine.

use arc_swap::ArcSwap;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderName, HeaderValue};
use kubeless::{
    claims::{Answer, claim, lease::StartLease},
    cluster::target::{ObjectRef, Protocol, Target, TargetCell},
    event::{Attributes, Event, Position, headers::HeaderTemplate},
    invoker::{Call, Invoker, InvokerConfig},
    ledger::Outcome,
};
use rustix::time::{ClockId, clock_gettime};
use std::{
    cell::Cell,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, task::LocalSet};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Answers every read that ends a request. The first request of a connection tells how long they all are.
fn sink() -> SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    listener.set_nonblocking(true).expect("nonblocking");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        LocalSet::new().block_on(&runtime, async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("listener");
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::task::spawn_local(async move {
                    let mut buffer = [0_u8; 4096];
                    // Requests are far smaller than a segment and never pipelined: one read is one request.
                    while matches!(stream.read(&mut buffer).await, Ok(1..)) {
                        if stream.write_all(ANSWER).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
    });
    address
}

fn call(target: &TargetCell) -> Call {
    let names =
        ["event-id", "event-time", "event-namespace", "event-topic", "event-offset", "ce-id", "ce-source"];
    let headers = names
        .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("0123456789abcdef0123456789")))
        .to_vec();
    let attributes = Attributes {
        id: "1".into(),
        source: "bench".into(),
        kind: "bench".into(),
        subject: None,
        time_ms: 1,
        extensions: Vec::new(),
    };
    let event = Event {
        position: Position {
            stream: "orders".into(),
            shard: 0,
            sequence: 1,
            coordinates: None,
            epoch: 0,
            time_ms: 1,
        },
        business: None,
        lane: None,
        attributes,
        content_type: HeaderValue::from_static("application/json"),
        headers,
        data: Some(Bytes::from_static(&[b'x'; 256])),
        weight: 0,
        exchange: None,
    };
    Call {
        event: Arc::new(event),
        template: Arc::new(HeaderTemplate::default()),
        timeout: None,
        target: Arc::clone(target),
        lease: Arc::new(StartLease::new(u64::MAX)),
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// `total` calls, `width` at a time, on this thread.
fn calls(runtime: &Runtime, invoker: &Rc<Invoker>, call: &Call, total: u64, width: u64) -> Duration {
    let started = Instant::now();
    LocalSet::new().block_on(runtime, async {
        let left = Rc::new(Cell::new(total));
        let callers: Vec<_> = (0..width.min(total))
            .map(|_| {
                let (invoker, left, call) = (Rc::clone(invoker), Rc::clone(&left), call.clone());
                tokio::task::spawn_local(async move {
                    while left.get() > 0 {
                        left.set(left.get() - 1);
                        let (mut granted, _) =
                            claim(vec![call.clone()], |batch| vec![Answer::Granted; batch.len()]);
                        let settled = invoker.invoke(granted.pop().expect("granted")).await;
                        assert_eq!(settled.outcome, Outcome::Delivered, "{settled:?}");
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.expect("no panic");
        }
    });
    started.elapsed()
}

fn invoker(c: &mut Criterion) {
    let address = sink();
    let target: TargetCell = Arc::new(ArcSwap::from_pointee(Target {
        function: ObjectRef::new("shop", "pay"),
        endpoints: [address].into(),
        near: 0,
        protocol: Protocol::Http1,
        authority: "pay.shop.svc.cluster.local:8080".into(),
        call_timeout: Duration::from_secs(10),
        max_in_flight: 64,
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let mut group = c.benchmark_group("invoker");
    group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(5));
    for width in [1, 64] {
        let (invoker, call) = (Rc::new(Invoker::new(InvokerConfig::default())), call(&target));
        let (mut spent, mut made) = (Duration::ZERO, 0);
        group.bench_function(format!("http1/{width}"), |b| {
            b.iter_custom(|total| {
                let before = cpu();
                let took = calls(&runtime, &invoker, &call, total, width);
                spent += cpu() - before;
                made += total;
                took
            });
        });
        // Kernel time included.
        println!(
            "    thread CPU per call: {:.2} us, {:?}",
            spent.as_secs_f64() * 1e6 / made as f64,
            invoker.stats()
        );
    }
    group.finish();
    floor(address);
}

/// What the kernel alone costs for the same bytes: blocking write and read on one connection.
fn floor(address: SocketAddr) {
    let mut stream = std::net::TcpStream::connect(address).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    let (before, total) = (cpu(), 50_000_u32);
    for _ in 0..total {
        stream.write_all(&[b'x'; 750]).expect("write");
        let _ = stream.read(&mut [0; 4096]).expect("read");
    }
    println!(
        "    floor, one connection, write + read: {:.2} us",
        (cpu() - before).as_secs_f64() * 1e6 / f64::from(total)
    );
}

criterion_group!(benches, invoker);
criterion_main!(benches);
