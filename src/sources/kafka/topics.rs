//! Topics for `kubeless topic`. Must never make one that exists already look new, nor hide what the broker says.

use crate::sources::{Error, TopicInfo, Topics};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::RDKafkaErrorCode,
};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Longest wait for an answer.
const WAIT: Duration = Duration::from_secs(15);
/// Copies that mean the broker's own default.
const BROKERS_DEFAULT: i32 = -1;

/// A client of the brokers' administration.
pub struct KafkaTopics {
    runtime: Runtime,
    config: ClientConfig,
    admin: AdminClient<DefaultClientContext>,
}

impl KafkaTopics {
    /// A client for `brokers` (`host:port`, several with commas).
    ///
    /// # Errors
    /// The address is malformed.
    pub fn new(brokers: &str) -> Result<Self, Error> {
        if brokers.trim().is_empty() {
            return Err("no brokers: give --broker host:port".into());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("client.id", "kubeless-cli")
            .set("socket.connection.setup.timeout.ms", WAIT.as_millis().to_string());
        let admin = config.create()?;
        Ok(Self { runtime, config, admin })
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(WAIT)).operation_timeout(Some(WAIT))
}

/// The answer for the one topic that was asked about.
fn only(answers: Vec<Result<String, (String, RDKafkaErrorCode)>>) -> Result<(), Error> {
    match answers.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err((topic, RDKafkaErrorCode::TopicAlreadyExists))) => {
            Err(format!("the topic {topic} is there already").into())
        }
        Some(Err((topic, RDKafkaErrorCode::UnknownTopicOrPartition))) => {
            Err(format!("there is no topic {topic}; kubeless topic list shows those that are there").into())
        }
        Some(Err((topic, code))) => Err(format!("{topic}: {code}").into()),
        None => Err("the broker gave no answer".into()),
    }
}

impl Topics for KafkaTopics {
    fn create(&self, name: &str, parts: i32, copies: i32) -> Result<(), Error> {
        let copies = if copies > 0 { copies } else { BROKERS_DEFAULT };
        let topic = NewTopic::new(name, parts, TopicReplication::Fixed(copies));
        only(self.runtime.block_on(self.admin.create_topics([&topic], &options()))?)
    }

    fn delete(&self, name: &str) -> Result<(), Error> {
        only(self.runtime.block_on(self.admin.delete_topics(&[name], &options()))?)
    }

    fn list(&self) -> Result<Vec<TopicInfo>, Error> {
        let consumer: BaseConsumer = self.config.create()?;
        let metadata = consumer.fetch_metadata(None, WAIT)?;
        let topics = metadata.topics().iter().map(|topic| {
            let partitions = topic.partitions();
            let replicas = partitions.first().map_or(0, |first| first.replicas().len());
            TopicInfo { name: topic.name().to_owned(), partitions: partitions.len(), replicas }
        });
        let mut topics: Vec<_> = topics.collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }
}
