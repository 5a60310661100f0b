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
    ClientConfig, Message,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};
use std::{
    cell::Cell,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

/// First and longest pause before a member comes back after it left under a doubt; a member that lasted longer than
/// the longest starts over.
const REJOIN_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// What an event costs beside its bytes; an estimate for the memory budget.
const ENVELOPE: usize = 512;
/// Trouble is over when brokers answer and nothing was wrong for this long: a line a change, not a line a poll.
const CALM: Duration = Duration::from_secs(5);
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
    /// When something was last wrong.
    pub troubled: Cell<Option<Instant>>,
    /// Whether a broker has answered a fetch since then.
    pub answered: Cell<bool>,
}

struct Polled<'a> {
    records: Vec<(u64, BorrowedMessage<'a>)>,
    ends: Vec<(u64, i32)>,
}

enum Left {
    Stopped,
    Rejoin(String),
    Fatal(String),
}

impl PollingThread {
    /// Runs until ordered to stop. Blocking: owns its thread.
    pub fn run(mut self) -> Exit {
        let mut pause = REJOIN_PAUSE.0;
        loop {
            let born = Instant::now();
            let left = match self.member() {
                Ok(left) => left,
                // A configuration that the library refuses does not get better by trying again at once.
                Err(error) => Left::Fatal(without_value(&error)),
            };
            match left {
                Left::Stopped => return Exit::Stopped,
                // K7: no return before one session without competition.
                Left::Fatal(why) => {
                    let mut engine = self.lock();
                    let session = engine.options.session_timeout;
                    engine.finish_what_runs(Instant::now() + session);
                    return Exit::Failed(why, session);
                }
                Left::Rejoin(why) => {
                    tracing::warn!(topic = %self.topic, why, "Leaving the group to come back with a new identity");
                    self.say(&why);
                    self.lock().subscription.metrics().restarts.increment(1);
                    pause = if born.elapsed() > REJOIN_PAUSE.1 { REJOIN_PAUSE.0 } else { pause };
                    let wait = pause;
                    pause = (pause * 2).min(REJOIN_PAUSE.1);
                    match self.orders.recv_timeout(wait) {
                        Ok(Order::Stop(deadline)) => {
                            self.lock().finish_what_runs(deadline);
                            return Exit::Stopped;
                        }
                        Err(mpsc::RecvTimeoutError::Disconnected) => return Exit::Stopped,
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

    fn lock_status(&self) -> std::sync::MutexGuard<'_, String> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the status; says once in the log what is wrong and once that it is over, however often it repeats.
    fn say(&self, why: &str) {
        self.say_with(why, "");
    }

    /// The same with details that may differ from one repetition to the next (from one broker to the other).
    fn say_with(&self, what: &str, detail: &str) {
        self.troubled.set((!what.is_empty()).then(Instant::now));
        self.answered.set(false);
        let why = if detail.is_empty() { what.to_owned() } else { format!("{what}: {detail}") };
        let mut status = self.lock_status();
        if *status == why {
            return;
        }
        if why.is_empty() {
            tracing::info!(topic = %self.topic, was = *status, "Consuming again");
        } else if status.is_empty() || !status.starts_with(what) {
            tracing::warn!(topic = %self.topic, why, "Consuming is in trouble");
        }
        *status = why;
    }

    fn member(&mut self) -> Result<Left, KafkaError> {
        let context = Context::new(Arc::clone(&self.engine), self.policy);
        let consumer: BaseConsumer<Context> = BaseConsumer::from_config_and_context(&self.client, context)?;
        consumer.subscribe(&[&self.topic])?;
        let left = self.poll_until_left(&consumer);
        {
            let engine = self.lock();
            engine.subscription.metrics().connected.set(0.0);
            engine.subscription.set_connected(false);
        }
        // Dropping the consumer closes it: the revoke callback drains and flushes, then the member leaves the group.
        drop(consumer);
        let mut engine = self.lock();
        if engine.protocol.owned().next().is_some() {
            // The client went without its revoke callback: nothing may be committed for these any more (N5).
            engine.protocol.lost();
        }
        engine.flow.write_journal();
        drop(engine);
        Ok(left)
    }

    fn poll_until_left(&mut self, consumer: &BaseConsumer<Context>) -> Left {
        let context = Arc::clone(consumer.context());
        let (mut wait, mut room) = (Duration::from_millis(10), 1);
        let mut gauges = Instant::now();
        loop {
            let polled_boot_ms = clock::boot_ms();
            let (polled, problem) = self.poll(consumer, wait, room);
            testkit::point("after_poll");
            let mut engine = context.engine();
            engine.polled(polled_boot_ms);
            // The end of a partition is an answer too: a topic without news is not in trouble.
            if !polled.records.is_empty() || !polled.ends.is_empty() {
                self.answered.set(true);
            }
            if self.answered.get() && self.troubled.get().is_some_and(|t| t.elapsed() > CALM) {
                self.say("");
            }
            for (epoch, record) in &polled.records {
                self.take(&mut engine, *epoch, record);
            }
            // Only now: the end of a partition stands behind the records that were polled before it.
            for (epoch, shard) in polled.ends {
                engine.protocol.read_to_end(shard, epoch);
            }
            drop(polled.records);
            engine.drain_results();
            engine.name_inherited();
            engine.flow.write_journal();
            let claimed = engine.claim(consumer);
            if !claimed {
                engine.flush_if_due(consumer);
            }
            if engine.flow.recorder.is_pending() {
                engine.flow.write_journal();
            }
            engine.back_pressure(consumer, &context);
            if gauges.elapsed() >= GAUGE_INTERVAL {
                gauges = Instant::now();
                engine.publish_slow(consumer);
            }
            engine.flow.publish();
            if let Some(trouble) = engine.trouble.take() {
                self.say(&trouble);
            }
            if let Some(left) = self.leave(&mut engine, &context, problem) {
                return left;
            }
            // A commit took long enough for results and records to be there.
            wait = if claimed { Duration::ZERO } else { engine.poll_wait() };
            room = engine.poll_room(&context.paused());
        }
    }

    /// Takes what is there, at most `room`: waits for the first record only. Each carries the epoch it was polled in
    /// (K4). Without room it waits all the same and takes one: the member must go on polling.
    fn poll<'a>(
        &self,
        consumer: &'a BaseConsumer<Context>,
        mut wait: Duration,
        room: usize,
    ) -> (Polled<'a>, Option<Left>) {
        let mut polled = Polled { records: Vec::with_capacity(room), ends: Vec::new() };
        if room == 0 {
            std::thread::sleep(std::mem::take(&mut wait));
        }
        while polled.records.len() < room.max(1) {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => polled.records.push((consumer.context().epoch(), message)),
                Some(Err(KafkaError::PartitionEOF(shard))) => {
                    polled.ends.push((consumer.context().epoch(), shard));
                }
                Some(Err(error)) => {
                    if let Some(left) = self.problem(&error, &consumer.context().take_reason()) {
                        return (polled, Some(left));
                    }
                }
            }
            wait = Duration::ZERO;
        }
        (polled, None)
    }

    fn problem(&self, error: &KafkaError, reason: &str) -> Option<Left> {
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
            // It follows the reason why each of them is down, which is what an operator needs.
            (_, Some(E::AllBrokersDown)) if !self.lock_status().is_empty() => None,
            (_, code) => {
                let what = code.map_or_else(|| error.to_string(), |code| code.to_string());
                self.say_with(&what, reason);
                None
            }
        }
    }

    fn take(&self, engine: &mut Engine, epoch: u64, message: &BorrowedMessage<'_>) {
        let list: Vec<(&str, Option<&[u8]>)> =
            message.headers().map(|h| h.iter().map(|h| (h.key, h.value)).collect()).unwrap_or_default();
        let raw = RawRecord {
            partition: message.partition(),
            offset: message.offset(),
            leader_epoch: ffi::leader_epoch(message),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
            key: message.key(),
            payload: message.payload(),
            headers: &list,
        };
        let bytes = message.payload_len() + message.key_len();
        let headers: usize = list.iter().map(|(k, v)| k.len() + v.map_or(0, <[u8]>::len)).sum();
        // The event, and the original beside it where one is kept.
        let weight = (bytes + headers) * if self.keep_originals { 2 } else { 1 } + ENVELOPE;
        let (time_ms, offset) = (raw.timestamp_ms, raw.offset);
        let original = self.keep_originals.then(|| Arc::new(original(&raw)));
        let body = match self.decoder.decode(raw) {
            Ok(event) => Body::Event(Arc::new(event)),
            Err(rejection) => Body::Rejected(
                Position {
                    coordinates: None,
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
            && (engine.flow.calls() == 0 || Instant::now() >= deadline)
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
            Taint::Fenced => {
                Some(Left::Fatal("fenced: another process uses the same group.instance.id".into()))
            }
            Taint::Rejoin(why) => Some(Left::Rejoin(why.to_owned())),
            Taint::UntilAssign => None,
        }
    }
}

/// The library's own message prints the refused value, which may be a secret.
pub(super) fn without_value(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, what, key, _) => format!("client option {key}: {what}"),
        other => format!("cannot make a client: {other}"),
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
