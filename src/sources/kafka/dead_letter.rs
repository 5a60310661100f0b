//! The dead-letter topic: the original record, and how it ended in `kubeless-*` headers. Must never block a claim:
//! a full queue drops the copy and counts it.

use super::context;
use crate::{
    dispatch::dead_letter::{DeadLetterSink, Original},
    ledger::journal::Line,
    telemetry::Counter,
};
use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use std::{sync::Arc, time::Duration};

/// How long the last copies may take when the sink is dropped.
const FLUSH: Duration = Duration::from_secs(5);

/// Counters of one sink.
pub struct Counts {
    /// Acknowledged by the broker.
    pub written: Counter,
    /// Refused by the broker.
    pub failed: Counter,
    /// Never sent: the queue was full.
    pub dropped: Counter,
}

struct Counting(Arc<Counts>);

impl ClientContext for Counting {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log(level, facility, message);
    }

    // The consumer of the same brokers tells its operator; a lost copy is told by `delivery`.
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Client error of dead letters");
    }
}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.0.written.increment(1),
            Err((error, message)) => {
                self.0.failed.increment(1);
                tracing::error!(%error, topic = message.topic(), "Dead letter was not written");
            }
        }
    }
}

/// Producer of one trigger's dead letters.
pub struct DeadLetterTopic {
    producer: ThreadedProducer<Counting>,
    topic: String,
    counts: Arc<Counts>,
}

impl DeadLetterTopic {
    /// A sink on the same brokers as the trigger.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(connection: &ClientConfig, topic: &str, counts: Counts) -> Result<Self, KafkaError> {
        let counts = Arc::new(counts);
        let mut config = connection.clone();
        config.set("enable.idempotence", "true").set("queue.buffering.max.kbytes", "16384");
        let producer = config.create_with_context(Counting(Arc::clone(&counts)))?;
        Ok(Self { producer, topic: topic.to_owned(), counts })
    }
}

impl DeadLetterSink for DeadLetterTopic {
    fn offer(&self, original: &Original, line: &Line) {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &original.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let position = line.position();
        let status = line.status.map(|s| s.to_string());
        let ours = [
            ("kubeless-outcome", Some(line.outcome.as_str())),
            ("kubeless-reason", line.reason.as_deref()),
            ("kubeless-status", status.as_deref()),
            ("kubeless-trigger", Some(line.trigger.as_str())),
            ("kubeless-function", Some(line.function.as_str())),
            ("kubeless-event-id", Some(line.id.as_str())),
            ("kubeless-position", Some(position.as_str())),
            ("kubeless-time", Some(line.ts.as_str())),
        ];
        for (key, value) in ours {
            if value.is_some() {
                headers = headers.insert(Header { key, value });
            }
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).headers(headers);
        record.key = original.key.as_deref();
        record.payload = original.value.as_deref();
        if let Err((error, _)) = self.producer.send(record) {
            self.counts.dropped.increment(1);
            tracing::error!(%error, topic = self.topic, "Dead letter was dropped");
        }
    }
}

impl Drop for DeadLetterTopic {
    fn drop(&mut self) {
        if let Err(error) = self.producer.flush(FLUSH) {
            tracing::error!(%error, topic = self.topic, "Dead letters may be missing");
        }
    }
}
