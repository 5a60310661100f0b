//! Throughput of the other sources: real server → claim → one HTTP POST per event, beside what a bare client of the same server
//! and what `wrk` on the same sink make in the same run. Must never show one without the other two.

mod bare;

pub use bare::{drain_shards, drain_stream, drain_subject, flood};

use crate::{
    child::{Role, Sink, values},
    kafka::body,
    limit,
    report::{Table, show},
    settings::Settings,
    subject::{self, Measured},
    support::{
        kinesis::Kinesis,
        manifests::Manifests,
        nats::{Message, NatsCluster},
        ports::free_port,
    },
};
use std::{fs, path::Path, time::Duration};

/// The function's label.
const LABEL: (&str, &str) = ("app", "sink");
const SHARDS: i32 = 4;
/// Different keys of a Kinesis stream.
const KEYS: usize = 1000;
/// One POST without an id, so that each request is an event of its own.
const HEAD: &str = "POST / HTTP/1.1\r\ncontent-type: application/json\r\n\r\n";

/// What one run found.
struct Found {
    measured: Measured,
    /// Events a second of the bare client.
    bare: f64,
    /// Requests a second of `wrk`.
    wrk: f64,
    /// Share of the events that were called.
    delivered: f64,
}

/// Measures each of them and prints a table each.
pub fn run(settings: &Settings) {
    let sink = Sink::start(Duration::ZERO);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let script = dir.path().join("post.lua");
    limit::script(HEAD, &script);
    let wrk =
        |sink: &Sink| limit::wrk(&format!("http://{}/", sink.address), &script, settings.limit_seconds).0;
    let each = |title: &str, one: &dyn Fn(usize) -> (Measured, f64, f64)| {
        let runs = (0..settings.runs).map(|run| {
            let (measured, bare, delivered) = one(run);
            Found { measured, bare, wrk: wrk(&sink), delivered }
        });
        table(title, &runs.collect::<Vec<_>>());
    };
    {
        let server = NatsCluster::start(1);
        let events = settings.events / 2;
        each(&format!("NATS core, {events} messages as fast as one client sends"), &|run| {
            subject(&sink, &server, &format!("core-{run}"), events)
        });
        let events = settings.events / 8;
        each(&format!("JetStream, one copy, {events} messages"), &|run| {
            stream(&sink, &server, (&format!("one-{run}"), 1), events)
        });
    }
    {
        let servers = NatsCluster::start(3);
        let events = settings.events / 8;
        each(&format!("JetStream, three copies, {events} messages"), &|run| {
            stream(&sink, &servers, (&format!("three-{run}"), 3), events)
        });
    }
    {
        let endpoint = Kinesis::start();
        let events = settings.events / 20;
        each(&format!("Kinesis (kinesis-local), {SHARDS} shards, {events} records"), &|run| {
            shards(&sink, &endpoint, &format!("shards-{run}"), events)
        });
    }
    for store in ["file", "memory"] {
        let found = (0..settings.runs).map(|_| {
            let measured = requests(&sink, store, &script, settings.limit_seconds);
            let limit = wrk(&sink);
            Found { measured, bare: limit, wrk: limit, delivered: 1.0 }
        });
        table(
            &format!("HTTP requests through the dispatcher, store = {store:?}"),
            &found.collect::<Vec<_>>(),
        );
    }
}

fn table(title: &str, runs: &[Found]) {
    let mut table = Table::default();
    let mut row = |name: &str, unit, of: &dyn Fn(&Found) -> f64| table.add(name, unit, runs.iter().map(of));
    row("throughput", "events/s", &|f| f.measured.per_s);
    row("bare client", "events/s", &|f| f.bare);
    row("wrk on the sink", "requests/s", &|f| f.wrk);
    row("throughput / the lower one", "", &|f| f.measured.per_s / f.bare.min(f.wrk));
    row("CPU", "s/million", &|f| f.measured.cpu);
    row("delivered of all", "", &|f| f.delivered);
    table.print(&format!("## {title}"));
}

/// Events a second that the role `arguments` counted.
fn bare(role: Role) -> f64 {
    let said = role.finish().0;
    *values(&said).get("per_s").unwrap_or_else(|| panic!("no figure in {said}"))
}

fn subject(sink: &Sink, server: &NatsCluster, name: &str, events: usize) -> (Measured, f64, f64) {
    let (url, count) = (server.url(), events.to_string());
    let flood = |subject: &str| drop(Role::own(&["flood", &url, subject, &count]).finish());
    let running = subject::start_with(sink, |_, manifests| {
        let spec = format!("  topic: {name}\n  url: \"{url}\"\n");
        manifests.trigger("NATSTrigger", name, LABEL, &spec);
        Vec::new()
    });
    let (measured, delivered) = subject::fed(sink, running, events, || flood(name));
    let bare_name = format!("bare-{name}");
    let mut drain = Role::own(&["drain-subject", &url, &bare_name, &count]);
    assert_eq!(drain.line(), "begun");
    flood(&bare_name);
    (measured, bare(drain), delivered)
}

fn stream(
    sink: &Sink,
    servers: &NatsCluster,
    (name, copies): (&str, usize),
    events: usize,
) -> (Measured, f64, f64) {
    let client = servers.client();
    client.create_stream(name, &[name], copies);
    client.wait_leader(name);
    let text = body(None);
    let written = client.publish_stream((0..events).map(|_| Message::new(name, text.as_bytes())));
    assert_eq!(written.len(), events);
    let running = subject::start_with(sink, |_, manifests| {
        let spec = format!("  topic: {name}\n  url: \"{}\"\n  stream: {name}\n", servers.url());
        manifests.trigger("NATSTrigger", name, LABEL, &(spec + "  startingPosition: earliest\n"));
        Vec::new()
    });
    let measured = subject::drained(sink, running, events);
    let drain = Role::own(&["drain-stream", &servers.url(), name, &events.to_string()]);
    (measured, bare(drain), 1.0)
}

fn shards(sink: &Sink, endpoint: &Kinesis, name: &str, events: usize) -> (Measured, f64, f64) {
    endpoint.create_stream(name, SHARDS);
    let text = body(None);
    let record = |n: usize| (format!("key-{}", n % KEYS), text.clone().into_bytes());
    endpoint.put(name, &(0..events).map(record).collect::<Vec<_>>());
    let running = subject::start_with(sink, |dir, manifests| {
        let credentials = dir.join("credentials/aws");
        fs::create_dir_all(&credentials).expect("a folder in our own folder");
        for key in ["aws_access_key_id", "aws_secret_access_key"] {
            fs::write(credentials.join(key), "test").expect("a file in our own folder");
        }
        let place =
            format!("  stream: {name}\n  aws-region: us-east-1\n  endpoint: \"{}\"\n", endpoint.endpoint());
        let spec = place + "  function-name: sink\n  secret: aws\n  startingPosition: TRIM_HORIZON\n";
        write(manifests, "KinesisTrigger", name, &spec);
        let dir = dir.join("credentials").display().to_string();
        vec!["--set".to_owned(), format!("sources.kinesis.credentials_dir={dir}")]
    });
    let measured = subject::drained(sink, running, events);
    let drain = Role::own(&["drain-shards", &endpoint.endpoint(), name, &events.to_string()]);
    (measured, bare(drain), 1.0)
}

fn requests(sink: &Sink, store: &str, script: &Path, seconds: f64) -> Measured {
    let port = free_port();
    let mut running = subject::start_with(sink, |_, manifests| {
        let spec = "  function-name: sink\n  path: orders\n  delivery:\n    through: Dispatcher\n";
        write(manifests, "HTTPTrigger", "orders", spec);
        let options = [format!("listen=\"127.0.0.1:{port}\""), format!("store=\"{store}\"")];
        options.into_iter().flat_map(|o| ["--set".to_owned(), format!("sources.http.{o}")]).collect()
    });
    running.wait_connected();
    let before = running.cpu();
    let (per_s, _) = limit::wrk(&format!("http://127.0.0.1:{port}/orders"), script, seconds);
    let called = sink.stats()["count"];
    println!("{} requests a second, {} calls in all", show(per_s), show(called));
    Measured { per_s, cpu: (running.cpu() - before) / called * 1e6, ..Measured::default() }
}

/// A trigger that names its function.
fn write(manifests: &Manifests, kind: &str, name: &str, spec: &str) {
    let head = format!(
        "apiVersion: kubeless.io/v1beta1\nkind: {kind}\nmetadata:\n  name: {name}\n  namespace: default\n"
    );
    manifests.write(&format!("trigger-{name}"), &format!("{head}spec:\n{spec}"));
}
