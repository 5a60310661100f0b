//! The admin server over a real socket on a free port.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use kubeless::{
    admin::{AdminContext, AdminServer, Readiness},
    telemetry::{Registry, SubscriptionMetrics},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

struct Server {
    address: SocketAddr,
    metrics: Registry,
    readiness: Readiness,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn start() -> Server {
    let server = AdminServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (metrics, readiness, stop) = (Registry::new(), Readiness::new(), CancellationToken::new());
    let context = AdminContext {
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        subscriptions: Arc::new(|| serde_json::json!([{"trigger": "shop/orders"}])),
    };
    let address = server.address();
    let task = tokio::spawn(server.serve(context, stop.clone()));
    Server { address, metrics, readiness, stop, task }
}

/// Sends raw bytes and returns everything the server says until it closes.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset after an early refusal is an answer too: keep what came.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = raw(address, &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn liveness_is_only_the_process() {
    let server = start().await;
    let broken = server.readiness.check("broker");
    broken.set_failed("gone");
    assert_eq!(get(server.address, "/livez").await, (200, "ok".to_owned()));
    assert_eq!(get(server.address, "/healthz").await.0, 200);
}

#[tokio::test]
async fn readiness_follows_the_checks_and_says_why() {
    let server = start().await;
    assert_eq!(get(server.address, "/readyz").await, (200, "ok".to_owned()));
    let cache = server.readiness.check("cache");
    let journal = server.readiness.check("journal");
    journal.set_ok();
    let (status, body) = get(server.address, "/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(body, "[-]cache failed: not reported yet\n[+]journal ok\nreadyz check failed\n");
    assert_eq!(get(server.address, "/readyz/cache").await.0, 503);
    assert_eq!(get(server.address, "/readyz/journal").await.0, 200);
    assert_eq!(get(server.address, "/readyz/other").await.0, 404);
    cache.set_ok();
    let verbose = get(server.address, "/readyz?verbose").await;
    assert_eq!(verbose, (200, "[+]cache ok\n[+]journal ok\nreadyz check passed\n".to_owned()));
    journal.set_failed("disk full");
    drop(journal);
    assert_eq!(get(server.address, "/readyz").await.0, 200);
}

#[tokio::test]
async fn other_pages_and_methods() {
    let server = start().await;
    assert_eq!(get(server.address, "/nothing").await.0, 404);
    let (status, body) = get(server.address, "/debug/subscriptions").await;
    assert_eq!((status, body.contains("shop/orders")), (200, true));
    let answer = raw(server.address, "POST /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD"), "{answer}");
    let answer = raw(server.address, "HEAD /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    let server = start().await;
    let long = format!("GET /livez HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024));
    let answer = raw(server.address, &long).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(get(server.address, "/livez").await.0, 200);
}

#[tokio::test]
async fn the_page_shows_live_series_and_forgets_dead_ones() {
    let server = start().await;
    let outcomes = ["delivered", "failed"];
    let handles =
        server.metrics.scope(|| SubscriptionMetrics::new("shop", "orders", "bill", "a\"b", &outcomes));
    handles.received.increment(3);
    handles.outcome("delivered").increment(2);
    handles.in_flight.set(1.0);
    handles.invocation_duration.record(0.002);
    handles.invocation_duration.record(99.0);
    let lag = server.metrics.scope(|| handles.lag("orders", 0));
    lag.set(7.0);
    let (_, page) = get(server.address, "/metrics").await;
    let labels = r#"namespace="shop",trigger="orders",function="bill",source="a\"b""#;
    for line in [
        format!("kubeless_events_received_total{{{labels}}} 3"),
        format!("kubeless_events_total{{{labels},outcome=\"delivered\"}} 2"),
        format!("kubeless_events_total{{{labels},outcome=\"failed\"}} 0"),
        format!("kubeless_events_in_flight{{{labels}}} 1"),
        format!("kubeless_invocation_duration_seconds_bucket{{{labels},le=\"0.001\"}} 0"),
        format!("kubeless_invocation_duration_seconds_bucket{{{labels},le=\"0.0025\"}} 1"),
        format!("kubeless_invocation_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 2"),
        format!("kubeless_invocation_duration_seconds_sum{{{labels}}} 99.002"),
        format!("kubeless_invocation_duration_seconds_count{{{labels}}} 2"),
        format!("kubeless_source_lag{{{labels},stream=\"orders\",shard=\"0\"}} 7"),
        "# TYPE kubeless_invocation_duration_seconds histogram".to_owned(),
    ] {
        assert!(page.lines().any(|found| found == line), "no line {line} in\n{page}");
    }
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
        assert!(page.contains(&format!("\n{name} ")), "{name}");
    }
    drop(lag);
    assert!(!get(server.address, "/metrics").await.1.contains("kubeless_source_lag"));
    drop(handles);
    assert!(!get(server.address, "/metrics").await.1.contains("shop"));
}

#[tokio::test]
async fn stopping_finishes_and_closes() {
    let server = start().await;
    // An idle keep-alive connection must not hold the server.
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    server.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), server.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
