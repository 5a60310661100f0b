//! What this source asks the service, with every wait bounded and nothing repeated by the library. Must never log or
//! return a secret, and never repeat a request by itself: whoever asks decides about that.

use super::options::Options;
use crate::cluster::secrets::SecretData;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kinesis::{
    Client as Sdk,
    config::{Credentials, StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    primitives::DateTime,
    types::{Record, ShardIteratorType},
};
use std::{path::Path, sync::Arc, time::Duration};

/// Shards of a stream that are believed; more is a defect somewhere.
const MAX_SHARDS: usize = 20_000;

/// Where a stream is and who asks.
#[derive(Clone)]
pub struct Address {
    /// Region.
    pub region: String,
    /// URL in place of the region's own.
    pub endpoint: Option<String>,
    /// Key pair; `None`: Amazon's own chain.
    pub keys: Option<Keys>,
}

/// A key pair. Shown nowhere.
#[derive(Clone)]
pub struct Keys {
    id: String,
    secret: String,
    session: Option<String>,
}

/// Why a key pair cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("credentials {name}: {key} {what}")]
pub struct NoKeys {
    name: String,
    key: &'static str,
    what: String,
}

/// Why the service did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Too many requests, or too many bytes.
    #[error("the service throttles: {0}")]
    Throttled(String),
    /// The iterator is older than five minutes.
    #[error("the iterator expired")]
    Expired,
    /// The position that was asked for is none, or is not held any more.
    #[error("the service refuses the position: {0}")]
    Position(String),
    /// There is no such stream or shard.
    #[error("{0}")]
    Missing(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Where to begin in a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// The oldest record that is held.
    Horizon,
    /// The first record that arrived at or after this instant (Unix ms).
    Time(i64),
    /// This record.
    At(String),
    /// The one after this record.
    After(String),
}

/// What is known of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// When it was made (Unix ms): one made anew under the same name is another stream.
    pub created_ms: i64,
    /// How long records are held.
    pub retention: Duration,
    /// Its shards, ended ones included as long as they are held.
    pub shards: Vec<Listed>,
}

/// A shard of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Those it was split or merged from.
    pub parents: Vec<String>,
}

/// One read.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Records in order.
    pub records: Vec<Record>,
    /// For the next read; `None`: the shard ends here.
    pub next: Option<String>,
    /// How far behind the newest record this was; `None`: the service does not say.
    pub behind: Option<Duration>,
    /// Whether nothing more was there to be read.
    pub at_tip: bool,
}

/// A client of one region and account.
#[derive(Clone, Debug)]
pub struct Client {
    sdk: Sdk,
    stream: Arc<str>,
}

impl Keys {
    /// The pair in a Secret, or in files of a folder.
    ///
    /// # Errors
    /// A key is missing or is no text.
    pub fn read(name: &str, secret: Option<&SecretData>, dir: &Path) -> Result<Self, NoKeys> {
        let find = |key: &'static str| -> Result<Option<String>, NoKeys> {
            let wrong = |what: String| NoKeys { name: name.to_owned(), key, what };
            let text = match secret {
                Some(data) => match data.get(key) {
                    None => return Ok(None),
                    Some(value) => {
                        String::from_utf8(value.to_vec()).map_err(|_| wrong("is not UTF-8 text".into()))?
                    }
                },
                None => match std::fs::read_to_string(dir.join(name).join(key)) {
                    Ok(text) => text,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(e) => return Err(wrong(format!("cannot be read: {e}"))),
                },
            };
            Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
        };
        let must = |key: &'static str| {
            let what = || "is missing or empty; add it to the Secret (or mounted folder)".to_owned();
            find(key)?.ok_or_else(|| NoKeys { name: name.to_owned(), key, what: what() })
        };
        let (id, secret) = (must("aws_access_key_id")?, must("aws_secret_access_key")?);
        Ok(Self { id, secret, session: find("aws_session_token")? })
    }
}

impl Keys {
    /// A pair that means nobody, for an endpoint that knows nobody.
    pub fn nobody() -> Self {
        Self { id: "nobody".to_owned(), secret: "nobody".to_owned(), session: None }
    }
}

impl Client {
    /// The library's own client.
    pub fn sdk(&self) -> &Sdk {
        &self.sdk
    }

    /// A client for `stream`. Opens no connection yet; the chain of credentials may look at files and the environment.
    pub async fn new(address: &Address, stream: &str, options: &Options) -> Self {
        Self { sdk: Sdk::new(&sdk_config(address, options).await), stream: stream.into() }
    }

    /// The stream and its shards.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn describe(&self) -> Result<Stream, Fault> {
        let described = self.sdk.describe_stream_summary().stream_name(&*self.stream).send().await;
        let summary = described.map_err(|e| fault(&e))?.stream_description_summary;
        let summary = summary.ok_or_else(|| Fault::Other("an answer without a stream".into()))?;
        let mut shards = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let request = self.sdk.list_shards();
            let request = match token.take() {
                Some(token) => request.next_token(token),
                None => request.stream_name(&*self.stream),
            };
            let page = request.send().await.map_err(|e| fault(&e))?;
            for shard in page.shards.unwrap_or_default() {
                let parents = [shard.parent_shard_id, shard.adjacent_parent_shard_id];
                shards.push(Listed { id: shard.shard_id, parents: parents.into_iter().flatten().collect() });
            }
            match page.next_token {
                Some(next) if shards.len() < MAX_SHARDS => token = Some(next),
                Some(_) => return Err(Fault::Other(format!("over {MAX_SHARDS} shards"))),
                None => break,
            }
        }
        let hours = u64::try_from(summary.retention_period_hours).unwrap_or(24).max(1);
        let created = &summary.stream_creation_timestamp;
        Ok(Stream {
            created_ms: created.to_millis().unwrap_or(created.secs() * 1000),
            retention: Duration::from_secs(hours * 3600),
            shards,
        })
    }

    /// An iterator; good for five minutes.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn iterator(&self, shard: &str, from: &From) -> Result<String, Fault> {
        let request = self.sdk.get_shard_iterator().stream_name(&*self.stream).shard_id(shard);
        let request = match from {
            From::Horizon => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
            From::Time(ms) => request
                .shard_iterator_type(ShardIteratorType::AtTimestamp)
                .timestamp(DateTime::from_millis(*ms)),
            From::At(sequence) => request
                .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
                .starting_sequence_number(sequence),
            From::After(sequence) => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(sequence),
        };
        let answer = request.send().await.map_err(|e| fault(&e))?;
        answer.shard_iterator.ok_or_else(|| Fault::Other("an answer without an iterator".into()))
    }

    /// One read.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn read(&self, iterator: &str, limit: usize) -> Result<Batch, Fault> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let answer = self.sdk.get_records().shard_iterator(iterator).limit(limit).send().await;
        let answer = answer.map_err(|e| fault(&e))?;
        let behind = answer.millis_behind_latest;
        let at_tip = behind.is_none_or(|behind| behind == 0);
        let behind = behind.map(|ms| Duration::from_millis(ms.try_into().unwrap_or(0)));
        Ok(Batch { records: answer.records, next: answer.next_shard_iterator, behind, at_tip })
    }
}

/// How any of Amazon's services is asked: waits bounded, nothing repeated.
pub async fn sdk_config(address: &Address, options: &Options) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.request_timeout)
        .operation_attempt_timeout(options.request_timeout)
        .operation_timeout(options.request_timeout)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(address.region.clone()))
        .timeout_config(timeouts)
        // Repeated by whoever asks, who knows what may be repeated and how long it makes sense.
        .retry_config(RetryConfig::disabled())
        // A quiet stream is not a stalled one.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(keys) = &address.keys {
        let (id, secret, session) = (keys.id.clone(), keys.secret.clone(), keys.session.clone());
        loader = loader.credentials_provider(Credentials::new(id, secret, session, None, "trigger"));
    }
    if let Some(endpoint) = &address.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    loader.load().await
}

/// The service's code and words, or why there was no answer.
pub fn with_code<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => crate::cluster::client::with_causes(error),
    }
}

/// What an error of the library means here.
pub fn fault<E, R>(error: &SdkError<E, R>) -> Fault
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let text = with_code(error);
    let Some(code) = error.code() else { return Fault::Other(text) };
    match code {
        "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "KMSThrottlingException"
        | "ThrottlingException" => Fault::Throttled(text),
        "ExpiredIteratorException" => Fault::Expired,
        "InvalidArgumentException" => Fault::Position(text),
        "ResourceNotFoundException" => Fault::Missing(text),
        _ => Fault::Other(text),
    }
}
