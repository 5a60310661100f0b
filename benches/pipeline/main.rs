//! The whole path: real Kafka → claim → one HTTP POST per event, held against what `wrk` makes of the same sink in the
//! same run. `make bench` runs it, `make bench-sources` the same for the other sources; benches/README.md says how to read
//! it. Must never report a figure without the limit measured beside it.

mod child;
mod http;
mod kafka;
mod limit;
mod procfs;
mod report;
mod settings;
mod sink;
mod sources;
mod subject;
#[path = "../../tests/real/support/mod.rs"]
mod support;

use child::Sink;
use limit::{Limit, Topic};
use report::{Table, show};
use settings::Settings;
use std::{path::Path, time::Duration};
use subject::{Latency, Measured};
use support::kafka::{KafkaCluster, Options};

const PARTITIONS: usize = 8;
/// Keys of the topic for the function that takes 5 ms.
const SLOW_KEYS: usize = 1000;
const SLOW: Duration = Duration::from_millis(5);
/// Calls of one subscription that may run at once, by default.
const IN_FLIGHT: f64 = 64.0;
/// Pace of the bare consumer before a limit is known.
const FIRST_PACE: f64 = 60_000.0;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let text = |n: usize| arguments.get(n).map_or("", String::as_str);
    let number = |n: usize| text(n).parse::<f64>().unwrap_or_else(|e| panic!("argument {n}: {e}"));
    match text(0) {
        "sink" => return sink::serve(Duration::from_micros(number(1) as u64)),
        "feed" => {
            let shape = (number(3) as usize, number(4) as usize);
            kafka::feed(text(1), text(2), shape, number(5), number(6));
        }
        "drain" => kafka::drain(text(1), text(2), number(3) as usize, number(4), number(5)),
        "drain-subject" => sources::drain_subject(text(1), text(2), number(3) as usize),
        "drain-stream" => sources::drain_stream(text(1), text(2), number(3) as usize),
        "drain-shards" => sources::drain_shards(text(1), text(2), number(3) as usize),
        "flood" => sources::flood(text(1), text(2), number(3) as usize),
        "sources" => sources::run(&Settings::read()),
        _ => run(&Settings::read()),
    }
    Ok(())
}

/// What the last line holds: medians with the broker's defaults.
#[derive(Default)]
struct Summary {
    ratio: f64,
    per_s: f64,
    limit: f64,
    cpu: f64,
    cpu_ratio: f64,
    latency: (f64, f64),
}

fn run(settings: &Settings) {
    println!("Machine: {}; load average {}", procfs::machine(), show(procfs::load_average()));
    println!(
        "{} run(s) of {} events of 256 bytes, {} keys (usually {})",
        settings.runs,
        settings.events,
        settings.keys,
        if settings.smoke { "20 seconds" } else { "10 minutes" }
    );
    let summary = broker(settings, None);
    if !settings.smoke {
        broker(settings, Some(0));
    }
    println!(
        "\nbench: ratio={:.2} events_per_s={:.0} limit_per_s={:.0} cpu_s_per_million={:.1} cpu_ratio={:.2} p50_ms={:.1} p99_ms={:.1}",
        summary.ratio,
        summary.per_s,
        summary.limit,
        summary.cpu,
        summary.cpu_ratio,
        summary.latency.0,
        summary.latency.1
    );
}

/// Everything on one broker, with `group.coordinator.append.linger.ms` as given or as Kafka ships it.
fn broker(settings: &Settings, append_linger_ms: Option<u32>) -> Summary {
    let cluster = KafkaCluster::start(1, &Options { append_linger_ms, ..Options::default() });
    let dir = tempfile::tempdir().expect("a temporary folder");
    let script = dir.path().join("post.lua");
    let linger = append_linger_ms.map_or_else(|| "Kafka's default".to_owned(), |ms| format!("{ms} ms"));
    let title = |what: &str| format!("## {what}; append linger: {linger}");
    let sink = Sink::start(Duration::ZERO);
    let warm = load(&cluster, "warm", PARTITIONS, 2000, settings.keys);
    limit::script(&subject::head(&sink, warm, 2000), &script);

    let topic = load(&cluster, "events", PARTITIONS, settings.events, settings.keys);
    let pairs = pairs(settings, &sink, topic, &script, settings.events);
    let mut summary = fast_table(&pairs, &title("Function at 0 ms, 8 partitions"));

    let rate = summary.per_s / 2.0;
    let latencies: Vec<Latency> = (0..settings.runs)
        .map(|run| {
            let topic = empty(&cluster, &format!("paced-{run}"));
            subject::latency(&sink, topic, settings.keys, rate, settings.latency_seconds)
        })
        .collect();
    summary.latency =
        latency_table(&latencies, &title(&format!("Latency at {} events/s (half load)", show(rate))));

    let slow_sink = Sink::start(SLOW);
    let slow = load(&cluster, "slow", 1, settings.slow_events, SLOW_KEYS);
    let pairs = self::pairs(settings, &slow_sink, slow, &script, settings.slow_events);
    slow_table(&pairs, &title("Function at 5 ms, 1 partition, 1,000 keys"));

    let idle: Vec<f64> = (0..if settings.smoke { 1 } else { 3 })
        .map(|run| subject::idle(&sink, empty(&cluster, &format!("idle-{run}"))))
        .collect();
    let mut table = Table::default();
    table.add("resident memory", "MiB", idle);
    table.print(&title("One idle trigger"));
    summary
}

/// Limit and product by turns, so that both see the same machine.
fn pairs(
    settings: &Settings,
    sink: &Sink,
    topic: Topic<'_>,
    script: &Path,
    events: usize,
) -> Vec<(Limit, Measured)> {
    let mut pace = limit::measure(sink, topic, script, 1.0, FIRST_PACE.min(events as f64)).per_s;
    let mut pairs = Vec::new();
    for run in 1..=settings.runs {
        let measured = subject::throughput(sink, topic, events);
        let limit = limit::measure(sink, topic, script, settings.limit_seconds, pace);
        pace = limit.per_s;
        println!(
            "run {run}: {} events/s of {} = {}; CPU {} against {} + {}; commit {} ms for {} events; load average {}",
            show(measured.per_s),
            show(limit.per_s),
            show(measured.per_s / limit.per_s),
            show(measured.cpu),
            show(limit.wrk_cpu),
            show(limit.drain_cpu),
            show(measured.commit_ms.0),
            show(measured.per_commit),
            show(procfs::load_average()),
        );
        pairs.push((limit, measured));
    }
    pairs
}

fn fast_table(pairs: &[(Limit, Measured)], title: &str) -> Summary {
    let mut table = Table::default();
    let mut row = |name: &str, unit, of: &dyn Fn(&Limit, &Measured) -> f64| {
        table.add(name, unit, pairs.iter().map(|(limit, measured)| of(limit, measured)))
    };
    let summary = Summary {
        per_s: row("throughput", "events/s", &|_, m| m.per_s),
        limit: row("limit (wrk)", "requests/s", &|l, _| l.per_s),
        ratio: row("throughput / limit", "", &|l, m| m.per_s / l.per_s),
        cpu: row("CPU", "s/million", &|_, m| m.cpu),
        cpu_ratio: row("CPU / (wrk + bare consumer)", "", &|l, m| m.cpu / (l.wrk_cpu + l.drain_cpu)),
        latency: (0.0, 0.0),
    };
    row("CPU of wrk", "s/million", &|l, _| l.wrk_cpu);
    row("CPU of the bare consumer", "s/million", &|l, _| l.drain_cpu);
    row("CPU of the sink", "s/million", &|_, m| m.sink_cpu);
    row("commit, mean", "ms", &|_, m| m.commit_ms.0);
    row("commit, median", "ms", &|_, m| m.commit_ms.1);
    row("events per commit", "", &|_, m| m.per_commit);
    row("peak memory", "MiB", &|_, m| m.peak_mib);
    table.print(title);
    summary
}

fn latency_table(runs: &[Latency], title: &str) -> (f64, f64) {
    let mut table = Table::default();
    let mut row = |name: &str, of: &dyn Fn(&Latency) -> f64| table.add(name, "ms", runs.iter().map(of));
    let p50 = row("broker timestamp → first byte, p50", &|l| l.broker.0);
    let p99 = row("broker timestamp → first byte, p99", &|l| l.broker.1);
    row("producer's call → first byte, p50", &|l| l.producer.0);
    row("producer's call → first byte, p99", &|l| l.producer.1);
    row("commit, median", &|l| l.commit_ms);
    table.print(title);
    (p50, p99)
}

fn slow_table(pairs: &[(Limit, Measured)], title: &str) {
    let ideal = IN_FLIGHT / SLOW.as_secs_f64();
    let mut table = Table::default();
    let mut row = |name: &str, unit, of: &dyn Fn(&Limit, &Measured) -> f64| {
        table.add(name, unit, pairs.iter().map(|(limit, measured)| of(limit, measured)));
    };
    row("throughput", "events/s", &|_, m| m.per_s);
    row("limit (wrk -c64)", "requests/s", &|l, _| l.per_s);
    row("throughput / (64 in flight / 5 ms)", "", &|_, m| m.per_s / ideal);
    row("throughput / limit", "", &|l, m| m.per_s / l.per_s);
    row("CPU", "s/million", &|_, m| m.cpu);
    row("events per commit", "", &|_, m| m.per_commit);
    table.print(title);
}

fn load<'a>(
    cluster: &'a KafkaCluster,
    name: &'a str,
    partitions: usize,
    events: usize,
    keys: usize,
) -> Topic<'a> {
    cluster.client().create_topic(name, partitions as i32, 1);
    kafka::fill(cluster.bootstrap(), name, (partitions, keys), events);
    let written: i64 = cluster.client().end_offsets(name).iter().sum();
    assert_eq!(written, events as i64);
    Topic { bootstrap: cluster.bootstrap(), name, partitions }
}

/// A topic whose records carry the broker's time.
fn empty<'a>(cluster: &'a KafkaCluster, name: &str) -> Topic<'a> {
    cluster.client().create_topic_with(
        name,
        PARTITIONS as i32,
        1,
        &[("message.timestamp.type", "LogAppendTime")],
    );
    // A handful of names for the length of a benchmark.
    let name = Box::leak(name.to_owned().into_boxed_str());
    Topic { bootstrap: cluster.bootstrap(), name, partitions: PARTITIONS }
}
