//! Publishing and streams for the command line. Must never send a record twice: only what the service refused goes again.

use super::client::{Address, Client, Keys, fault};
use crate::sources::{Error, Outgoing, Publisher, TopicInfo, Topics};
use aws_sdk_kinesis::{
    primitives::Blob,
    types::{PutRecordsRequestEntry, StreamStatus},
};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Longest wait for everything to be stored, or for a stream to be there.
const WAIT: Duration = Duration::from_secs(30);
/// Pause before refused records go again, or before a stream is looked at again.
const PAUSE: Duration = Duration::from_millis(200);
/// Records and bytes of one request: half of what the service takes, which counts keys too.
const MAX_BATCH: (usize, usize) = (500, 4 << 20);
/// Streams that are listed.
const MAX_STREAMS: usize = 10_000;
/// Region of an endpoint that names none.
const DEFAULT_REGION: &str = "us-east-1";

/// A client of one region.
pub struct KinesisPublisher {
    runtime: Runtime,
    client: Client,
}

impl KinesisPublisher {
    /// A client for `kinesis://REGION` (Amazon's own, with the credentials of its chain) or `kinesis+http://HOST:PORT[/REGION]`.
    ///
    /// # Errors
    /// The address is neither.
    pub fn new(address: &str) -> Result<Self, Error> {
        Self::with(&parse(address)?)
    }

    /// A client for `address`.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub fn with(address: &Address) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(Client::new(address, "", &super::options::Options::default()));
        Ok(Self { runtime, client })
    }

    /// Sends what is left of `entries` until the service has all; returns where each went.
    async fn put(&self, stream: &str, entries: Vec<PutRecordsRequestEntry>) -> Result<Vec<String>, Error> {
        let deadline = Instant::now() + WAIT;
        let mut places = vec![String::new(); entries.len()];
        let mut left: Vec<(usize, PutRecordsRequestEntry)> = entries.into_iter().enumerate().collect();
        loop {
            let records = left.iter().map(|(_, entry)| entry.clone()).collect();
            let sent = self.client.sdk().put_records().stream_name(stream).set_records(Some(records));
            let answer = sent.send().await.map_err(|error| fault(&error))?;
            let mut refused = Vec::new();
            let mut reason = String::new();
            for ((index, entry), result) in left.into_iter().zip(answer.records) {
                match (result.shard_id, result.sequence_number) {
                    (Some(shard), Some(number)) => places[index] = format!("{stream}/{shard}/{number}"),
                    _ => {
                        let code = result.error_code.unwrap_or_default();
                        reason = format!("{code}: {}", result.error_message.unwrap_or_default());
                        refused.push((index, entry));
                    }
                }
            }
            if refused.is_empty() {
                return Ok(places);
            }
            if Instant::now() >= deadline {
                return Err(format!("{} records refused: {reason}", refused.len()).into());
            }
            left = refused;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn make(&self, stream: &str, shards: i32) -> Result<(), Error> {
        let sdk = self.client.sdk();
        let made = sdk.create_stream().stream_name(stream).shard_count(shards).send().await;
        made.map_err(|error| fault(&error))?;
        let deadline = Instant::now() + WAIT;
        while Instant::now() < deadline {
            let described = sdk.describe_stream_summary().stream_name(stream).send().await;
            let summary = described.map_err(|error| fault(&error))?.stream_description_summary;
            if summary.is_some_and(|summary| summary.stream_status == StreamStatus::Active) {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(format!("the stream {stream} is made, but not active after {WAIT:?}; it may need more time")
            .into())
    }

    async fn all(&self) -> Result<Vec<String>, Error> {
        let mut names: Vec<String> = Vec::new();
        loop {
            let request = self.client.sdk().list_streams();
            let request = match names.last() {
                Some(last) => request.exclusive_start_stream_name(last),
                None => request,
            };
            let page = request.send().await.map_err(|error| fault(&error))?;
            let empty = page.stream_names.is_empty();
            names.extend(page.stream_names);
            if !page.has_more_streams || empty || names.len() >= MAX_STREAMS {
                return Ok(names);
            }
        }
    }
}

/// Where an address of the command line points.
pub fn parse(address: &str) -> Result<Address, Error> {
    let wrong = || format!("{address:?}: write kinesis://REGION or kinesis+http://HOST:PORT");
    if let Some(region) = address.strip_prefix("kinesis://") {
        let region =
            Some(region.trim_end_matches('/')).filter(|region| !region.is_empty()).ok_or_else(wrong)?;
        return Ok(Address { region: region.to_owned(), endpoint: None, keys: None });
    }
    let url = address.strip_prefix("kinesis+").ok_or_else(wrong)?;
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let (host, region) = rest.split_once('/').unwrap_or((rest, ""));
    if host.is_empty() || !["http", "https"].contains(&scheme) {
        return Err(wrong().into());
    }
    let region = if region.is_empty() { DEFAULT_REGION } else { region };
    // An endpoint of one's own seldom knows anybody; one that does is used with the keys of the environment.
    let keys = std::env::var_os("AWS_ACCESS_KEY_ID").is_none().then(Keys::nobody);
    Ok(Address { region: region.to_owned(), endpoint: Some(format!("{scheme}://{host}")), keys })
}

/// One record: a CloudEvent in structured mode if it has attributes, else the data as they are.
fn entry(message: &Outgoing) -> Result<PutRecordsRequestEntry, Error> {
    let data = message.data.clone().unwrap_or_default();
    let attributes =
        message.headers.iter().filter_map(|(name, value)| Some((name.strip_prefix("ce_")?, value)));
    let mut event: serde_json::Map<String, serde_json::Value> =
        attributes.map(|(name, value)| (name.to_owned(), value.as_str().into())).collect();
    let other = message.headers.iter().find(|(name, _)| !name.starts_with("ce_") && name != "content-type");
    if let Some((name, _)) = other {
        return Err(format!("a Kinesis record has no headers: leave {name} out").into());
    }
    let bytes = if event.is_empty() {
        data
    } else {
        if let Some((_, kind)) = message.headers.iter().find(|(name, _)| name == "content-type") {
            event.insert("datacontenttype".to_owned(), kind.as_str().into());
        }
        match (serde_json::from_slice::<serde_json::Value>(&data), String::from_utf8(data)) {
            (Ok(json), _) => event.insert("data".to_owned(), json),
            (_, Ok(text)) => event.insert("data".to_owned(), text.into()),
            (_, Err(error)) => {
                use base64::Engine as _;
                let text = base64::engine::general_purpose::STANDARD.encode(error.as_bytes());
                event.insert("data_base64".to_owned(), text.into())
            }
        };
        serde_json::to_vec(&event)?
    };
    // Without a key records are spread over the shards.
    let key = message.key.clone().unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
    let record = PutRecordsRequestEntry::builder().data(Blob::new(bytes)).partition_key(key);
    Ok(record.build()?)
}

impl Publisher for KinesisPublisher {
    fn publish(&self, messages: &[Outgoing]) -> Result<Vec<String>, Error> {
        let mut places = Vec::with_capacity(messages.len());
        let mut rest = messages;
        while let Some(first) = rest.first() {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            for message in rest.iter().take(MAX_BATCH.0).take_while(|message| message.topic == first.topic) {
                let entry = entry(message)?;
                bytes += entry.data.as_ref().len();
                if bytes > MAX_BATCH.1 && !batch.is_empty() {
                    break;
                }
                batch.push(entry);
            }
            rest = &rest[batch.len()..];
            places.extend(self.runtime.block_on(self.put(&first.topic, batch))?);
        }
        Ok(places)
    }
}

impl Topics for KinesisPublisher {
    fn create(&self, name: &str, parts: i32, _copies: i32) -> Result<(), Error> {
        self.runtime.block_on(self.make(name, parts))
    }

    fn delete(&self, name: &str) -> Result<(), Error> {
        let deleted = self.client.sdk().delete_stream().stream_name(name).send();
        self.runtime.block_on(deleted).map_err(|error| fault(&error))?;
        Ok(())
    }

    fn list(&self) -> Result<Vec<TopicInfo>, Error> {
        let names = self.runtime.block_on(self.all())?;
        Ok(names.into_iter().map(|name| TopicInfo { name, partitions: 0, replicas: 0 }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_a_region_or_an_endpoint() {
        let amazon = parse("kinesis://eu-central-1").unwrap();
        assert_eq!((amazon.region.as_str(), amazon.endpoint), ("eu-central-1", None));
        let own = parse("kinesis+http://localhost:4567/eu-west-1").unwrap();
        assert_eq!(
            (own.region.as_str(), own.endpoint.as_deref()),
            ("eu-west-1", Some("http://localhost:4567"))
        );
        for bad in ["kinesis://", "kinesis+ftp://a", "http://localhost", "kinesis+http:///x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_event_with_an_id_is_a_cloud_event_and_one_without_is_its_data() {
        let plain = Outgoing { topic: "t".into(), data: Some(b"x".to_vec()), ..Outgoing::default() };
        assert_eq!(entry(&plain).unwrap().data.as_ref(), b"x");
        let headers =
            vec![("ce_id".to_owned(), "7".to_owned()), ("content-type".to_owned(), "a/b".to_owned())];
        let event = Outgoing { headers, ..plain };
        let text = entry(&event).unwrap().data.into_inner();
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value, serde_json::json!({ "id": "7", "datacontenttype": "a/b", "data": "x" }));
    }
}
