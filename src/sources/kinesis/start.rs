//! From a trigger and a route to a running thread. Must never share a client or a register between subscriptions: they
//! would hold each other up.

use super::{
    client::{Address, Keys},
    dead_letter::{self, Counts, Writer},
    decode::{DecodeConfig, Decoder},
    engine::{self, Parts},
    options::Options,
    register::Token,
    spec::{KinesisTrigger, StartingPosition},
    table::LeaseTable,
};
use crate::{
    api::{
        conditions::reasons,
        kind::TriggerObject,
        trigger::{Ordering, TriggerCore},
    },
    dispatch::{Flow, FlowParts, Route, Subscription, dead_letter::DeadLetterSink},
    event::headers::HeaderTemplate,
    register::{self, MakeStore, Store},
    sources::{Environment, Error, Running, Source},
};
use std::{
    rc::Rc,
    sync::{Arc, Mutex, mpsc},
};
use tokio::sync::Notify;

/// The source with its configuration.
pub struct KinesisSource {
    options: Arc<Options>,
}

impl KinesisSource {
    /// A source that serves triggers by `options`.
    pub fn new(options: Options) -> Self {
        Self { options: Arc::new(options) }
    }
}

impl Source for KinesisSource {
    fn restart_key(&self, trigger: &TriggerObject) -> String {
        let Some(typed) = trigger.downcast::<KinesisTrigger>() else { return String::new() };
        let spec = &typed.spec;
        // Everything that is built into a client, a decoder or a window; the rest changes in place.
        format!(
            "{:?}",
            (
                (&spec.stream, &spec.aws_region, &spec.shard, &spec.endpoint, &spec.secret),
                (&spec.starting_position, &spec.starting_timestamp),
                (&trigger.core.dedup, trigger.core.ordering),
                trigger.core.delivery.dead_letter.as_ref().map(|d| &d.topic),
                &trigger.core.uid,
            )
        )
    }

    fn credentials(&self, trigger: &TriggerObject) -> Option<String> {
        trigger.downcast::<KinesisTrigger>()?.spec.secret.clone()
    }

    fn reason_of(&self, status: &str) -> &'static str {
        // The service's codes, and the library's words where nothing was answered.
        let status = status.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| status.contains(word));
        if says(&["accessdenied", "unrecognizedclient", "signature", "security token", "incompletesignature"])
        {
            reasons::NOT_AUTHORIZED
        } else if says(&["dispatch failure", "timed out", "timeout", "connect", "dns"]) {
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
        let typed = trigger.downcast::<KinesisTrigger>().ok_or("not a KinesisTrigger")?;
        let spec = &typed.spec;
        let address = self.address(spec, environment)?;
        let stream: Arc<str> = spec.stream.as_str().into();
        let subscription = Arc::new(environment.subscription("kinesis", trigger, route, |agent| {
            HeaderTemplate::new("kinesistriggers.kubeless.io", None, agent)
        }));
        // New for every thread, not for the process: an own entry that this memory does not know was never sent (N3).
        let token = Token(fastrand::u64(1..));
        let wake = Arc::new(Notify::new());
        let (sink, writer) = dead_letters(trigger, &subscription).unzip();
        let keep_originals = writer.is_some();
        let flow = Flow::new(FlowParts {
            subscription: Arc::clone(&subscription),
            owner: token.to_string(),
            dead_letters: sink,
            memory: Arc::clone(&environment.memory),
        });
        let (orders, received) = mpsc::channel();
        let status = Arc::new(Mutex::new(String::new()));
        let parts = Parts {
            flow: flow.waking(Arc::clone(&wake)),
            subscription: Arc::clone(&subscription),
            address,
            only: spec.shard.clone(),
            start: spec.starting_position,
            start_ms: start_ms(spec.starting_position, spec.starting_timestamp.as_deref())?,
            in_order: trigger.core.ordering == Ordering::Partition,
            store: self.store(spec, environment)?,
            group: group(route, &stream),
            decoder: Decoder::new(decode_config(&trigger.core, &stream, &self.options)),
            stream,
            dead_letters: writer,
            keep_originals,
            options: Arc::clone(&self.options),
            token,
            wake,
            orders: received,
            status: Arc::clone(&status),
        };
        let name = format!("shards-{}", route.key.trigger.object.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || engine::run(parts))?;
        Ok(Running { subscription, orders, thread, status })
    }
}

impl KinesisSource {
    /// Where the register is.
    fn store(
        &self,
        spec: &super::spec::KinesisTriggerSpec,
        environment: &Environment,
    ) -> Result<MakeStore, Error> {
        let (options, cluster) = (&self.options, environment.cluster.clone());
        let Some(choice) = options.register.common() else {
            let (address, options) = (self.table_address(spec), Arc::clone(options));
            return Ok(Box::new(move || Rc::new(LeaseTable::new(address, options)) as Rc<dyn Store>));
        };
        Ok(register::choose(choice, &options.register_dir, cluster, "sources.kinesis")?)
    }

    /// The table is the dispatcher's, whoever's the stream is: so is the identity.
    fn table_address(&self, spec: &super::spec::KinesisTriggerSpec) -> Address {
        let or = |own: &String, other: &str| if own.is_empty() { other.to_owned() } else { own.clone() };
        let region = or(&self.options.register_region, &spec.aws_region);
        let endpoint = Some(&self.options.register_endpoint).filter(|url| !url.is_empty()).cloned();
        Address { region, endpoint, keys: None }
    }

    fn address(
        &self,
        spec: &super::spec::KinesisTriggerSpec,
        environment: &Environment,
    ) -> Result<Address, Error> {
        let own = Some(&spec.endpoint).filter(|endpoint| !endpoint.is_empty());
        let ours = Some(&self.options.endpoint).filter(|endpoint| own.is_none() && !endpoint.is_empty());
        let secret = environment.secret.as_deref();
        let keys = match (&spec.secret, ours) {
            (_, Some(_)) if self.options.anonymous => Some(Keys::nobody()),
            (Some(name), _) => Some(Keys::read(name, secret, &self.options.credentials_dir)?),
            (None, _) => None,
        };
        Ok(Address { region: spec.aws_region.clone(), endpoint: own.or(ours).cloned(), keys })
    }
}

fn dead_letters(
    trigger: &TriggerObject,
    subscription: &Subscription,
) -> Option<(Arc<dyn DeadLetterSink>, Writer)> {
    let asked = trigger.core.delivery.dead_letter.as_ref()?;
    let metrics = subscription.metrics();
    let counts = Counts {
        written: metrics.dead_letters_written.clone(),
        failed: metrics.dead_letters_failed.clone(),
        dropped: metrics.dead_letters_dropped.clone(),
    };
    let (sink, writer) = dead_letter::queue(&asked.topic, counts);
    Some((Arc::new(sink), writer))
}

/// Name of a subscription's register: what Kubeless called its processor.
fn group(route: &Route, stream: &str) -> String {
    let key = &route.key;
    format!("{}_{}_{}_{stream}", key.trigger.object.namespace, key.trigger.object.name, key.function.name)
}

fn start_ms(start: StartingPosition, text: Option<&str>) -> Result<Option<i64>, Error> {
    if start != StartingPosition::AtTimestamp {
        return Ok(None);
    }
    let text = text.unwrap_or_default();
    let time: jiff::Timestamp =
        text.parse().map_err(|e| format!("spec.startingTimestamp {text:?}: {e}; use RFC 3339"))?;
    Ok(Some(time.as_millisecond()))
}

fn decode_config(core: &TriggerCore, stream: &Arc<str>, options: &Options) -> DecodeConfig {
    let reference = &core.reference;
    let source =
        format!("/apis/v1/namespaces/{}/kinesistriggers/{}#{stream}", reference.namespace, reference.name);
    DecodeConfig {
        stream: Arc::clone(stream),
        dedup: core.dedup.enabled,
        dedup_key: core.dedup.key.clone(),
        ordering: core.ordering,
        max_body_bytes: usize::try_from(options.max_body_bytes).unwrap_or(usize::MAX),
        source: source.into(),
    }
}
