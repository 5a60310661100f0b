//! The durable consumer: made, or found and corrected, and never made so that it delivers again what was delivered. Must
//! never accept one that could.

use async_nats::{
    Client,
    jetstream::{
        self,
        consumer::{AckPolicy, DeliverPolicy, pull},
        stream::Stream,
    },
};
use std::time::Duration;

/// Longest wait for one answer of the server.
const WAIT: Duration = Duration::from_secs(5);
/// Fewest copies of the consumer's state that make a delivery a claim.
pub const REPLICAS: usize = 3;

/// What the consumer of a subscription is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Stream.
    pub stream: String,
    /// Durable name.
    pub consumer: String,
    /// Subject, wildcards included.
    pub filter: String,
    /// How long the server waits for an acknowledgement.
    pub ack_wait: Duration,
    /// A consumer that is new begins with what the stream holds, not with what comes.
    pub earliest: bool,
}

/// The last delivery that this subscription's thread has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Last {
    /// When the stream took it.
    pub time_ms: i64,
    /// Its number.
    pub sequence: i64,
}

/// Why the consumer cannot be used now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server says no, or nothing.
    #[error("stream {stream}: {what}")]
    Server {
        /// The stream.
        stream: String,
        /// The server's words.
        what: String,
    },
    /// It is not what was asked for.
    #[error("consumer {consumer} of stream {stream}: {what}; delete it, or name another one in spec.durable")]
    Other {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// What is different.
        what: &'static str,
    },
}

/// What a stream is, before anything is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Copies of its state, or of the consumer's where those are fewer.
    pub copies: usize,
    /// When it was made (Unix ms): its identity.
    pub created_ms: i64,
}

/// Looks at the stream, and at the consumer if there is one.
///
/// # Errors
/// The server says no, or nothing.
pub async fn look(client: Client, plan: Plan) -> Result<Facts, Error> {
    let mut context = jetstream::new(client);
    context.set_timeout(WAIT);
    let server = |what: String| Error::Server { stream: plan.stream.clone(), what };
    let stream = context.get_stream(&plan.stream).await.map_err(|error| server(error.to_string()))?;
    let own = stream.consumer_info(&plan.consumer).await.ok().map_or(0, |info| info.config.num_replicas);
    let of_stream = stream.cached_info().config.num_replicas;
    let copies = if own == 0 { of_stream } else { own.min(of_stream) };
    Ok(Facts { copies, created_ms: created_ms(&stream) })
}

/// Makes sure that the consumer is there as planned. `last`: what was delivered before, to this thread or, where a register
/// tells, to its predecessors.
///
/// # Errors
/// See [`Error`]; each may be over later.
pub async fn ensure(client: Client, plan: Plan, last: Option<Last>) -> Result<(), Error> {
    let mut context = jetstream::new(client);
    context.set_timeout(WAIT);
    let server = |what: String| Error::Server { stream: plan.stream.clone(), what };
    let stream = context.get_stream(&plan.stream).await.map_err(|error| server(error.to_string()))?;
    let other = |what| Error::Other { stream: plan.stream.clone(), consumer: plan.consumer.clone(), what };
    // One that is there keeps its beginning, which cannot be changed.
    let before = stream.consumer_info(&plan.consumer).await.ok();
    if before.as_ref().is_some_and(|info| info.config.deliver_subject.is_some()) {
        return Err(other("it pushes"));
    }
    let deliver_policy = match &before {
        Some(info) => info.config.deliver_policy,
        None => beginning(&stream, &plan, last),
    };
    let config = pull::Config {
        durable_name: Some(plan.consumer.clone()),
        deliver_policy,
        ack_policy: AckPolicy::Explicit,
        ack_wait: plan.ack_wait,
        max_deliver: 1,
        filter_subject: plan.filter.clone(),
        max_ack_pending: -1,
        ..pull::Config::default()
    };
    let made = stream.create_consumer(config).await.map_err(|error| server(error.to_string()))?;
    let found = &made.cached_info().config;
    if found.max_deliver != 1 || found.ack_policy != AckPolicy::Explicit {
        return Err(other("it does not deliver once with explicit acknowledgement"));
    }
    Ok(())
}

/// Where a new consumer begins. One that is made again while we live goes on behind what was delivered, unless the stream is
/// another one under the same name.
fn beginning(stream: &Stream, plan: &Plan, last: Option<Last>) -> DeliverPolicy {
    match last {
        Some(last) if created_ms(stream) <= last.time_ms => {
            let start_sequence = u64::try_from(last.sequence + 1).unwrap_or(1);
            DeliverPolicy::ByStartSequence { start_sequence }
        }
        _ if plan.earliest => DeliverPolicy::All,
        _ => DeliverPolicy::New,
    }
}

fn created_ms(stream: &Stream) -> i64 {
    i64::try_from(stream.cached_info().created.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
