//! Kafka for the suite: the log keeps everything.

use super::{BY_LABEL, Source};
use crate::support::{
    kafka::{self, KafkaCluster, Options},
    kafka_client::Record,
};
use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

const PARTITIONS: i32 = 3;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

pub struct Kafka {
    own: Option<KafkaCluster>,
    topic: String,
}

impl Kafka {
    fn on(own: Option<KafkaCluster>) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let source = Self { own, topic: format!("suite-{}-{number}", std::process::id()) };
        source.cluster().client().create_topic(&source.topic, PARTITIONS, 1);
        source
    }

    fn cluster(&self) -> &KafkaCluster {
        match &self.own {
            Some(own) => own,
            None => kafka::shared(),
        }
    }
}

impl Source for Kafka {
    const KEEPS: bool = true;
    const KIND: &'static str = "KafkaTrigger";

    fn shared() -> Self {
        Self::on(None)
    }

    fn alone() -> Self {
        Self::on(Some(KafkaCluster::start(1, &Options::short_sessions())))
    }

    fn spec(&self) -> String {
        format!(
            "{BY_LABEL}  topic: {}\n  bootstrapServers: \"{}\"\n  startingPosition: earliest\n",
            self.topic,
            self.cluster().bootstrap()
        )
    }

    fn arguments(&self) -> Vec<String> {
        let options = ["sources.kafka.session_timeout=6s", "sources.kafka.heartbeat_interval=500ms"];
        options.into_iter().flat_map(|option| ["--set".to_owned(), option.to_owned()]).collect()
    }

    fn publish(&mut self, numbers: Range<usize>, padding: usize) {
        let records = numbers.map(|n| {
            Record::new(format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(padding)))
                .key(format!("key-{}", n % 50))
                .header("ce_specversion", "1.0")
                .header("ce_id", format!("e-{n}"))
                .header("ce_source", "/suite")
                .header("ce_type", "suite.event")
                .partition(n as i32 % PARTITIONS)
        });
        self.cluster().client().produce_many(&self.topic, records);
    }

    fn poison(&mut self) {
        let record =
            Record::new("no JSON").header("content-type", "application/cloudevents+json").partition(0);
        self.cluster().client().produce_many(&self.topic, [record]);
    }

    fn kill_server(&mut self) {
        self.own.as_mut().expect("a server of its own").kill9(1);
    }

    fn restart_server(&mut self) {
        self.own.as_mut().expect("a server of its own").restart(1);
    }
}
