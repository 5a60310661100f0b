//! A network that carries one direction only, under load, to core NATS and to streams with three copies and one: the function is the
//! witness that nothing is called twice, what is lost has a name (or, where none can have one, its interval is told), and what
//! comes after it arrives.

use crate::{
    conformance::{JetStream, Nats, Run, SingleCopy, Source, run::LIMIT},
    support::{
        metrics,
        nats::NatsCluster,
        valve::{Direction, Valve},
        wait,
        witness::Behaviour,
    },
};
use std::{fmt::Write as _, ops::Range};

const NARROW: &str = "  delivery:\n    timeout: 1s\n    maxInFlight: 16\n    claimWindow: 64\n";

/// A source whose dispatchers reach its servers through valves; the publisher does not.
struct Cut<S> {
    source: S,
    valves: Vec<Valve>,
    spec: String,
}

impl<S: Source> Cut<S> {
    fn new(source: S, servers: impl Fn(&S) -> &NatsCluster) -> Self {
        let servers = servers(&source);
        let valves: Vec<Valve> = servers.ports().map(Valve::start).collect();
        let mut url = String::new();
        for valve in &valves {
            let _ = write!(url, "{}nats://127.0.0.1:{}", if url.is_empty() { "" } else { "," }, valve.port());
        }
        let spec = source.spec().replace(&servers.url(), &url);
        Self { source, valves, spec }
    }
}

impl<S: Source> Source for Cut<S> {
    const KEEPS: bool = S::KEEPS;
    const KIND: &'static str = S::KIND;

    fn shared() -> Self {
        unreachable!("made by its test")
    }
    fn alone() -> Self {
        unreachable!("made by its test")
    }
    fn spec(&self) -> String {
        self.spec.clone()
    }
    fn arguments(&self) -> Vec<String> {
        let mut arguments = self.source.arguments();
        // A server that misses two pings is gone.
        arguments.extend(["--set", "sources.nats.ping_interval=1s"].map(str::to_owned));
        arguments
    }
    fn publish(&mut self, numbers: Range<usize>, padding: usize) {
        self.source.publish(numbers, padding);
    }
    fn poison(&mut self) {
        self.source.poison();
    }
    fn kill_server(&mut self) {
        self.source.kill_server();
    }
    fn restart_server(&mut self) {
        self.source.restart_server();
    }
}

/// Each direction once, under load.
fn cut<S: Source>(source: Cut<S>) {
    let mut run = Run::new(source, NARROW);
    run.witness.always(Behaviour::Answer { status: 200, delay: std::time::Duration::from_millis(5) });
    let mut dispatcher = run.start("one");
    let admin = dispatcher.admin();
    for direction in [Direction::ToClient, Direction::ToServer] {
        let before = run.witness.len();
        run.publish(300);
        run.witness.wait_for(before + 50, LIMIT);
        run.source.valves.iter().for_each(|valve| valve.shut(direction));
        run.publish(100);
        wait::until("the connection is given up", LIMIT, || {
            (metrics::scrape(admin).get("kubeless_source_connected", &[]) == Some(0.0)).then_some(())
        });
        run.source.valves.iter().for_each(|valve| valve.open(direction));
        run.wait_connected(&mut dispatcher);
        let last = run.publish(100);
        run.wait_ended(last);
    }
    let books = if S::KEEPS { run.settle() } else { run.books() };
    println!("{}: cut each way, {} published: {:?}", S::KIND, run.published, books.counts);
    run.assert_sound(&books, &mut dispatcher);
    if S::KEEPS {
        let named = books.count("delivered") + books.count("in_doubt") + books.count("unanswered");
        assert_eq!(named, run.published as u64, "{:?}", books.counts);
    } else {
        let gaps = metrics::scrape(admin).get("kubeless_source_gap_seconds_count", &[]);
        assert!(gaps >= Some(2.0), "each interval is told: {gaps:?}");
    }
}

#[test]
fn a_network_that_carries_one_direction_has_nothing_of_a_subject_called_twice() {
    cut(Cut::new(Nats::alone(), Nats::server));
}

#[test]
fn a_network_that_carries_one_direction_has_nothing_of_a_stream_called_twice() {
    cut(Cut::new(JetStream::alone(), JetStream::servers));
}

#[test]
fn a_network_that_carries_one_direction_has_nothing_of_a_stream_with_one_copy_called_twice() {
    cut(Cut::new(SingleCopy::alone(), SingleCopy::servers));
}
