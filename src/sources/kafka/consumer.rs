//! The polling thread of one subscription: the only thread that polls, commits and serves rebalances. Must never block
//! on anything but the client, the journal and (in a revocation) running calls; must never stop polling.

use super::{
    commit::Taint,
    context::Context,
    decode::{Decoder, RawRecord},
    engine::Engine,
    ffi,
    item::{Body, Item},
    takeover::Policy,
};
use crate::{
    clock,
    dispatch::dead_letter::Original,
    event::Position,
    sources::{Exit, Order},
    testkit,
};
use bytes::Bytes;
use rdkafka::{
    ClientConfig, Message, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering,
        mpsc,
    },
    time::{Duration, Instant},
};

/// Pause before a member comes back after it left under a doubt.
const REJOIN_PAUSE: Duration = Duration::from_millis(500);
/// How often lag and window size are published.
const GAUGE_INTERVAL: Duration = Duration::from_secs(1);

/// What the thread needs.
pub struct PollingThread {
    /// Client configuration, security included.
    pub client: ClientConfig,
    /// Topic.
    pub topic: Arc<str>,
    /// Where to start without a committed offset.
    pub policy: Policy,
    /// Records to events.
    pub decoder: Decoder,
    /// Whether originals are kept for dead letters.
    pub keep_originals: bool,
    /// State that outlives a member identity.
    pub engine: Arc<Mutex<Engine>>,
    /// Orders.
    pub orders: mpsc::Receiver<Order>,
    /// Shown in the trigger's status: why it is not consuming, empty when it is.
    pub status: Arc<Mutex<String>>,
}

enum Left {
    Stopped,
    Rejoin(String),
    Fatal(String),
}

impl PollingThread {
    /// Runs until ordered to stop. Blocking: owns its thread.
    pub fn run(mut self) -> Exit {
        loop {
            let left = match self.member() {
                Ok(left) => left,
                Err(error) => Left::Rejoin(format!("cannot make a client: {error}")),
            };
            match left {
                Left::Stopped => return Exit::Stopped,
                Left::Fatal(why) => return Exit::Failed(why),
                Left::Rejoin(why) => {
                    tracing::warn!(topic = %self.topic, why, "Leaving the group to come back with a new identity");
                    self.say(&why);
                    self.lock().subscription.metrics().restarts.increment(1);
                    match self.orders.recv_timeout(REJOIN_PAUSE) {
                        Ok(_) | Err(mpsc::RecvTimeoutError::Disconnected) => return Exit::Stopped,
                        Err(mpsc::RecvTimeoutError::Timeout) => {}
                    }
                    // A new member has a clean identity: what the old one had in doubt is read from the register (K1).
                    self.lock().taint = None;
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, why: &str) {
        why.clone_into(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn member(&mut self) -> Result<Left, KafkaError> {
        let context = Context::new(Arc::clone(&self.engine), self.policy);
        let consumer: BaseConsumer<Context> = BaseConsumer::from_config_and_context(&self.client, context)?;
        consumer.subscribe(&[&self.topic])?;
        let left = self.poll_until_left(&consumer);
        self.lock().subscription.metrics().connected.set(0.0);
        // Dropping the consumer closes it: the revoke callback drains and flushes, then the member leaves the group.
        drop(consumer);
        self.lock().write_journal();
        Ok(left)
    }

    fn poll_until_left(&mut self, consumer: &BaseConsumer<Context>) -> Left {
        let context = Arc::clone(consumer.context());
        let mut wait = Duration::from_millis(10);
        let mut gauges = Instant::now();
        loop {
            let (records, ends, problem) = self.poll(consumer, wait);
            testkit::point("after_poll");
            let mut engine = context.engine();
            engine.last_poll_boot_ms = clock::boot_ms();
            for (epoch, record) in &records {
                self.take(&mut engine, *epoch, record);
            }
            drop(records);
            // Only now: a record read back in this very poll would be dropped as seen before (L1, D1).
            for (epoch, shard) in ends {
                engine.protocol.read_to_end(shard, epoch);
            }
            engine.drain_results();
            engine.name_inherited();
            engine.write_journal();
            if !engine.claim(consumer) {
                engine.flush_if_due(consumer);
            }
            if engine.recorder.is_pending() {
                engine.write_journal();
            }
            engine.back_pressure(consumer, &context);
            if gauges.elapsed() >= GAUGE_INTERVAL {
                gauges = Instant::now();
                engine.publish_slow(consumer);
            }
            engine.publish();
            if let Some(left) = self.leave(&mut engine, &context, problem) {
                return left;
            }
            wait = engine.poll_wait();
        }
    }

    /// Takes what is there: waits for the first record only. Each record, and each end of a partition, carries the
    /// epoch it was polled in (K4).
    fn poll<'a>(
        &self,
        consumer: &'a BaseConsumer<Context>,
        wait: Duration,
    ) -> (Vec<(u64, BorrowedMessage<'a>)>, Vec<(u64, i32)>, Option<Left>) {
        let most = self.lock().options.max_poll_records;
        let (mut records, mut ends) = (Vec::new(), Vec::new());
        let mut wait = wait;
        while records.len() < most {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => records.push((consumer.context().epoch(), message)),
                Some(Err(KafkaError::PartitionEOF(shard))) => ends.push((consumer.context().epoch(), shard)),
                Some(Err(error)) => {
                    if let Some(left) = self.problem(&error) {
                        return (records, ends, Some(left));
                    }
                }
            }
            wait = Duration::ZERO;
        }
        (records, ends, None)
    }

    fn problem(&self, error: &KafkaError) -> Option<Left> {
        use RDKafkaErrorCode as E;
        let code = error.rdkafka_error_code();
        match (error, code) {
            (KafkaError::MessageConsumptionFatal(_), _) | (_, Some(E::FencedInstanceId | E::Fatal)) => {
                Some(Left::Fatal(format!("{error}; another process may use the same group.instance.id")))
            }
            // No auto.offset.reset surprises: read the registers and watermarks again, and count what is gone.
            (_, Some(E::OffsetOutOfRange | E::AutoOffsetReset | E::NoOffset)) => {
                Some(Left::Rejoin(format!("the position left the log: {error}")))
            }
            _ => {
                self.say(&error.to_string());
                tracing::debug!(topic = %self.topic, %error, "Poll error");
                None
            }
        }
    }

    fn take(&self, engine: &mut Engine, epoch: u64, message: &BorrowedMessage<'_>) {
        let headers: Vec<(&str, Option<&[u8]>)> = message
            .headers()
            .map(|h| h.iter().map(|h| (h.key, h.value)).collect())
            .unwrap_or_default();
        let raw = RawRecord {
            partition: message.partition(),
            offset: message.offset(),
            leader_epoch: ffi::leader_epoch(message),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
            key: message.key(),
            payload: message.payload(),
            headers: &headers,
        };
        let weight = message.payload_len() + message.key_len() + 256;
        let (time_ms, offset) = (raw.timestamp_ms, raw.offset);
        let original = self.keep_originals.then(|| Arc::new(original(&raw)));
        let body = match self.decoder.decode(raw) {
            Ok(event) => Body::Event(Arc::new(event)),
            Err(rejection) => Body::Rejected(
                Position {
                    stream: Arc::clone(&self.topic),
                    shard: message.partition(),
                    sequence: offset,
                    epoch: ffi::leader_epoch(message),
                    time_ms,
                },
                rejection.reason,
            ),
        };
        engine.take(epoch, offset, time_ms, Item { body, original, weight });
    }

    fn leave(&self, engine: &mut Engine, context: &Context, problem: Option<Left>) -> Option<Left> {
        match self.orders.try_recv() {
            Ok(Order::Stop(deadline)) => {
                testkit::point("shutdown_drain");
                engine.stopping = Some(deadline);
            }
            Err(mpsc::TryRecvError::Disconnected) => {
                engine.stopping.get_or_insert_with(Instant::now);
            }
            Err(mpsc::TryRecvError::Empty) => {}
        }
        if let Some(deadline) = engine.stopping
            && (engine.running.is_empty() || Instant::now() >= deadline)
        {
            return Some(Left::Stopped);
        }
        if let Some(problem) = problem {
            return Some(problem);
        }
        if let Some(why) = context.take_broken() {
            return Some(Left::Rejoin(why));
        }
        match engine.must_leave()? {
            Taint::Fenced => Some(Left::Fatal("fenced: another process uses the same group.instance.id".into())),
            Taint::Rejoin(why) => Some(Left::Rejoin(why.to_owned())),
            Taint::UntilAssign => None,
        }
    }
}

fn original(raw: &RawRecord<'_>) -> Original {
    Original {
        key: raw.key.map(Bytes::copy_from_slice),
        value: raw.payload.map(Bytes::copy_from_slice),
        headers: raw
            .headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.map(Bytes::copy_from_slice)))
            .collect(),
    }
}

impl Engine {
    fn back_pressure(&mut self, consumer: &BaseConsumer<Context>, context: &Context) {
        let paused = context.paused().load(Ordering::Relaxed);
        let change = if paused { self.should_resume() } else { self.should_pause() };
        if !change {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (shard, _) in self.protocol.owned() {
            list.add_partition(&self.topic, shard);
        }
        let done = if paused { consumer.resume(&list) } else { consumer.pause(&list) };
        match done {
            Ok(()) => context.paused().store(!paused, Ordering::Relaxed),
            Err(error) => tracing::warn!(topic = %self.topic, %error, "Cannot pause or resume"),
        }
    }

    /// Gauges that are exact between two batches.
    fn publish(&mut self) {
        let metrics = self.subscription.metrics();
        let conservation = self.subscription.conservation();
        if self.recorder.is_pending() {
            return;
        }
        metrics.residual.set(conservation.residual() as f64);
        metrics.in_flight.set(conservation.in_flight() as f64);
    }

    fn publish_slow(&mut self, consumer: &BaseConsumer<Context>) {
        let mut vanished = Vec::new();
        for (number, shard) in self.protocol.owned_mut() {
            if !shard.is_replaying() {
                let gone = shard.vanished_parked(shard.position());
                vanished.extend(gone.into_iter().map(|offset| (number, offset)));
            }
        }
        for (shard, offset) in vanished {
            self.end_missed(shard, offset, 1, "parked, and compacted away before it was claimed");
        }
        let metrics = self.subscription.metrics();
        metrics.connected.set(if self.lag.is_empty() { 0.0 } else { 1.0 });
        metrics.parked.set(self.protocol.owned().map(|(_, s)| s.parked()).sum::<usize>() as f64);
        metrics.window_entries.set(self.subscription.window().len() as f64);
        metrics.inflight_invocations.set(self.subscription.calls_running() as f64);
        for (shard, gauge) in &self.lag {
            let position = self.protocol.shard(*shard).map_or(0, super::protocol::shard::Shard::position);
            if let Some((_, high)) = ffi::cached_watermarks(consumer.client(), &self.topic, *shard) {
                gauge.set((high - position).max(0) as f64);
            }
        }
    }
}

