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

/// Pause before a log end below the committed offset is looked at again.
const SECOND_LOOK: Duration = Duration::from_secs(2);

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
}

/// Reads all `shards`. `span_ms`: length of the deduplication window, if there is one to rebuild.
///
/// # Errors
/// A broker does not answer in time, or a register is of a newer version.
pub fn read<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    shards: &[i32],
    policy: &Policy,
    span_ms: Option<i64>,
) -> Result<Vec<(i32, Read)>, Error> {
    let mut asked = TopicPartitionList::with_capacity(shards.len());
    for shard in shards {
        asked.add_partition(topic, *shard);
    }
    let committed = consumer.committed_offsets(asked, WAIT)?;
    let is_new =
        |list: &TopicPartitionList| list.elements().iter().all(|e| !matches!(e.offset(), Offset::Offset(_)));
    // A partition without an offset in a group that has others was added to the topic later: all of it is new.
    let policy =
        if is_new(&committed) && is_new(&whole_group(consumer, topic)?) { *policy } else { Policy::Earliest };
    let metadata = ffi::metadata(&committed);
    let mut read = Vec::with_capacity(shards.len());
    for element in committed.elements() {
        element.error()?;
        let shard = element.partition();
        let text = metadata.iter().find(|(s, _)| *s == shard).map_or("", |(_, t)| t.as_str());
        let (log_start, mut log_end) = consumer.fetch_watermarks(topic, shard, WAIT)?;
        let offset = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        let start = match offset {
            Some(offset) => offset,
            None => first_position(consumer, topic, shard, &policy, log_start, log_end)?,
        };
        if start > log_end {
            // A new leader may report a low end for a moment; only one that stays means that the log was cut.
            std::thread::sleep(SECOND_LOOK);
            (_, log_end) = consumer.fetch_watermarks(topic, shard, WAIT)?;
        }
        let (register, problem) = decode(shard, text, start)?;
        let rebuild_from = match span_ms {
            Some(span) if start > log_start && offset.is_some() && register.log_time_ms >= 0 => {
                let from = register.log_time_ms.saturating_sub(span).max(0);
                Some(at_time(consumer, topic, shard, from)?.unwrap_or(log_start))
            }
            _ => None,
        };
        let takeover = Takeover { offset: start, register, log_start, log_end, rebuild_from };
        read.push((shard, Read { takeover, problem }));
    }
    Ok(read)
}

/// What the group committed for every partition of the topic.
fn whole_group<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
) -> Result<TopicPartitionList, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), WAIT)?;
    let mut all = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions) {
        all.add_partition(topic, partition.id());
    }
    consumer.committed_offsets(all, WAIT)
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
