//! Rows of claims in a JetStream bucket (a key-value bucket that `nats kv` reads): three copies where there is a cluster, each
//! write conditional on the row's last revision. Must never take a missing answer for a yes, nor make a bucket anew that it
//! has used: what that remembered is forgotten.

use super::{client::Access, takeover::Watch};
use crate::{
    dispatch::store::shared::{Failed, Found, Rows, Version, Write},
    sources::Error,
};
use async_nats::{
    Client, HeaderMap, Request, RequestErrorKind,
    connection::State,
    jetstream::{
        self, ErrorCode,
        context::{CreateStreamErrorKind, GetStreamErrorKind},
        publish::PublishAck,
        response::Response,
        stream::{self, DiscardPolicy, LastRawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::{
    runtime::{Handle, Runtime},
    sync::{Mutex, OnceCell},
};

/// Name of the bucket.
const BUCKET: &str = "kubeless_claims";
/// Name of the stream behind it.
const STREAM: &str = "KV_kubeless_claims";
/// Header of an open claim: when it may be taken over.
pub(super) const OPEN_UNTIL: &str = "Kubeless-Open-Until";
/// Longest wait for one answer.
const WAIT: Duration = Duration::from_secs(3);
/// Copies, where there are servers for them.
const REPLICAS: usize = 3;
/// What a server with its defaults takes, less the headers.
const MAX_VALUE_BYTES: usize = 1_000_000;

/// See the module.
pub struct BucketRows {
    access: Access,
    client: OnceCell<Client>,
    /// Copies of the bucket; 0: it has not been looked at since the connection came.
    replicas: AtomicUsize,
    /// Held while the bucket is looked at. Whether it was ever there.
    seen: Mutex<bool>,
    watch: Watch,
    handle: Handle,
    /// Drives the connection, which outlives every trigger's thread.
    runtime: Option<Runtime>,
}

impl BucketRows {
    /// Rows on the servers at `address`.
    ///
    /// # Errors
    /// The address or the credentials make no sense.
    pub fn new(address: &str, credentials: Option<&Path>) -> Result<Self, Error> {
        let access = Access::to(address, "the address of the claim store", credentials)?;
        if access.servers.iter().any(|server| server.has_user_pass() || server.username().is_some()) {
            return Err("the address of the claim store holds a user or password: put them into files".into());
        }
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("claims-nats").enable_all().build()?;
        Ok(Self {
            access,
            client: OnceCell::new(),
            replicas: AtomicUsize::new(0),
            seen: Mutex::new(false),
            watch: Watch::default(),
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// The client, once it is connected.
    async fn client(&self) -> Result<&Client, String> {
        let connect = || async {
            let options = self.access.connection("kubeless-claims").retry_on_initial_connect();
            let servers = self.access.servers.clone();
            let connecting = self.handle.spawn(async move { options.connect(servers).await });
            connecting.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        };
        let client = self.client.get_or_try_init(connect).await?;
        // What is written now would be sent when the connection is back, after its maker has given up.
        match client.connection_state() {
            State::Connected => Ok(client),
            State::Pending | State::Disconnected => Err("there is no connection to the servers".to_owned()),
        }
    }

    /// The bucket, as it should be.
    async fn bucket(&self) -> Result<(&Client, Stream<()>), String> {
        let client = self.client().await?;
        let context = {
            // It starts a task, which is to outlive the thread that asks.
            let _inside = self.handle.enter();
            let mut context = jetstream::new(client.clone());
            context.set_timeout(WAIT);
            context
        };
        if self.replicas.load(Ordering::Acquire) == 0 {
            let mut seen = self.seen.lock().await;
            let replicas = ensure(&context, *seen).await?;
            *seen = true;
            self.replicas.store(replicas, Ordering::Release);
        }
        let stream = context.get_stream_no_info(STREAM).await.map_err(|error| error.to_string())?;
        Ok((client, stream))
    }

    async fn write(&self, write: Write) -> Result<Version, Failed> {
        let (client, _) = self.bucket().await.map_err(Failed::Refused)?;
        let mut headers = HeaderMap::new();
        let expected = write.expected.map_or(Ok(0), |version| revision(&version))?;
        headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        // Servers count whole seconds.
        let seconds = write.kept.as_secs().max(1);
        headers.insert(async_nats::header::NATS_MESSAGE_TTL, format!("{seconds}s").as_str());
        if let Some(until_ms) = write.open_until_ms {
            headers.insert(OPEN_UNTIL, until_ms.to_string());
        }
        let request = Request::new().payload(write.value).headers(headers).timeout(Some(WAIT));
        let answer = client.send_request(subject(&write.space, &write.key), request).await;
        let answer = answer.map_err(|error| match error.kind() {
            // Nobody took it: the stream is gone, or has no server that speaks for it.
            RequestErrorKind::NoResponders => {
                self.replicas.store(0, Ordering::Release);
                Failed::Refused("the bucket has no server now".to_owned())
            }
            RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject => {
                Failed::Refused(error.to_string())
            }
            _ => Failed::Unknown(error.to_string()),
        })?;
        judge(&answer.payload)
    }

    async fn read(&self, space: &str, key: &str) -> Result<Option<Found>, String> {
        let (_, stream) = self.bucket().await?;
        // The one that speaks for the bucket answers this, not any copy.
        match stream.get_last_raw_message_by_subject(&subject(space, key)).await {
            Ok(message) => {
                let version = Version(Bytes::copy_from_slice(&message.sequence.to_be_bytes()));
                Ok(Some(Found { value: message.payload, version }))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn find_overdue(&self, space: &str, now_ms: i64) -> Result<Vec<String>, String> {
        let (_, stream) = self.bucket().await?;
        self.watch.overdue(&stream, space, now_ms).await
    }
}

impl Drop for BucketRows {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Rows for BucketRows {
    fn put(&self, write: Write) -> BoxFuture<'_, Result<Version, Failed>> {
        Box::pin(self.write(write))
    }

    fn get<'a>(&'a self, space: &'a str, key: &'a str) -> BoxFuture<'a, Result<Option<Found>, String>> {
        Box::pin(self.read(space, key))
    }

    fn overdue<'a>(&'a self, space: &'a str, now_ms: i64) -> BoxFuture<'a, Result<Vec<String>, String>> {
        Box::pin(self.find_overdue(space, now_ms))
    }

    fn weakness(&self) -> Option<String> {
        weakness_of(self.replicas.load(Ordering::Acquire))
    }

    fn max_value_bytes(&self) -> usize {
        MAX_VALUE_BYTES
    }
}

/// What a bucket with so many copies cannot promise; 0: nobody knows yet.
fn weakness_of(copies: usize) -> Option<String> {
    match copies {
        0 => Some("the servers of the claim store have not answered yet".to_owned()),
        REPLICAS.. => None,
        copies => Some(format!(
            "the bucket {BUCKET} has {copies} of {REPLICAS} copies: a server that is lost, or loses power, forgets claims; \
             give it {REPLICAS} (nats stream edit {STREAM} --replicas {REPLICAS})"
        )),
    }
}

/// Subject of the rows of `space`, with a wildcard for the key.
pub(super) fn subject(space: &str, key: &str) -> String {
    format!("$KV.{BUCKET}.{space}.{key}")
}

fn revision(version: &Version) -> Result<u64, Failed> {
    let bytes: Result<[u8; 8], _> = version.0.as_ref().try_into();
    bytes.map(u64::from_be_bytes).map_err(|_| Failed::Refused("the version is of another store".to_owned()))
}

/// What the stream said to a write. Only a closed list of errors means that nothing was written.
fn judge(answer: &[u8]) -> Result<Version, Failed> {
    let answer: Response<PublishAck> = serde_json::from_slice(answer)
        .map_err(|error| Failed::Unknown(format!("the answer cannot be read: {error}")))?;
    let error = match answer {
        Response::Ok(ack) => return Ok(Version(Bytes::copy_from_slice(&ack.sequence.to_be_bytes()))),
        Response::Err { error } => error,
    };
    match error.error_code() {
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
            Err(Failed::Conflict)
        }
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM
        | ErrorCode::MESSAGE_TTL_DISABLED
        | ErrorCode::MESSAGE_TTL_INVALID => Err(Failed::Refused(error.to_string())),
        _ => Err(Failed::Unknown(error.to_string())),
    }
}

/// Finds the bucket or makes it; returns its copies. `seen`: it was there before.
async fn ensure(context: &jetstream::Context, seen: bool) -> Result<usize, String> {
    match context.get_stream(STREAM).await {
        Ok(stream) => return check(&stream.cached_info().config),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
            _ => return Err(error.to_string()),
        },
    }
    if seen {
        return Err(format!(
            "the bucket {BUCKET} is gone, and with it every claim: restart the dispatchers to begin a new one"
        ));
    }
    let mut config = stream::Config {
        name: STREAM.to_owned(),
        description: Some("Claims of Kubeless: one row an event, open, ended or free".to_owned()),
        subjects: vec![format!("$KV.{BUCKET}.>")],
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_message_ttl: true,
        num_replicas: REPLICAS,
        ..stream::Config::default()
    };
    let made = match context.create_stream(&config).await {
        Err(error) if is_alone(&error.kind()) => {
            config.num_replicas = 1;
            context.create_stream(&config).await
        }
        made => made,
    };
    let made = made.map_err(|error| format!("cannot make the bucket {BUCKET}: {error}"))?;
    check(&made.cached_info().config)
}

/// Whether the server says that it has no cluster.
fn is_alone(kind: &CreateStreamErrorKind) -> bool {
    matches!(kind, CreateStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED)
}

/// Whether a row stays until its time and is replaced by conditional writes alone.
fn check(config: &stream::Config) -> Result<usize, String> {
    let problem = if !config.allow_message_ttl {
        "it has no time-to-live for each row (servers since 2.11 have)"
    } else if !config.max_age.is_zero() {
        "it forgets rows by their age (max_age)"
    } else if config.discard != DiscardPolicy::New {
        "it forgets old rows when it is full (discard: old)"
    } else if config.max_messages_per_subject != 1 {
        "it keeps more than the last state of a row (max_msgs_per_subject)"
    } else {
        return Ok(config.num_replicas.max(1));
    };
    Err(format!("the bucket {BUCKET} cannot keep claims: {problem}; change it or delete it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_list_of_errors_means_that_nothing_was_written() {
        let error = |code: u32| format!(r#"{{"error":{{"code":400,"err_code":{code},"description":"x"}}}}"#);
        let ack = judge(br#"{"stream":"KV_kubeless_claims","seq":258}"#).expect("accepted");
        assert_eq!(revision(&ack), Ok(258));
        for code in [10071, 10164] {
            assert_eq!(judge(error(code).as_bytes()), Err(Failed::Conflict));
        }
        assert!(matches!(judge(error(10002).as_bytes()), Err(Failed::Refused(_))));
        for unsure in [error(10008), error(10077), "{}".to_owned(), "no".to_owned()] {
            assert!(matches!(judge(unsure.as_bytes()), Err(Failed::Unknown(_))), "{unsure}");
        }
    }

    #[test]
    fn only_three_copies_are_a_promise() {
        assert_eq!(weakness_of(3), None);
        assert!(weakness_of(1).expect("said").contains("--replicas 3"));
        assert!(weakness_of(0).is_some());
    }

    #[test]
    fn an_address_with_a_password_is_not_taken_nor_shown() {
        let error = BucketRows::new("nats://me:secret@127.0.0.1:1", None).err().expect("refused").to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
