//! Publishing for `kubeless send`. Must never retry into a duplicate: the producer is idempotent.

use crate::sources::{Error, Outgoing, Publisher};
use rdkafka::{
    ClientConfig, ClientContext, Message,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Longest wait for all acknowledgements.
const WAIT: Duration = Duration::from_secs(15);

#[derive(Default)]
struct Delivered {
    results: Mutex<Vec<(usize, Result<String, KafkaError>)>>,
}

struct Context(Arc<Delivered>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        let result = match result {
            Ok(m) => Ok(format!("{}/{}/{}", m.topic(), m.partition(), m.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        self.0.results.lock().unwrap_or_else(PoisonError::into_inner).push((*index, result));
    }
}

/// An idempotent producer.
pub struct KafkaPublisher {
    brokers: String,
    producer: BaseProducer<Context>,
    delivered: Arc<Delivered>,
}

impl KafkaPublisher {
    /// A producer for `brokers` (`host:port`, several with commas).
    ///
    /// # Errors
    /// The address is malformed.
    pub fn new(brokers: &str) -> Result<Self, Error> {
        if brokers.trim().is_empty() {
            return Err("no brokers: give --broker host:port".into());
        }
        let delivered = Arc::<Delivered>::default();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("client.id", "kubeless-cli")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", WAIT.as_millis().to_string())
            .set("linger.ms", "5")
            .create_with_context(Context(Arc::clone(&delivered)))?;
        Ok(Self { brokers: brokers.to_owned(), producer, delivered })
    }

    fn send(&self, index: usize, message: &Outgoing) -> Result<(), Error> {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &message.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut record = BaseRecord::<str, [u8], Box<usize>>::with_opaque_to(&message.topic, Box::new(index))
            .headers(headers);
        record.key = message.key.as_deref();
        record.payload = message.data.as_deref();
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) if is_queue_full(&error) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(50));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
}

fn is_queue_full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}

/// What no broker acknowledged in time was most often never asked.
fn unacknowledged(brokers: &str) -> Error {
    format!(
        "no broker at {brokers} acknowledged it within {} s: is it running, and do the addresses that it advertises \
         (advertised.listeners) reach it from here? Inside a cluster only Pods may reach it",
        WAIT.as_secs()
    )
    .into()
}

fn explain(brokers: &str, error: KafkaError) -> Error {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageTimedOut | RDKafkaErrorCode::AllBrokersDown) => unacknowledged(brokers),
        _ => error.into(),
    }
}

impl Publisher for KafkaPublisher {
    fn publish(&self, messages: &[Outgoing]) -> Result<Vec<String>, Error> {
        for (index, message) in messages.iter().enumerate() {
            self.send(index, message)?;
        }
        let deadline = Instant::now() + WAIT;
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            self.producer.poll(Duration::from_millis(50));
        }
        let mut results =
            std::mem::take(&mut *self.delivered.results.lock().unwrap_or_else(PoisonError::into_inner));
        results.sort_by_key(|(index, _)| *index);
        if results.len() < messages.len() {
            let some = format!("{} of {} messages were acknowledged; ", results.len(), messages.len());
            return Err(format!("{some}{}", unacknowledged(&self.brokers)).into());
        }
        results.into_iter().map(|(_, result)| result.map_err(|error| explain(&self.brokers, error))).collect()
    }
}
