//! Rows of claims in DynamoDB: an item a row, put on condition of the version that was read; open rows stand in an index besides.
//! Reads are consistent. Must never decide by the index, nor have the library repeat a write.

mod table;

use super::{
    gateway::read,
    shared::{Failed, Found, Rows, Version, Write},
};
use crate::clock;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::{
    Client,
    config::{Credentials, retry::RetryConfig, timeout::TimeoutConfig},
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    operation::put_item::PutItemError,
    primitives::Blob,
    types::AttributeValue,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use table::{EXPIRES, ID, OPEN, OPEN_INDEX, OPEN_UNTIL};
use tokio::{
    runtime::Runtime,
    sync::{Mutex, OnceCell},
};

/// Before region and table.
const SCHEME: &str = "dynamodb://";
/// The row itself.
const VALUE: &str = "value";
/// Its version.
const VERSION: &str = "version";
/// Longest wait for one answer.
const WAIT: Duration = Duration::from_secs(3);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// Pause after a look at the table that failed.
const AGAIN: Duration = Duration::from_millis(500);
/// Most open rows read at once.
const MOST_OPEN: i32 = 4096;
/// Rows end by the clocks of those who ask: they may differ by so much.
const SKEW: Duration = Duration::from_secs(60);
/// An item of 400 KB, less everything but its value.
const MAX_VALUE_BYTES: usize = 390_000;

/// See the module.
pub struct DynamoRows {
    server: Arc<Server>,
    /// Drives the connections, which outlive every trigger's thread.
    runtime: Option<Runtime>,
}

struct Server {
    region: String,
    table: String,
    keys: Option<Credentials>,
    /// Made at the first question: finding credentials may take time.
    sdk: OnceCell<Client>,
    /// Whether the table was seen, or made, and is fit.
    fit: OnceCell<()>,
    /// When the last look at it failed, and why: those who waited for it do not look again one by one.
    failed: Mutex<Option<(Instant, String)>>,
}

/// Whether an address is of DynamoDB.
pub fn is_address(address: &str) -> bool {
    address.starts_with(SCHEME)
}

impl DynamoRows {
    /// Rows in the table at `address` (`dynamodb://region/table`). `credentials`: folder of `aws_access_key_id`,
    /// `aws_secret_access_key` and perhaps `aws_session_token`; without them Amazon's own chain. Opens no connection yet.
    ///
    /// # Errors
    /// The address or the credentials make no sense.
    pub fn new(address: &str, credentials: Option<&Path>) -> Result<Self, String> {
        let (region, table) = parts(address)?;
        let keys = keys(credentials)?;
        let server = Server {
            region,
            table,
            keys,
            sdk: OnceCell::new(),
            fit: OnceCell::new(),
            failed: Mutex::default(),
        };
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(1).thread_name("claims-dynamodb").enable_all();
        let runtime = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { server: Arc::new(server), runtime: Some(runtime) })
    }

    async fn ask<T, F>(&self, work: impl FnOnce(Arc<Server>) -> F) -> Result<T, String>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let Some(runtime) = &self.runtime else { return Err("the store is closed".to_owned()) };
        runtime.spawn(work(Arc::clone(&self.server))).await.map_err(|error| error.to_string())
    }
}

impl Drop for DynamoRows {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Rows for DynamoRows {
    fn put(&self, write: Write) -> BoxFuture<'_, Result<Version, Failed>> {
        Box::pin(async move {
            let written = self.ask(|server| async move { server.put(write).await }).await;
            written.unwrap_or_else(|why| Err(Failed::Unknown(why)))
        })
    }

    fn get<'a>(&'a self, space: &'a str, key: &'a str) -> BoxFuture<'a, Result<Option<Found>, String>> {
        let id = id(space, key);
        Box::pin(async move { self.ask(|server| async move { server.get(id).await }).await? })
    }

    fn overdue<'a>(&'a self, space: &'a str, now_ms: i64) -> BoxFuture<'a, Result<Vec<String>, String>> {
        let space = space.to_owned();
        Box::pin(async move { self.ask(|server| async move { server.overdue(space, now_ms).await }).await? })
    }

    fn weakness(&self) -> Option<String> {
        None
    }

    fn max_value_bytes(&self) -> usize {
        MAX_VALUE_BYTES
    }
}

impl Server {
    async fn sdk(&self) -> &Client {
        let make = || async {
            let timeouts = TimeoutConfig::builder()
                .connect_timeout(CONNECT)
                .read_timeout(WAIT)
                .operation_attempt_timeout(WAIT)
                .operation_timeout(WAIT);
            let mut loader = aws_config::defaults(BehaviorVersion::latest())
                .region(Region::new(self.region.clone()))
                .timeout_config(timeouts.build())
                .retry_config(RetryConfig::disabled());
            if let Some(keys) = &self.keys {
                loader = loader.credentials_provider(keys.clone());
            }
            Client::new(&loader.load().await)
        };
        self.sdk.get_or_init(make).await
    }

    async fn ready(&self) -> Result<&Client, String> {
        let sdk = self.sdk().await;
        if self.fit.initialized() {
            return Ok(sdk);
        }
        let mut failed = self.failed.lock().await;
        if let Some((at, why)) = &*failed
            && at.elapsed() < AGAIN
        {
            return Err(why.clone());
        }
        let found = self.fit.get_or_try_init(|| table::find(sdk, &self.table, &self.region)).await;
        *failed = found.as_ref().err().map(|why| (Instant::now(), why.clone()));
        found.map(|()| sdk)
    }

    async fn put(&self, write: Write) -> Result<Version, Failed> {
        let sdk = self.ready().await.map_err(Failed::Refused)?;
        let version = format!("{:032x}", fastrand::u128(..));
        let number = |n: i64| AttributeValue::N(n.to_string());
        let now = clock::unix_ms() / 1000;
        let kept = i64::try_from((write.kept + SKEW).as_secs()).unwrap_or(i64::MAX);
        let put = sdk
            .put_item()
            .table_name(&self.table)
            .item(ID, AttributeValue::S(id(&write.space, &write.key)))
            .item(VALUE, AttributeValue::B(Blob::new(write.value)))
            .item(VERSION, AttributeValue::S(version.clone()))
            .item(EXPIRES, number(now.saturating_add(kept)));
        let put = match write.open_until_ms {
            Some(until_ms) => {
                put.item(OPEN, AttributeValue::S(write.space.to_string())).item(OPEN_UNTIL, number(until_ms))
            }
            None => put,
        };
        let put = match write.expected {
            Some(expected) => put
                .condition_expression("#version = :version")
                .expression_attribute_names("#version", VERSION)
                .expression_attribute_values(":version", version_value(&expected)?),
            // The service deletes what is over when it likes, within days.
            None => put
                .condition_expression("attribute_not_exists(#id) OR #expires < :now")
                .expression_attribute_names("#id", ID)
                .expression_attribute_names("#expires", EXPIRES)
                .expression_attribute_values(":now", number(now)),
        };
        match put.send().await {
            Ok(_) => Ok(Version(version.into())),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn get(&self, id: String) -> Result<Option<Found>, String> {
        let get = self.ready().await?.get_item().table_name(&self.table).consistent_read(true);
        let answer = get.key(ID, AttributeValue::S(id)).send().await;
        let answer = answer.map_err(|error| self.explain("GetItem", &error))?;
        let Some(mut item) = answer.item else { return Ok(None) };
        let expires: Option<i64> = item.get(EXPIRES).and_then(|at| at.as_n().ok()?.parse().ok());
        if expires.is_some_and(|at| at < clock::unix_ms() / 1000) {
            return Ok(None);
        }
        let (value, version) = (item.remove(VALUE), item.remove(VERSION));
        match (value, version) {
            (Some(AttributeValue::B(value)), Some(AttributeValue::S(version))) => Ok(Some(Found {
                value: Bytes::from(value.into_inner()),
                version: Version(Bytes::from(version)),
            })),
            _ => Err(format!("DynamoDB table {}: an item is none of ours: delete it by hand", self.table)),
        }
    }

    async fn overdue(&self, space: String, now_ms: i64) -> Result<Vec<String>, String> {
        let prefix = self::id(&space, "");
        let query =
            self.ready().await?.query().table_name(&self.table).index_name(OPEN_INDEX).limit(MOST_OPEN);
        let query = query
            .key_condition_expression("#open = :space AND #until < :now")
            .expression_attribute_names("#open", OPEN)
            .expression_attribute_names("#until", OPEN_UNTIL)
            .expression_attribute_values(":space", AttributeValue::S(space))
            .expression_attribute_values(":now", AttributeValue::N(now_ms.to_string()));
        let answer = query.send().await.map_err(|error| self.explain("Query", &error))?;
        let keys = answer.items.unwrap_or_default().into_iter().filter_map(|item| {
            let id = item.get(ID)?.as_s().ok()?;
            id.strip_prefix(&prefix).map(str::to_owned)
        });
        Ok(keys.collect())
    }

    fn explain<E, R>(&self, what: &str, error: &SdkError<E, R>) -> String
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        table::explain(what, &self.table, &words(error))
    }
}

fn id(space: &str, key: &str) -> String {
    format!("{space}/{key}")
}

fn version_value(version: &Version) -> Result<AttributeValue, Failed> {
    let text = std::str::from_utf8(&version.0);
    let text = text.map_err(|_| Failed::Refused("the version is of another store".to_owned()))?;
    Ok(AttributeValue::S(text.to_owned()))
}

fn parts(address: &str) -> Result<(String, String), String> {
    let rest = address.strip_prefix(SCHEME).unwrap_or_default();
    let is_word = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    match rest.split_once('/') {
        Some((region, table)) if is_word(region) && is_word(table) && table.len() >= 3 => {
            Ok((region.to_owned(), table.to_owned()))
        }
        _ => Err("not an address of DynamoDB; write dynamodb://region/table, as dynamodb://eu-central-1/kubeless-claims"
            .to_owned()),
    }
}

fn keys(credentials: Option<&Path>) -> Result<Option<Credentials>, String> {
    let text = |name| {
        let value = read(credentials, name)?.map(String::from_utf8).transpose();
        let value = value.map_err(|_| format!("{name} is not UTF-8 text"))?;
        Ok::<_, String>(value.map(|text| text.trim().to_owned()))
    };
    match (text("aws_access_key_id")?, text("aws_secret_access_key")?) {
        (Some(id), Some(secret)) => {
            Ok(Some(Credentials::new(id, secret, text("aws_session_token")?, None, "claims")))
        }
        (None, None) => Ok(None),
        _ => Err("aws_access_key_id and aws_secret_access_key go together: put both there".to_owned()),
    }
}

/// The service's code and words, or why there was no answer.
fn words<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    match (error.code(), error.message()) {
        (Some(code), message) => format!("{code}: {}", message.unwrap_or("no reason given")),
        (None, _) => DisplayErrorContext(error).to_string(),
    }
}

/// What an error means for a write: only what never left, and the service's own no, say that nothing was written.
fn failed<R: std::fmt::Debug + Send + Sync + 'static>(error: &SdkError<PutItemError, R>) -> Failed {
    let why = words(error);
    match error {
        SdkError::ConstructionFailure(_) => Failed::Refused(why),
        SdkError::DispatchFailure(failure)
            if failure.is_user()
                || failure.as_connector_error().is_some_and(|error| never_connected(error)) =>
        {
            Failed::Refused(why)
        }
        SdkError::ServiceError(answer) => match answer.err() {
            PutItemError::ConditionalCheckFailedException(_) => Failed::Conflict,
            PutItemError::InternalServerError(_) => Failed::Unknown(why),
            // A code means that the service has judged the request; what went wrong inside has the code above, or none.
            error
                if error
                    .code()
                    .is_some_and(|code| !code.contains("Internal") && code != "ServiceUnavailable") =>
            {
                Failed::Refused(why)
            }
            _ => Failed::Unknown(why),
        },
        _ => Failed::Unknown(why),
    }
}

/// Whether there was no connection that could have taken a byte.
fn never_connected(error: &(dyn std::error::Error + 'static)) -> bool {
    let own = error.downcast_ref::<hyper_util::client::legacy::Error>();
    own.is_some_and(hyper_util::client::legacy::Error::is_connect)
        || error.source().is_some_and(never_connected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::{error::ErrorMetadata, types::error::ConditionalCheckFailedException};

    #[test]
    fn an_address_is_a_region_and_a_table() {
        let (region, table) = parts("dynamodb://eu-central-1/kubeless-claims").expect("an address");
        assert_eq!((region.as_str(), table.as_str()), ("eu-central-1", "kubeless-claims"));
        for wrong in
            ["dynamodb://", "dynamodb://eu-central-1", "dynamodb://a/b/c", "dynamodb://me:pw@a/tables"]
        {
            assert!(parts(wrong).expect_err("none").contains("dynamodb://region/table"), "{wrong}");
        }
    }

    #[test]
    fn half_a_key_pair_is_refused_without_showing_it() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("aws_access_key_id"), "hidden").expect("written");
        let error = keys(Some(dir.path())).expect_err("half");
        assert!(error.contains("go together") && !error.contains("hidden"), "{error}");
        assert!(keys(None).expect("the chain").is_none());
    }

    #[test]
    fn only_what_the_service_refused_was_certainly_not_written() {
        let answer = |error| failed(&SdkError::service_error(error, ()));
        let generic = |code: &str| PutItemError::generic(ErrorMetadata::builder().code(code).build());
        let condition = ConditionalCheckFailedException::builder().build();
        assert_eq!(answer(PutItemError::ConditionalCheckFailedException(condition)), Failed::Conflict);
        for code in ["ThrottlingException", "ResourceNotFoundException", "AccessDeniedException"] {
            assert!(matches!(answer(generic(code)), Failed::Refused(_)), "{code}");
        }
        for code in ["InternalServerError", "InternalFailure", "ServiceUnavailable"] {
            assert!(matches!(answer(generic(code)), Failed::Unknown(_)), "{code}");
        }
        let silent: SdkError<PutItemError, ()> = SdkError::timeout_error("no answer");
        assert!(matches!(failed(&silent), Failed::Unknown(_)));
    }
}
