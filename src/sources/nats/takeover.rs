//! Which rows of the bucket are open, as a consumer of the bucket tells it: headers only, each write once. Must never be taken
//! for the truth: whoever takes a claim over reads its row and writes it conditionally.

use super::rows::{OPEN_UNTIL, subject};
use async_nats::{
    Message,
    jetstream::{
        consumer::{AckPolicy, Consumer, DeliverPolicy, pull},
        stream::Stream,
    },
};
use futures_util::StreamExt as _;
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::sync::Mutex;

/// Most messages of one answer.
const BATCH: usize = 1000;
/// Most answers at one time: a bucket with a million rows is read within some minutes, not at once.
const BATCHES: usize = 20;
/// Longest wait for one answer.
const WAIT: Duration = Duration::from_secs(3);
/// The server forgets a consumer that nobody asks for so long.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// What is known of each space.
#[derive(Default)]
pub(super) struct Watch {
    spaces: std::sync::Mutex<HashMap<String, Arc<Mutex<Space>>>>,
}

#[derive(Default)]
struct Space {
    /// Open rows, and when they may be taken over.
    open: HashMap<String, i64>,
    /// The last revision that was seen.
    last: u64,
    consumer: Option<Reader>,
}

struct Reader {
    consumer: Consumer<pull::Config>,
    /// Number of its last message: they come without gaps.
    last: u64,
}

impl Watch {
    /// Keys of `space` that are open, as far as was read, and may be taken over.
    pub(super) async fn overdue(
        &self,
        stream: &Stream<()>,
        space: &str,
        now_ms: i64,
    ) -> Result<Vec<String>, String> {
        let known = {
            let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(spaces.entry(space.to_owned()).or_default())
        };
        let mut known = known.lock().await;
        if let Err(why) = known.read_on(stream, space).await {
            // A reader that went with its server is made again behind what was seen.
            known.consumer = None;
            return Err(why);
        }
        let overdue = known.open.iter().filter(|(_, until_ms)| **until_ms < now_ms);
        Ok(overdue.map(|(key, _)| key.clone()).collect())
    }
}

impl Space {
    async fn read_on(&mut self, stream: &Stream<()>, space: &str) -> Result<(), String> {
        let prefix = subject(space, "");
        for _ in 0..BATCHES {
            if self.consumer.is_none() {
                self.consumer = Some(Reader { consumer: reader(stream, space, self.last).await?, last: 0 });
            }
            let Some(reader) = &mut self.consumer else { return Ok(()) };
            let batch = reader.consumer.fetch().max_messages(BATCH).expires(WAIT);
            let mut batch = batch.messages().await.map_err(|error| error.to_string())?;
            let mut count = 0;
            while let Some(message) = batch.next().await {
                let message = message.map_err(|error| error.to_string())?;
                let info = message.info().map_err(|error| error.to_string())?;
                if info.consumer_sequence != reader.last + 1 {
                    return Err("the bucket's reader lost messages and is made again".to_owned());
                }
                (reader.last, self.last) = (info.consumer_sequence, info.stream_sequence);
                note(&mut self.open, &prefix, &message.message);
                count += 1;
            }
            if count < BATCH {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Enters an open row, takes out any other.
fn note(open: &mut HashMap<String, i64>, prefix: &str, message: &Message) {
    let Some(key) = message.subject.strip_prefix(prefix) else { return };
    let until = message.headers.as_ref().and_then(|headers| headers.get(OPEN_UNTIL));
    match until.and_then(|until| until.as_str().parse().ok()) {
        Some(until_ms) => open.insert(key.to_owned(), until_ms),
        None => open.remove(key),
    };
}

/// A consumer that begins behind `last` and lives as long as it is asked.
async fn reader(stream: &Stream<()>, space: &str, last: u64) -> Result<Consumer<pull::Config>, String> {
    let config = pull::Config {
        filter_subject: subject(space, "*"),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: last + 1 },
        ack_policy: AckPolicy::None,
        headers_only: true,
        inactive_threshold: FORGOTTEN,
        num_replicas: 1,
        memory_storage: true,
        ..pull::Config::default()
    };
    stream.create_consumer(config).await.map_err(|error| error.to_string())
}
