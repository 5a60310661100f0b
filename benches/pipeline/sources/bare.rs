//! Bare clients of the other sources: they read and acknowledge as the product's own client would, and do nothing else. Each is a
//! process of its own. Must never keep what it read.

use crate::kafka::body;
use async_nats::{
    ServerAddr,
    jetstream::{self, consumer::pull},
};
use aws_sdk_kinesis::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    types::ShardIteratorType,
};
use futures_util::StreamExt as _;
use std::time::{Duration, Instant};

/// A subject that is silent for this long has ended.
const SILENCE: Duration = Duration::from_secs(2);
/// Messages of one pull.
const PULL: usize = 1000;
/// Records of one read.
const READ: i32 = 10_000;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// Connects to one of these servers, separated by commas.
async fn connect(url: &str) -> async_nats::Client {
    let servers: Vec<ServerAddr> = url.split(',').map(|one| one.parse().expect("an address")).collect();
    async_nats::connect(servers).await.expect("a server is there")
}

fn say(count: usize, begun: Instant, ended: Instant) {
    println!("per_s={}", count as f64 / ended.duration_since(begun).as_secs_f64());
}

/// Sends `count` events as fast as the client goes.
pub fn flood(url: &str, subject: &str, count: usize) {
    block_on(async {
        let client = connect(url).await;
        let body = bytes::Bytes::from(body(None));
        for _ in 0..count {
            client.publish(subject.to_owned(), body.clone()).await.expect("the connection is open");
        }
        client.flush().await.expect("the connection is open");
    });
}

/// Counts what arrives until `count` are there or nothing comes any more.
pub fn drain_subject(url: &str, subject: &str, count: usize) {
    block_on(async {
        let client = connect(url).await;
        let mut messages = client.subscribe(subject.to_owned()).await.expect("the connection is open");
        client.flush().await.expect("the connection is open");
        println!("begun");
        messages.next().await.expect("the connection is open");
        let (begun, mut last, mut seen) = (Instant::now(), Instant::now(), 1);
        while seen < count && tokio::time::timeout(SILENCE, messages.next()).await.is_ok_and(|m| m.is_some())
        {
            (seen, last) = (seen + 1, Instant::now());
        }
        say(seen, begun, last);
    });
}

/// Pulls and acknowledges `count` messages.
pub fn drain_stream(url: &str, stream: &str, count: usize) {
    block_on(async {
        let client = connect(url).await;
        let stream = jetstream::new(client).get_stream(stream).await.expect("it was made");
        let consumer = stream.create_consumer(pull::Config { max_deliver: 1, ..Default::default() }).await;
        let consumer = consumer.expect("the stream takes consumers");
        let messages = consumer.stream().max_messages_per_batch(PULL).messages().await;
        let mut messages = messages.expect("it can be read");
        let begun = Instant::now();
        for _ in 0..count {
            let message = messages.next().await.expect("there is one more").expect("it can be read");
            message.ack().await.expect("the connection is open");
        }
        say(count, begun, Instant::now());
    });
}

/// Reads all shards side by side until `count` records are there.
pub fn drain_shards(endpoint: &str, stream: &str, count: usize) {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("test", "test", None, None, "bench"))
        .build();
    block_on(async {
        let client = Client::from_conf(config);
        let listed = client.list_shards().stream_name(stream).send().await.expect("the stream is there");
        let ids = listed.shards.unwrap_or_default().into_iter().map(|shard| shard.shard_id);
        let begun = Instant::now();
        let all = futures_util::future::join_all(ids.map(|id| drain_shard(&client, stream, id))).await;
        let seen: usize = all.into_iter().sum();
        assert_eq!(seen, count, "every record is read");
        say(seen, begun, Instant::now());
    });
}

async fn drain_shard(client: &Client, stream: &str, id: String) -> usize {
    let asked = client.get_shard_iterator().stream_name(stream).shard_id(id);
    let asked = asked.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await;
    let (mut next, mut seen) = (asked.expect("the shard is there").shard_iterator, 0);
    while let Some(iterator) = next.take() {
        let read = client.get_records().shard_iterator(iterator).limit(READ).send().await;
        let read = read.expect("the shard can be read");
        seen += read.records.len();
        next = read.next_shard_iterator.filter(|_| !read.records.is_empty());
    }
    seen
}
