//! What stands on both sides of the product: a feed that writes events at a rate, and the bare consumer that drains
//! a topic and does nothing else. Each in its own process, so that its CPU time can be told.

use crate::{procfs, sink::now_us};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    producer::{BaseProducer, BaseRecord, Producer},
};
use std::time::{Duration, Instant};

/// Bytes of every event.
const BODY: usize = 256;
/// Records are written and read in slices of this length, so that a rate is even.
const SLICE: Duration = Duration::from_millis(1);

/// An event of [`BODY`] bytes; with a time it is one that the sink measures.
pub fn body(at_us: Option<i64>) -> String {
    let head = at_us.map_or_else(|| "{\"order\":17".to_owned(), |at| format!("{{\"at\":{at}"));
    let pad = BODY - head.len() - ",\"pad\":\"\"}".len();
    format!("{head},\"pad\":\"{}\"}}", "x".repeat(pad))
}

/// The key of the `n`-th event out of `keys`; none where `keys` is 0.
pub fn key(n: usize, keys: usize) -> Option<String> {
    (keys > 0).then(|| format!("key-{}", n % keys))
}

/// Writes `rate` events a second for `seconds`.
pub fn feed(bootstrap: &str, topic: &str, (partitions, keys): (usize, usize), rate: f64, seconds: f64) {
    let mut config = ClientConfig::new();
    // The library's own linger: with less the broker drowns in tiny batches, and that is what would be measured.
    config.set("bootstrap.servers", bootstrap).set("linger.ms", "5").set("acks", "1");
    let producer: BaseProducer = config.create().expect("a valid configuration");
    // Connections first: their making is nobody's latency.
    let _ = producer.client().fetch_metadata(Some(topic), Duration::from_secs(10));
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed().as_secs_f64() < seconds {
        let wanted = (begun.elapsed().as_secs_f64() * rate) as usize;
        while sent < wanted {
            let (body, key) = (body(Some(now_us())), key(sent / partitions, keys));
            let record = BaseRecord::<str, str>::to(topic).payload(&body);
            let mut record = record.partition((sent % partitions) as i32);
            record.key = key.as_deref();
            // A full queue would be a broken run, which the count at the sink shows.
            let _ = producer.send(record);
            sent += 1;
        }
        producer.poll(Duration::ZERO);
        std::thread::sleep(SLICE);
    }
    producer.flush(Duration::from_secs(30)).expect("the broker acknowledges");
    println!("sent={sent}");
}

/// Writes `events` events as fast as the broker takes them, in batches as large as the Java producer makes by default.
pub fn fill(bootstrap: &str, topic: &str, (partitions, keys): (usize, usize), events: usize) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("linger.ms", "5").set("batch.size", "16384");
    let producer: BaseProducer = config.create().expect("a valid configuration");
    let body = body(None);
    for n in 0..events {
        let key = key(n / partitions, keys);
        loop {
            let mut record =
                BaseRecord::<str, str>::to(topic).payload(&body).partition((n % partitions) as i32);
            record.key = key.as_deref();
            match producer.send(record) {
                Ok(()) => break,
                // The queue is full.
                Err(_) => {
                    producer.poll(Duration::from_millis(5));
                }
            }
        }
    }
    producer.flush(Duration::from_secs(120)).expect("the broker acknowledges");
}

/// Drains `topic` over and over at `rate` records a second for `seconds`; says when it begins, and at the end what it
/// read and spent since then.
pub fn drain(bootstrap: &str, topic: &str, partitions: usize, rate: f64, seconds: f64) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "drain").set("enable.auto.commit", "false");
    // As the product's consumer has them.
    config.set("enable.partition.eof", "true").set("queued.max.messages.kbytes", "8192");
    config
        .set("fetch.message.max.bytes", "1048576")
        .set("fetch.wait.max.ms", "100")
        .set("check.crcs", "true");
    let consumer: BaseConsumer = config.create().expect("a valid configuration");
    assign(&consumer, topic, partitions);
    while !matches!(consumer.poll(Duration::from_secs(1)), Some(Ok(_))) {}
    println!("begun");
    let (begun, cpu) = (Instant::now(), procfs::cpu_seconds(std::process::id()));
    let (mut records, mut ended) = (0_u64, 0);
    while begun.elapsed().as_secs_f64() < seconds {
        while (records as f64) < begun.elapsed().as_secs_f64() * rate {
            match consumer.poll(Duration::ZERO) {
                Some(Ok(_)) => records += 1,
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(error)) => panic!("drain: {error}"),
                None => break,
            }
        }
        if ended == partitions {
            ended = 0;
            assign(&consumer, topic, partitions);
        }
        std::thread::sleep(SLICE);
    }
    println!("records={records}");
    println!("cpu={}", procfs::cpu_seconds(std::process::id()) - cpu);
}

fn assign(consumer: &BaseConsumer, topic: &str, partitions: usize) {
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition as i32, Offset::Beginning).expect("a valid offset");
    }
    consumer.assign(&list).expect("a valid list");
}
