//! The only unsafe code: what librdkafka offers and the safe wrapper does not — errors *per partition* of a commit
//! (K2), the generation a commit would carry (K3), leader epochs (N6), cached watermarks, raw metadata bytes.
//! Must never hold a pointer beyond one call.
#![allow(unsafe_code)]

use rdkafka::{
    TopicPartitionList, bindings as sys,
    client::Client,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use std::{
    ffi::{CStr, CString},
    ptr::{self, NonNull},
    time::Duration,
};

/// Answer to one partition's part of a commit.
pub type PartitionAnswer = (i32, Result<(), RDKafkaErrorCode>);

/// What a commit call said.
#[derive(Debug)]
pub enum CommitCall {
    /// The broker (or the library) answered for every partition.
    Answered(Vec<PartitionAnswer>),
    /// No answer within the time limit.
    NoAnswer,
}

struct Queue(NonNull<sys::rd_kafka_queue_t>);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: made by rd_kafka_queue_new in `commit`, destroyed once, here.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

struct Event(NonNull<sys::rd_kafka_event_t>);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: returned by rd_kafka_queue_poll, which gives ownership to the caller; destroyed once, here.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

/// Commits `offsets` (with metadata) and waits for the answer of every partition. Blocks the calling thread for at
/// most `wait`; serves no callback meanwhile, so no rebalance can happen inside (1.1 step 6).
///
/// # Errors
/// The call could not be made at all; nothing was sent.
pub fn commit<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    offsets: &TopicPartitionList,
    wait: Duration,
) -> Result<CommitCall, KafkaError> {
    let client = consumer.client().native_ptr();
    // SAFETY: the client outlives this call (borrowed through `consumer`); the new queue is owned by `Queue`.
    let queue = unsafe { sys::rd_kafka_queue_new(client) };
    let queue = NonNull::new(queue).map(Queue).ok_or(KafkaError::Canceled)?;
    // SAFETY: client, list and queue are alive for the call; librdkafka copies the list; no callback is given, so
    // the answer comes as an event on the queue.
    let error =
        unsafe { sys::rd_kafka_commit_queue(client, offsets.ptr(), queue.0.as_ptr(), None, ptr::null_mut()) };
    if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Err(KafkaError::ConsumerCommit(error.into()));
    }
    let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the queue is alive; a non-null event is ours to destroy (`Event`).
    let event = unsafe { sys::rd_kafka_queue_poll(queue.0.as_ptr(), millis) };
    Ok(match NonNull::new(event).map(Event) {
        Some(event) => CommitCall::Answered(answers(&event, offsets)),
        None => CommitCall::NoAnswer,
    })
}

fn answers(event: &Event, asked: &TopicPartitionList) -> Vec<PartitionAnswer> {
    // SAFETY: the event is alive until the end of this function; error and list are read, not kept.
    let (whole, list) = unsafe {
        (
            sys::rd_kafka_event_error(event.0.as_ptr()),
            sys::rd_kafka_event_topic_partition_list(event.0.as_ptr()),
        )
    };
    let ok = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    let code = |e: sys::rd_kafka_resp_err_t| if e == ok { Ok(()) } else { Err(RDKafkaErrorCode::from(e)) };
    if list.is_null() || whole != ok {
        return asked.elements().iter().map(|e| (e.partition(), code(whole))).collect();
    }
    // SAFETY: librdkafka guarantees `cnt` valid elements for the life of the event.
    let elements = unsafe {
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        if count == 0 { &[][..] } else { std::slice::from_raw_parts((*list).elems, count) }
    };
    elements.iter().map(|e| (e.partition, code(e.err))).collect()
}

/// Generation and member id that a commit sent now would carry; `None` outside a group. A negative generation must
/// never be committed with (K3).
pub fn membership<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<(i32, String)> {
    // SAFETY: the client is alive; the returned object is ours and destroyed below; its member id is copied first.
    unsafe {
        let group = NonNull::new(sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr()))?;
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(group.as_ptr());
        let member = sys::rd_kafka_consumer_group_metadata_member_id(group.as_ptr());
        let member =
            if member.is_null() { String::new() } else { CStr::from_ptr(member).to_string_lossy().into() };
        sys::rd_kafka_consumer_group_metadata_destroy(group.as_ptr());
        Some((generation, member))
    }
}

/// Leader epoch of a record's batch, -1 when the broker does not tell.
pub fn leader_epoch(message: &BorrowedMessage<'_>) -> i32 {
    // SAFETY: the message is alive while it is borrowed; the function only reads.
    unsafe { sys::rd_kafka_message_leader_epoch(message.ptr()) }
}

/// Low and high watermark as of the last fetch answer, without asking a broker; `None` before the first one.
pub fn cached_watermarks<C: rdkafka::ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: i32,
) -> Option<(i64, i64)> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: client and topic live for the call; the two numbers are written before it returns.
    let error = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            client.native_ptr(),
            topic.as_ptr(),
            partition,
            &raw mut low,
            &raw mut high,
        )
    };
    (error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some((low, high))
}

/// Metadata strings of a committed-offsets answer, as raw bytes made text: other clients may store anything, and the
/// safe wrapper panics on what is not UTF-8.
pub fn metadata(list: &TopicPartitionList) -> Vec<(i32, String)> {
    // SAFETY: the list is borrowed and holds `cnt` valid elements; metadata is a byte range of the stated size.
    unsafe {
        let raw = &*list.ptr();
        let count = usize::try_from(raw.cnt).unwrap_or(0);
        let elements = if count == 0 { &[][..] } else { std::slice::from_raw_parts(raw.elems, count) };
        let text = |e: &sys::rd_kafka_topic_partition_t| {
            if e.metadata.is_null() || e.metadata_size == 0 {
                return String::new();
            }
            let bytes = std::slice::from_raw_parts(e.metadata.cast::<u8>(), e.metadata_size);
            String::from_utf8_lossy(bytes).into_owned()
        };
        elements.iter().map(|e| (e.partition, text(e))).collect()
    }
}
