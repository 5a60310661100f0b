//! The product under measurement: its own release binary as its own process, with one trigger and default settings.

use crate::{
    child::{Role, Sink, values},
    limit::Topic,
    procfs,
    support::{
        manifests::Manifests,
        metrics::{self, Page},
        process::{Dispatcher, Launch},
        wait,
    },
};
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// Longest wait for the end of a run.
const PATIENCE: Duration = Duration::from_secs(300);
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// What one run found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Events a second, from the first to the last invocation.
    pub per_s: f64,
    /// CPU seconds per million events.
    pub cpu: f64,
    /// CPU seconds of the sink per million events.
    pub sink_cpu: f64,
    /// Largest resident size, MiB.
    pub peak_mib: f64,
    /// Mean and median round trip of a claim commit, ms.
    pub commit_ms: (f64, f64),
    /// Events of one commit.
    pub per_commit: f64,
}

/// Latency of one run in ms: (p50, p99).
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    /// From the broker's timestamp to the first byte at the function.
    pub broker: (f64, f64),
    /// From the producer's call to the first byte at the function.
    pub producer: (f64, f64),
    /// Median round trip of a claim commit meanwhile.
    pub commit_ms: f64,
}

/// The product, running.
pub struct Running {
    // Dropped, and so stopped, before its folder goes.
    dispatcher: Dispatcher,
    _dir: tempfile::TempDir,
}

/// The product with the function `sink` (label `app: sink`) and what `write` adds to its folder and manifests; `write` gives
/// further arguments.
pub fn start_with(sink: &Sink, write: impl FnOnce(&Path, &Manifests) -> Vec<String>) -> Running {
    sink.reset();
    let dir = tempfile::Builder::new().prefix("kubeless-bench-").tempdir().expect("a temporary folder");
    let manifests = Manifests::new(dir.path());
    manifests.function("sink", &[("app", "sink")], &[sink.address]);
    let arguments = write(dir.path(), &manifests);
    let dispatcher = launch(dir.path(), manifests.dir(), arguments);
    Running { dispatcher, _dir: dir }
}

/// A name that no other trigger of this process has.
pub fn fresh_name() -> String {
    format!("bench-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn start(sink: &Sink, topic: Topic<'_>) -> Running {
    start_with(sink, |_, manifests| {
        let place = format!("  bootstrapServers: \"{}\"\n  startingPosition: earliest\n", topic.bootstrap);
        // A name of its own makes a consumer group of its own.
        manifests.kafka_trigger(&fresh_name(), topic.name, ("app", "sink"), &(place + &more_spec()));
        Vec::new()
    })
}

/// Further lines of the trigger's spec (`BENCH_TRIGGER`), for trying settings out.
fn more_spec() -> String {
    std::env::var("BENCH_TRIGGER").unwrap_or_default()
}

fn launch(dir: &Path, manifests: &Path, arguments: Vec<String>) -> Dispatcher {
    let mut launch = Launch::dispatcher(dir, "dispatcher");
    // Another build of it (`BENCH_DISPATCHER`), for comparing two in one run.
    if let Ok(program) = std::env::var("BENCH_DISPATCHER") {
        launch.program = PathBuf::from(program);
    }
    for (flag, value) in [
        ("--manifests", manifests.display().to_string()),
        ("--state-dir", dir.join("state").display().to_string()),
        ("--admin-listen", "127.0.0.1:0".to_owned()),
        ("--log-format", "json".to_owned()),
    ] {
        launch = launch.arg(flag).arg(value);
    }
    launch.args(arguments).start()
}

/// Drains the whole topic of `events`.
pub fn throughput(sink: &Sink, topic: Topic<'_>, events: usize) -> Measured {
    drained(sink, start(sink, topic), events)
}

/// The same of any source that holds `events`.
pub fn drained(sink: &Sink, mut running: Running, events: usize) -> Measured {
    let sink_before = sink.cpu();
    let stats = wait_count(sink, &mut running.dispatcher, events);
    let pid = running.dispatcher.pid();
    let (cpu, sink_cpu, millions) = (procfs::cpu_seconds(pid), sink.cpu() - sink_before, events as f64 / 1e6);
    let page = metrics::scrape(running.dispatcher.admin());
    let peak_mib = procfs::peak_mib(pid);
    finish(&mut running.dispatcher, &stats, events);
    Measured {
        per_s: (events as f64 - 1.0) / ((stats["last_us"] - stats["first_us"]) / 1e6),
        cpu: cpu / millions,
        sink_cpu: sink_cpu / millions,
        peak_mib,
        commit_ms: (commit_mean_ms(&page), commit_median_ms(&page)),
        per_commit: events as f64 / commits(&page),
    }
}

/// Serves `rate` events a second for `seconds` while the sink compares clocks.
pub fn latency(sink: &Sink, topic: Topic<'_>, keys: usize, rate: f64, seconds: f64) -> Latency {
    let mut running = start(sink, topic);
    let mut feed = |seconds: f64| {
        sink.reset();
        let (partitions, keys) = (topic.partitions.to_string(), keys.to_string());
        let (rate, seconds) = (rate.to_string(), seconds.to_string());
        let role = Role::own(&["feed", topic.bootstrap, topic.name, &partitions, &keys, &rate, &seconds]);
        let sent = values(&role.finish().0)["sent"];
        let stats = wait_count(sink, &mut running.dispatcher, sent as usize);
        (stats, sent as usize)
    };
    // Connections, leaders and averages settle first.
    feed(0.5);
    let (stats, sent) = feed(seconds);
    let page = metrics::scrape(running.dispatcher.admin());
    finish(&mut running.dispatcher, &stats, sent);
    let latency = sink.latency();
    let ms = |name: &str| latency[name] / 1e3;
    Latency {
        broker: (ms("broker_p50_us"), ms("broker_p99_us")),
        producer: (ms("producer_p50_us"), ms("producer_p99_us")),
        commit_ms: commit_median_ms(&page),
    }
}

/// What `feed` sends (`events` of them) to a source that keeps nothing: all must have ended, and be called at most once.
/// Returns the share that was delivered, too.
pub fn fed(sink: &Sink, mut running: Running, events: usize, feed: impl FnOnce()) -> (Measured, f64) {
    running.wait_connected();
    let pid = running.dispatcher.pid();
    let cpu_before = procfs::cpu_seconds(pid);
    feed();
    let ended = wait::try_until(PATIENCE, || {
        let page = metrics::scrape(running.dispatcher.admin());
        (page.get("kubeless_events_total", &[])? >= events as f64).then_some(page)
    });
    let page = ended.unwrap_or_else(|| panic!("not all ended:\n{}", running.dispatcher.output()));
    let (stats, cpu) = (sink.stats(), procfs::cpu_seconds(pid) - cpu_before);
    let called = stats["count"];
    assert_eq!(page.get("kubeless_events_total", &[("outcome", "delivered")]), Some(called));
    let per_s = (called - 1.0) / ((stats["last_us"] - stats["first_us"]) / 1e6);
    (Measured { per_s, cpu: cpu / called * 1e6, ..Measured::default() }, called / events as f64)
}

impl Running {
    /// CPU seconds it has spent so far.
    pub fn cpu(&self) -> f64 {
        procfs::cpu_seconds(self.dispatcher.pid())
    }

    /// Returns once it is ready and its trigger has its server.
    pub fn wait_connected(&mut self) {
        self.dispatcher.wait_ready(PATIENCE);
        let admin = self.dispatcher.admin();
        let connected = wait::try_until(PATIENCE, || {
            let page = metrics::scrape(admin);
            (page.get("kubeless_source_connected", &[]) == Some(1.0)).then_some(())
        });
        connected.expect("the trigger connects");
    }
}

/// Resident MiB with one trigger that has nothing to do.
pub fn idle(sink: &Sink, topic: Topic<'_>) -> f64 {
    let mut running = start(sink, topic);
    running.wait_connected();
    procfs::resident_mib(running.dispatcher.pid())
}

/// A request head as the product writes it, from a topic with at least one event.
pub fn head(sink: &Sink, topic: Topic<'_>, events: usize) -> String {
    let mut running = start(sink, topic);
    wait_count(sink, &mut running.dispatcher, events);
    sink.head()
}

fn wait_count(
    sink: &Sink,
    dispatcher: &mut Dispatcher,
    events: usize,
) -> std::collections::HashMap<String, f64> {
    let found = wait::try_until(PATIENCE, || {
        assert!(dispatcher.exited().is_none(), "the dispatcher ended:\n{}", dispatcher.output());
        let stats = sink.stats();
        (stats["count"] >= events as f64).then_some(stats)
    });
    found.unwrap_or_else(|| {
        panic!("{} of {events} after {PATIENCE:?}:\n{}", sink.stats()["count"], dispatcher.output())
    })
}

/// Everything was delivered, once, and the books balance.
fn finish(dispatcher: &mut Dispatcher, stats: &std::collections::HashMap<String, f64>, events: usize) {
    assert_eq!(stats["count"], events as f64, "an event was invoked twice");
    let balanced = wait::try_until(Duration::from_secs(10), || {
        let page = metrics::scrape(dispatcher.admin());
        let delivered = page.get("kubeless_events_total", &[("outcome", "delivered")])?;
        let residual = page.get("kubeless_conservation_residual", &[])?;
        (delivered >= events as f64 && residual == 0.0).then_some(())
    });
    assert!(balanced.is_some(), "delivered or residual are wrong:\n{}", dispatcher.output());
    dispatcher.sigterm();
    assert!(dispatcher.wait_exit(Duration::from_secs(60)).success());
}

fn commits(page: &Page) -> f64 {
    page.get("kubeless_claim_commit_duration_seconds_count", &[]).unwrap_or(0.0)
}

fn commit_mean_ms(page: &Page) -> f64 {
    page.get("kubeless_claim_commit_duration_seconds_sum", &[]).unwrap_or(0.0) / commits(page) * 1e3
}

/// Interpolated inside its bucket.
fn commit_median_ms(page: &Page) -> f64 {
    let half = commits(page) / 2.0;
    let (mut below, mut from) = (0.0, 0.0);
    for sample in page.0.iter().filter(|s| s.name == "kubeless_claim_commit_duration_seconds_bucket") {
        let bound = sample.labels.iter().find(|(name, _)| name == "le").map(|(_, le)| le.parse::<f64>());
        let Some(Ok(bound)) = bound else { continue };
        if sample.value >= half && sample.value > below {
            return (from + (bound - from) * (half - below) / (sample.value - below)) * 1e3;
        }
        (below, from) = (sample.value, bound);
    }
    from * 1e3
}
