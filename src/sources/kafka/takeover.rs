//! Reads what a new owner must know of its partitions: registers, watermarks, where the window begins. Must never be
//! called before the assignment (D1): what the old owner still claimed would be missed.

use super::{
    ffi,
    protocol::takeover::Takeover,
    register::{self, Decoded, Register},
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
};
use std::time::Duration;

/// Longest wait for one answer while registers are read.
const WAIT: Duration = Duration::from_secs(10);

/// Where a subscription starts that has no committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// At the end of the log, as Kubeless did.
    Latest,
    /// At its beginning.
    Earliest,
    /// At the first record not older than this (Unix ms).
    Timestamp(i64),
}

/// One partition, as read.
#[derive(Debug)]
pub struct Read {
    /// For the protocol.
    pub takeover: Takeover,
    /// A register that could not be read, by kind.
    pub problem: Option<&'static str>,
}

/// Why registers cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The brokers did not answer.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A newer version of this product wrote the register.
    #[error("the register of partition {0} was written by a newer version; upgrade this dispatcher")]
    Newer(i32),
    /// The committed offset stands beyond what can be read.
    #[error(
        "partition {shard} is committed up to {offset} and ends at {log_end}: an open transaction or a new leader (wait), \
         or the log was cut (then reset the group's offsets)"
    )]
    BeyondEnd {
        /// Partition.
        shard: i32,
        /// Committed offset.
        offset: i64,
        /// Last stable offset.
        log_end: i64,
    },
}

/// Reads all `shards`. `span_ms`: length of the deduplication window, if there is one to rebuild. `known`: partitions
/// the topic had when this subscription last looked.
///
/// # Errors
/// A broker does not answer in time, or a register is of a newer version.
pub fn read<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    shards: &[i32],
    policy: &Policy,
    span_ms: Option<i64>,
    known: &mut Option<i32>,
) -> Result<Vec<(i32, Read)>, Error> {
    let mut asked = TopicPartitionList::with_capacity(shards.len());
    for shard in shards {
        asked.add_partition(topic, *shard);
    }
    let committed = consumer.committed_offsets(asked, WAIT)?;
    let count = partitions(consumer, topic)?;
    let before = known.replace(count).unwrap_or(count);
    let metadata = ffi::metadata(&committed);
    let mut read = Vec::with_capacity(shards.len());
    for element in committed.elements() {
        element.error()?;
        let shard = element.partition();
        let text = metadata.iter().find(|(s, _)| *s == shard).map_or("", |(_, t)| t.as_str());
        let (log_start, log_end) = consumer.fetch_watermarks(topic, shard, WAIT)?;
        let offset = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        let start = match offset {
            Some(offset) => offset,
            // Added while this subscription ran: all of it is new, whatever the policy says about the others.
            None if shard >= before => log_start,
            None => first_position(consumer, topic, shard, policy, log_start, log_end)?,
        };
        if start > log_end {
            // An open transaction, a new leader, or a log that was cut: the first two pass. Going back by ourselves could
            // invoke events twice, so only an operator may do it.
            return Err(Error::BeyondEnd { shard, offset: start, log_end });
        }
        let (register, problem) = decode(shard, text, start)?;
        let rebuild_from = match span_ms {
            Some(span) if start > log_start && offset.is_some() && register.log_time_ms >= 0 => {
                let from = register.log_time_ms.saturating_sub(span).max(0);
                Some(at_time(consumer, topic, shard, from)?.unwrap_or(log_start))
            }
            _ => None,
        };
        let committed = offset.is_some();
        let takeover = Takeover { offset: start, committed, register, log_start, log_end, rebuild_from };
        read.push((shard, Read { takeover, problem }));
    }
    Ok(read)
}

/// How many partitions the topic has.
fn partitions<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &str) -> Result<i32, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), WAIT)?;
    let topic = metadata.topics().first();
    Ok(topic.map_or(0, |t| i32::try_from(t.partitions().len()).unwrap_or(i32::MAX)))
}

fn decode(shard: i32, text: &str, offset: i64) -> Result<(Register, Option<&'static str>), Error> {
    let empty = Register::empty();
    Ok(match register::decode(text, offset) {
        Decoded::Register(register) => (register, None),
        // Kubeless (and any other client) commits offsets without our register: resume there, nothing is open.
        Decoded::Empty | Decoded::Foreign => (empty, None),
        Decoded::Newer { .. } => return Err(Error::Newer(shard)),
        Decoded::Corrupt { .. } => (empty, Some("corrupt")),
    })
}

fn first_position<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    shard: i32,
    policy: &Policy,
    log_start: i64,
    log_end: i64,
) -> Result<i64, KafkaError> {
    Ok(match policy {
        Policy::Latest => log_end,
        Policy::Earliest => log_start,
        Policy::Timestamp(ms) => at_time(consumer, topic, shard, *ms)?.unwrap_or(log_end),
    })
}

/// First offset whose record is not older than `ms`; `None` when the log has none (or the broker cannot tell).
fn at_time<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    shard: i32,
    ms: i64,
) -> Result<Option<i64>, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, shard, Offset::Offset(ms))?;
    let found = consumer.offsets_for_times(list, WAIT)?;
    Ok(found.elements().first().and_then(|e| match e.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }))
}
