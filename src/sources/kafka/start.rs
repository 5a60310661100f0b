//! From a trigger and a route to a running consumer. Must never share a consumer between subscriptions: they would
//! hold each other up.

use super::{
    client::{self, Security},
    consumer::{PollingThread, without_value},
    dead_letter::{Counts, DeadLetterTopic},
    decode::{self, DecodeConfig, Decoder},
    engine::Engine,
    options::Options,
    register::Token,
    spec::{KafkaTrigger, StartingPosition},
    takeover::Policy,
};
use crate::{
    api::{
        conditions::reasons,
        kind::TriggerObject,
        trigger::{DedupKey, Ordering, TriggerCore},
    },
    dispatch::{Route, Subscription, dead_letter::DeadLetterSink},
    event::headers::HeaderTemplate,
    sources::{Environment, Error, Running, Source},
};
use std::{
    cell::Cell,
    sync::{Arc, Mutex, mpsc},
};

/// The source with its configuration.
pub struct KafkaSource {
    options: Arc<Options>,
    security: Security,
}

impl KafkaSource {
    /// A source that serves triggers by `options`.
    pub fn new(options: Options, security: Security) -> Self {
        Self { options: Arc::new(options), security }
    }
}

impl Source for KafkaSource {
    fn restart_key(&self, trigger: &TriggerObject) -> String {
        let Some(typed) = trigger.downcast::<KafkaTrigger>() else { return String::new() };
        let spec = &typed.spec;
        // Everything that is built into a client, a decoder or a window; the rest changes in place.
        format!(
            "{:?}",
            (
                &spec.topic,
                &spec.bootstrap_servers,
                (&spec.starting_position, &spec.starting_timestamp),
                (&spec.credentials, &spec.tls, &spec.sasl),
                (&trigger.core.dedup, trigger.core.ordering),
                trigger.core.delivery.dead_letter.as_ref().map(|d| &d.topic),
                &trigger.core.uid,
            )
        )
    }

    fn credentials(&self, trigger: &TriggerObject) -> Option<String> {
        trigger.downcast::<KafkaTrigger>()?.spec.credentials.clone()
    }

    fn reason_of(&self, status: &str) -> &'static str {
        // The library's words: "Authentication", "Topic authorization failed", "Broker: ... not authorized".
        let says = |word: &str| status.to_ascii_lowercase().contains(word);
        if says("authenticat") || says("authoriz") {
            reasons::NOT_AUTHORIZED
        } else if ["transport", "brokers down", "resol", "timed out", "ssl"].iter().any(|word| says(word)) {
            reasons::UNREACHABLE
        } else {
            reasons::SOURCE_ERROR
        }
    }

    fn start(
        &self,
        trigger: &TriggerObject,
        route: &Route,
        environment: &Environment,
    ) -> Result<Running, Error> {
        let typed = trigger.downcast::<KafkaTrigger>().ok_or("not a KafkaTrigger")?;
        let spec = &typed.spec;
        let topic: Arc<str> = spec.topic.as_str().into();
        let connection =
            client::connection(&typed, &self.options, &self.security, environment.secret.as_deref())?;
        let subscription = Arc::new(environment.subscription("kafka", trigger, route, |agent| {
            HeaderTemplate::new("kafkatriggers.kubeless.io", Some(&topic), agent)
        }));
        let dead_letters = dead_letters(&connection, trigger, &subscription)?;
        let keep_originals = dead_letters.is_some();
        let engine = Engine::new(
            Arc::clone(&topic),
            Arc::clone(&self.options),
            Arc::clone(&subscription),
            // New for every engine, not for the process: an own entry that this memory does not know was never sent
            // (N3), and the memory is the engine's.
            Token(fastrand::u64(1..)),
            dead_letters,
            Arc::clone(&environment.memory),
        );
        let (orders, received) = mpsc::channel();
        let status = Arc::new(Mutex::new(String::new()));
        let thread = PollingThread {
            client: client::consumer(connection, &self.options, &group(route, &topic)),
            policy: policy(&typed)?,
            decoder: Decoder::new(decode_config(trigger, &topic, &self.options)),
            topic,
            keep_originals,
            engine: Arc::new(Mutex::new(engine)),
            orders: received,
            status: Arc::clone(&status),
            troubled: Cell::default(),
            answered: Cell::default(),
        };
        let name = format!("poll-{}", route.key.trigger.object.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || thread.run())?;
        Ok(Running { subscription, orders, thread, status })
    }
}

fn dead_letters(
    connection: &rdkafka::ClientConfig,
    trigger: &TriggerObject,
    subscription: &Subscription,
) -> Result<Option<Arc<dyn DeadLetterSink>>, Error> {
    let Some(sink) = &trigger.core.delivery.dead_letter else { return Ok(None) };
    let metrics = subscription.metrics();
    let counts = Counts {
        written: metrics.dead_letters_written.clone(),
        failed: metrics.dead_letters_failed.clone(),
        dropped: metrics.dead_letters_dropped.clone(),
    };
    let sink = DeadLetterTopic::new(connection, &sink.topic, counts).map_err(|e| without_value(&e))?;
    Ok(Some(Arc::new(sink)))
}

/// Consumer group of a subscription, the one Kubeless used.
fn group(route: &Route, topic: &str) -> String {
    let key = &route.key;
    format!("{}_{}_{}_{topic}", key.trigger.object.namespace, key.trigger.object.name, key.function.name)
}

fn policy(trigger: &KafkaTrigger) -> Result<Policy, Error> {
    Ok(match trigger.spec.starting_position {
        StartingPosition::Latest => Policy::Latest,
        StartingPosition::Earliest => Policy::Earliest,
        StartingPosition::Timestamp => {
            let text = trigger.spec.starting_timestamp.as_deref().unwrap_or_default();
            let time: jiff::Timestamp =
                text.parse().map_err(|e| format!("spec.startingTimestamp {text:?}: {e}; use RFC 3339"))?;
            Policy::Timestamp(time.as_millisecond())
        }
    })
}

fn decode_config(trigger: &TriggerObject, topic: &Arc<str>, options: &Options) -> DecodeConfig {
    let core: &TriggerCore = &trigger.core;
    let reference = &core.reference;
    DecodeConfig {
        topic: Arc::clone(topic),
        dedup: core.dedup.enabled,
        dedup_key: core.dedup.key.as_ref().map(|key| match key {
            DedupKey::Header(name) => decode::DedupKey::Header(name.to_string()),
            DedupKey::JsonPointer(pointer) => decode::DedupKey::JsonPointer(pointer.to_string()),
            DedupKey::RecordKey => decode::DedupKey::RecordKey,
        }),
        ordering: match core.ordering {
            Ordering::Key => decode::Ordering::Key,
            Ordering::Partition => decode::Ordering::Partition,
            Ordering::None => decode::Ordering::None,
        },
        limits: decode::Limits {
            max_body_bytes: usize::try_from(options.max_body_bytes).unwrap_or(usize::MAX),
            ..decode::Limits::default()
        },
        source: format!(
            "/apis/v1/namespaces/{}/kafkatriggers/{}#{topic}",
            reference.namespace, reference.name
        )
        .into(),
    }
}
