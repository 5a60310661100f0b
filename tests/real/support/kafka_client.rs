//! What a test does to a Kafka cluster from outside: topics, records, offsets. Must never share code with the
//! product's own source, whose mistakes it would repeat.

use super::wait;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use std::{future::Future, time::Duration};

const ASK: Duration = Duration::from_secs(5);

/// One record to produce. `Record::new(payload)` and set what matters.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub partition: Option<i32>,
    pub timestamp_ms: Option<i64>,
}

impl Record {
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: Some(payload.into()), ..Self::default() }
    }
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
    pub fn timestamp(mut self, unix_ms: i64) -> Self {
        self.timestamp_ms = Some(unix_ms);
        self
    }
}

/// What a group committed for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub partition: i32,
    /// `None`: nothing committed.
    pub offset: Option<i64>,
    pub metadata: String,
}

/// Talks to one cluster. Cheap to make; every call opens its own client.
pub struct Client {
    bootstrap: String,
}

impl Client {
    pub fn new(bootstrap: String) -> Self {
        Self { bootstrap }
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A quiet consumer of `group` at `bootstrap`, subscribed to nothing.
    pub fn consumer_at(bootstrap: &str, group: &str) -> BaseConsumer {
        let mut config = base(bootstrap);
        config.set("group.id", group).set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        config.create().expect("a valid configuration")
    }

    pub fn consumer(&self, group: &str) -> BaseConsumer {
        Self::consumer_at(&self.bootstrap, group)
    }

    /// Creates `name` and returns when every partition has a leader.
    pub fn create_topic(&self, name: &str, partitions: i32, replication: i32) {
        self.create_topic_with(name, partitions, replication, &[]);
    }

    /// The same with topic settings such as `("cleanup.policy", "compact")`.
    pub fn create_topic_with(&self, name: &str, partitions: i32, replication: i32, config: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replication));
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        let made = self.admin(|admin, options| block_on(admin.create_topics([&topic], options)));
        made[0].as_ref().unwrap_or_else(|(name, code)| panic!("cannot create topic {name}: {code}"));
        let probe = self.consumer("probe");
        wait::until("a leader of every partition", Duration::from_secs(30), || {
            let found = probe.fetch_metadata(Some(name), ASK).ok()?;
            let found = found.topics().first()?;
            let led = found.partitions().iter().filter(|p| p.leader() > 0 && p.error().is_none()).count();
            (led == partitions as usize).then_some(())
        });
    }

    pub fn delete_topic(&self, name: &str) {
        let done = self.admin(|admin, options| block_on(admin.delete_topics(&[name], options)));
        done[0].as_ref().unwrap_or_else(|(name, code)| panic!("cannot delete topic {name}: {code}"));
    }

    /// Replaces the topic's settings.
    pub fn alter_topic(&self, name: &str, config: &[(&str, &str)]) {
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(name));
        for (key, value) in config {
            alter = alter.set(key, value);
        }
        let done = self.admin(|admin, options| block_on(admin.alter_configs([&alter], options)));
        done[0].as_ref().unwrap_or_else(|(_, code)| panic!("cannot alter topic {name}: {code}"));
    }

    /// Deletes the records of one partition below `before`, as retention would.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before)).expect("a plain offset");
        self.admin(|admin, options| block_on(admin.delete_records(&list, options)));
    }

    /// Produces all records (idempotent, acks=all) and returns their number once every one is acknowledged.
    pub fn produce_many(&self, topic: &str, records: impl IntoIterator<Item = Record>) -> usize {
        self.producer().produce_many(topic, records)
    }

    /// A producer for whoever produces again and again: ending one can take for ever (confluentinc/librdkafka#1640).
    pub fn producer(&self) -> Producer {
        let mut config = base(&self.bootstrap);
        config.set("enable.idempotence", "true").set("linger.ms", "5");
        config.set("queue.buffering.max.messages", "200000");
        Producer(config.create().expect("a valid configuration"))
    }

    /// What `group` committed for each partition of `topic`.
    pub fn committed(&self, group: &str, topic: &str) -> Vec<Committed> {
        let consumer = self.consumer(group);
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions(topic) {
            list.add_partition(topic, partition);
        }
        let found = wait::until("the committed offsets", Duration::from_secs(60), || {
            consumer.committed_offsets(list.clone(), ASK).ok()
        });
        let one = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| Committed {
            partition: element.partition(),
            offset: match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            },
            metadata: element.metadata().to_owned(),
        };
        found.elements().iter().map(one).collect()
    }

    /// Commits for a group without members, as an outsider can.
    pub fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64, metadata: &str) {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(topic, partition);
        element.set_offset(Offset::Offset(offset)).expect("a plain offset");
        element.set_metadata(metadata);
        self.consumer(group).commit(&list, CommitMode::Sync).expect("the coordinator accepts the commit");
    }

    /// The end offset (next record's offset) of each partition.
    pub fn end_offsets(&self, topic: &str) -> Vec<i64> {
        let consumer = self.consumer("probe");
        let end = |partition| {
            wait::until("the end offset", Duration::from_secs(60), || {
                consumer.fetch_watermarks(topic, partition, ASK).ok().map(|(_, high)| high)
            })
        };
        (0..self.partitions(topic)).map(end).collect()
    }

    /// Returns once a coordinator answers for `group` (creating `__consumer_offsets` where it is missing).
    pub fn wait_coordinator(&self, group: &str, limit: Duration) {
        let consumer = self.consumer(group);
        wait::until("the group coordinator", limit, || {
            let mut list = TopicPartitionList::new();
            list.add_partition("any", 0);
            let found = consumer.committed_offsets(list, ASK).ok()?;
            // Any answer about the unknown topic is an answer of the coordinator.
            (found.count() == 1).then_some(())
        });
    }

    pub(super) fn coordinator(&self, group: &str) -> Option<i32> {
        let found = self.consumer("probe").fetch_metadata(Some("__consumer_offsets"), ASK).ok()?;
        let partitions = found.topics().first()?.partitions();
        let wanted = (java_hash(group) & 0x7fff_ffff) % i32::try_from(partitions.len()).ok()?;
        partitions
            .iter()
            .find(|p| p.id() == wanted)
            .map(rdkafka::metadata::MetadataPartition::leader)
            .filter(|l| *l > 0)
    }

    pub(super) fn in_sync(&self, topic: &str) -> bool {
        let Ok(found) = self.consumer("probe").fetch_metadata(Some(topic), ASK) else { return false };
        let full =
            |p: &rdkafka::metadata::MetadataPartition| p.leader() > 0 && p.isr().len() == p.replicas().len();
        found.topics().first().is_some_and(|t| !t.partitions().is_empty() && t.partitions().iter().all(full))
    }

    fn partitions(&self, topic: &str) -> i32 {
        let probe = self.consumer("probe");
        wait::until("the topic's partitions", Duration::from_secs(60), || {
            let found = probe.fetch_metadata(Some(topic), ASK).ok()?;
            let count = found.topics().first()?.partitions().len() as i32;
            (count > 0).then_some(count)
        })
    }

    fn admin<T>(
        &self,
        ask: impl FnOnce(&AdminClient<DefaultClientContext>, &AdminOptions) -> Result<T, KafkaError>,
    ) -> T {
        let admin = base(&self.bootstrap).create().expect("a valid configuration");
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        ask(&admin, &options).expect("the cluster answers the admin request")
    }
}

/// An idempotent producer, acks=all.
pub struct Producer(BaseProducer);

impl Producer {
    /// See [`Client::produce_many`].
    pub fn produce_many(&self, topic: &str, records: impl IntoIterator<Item = Record>) -> usize {
        let Self(producer) = self;
        let mut count = 0;
        for record in records {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (key, value) in &record.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let mut next = BaseRecord::<[u8], [u8]>::to(topic).headers(headers);
            next.key = record.key.as_deref();
            next.payload = record.payload.as_deref();
            next.partition = record.partition;
            next.timestamp = record.timestamp_ms;
            loop {
                match producer.send(next) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                        producer.poll(Duration::from_millis(20));
                        next = back;
                    }
                    Err((error, _)) => panic!("cannot produce to {topic}: {error}"),
                }
            }
            count += 1;
        }
        producer.flush(Duration::from_secs(120)).expect("every record is acknowledged");
        count
    }
}

fn base(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("reconnect.backoff.max.ms", "500");
    // Brokers die in these tests on purpose: their absence is no news.
    config.set("log_level", "2").set("topic.metadata.refresh.fast.interval.ms", "100");
    config
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime of one thread").block_on(future)
}

/// `String.hashCode`, which places a group on its coordinator.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}
