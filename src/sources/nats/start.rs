//! From a trigger and a route to a running subscription. Must never share a connection between subscriptions.

use super::{
    client::Access,
    core::CoreThread,
    dead_letter::{Counts, DeadLetterSubject},
    decode::{DecodeConfig, Decoder},
    intake::Intake,
    link::{Link, Voice},
    options::Options,
    spec::{NATSTrigger, StartingPosition},
    stream::{Plan, REPLICAS, Register, StreamThread},
};
use crate::{
    api::{
        conditions::{Fact, reasons, types},
        kind::TriggerObject,
        trigger::Ordering,
    },
    dispatch::{Flow, FlowParts, Route, Settings, Subscription, dead_letter::DeadLetterSink},
    event::{headers::HeaderTemplate, message::Limits},
    register,
    sources::{Environment, Error, Exit, Running, Source},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{self, AtomicUsize},
        mpsc,
    },
    time::Duration,
};
use tokio::sync::Notify;

/// The source with its configuration.
pub struct NatsSource {
    options: Arc<Options>,
    /// Copies of each trigger's stream, as its threads found them; 0: not known yet.
    copies: Mutex<HashMap<Arc<str>, Weak<AtomicUsize>>>,
}

impl NatsSource {
    /// A source that serves triggers by `options`.
    pub fn new(options: Options) -> Self {
        Self { options: Arc::new(options), copies: Mutex::default() }
    }

    /// Where the threads of a trigger say how many copies its stream has.
    fn copies(&self, uid: &Arc<str>) -> Arc<AtomicUsize> {
        let mut all = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, copies| copies.strong_count() > 0);
        let found = all.get(uid).and_then(Weak::upgrade);
        found.unwrap_or_else(|| {
            let new = Arc::default();
            all.insert(Arc::clone(uid), Arc::downgrade(&new));
            new
        })
    }

    fn register(
        &self,
        route: &Route,
        trigger: &TriggerObject,
        environment: &Environment,
    ) -> Result<Register, Error> {
        let (choice, dir) = (self.options.register, &self.options.register_dir);
        let typed = trigger.downcast::<NATSTrigger>().ok_or("not a NATSTrigger")?;
        let stream = typed.spec.stream.clone().unwrap_or_default();
        Ok(Register {
            store: Some(register::choose(choice, dir, environment.cluster.clone(), "sources.nats")?),
            folder: group(route, &stream),
            failover: self.options.failover_time,
            copies: self.copies(&trigger.core.uid),
        })
    }
}

impl Source for NatsSource {
    fn restart_key(&self, trigger: &TriggerObject) -> String {
        let Some(typed) = trigger.downcast::<NATSTrigger>() else { return String::new() };
        let spec = &typed.spec;
        // Everything that is built into a client, a decoder or a window; the rest changes in place.
        format!(
            "{:?}",
            (
                (&spec.topic, &spec.url, &spec.credentials, &spec.tls),
                (&spec.stream, &spec.durable, &spec.starting_position, spec.reply),
                (&trigger.core.dedup, trigger.core.ordering),
                trigger.core.delivery.dead_letter.as_ref().map(|d| &d.topic),
                &trigger.core.uid,
            )
        )
    }

    fn credentials(&self, trigger: &TriggerObject) -> Option<String> {
        trigger.downcast::<NATSTrigger>()?.spec.credentials.clone()
    }

    fn reason_of(&self, status: &str) -> &'static str {
        let says = |word: &str| status.to_ascii_lowercase().contains(word);
        if says("authoriz") || says("authentic") || says("permission") {
            reasons::NOT_AUTHORIZED
        } else if says("no connection") || says("disconnected") {
            reasons::UNREACHABLE
        } else {
            reasons::SOURCE_ERROR
        }
    }

    fn promise(&self, trigger: &TriggerObject) -> Fact {
        let of_stream = trigger.downcast::<NATSTrigger>().is_some_and(|typed| typed.spec.stream.is_some());
        if !of_stream {
            return Fact::new(types::AT_MOST_ONCE, true, reasons::HANDED_OUT_ONCE, "");
        }
        match self.copies(&trigger.core.uid).load(atomic::Ordering::Relaxed) {
            copies @ 1..REPLICAS => Fact::new(types::AT_MOST_ONCE, true, reasons::DEGRADED, degraded(copies)),
            _ => Fact::new(types::AT_MOST_ONCE, true, reasons::CLAIMED_AT_SOURCE, ""),
        }
    }

    fn start(
        &self,
        trigger: &TriggerObject,
        route: &Route,
        environment: &Environment,
    ) -> Result<Running, Error> {
        let typed = trigger.downcast::<NATSTrigger>().ok_or("not a NATSTrigger")?;
        let access = Access::of(&typed, &self.options, environment.secret.as_deref())?;
        let subscription = Arc::new(environment.subscription("nats", trigger, route, |agent| {
            HeaderTemplate::new("natstriggers.kubeless.io", None, agent)
        }));
        let dead_letters = dead_letters(trigger, &subscription);
        let wake = Arc::new(Notify::new());
        let parts = FlowParts {
            subscription: Arc::clone(&subscription),
            // New for every thread: only its memory knows which calls it made.
            owner: format!("{:016x}", fastrand::u64(1..)),
            dead_letters: dead_letters.clone().map(|sink| sink as Arc<dyn DeadLetterSink>),
            memory: Arc::clone(&environment.memory),
        };
        let (orders, received) = mpsc::channel();
        let status = Arc::new(Mutex::new(String::new()));
        let voice = Voice { status: Arc::clone(&status), trigger: trigger.core.reference.to_string() };
        let serial = trigger.core.ordering == Ordering::Partition;
        let decoder = Decoder::new(decode_config(trigger, &self.options));
        let group = group(route, &typed.spec.topic);
        let name = format!("kubeless {group}");
        let options = Arc::clone(&self.options);
        let thread: Box<dyn FnOnce() -> Exit + Send> = if typed.spec.stream.is_some() {
            let thread = StreamThread {
                link: Link::new(access, name, voice.clone(), None),
                voice,
                plan: plan(&typed, route, &subscription.settings(), options.ack_margin),
                decoder: Arc::new(decoder),
                intake: Intake::new(Flow::new(parts).waking(Arc::clone(&wake)), serial),
                dead_letters,
                register: self.register(route, trigger, environment)?,
                options,
                wake,
                orders: received,
            };
            Box::new(move || thread.run())
        } else {
            let thread = CoreThread {
                link: Link::new(access, name, voice.clone(), Some(subscription.metrics().gaps())),
                voice,
                subject: typed.spec.topic.as_str().into(),
                group,
                decoder,
                replies: typed.spec.reply,
                intake: Intake::new(Flow::new(parts).waking(Arc::clone(&wake)), serial),
                dead_letters,
                options,
                wake,
                orders: received,
            };
            Box::new(move || thread.run())
        };
        let name = format!("nats-{}", route.key.trigger.object.name);
        let thread = std::thread::Builder::new().name(name).spawn(thread)?;
        Ok(Running { subscription, orders, thread, status })
    }
}

/// What a stream with too few copies means.
fn degraded(copies: usize) -> String {
    let server = if copies == 1 { "one server" } else { "two servers" };
    format!(
        "the stream's state is on {server}: one that is killed makes deliveries of its last moments again, and may lose \
         messages that it had accepted. Nothing is called twice as long as the register is not lost (one dispatcher reads at \
         a time, and claims there before it calls); give the stream num_replicas {REPLICAS}"
    )
}

/// Queue group of a subscription, the one Kubeless used.
fn group(route: &Route, subject: &str) -> String {
    let key = &route.key;
    format!("{}_{}_{}_{subject}", key.trigger.object.namespace, key.trigger.object.name, key.function.name)
}

/// The consumer of a subscription: one for each function, because each gets every message.
fn plan(trigger: &NATSTrigger, route: &Route, settings: &Settings, ack_margin: Duration) -> Plan {
    let (trigger_name, function) = (&route.key.trigger.object, &route.key.function.name);
    let durable = trigger
        .spec
        .durable
        .clone()
        .unwrap_or_else(|| format!("{}_{}", trigger_name.namespace, trigger_name.name));
    let target = route.target.load();
    Plan {
        stream: trigger.spec.stream.clone().unwrap_or_default(),
        // A consumer's name has no dots; no other name here has an equals sign.
        consumer: format!("{durable}_{function}").replace('.', "="),
        filter: trigger.spec.topic.clone(),
        ack_wait: settings.call_timeout.unwrap_or(target.call_timeout) + ack_margin,
        earliest: trigger.spec.starting_position == Some(StartingPosition::Earliest),
    }
}

fn dead_letters(trigger: &TriggerObject, subscription: &Subscription) -> Option<Arc<DeadLetterSubject>> {
    let sink = trigger.core.delivery.dead_letter.as_ref()?;
    let metrics = subscription.metrics();
    let counts = Counts {
        written: metrics.dead_letters_written.clone(),
        failed: metrics.dead_letters_failed.clone(),
        dropped: metrics.dead_letters_dropped.clone(),
    };
    Some(DeadLetterSubject::new(&sink.topic, counts))
}

fn decode_config(trigger: &TriggerObject, options: &Options) -> DecodeConfig {
    let core = &trigger.core;
    let (namespace, name) = (&core.reference.namespace, &core.reference.name);
    DecodeConfig {
        dedup: core.dedup.enabled,
        dedup_key: core.dedup.key.clone(),
        serial: core.ordering == Ordering::Partition,
        limits: Limits {
            max_body_bytes: usize::try_from(options.max_body_bytes).unwrap_or(usize::MAX),
            ..Limits::default()
        },
        source: format!("/apis/v1/namespaces/{namespace}/natstriggers/{name}").into(),
    }
}
