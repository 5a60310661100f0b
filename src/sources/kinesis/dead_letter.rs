//! The dead-letter stream: the original record as a CloudEvent, because a record has no headers that could say how it ended. Must
//! never block a claim: what does not fit into the queue is dropped and counted.

use super::client::{Client, fault};
use crate::{
    dispatch::dead_letter::{DeadLetterSink, Original},
    ledger::journal::Line,
    telemetry::Counter,
};
use aws_sdk_kinesis::{primitives::Blob, types::PutRecordsRequestEntry};
use base64::Engine as _;
use serde_json::{Map, Value};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle};

/// Bytes that wait to be written.
const QUEUE: usize = 16 << 20;
/// Records and bytes of one request: half of what the service takes.
const BATCH: (usize, usize) = (250, 4 << 20);
/// Times that what was refused is sent, in all.
const TRIES: u32 = 6;
/// First pause before it goes again; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the last copies may take when the subscription ends.
const FLUSH: Duration = Duration::from_secs(5);

/// Counters of one sink.
pub struct Counts {
    /// Taken by the service.
    pub written: Counter,
    /// Refused by the service, again and again.
    pub failed: Counter,
    /// Never sent: the queue was full, or time was over.
    pub dropped: Counter,
}

struct Shared {
    stream: String,
    counts: Counts,
    /// Bytes and records that wait.
    bytes: AtomicUsize,
    records: AtomicUsize,
}

/// The end of a queue at which the flow puts dead letters in.
pub struct DeadLetterStream {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedSender<Letter>,
}

/// The other end.
pub struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedReceiver<Letter>,
}

struct Letter {
    key: String,
    data: Vec<u8>,
}

impl Letter {
    fn size(&self) -> usize {
        self.key.len() + self.data.len()
    }
}

/// Both ends of a queue to `stream`.
pub fn queue(stream: &str, counts: Counts) -> (DeadLetterStream, Writer) {
    let (put, take) = mpsc::unbounded_channel();
    let (bytes, records) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let shared = Arc::new(Shared { stream: stream.to_owned(), counts, bytes, records });
    (DeadLetterStream { shared: Arc::clone(&shared), queue: put }, Writer { shared, queue: take })
}

impl DeadLetterSink for DeadLetterStream {
    fn offer(&self, original: &Original, line: &Line) {
        let shared = &self.shared;
        let letter = letter(original, line);
        let size = letter.size();
        // One thread offers: nobody else takes the room between the look and the entry.
        let full = shared.bytes.load(Ordering::Relaxed) + size > QUEUE;
        if full || self.queue.send(letter).is_err() {
            shared.counts.dropped.increment(1);
            tracing::error!(stream = shared.stream, "Dead letter was dropped: too many wait");
            return;
        }
        shared.bytes.fetch_add(size, Ordering::Relaxed);
        shared.records.fetch_add(1, Ordering::Relaxed);
    }
}

impl Writer {
    /// Writes until the other end is gone, on the runtime that this is called on.
    pub fn start(self, client: Client) -> Writing {
        let shared = Arc::clone(&self.shared);
        Writing { shared, task: tokio::spawn(self.write(client)) }
    }

    async fn write(mut self, client: Client) {
        let mut next: Option<Letter> = None;
        loop {
            let Some(first) = (match next.take() {
                Some(letter) => Some(letter),
                None => self.queue.recv().await,
            }) else {
                return;
            };
            let (mut bytes, mut batch) = (first.size(), vec![first]);
            while let Ok(letter) = self.queue.try_recv() {
                if batch.len() >= BATCH.0 || bytes + letter.size() > BATCH.1 {
                    next = Some(letter);
                    break;
                }
                bytes += letter.size();
                batch.push(letter);
            }
            let count = batch.len();
            self.send(&client, batch).await;
            self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.records.fetch_sub(count, Ordering::Relaxed);
        }
    }

    /// A copy may be there twice where an answer was lost: its id is the same.
    async fn send(&self, client: &Client, mut batch: Vec<Letter>) {
        let (shared, mut pause, mut why) = (&self.shared, PAUSE, String::new());
        for turn in 0..TRIES {
            if turn > 0 {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            let entries = batch.iter().filter_map(|letter| {
                let data = Blob::new(letter.data.clone());
                PutRecordsRequestEntry::builder().partition_key(&letter.key).data(data).build().ok()
            });
            let request = client.sdk().put_records().stream_name(&shared.stream);
            match request.set_records(Some(entries.collect())).send().await {
                Err(error) => why = fault(&error).to_string(),
                Ok(answer) => {
                    let before = batch.len();
                    let mut results = answer.records.into_iter();
                    batch.retain(|_| match results.next() {
                        Some(result) if result.sequence_number.is_some() => false,
                        Some(result) => {
                            why = result.error_code.unwrap_or_default();
                            true
                        }
                        None => true,
                    });
                    shared.counts.written.increment((before - batch.len()) as u64);
                }
            }
            if batch.is_empty() {
                return;
            }
        }
        shared.counts.failed.increment(batch.len() as u64);
        let (stream, count) = (&shared.stream, batch.len());
        tracing::error!(
            stream,
            count,
            why,
            "Dead letters were not written; the stream must be there and take kinesis:PutRecords"
        );
    }
}

/// A writer that runs.
pub struct Writing {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Writing {
    /// Returns when all is written, or time is over. Call it when the other end of the queue is gone.
    pub async fn finish(mut self) {
        if tokio::time::timeout(FLUSH, &mut self.task).await.is_err() {
            self.task.abort();
            let left = self.shared.records.load(Ordering::Relaxed);
            self.shared.counts.dropped.increment(left as u64);
            tracing::error!(stream = self.shared.stream, left, "Dead letters were dropped: no time was left");
        }
    }
}

/// A CloudEvent in structured mode, so that a trigger on the dead-letter stream gives a function the original data.
fn letter(original: &Original, line: &Line) -> Letter {
    let position = line.position();
    let id = if line.id.is_empty() { &position } else { &line.id };
    let status = line.status.map(|status| status.to_string());
    let (kind, name) = (line.trigger.split_once('/').unwrap_or(("", &line.trigger)), &line.stream);
    let source = format!("/apis/v1/namespaces/{}/kinesistriggers/{}#{name}", kind.0, kind.1);
    let text = [
        ("specversion", Some("1.0")),
        ("type", Some("io.kubeless.deadletter")),
        ("source", Some(source.as_str())),
        ("id", Some(id.as_str())),
        ("time", Some(line.ts.as_str())),
        ("kubelessoutcome", Some(line.outcome.as_str())),
        ("kubelessreason", line.reason.as_deref()),
        ("kubelessstatus", status.as_deref()),
        ("kubelesstrigger", Some(line.trigger.as_str())),
        ("kubelessfunction", Some(line.function.as_str())),
        ("kubelessposition", Some(position.as_str())),
    ];
    let text = text.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?))));
    let mut event: Map<String, Value> = text.collect();
    let data = original.value.as_deref().unwrap_or_default();
    let data = base64::engine::general_purpose::STANDARD.encode(data);
    event.insert("data_base64".to_owned(), data.into());
    let key = original.key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned());
    // The service takes none that is empty.
    let key = key.filter(|key| !key.is_empty()).unwrap_or_else(|| id.clone().chars().take(256).collect());
    Letter { key, data: Value::Object(event).to_string().into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Outcome;
    use bytes::Bytes;

    fn line(id: &str) -> Line {
        let line = serde_json::json!({
            "ts": "2026-11-23T10:00:00Z", "trigger": "shop/clicks", "function": "shop/count", "id": id, "stream": "s", "shard": 0,
            "sequence": -1, "coordinates": "shardId-0/17", "epoch": -1, "time_ms": 5, "outcome": "failed", "status": 503,
            "owner": "ab",
        });
        serde_json::from_value(line).unwrap()
    }

    #[test]
    fn a_letter_is_a_cloud_event_that_holds_the_data_and_how_it_ended() {
        let original = Original {
            key: Some(Bytes::from_static(b"ada")),
            value: Some(Bytes::from_static(&[0, 255])),
            headers: Vec::new(),
        };
        let letter = letter(&original, &line("e-1"));
        let event: Value = serde_json::from_slice(&letter.data).unwrap();
        assert_eq!(letter.key, "ada");
        assert_eq!((&event["id"], &event["data_base64"]), (&"e-1".into(), &"AP8=".into()));
        assert_eq!(event["kubelessoutcome"], Outcome::Failed.as_str());
        assert_eq!(event["kubelessposition"], "s/shardId-0/17");
        assert_eq!(event["kubelessstatus"], "503");
        assert!(event.get("kubelessreason").is_none());
    }

    #[test]
    fn one_that_was_never_decoded_is_named_by_its_place() {
        let letter = letter(&Original::default(), &line(""));
        let event: Value = serde_json::from_slice(&letter.data).unwrap();
        assert_eq!(event["id"], "s/shardId-0/17");
        assert_eq!(letter.key, "s/shardId-0/17");
    }

    #[test]
    fn a_full_queue_drops_and_never_waits() {
        let counts = Counts { written: Counter::noop(), failed: Counter::noop(), dropped: Counter::noop() };
        let (sink, mut writer) = queue("s", counts);
        let large = Original { value: Some(Bytes::from(vec![0; QUEUE / 3])), ..Original::default() };
        for _ in 0..4 {
            sink.offer(&large, &line("e"));
        }
        // In base64 they are larger.
        let mut held = 0;
        while writer.queue.try_recv().is_ok() {
            held += 1;
        }
        assert_eq!(held, 2);
        assert_eq!(sink.shared.records.load(Ordering::Relaxed), 2);
    }
}
