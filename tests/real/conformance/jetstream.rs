//! JetStream for the suite: a stream on three servers keeps everything, and so does its consumer. One on a single server forgets
//! deliveries when it is killed; dispatchers then share a register.

use super::{BY_LABEL, Source, nats::message};
use crate::support::nats::{Client, Message, NatsCluster};
use std::{
    ops::Range,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// Servers that no test harms; never dropped, their folder is removed after this process.
static SHARED: [LazyLock<NatsCluster>; 2] = [
    LazyLock::new(|| NatsCluster::start(1).for_a_static()),
    LazyLock::new(|| NatsCluster::start(3).for_a_static()),
];

/// A stream with as many copies as there are servers.
pub struct OnServers<const SERVERS: usize> {
    pub own: Option<NatsCluster>,
    client: Option<Client>,
    pub name: String,
    /// Which dispatchers share, where there are fewer than three copies.
    register: tempfile::TempDir,
}

pub type JetStream = OnServers<3>;
pub type SingleCopy = OnServers<1>;

impl<const SERVERS: usize> OnServers<SERVERS> {
    fn on(own: Option<NatsCluster>) -> Self {
        let name = format!("suite-js-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let register = tempfile::tempdir().expect("a temporary folder");
        let source = Self { own, client: None, name, register };
        let subjects = format!("{}.*", source.name);
        source.servers().client().create_stream(&source.name, &[&subjects], SERVERS);
        source
    }

    pub fn servers(&self) -> &NatsCluster {
        self.own.as_ref().unwrap_or_else(|| &SHARED[usize::from(SERVERS == 3)])
    }

    /// The server that leads the subscription's consumer.
    pub fn consumer_leader(&self) -> usize {
        let client = self.servers().client();
        let leader = client.block_on(async {
            let stream = client.jetstream().get_stream(&self.name).await.expect("the stream");
            let info = stream.consumer_info("default_trigger_witness").await.expect("the consumer");
            info.cluster.and_then(|cluster| cluster.leader).expect("it has a leader")
        });
        leader.rsplit('-').next().and_then(|number| number.parse().ok()).expect("server-<number>")
    }

    pub fn delete_consumer(&self, name: &str) {
        let client = self.servers().client();
        client.block_on(async {
            let stream = client.jetstream().get_stream(&self.name).await.expect("the stream");
            stream.delete_consumer(name).await.expect("it was there");
        });
    }

    fn send(&mut self, messages: impl IntoIterator<Item = Message>) {
        let client = self.client.take().unwrap_or_else(|| self.servers().client());
        client.publish_stream(messages);
        self.client = Some(client);
    }
}

impl<const SERVERS: usize> Source for OnServers<SERVERS> {
    const CLAIMS_BY_DELIVERY: bool = true;
    const KEEPS: bool = true;
    const KIND: &'static str = "NATSTrigger";

    fn shared() -> Self {
        Self::on(None)
    }

    fn alone() -> Self {
        Self::on(Some(NatsCluster::start(SERVERS)))
    }

    fn spec(&self) -> String {
        let (name, url) = (&self.name, self.servers().url());
        let stream = format!("  stream: {name}\n  startingPosition: earliest\n");
        format!("{BY_LABEL}  topic: \"{name}.*\"\n  url: \"{url}\"\n{stream}")
    }

    fn arguments(&self) -> Vec<String> {
        // An event of a killed process is named this long after its function's timeout, by whoever listens then: a successor
        // must have started by that time, on a busy machine too.
        let options = [
            "sources.nats.ack_margin=12s".to_owned(),
            "invoker.timeout_margin=500ms".to_owned(),
            "sources.nats.failover_time=5s".to_owned(),
            format!("sources.nats.register_dir={}", self.register.path().display()),
        ];
        options.into_iter().flat_map(|option| ["--set".to_owned(), option]).collect()
    }

    fn publish(&mut self, numbers: Range<usize>, padding: usize) {
        let name = self.name.clone();
        self.send(numbers.map(|n| message(&format!("{name}.part-{}", n % 3), n, padding)));
    }

    fn poison(&mut self) {
        let subject = format!("{}.poison", self.name);
        self.send([Message::new(&subject, "no JSON").header("content-type", "application/cloudevents+json")]);
    }

    fn kill_server(&mut self) {
        self.client = None;
        let own = self.own.as_mut().expect("servers of its own");
        (0..SERVERS).for_each(|at| own.kill9(at));
    }

    fn restart_server(&mut self) {
        self.own.as_mut().expect("servers of its own").restart_all();
    }
}
