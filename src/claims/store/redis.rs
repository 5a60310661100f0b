//! Rows of claims in Redis or Valkey: a hash a row, written by a script that compares the row's version first and keeps the list of
//! open rows with it. Best effort: the server answers before its copies have the row, and usually before its disk has it. Must
//! never let a missing answer pass for a refusal, nor send anything again.

use super::{
    gateway::{login, read},
    shared::{Failed, Found, Rows, Version, Write},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo as _, RedisError, ServerErrorKind, TlsCertificates, aio::MultiplexedConnection,
};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Handle, Runtime},
    sync::Mutex,
};

/// Before the address, with and without TLS.
const SCHEMES: [&str; 2] = ["redis://", "rediss://"];
/// Longest wait for one answer.
const WAIT: Duration = Duration::from_secs(3);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// Pause after a connection that could not be made.
const AGAIN: Duration = Duration::from_millis(500);
/// Most open rows read at once.
const MOST_OPEN: usize = 4096;
/// An entry of the list whose row is long gone leaves it: beyond what a row of an open claim is kept.
const LISTED_MS: i64 = 31 * 24 * 3600 * 1000;
/// As long as other stores' rows; the server itself takes more.
const MAX_VALUE_BYTES: usize = 1_000_000;
/// The row, the list; expected version, value, its version, milliseconds to live, end of an open claim, key in the list.
const PUT: &str = "\
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'value', ARGV[2], 'version', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
if ARGV[5] == '' then redis.call('ZREM', KEYS[2], ARGV[6]) else redis.call('ZADD', KEYS[2], ARGV[5], ARGV[6]) end
return 1";
/// The list; now, the oldest that stays, most entries.
const OVERDUE: &str = "\
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[3])";

/// See the module.
pub struct RedisRows {
    client: Client,
    link: Mutex<Link>,
    handle: Handle,
    /// Drives the connection, which outlives every trigger's thread.
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Link {
    /// The connection, while there is one.
    open: Option<MultiplexedConnection>,
    /// When the last attempt failed, and why: those who waited for it do not try again one by one.
    failed: Option<(Instant, String)>,
}

/// Whether an address is of Redis.
pub fn is_address(address: &str) -> bool {
    SCHEMES.iter().any(|scheme| address.starts_with(scheme))
}

impl RedisRows {
    /// Rows on the server at `address` (`redis://host:port`, with `/N` for another database than 0; `rediss://` with TLS).
    ///
    /// # Errors
    /// The address or the credentials make no sense.
    pub fn new(address: &str, credentials: Option<&Path>) -> Result<Self, String> {
        let info = info(address, credentials)?;
        let client = if address.starts_with("rediss://") {
            // The library asks for the process's own; one that is set stays.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            Client::build_with_tls(info, certificates(credentials)?)
        } else {
            Client::open(info)
        };
        let client = client.map_err(|error| format!("the address of the claim store: {error}"))?;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(1).thread_name("claims-redis").enable_all();
        let runtime = builder.build().map_err(|error| error.to_string())?;
        let handle = runtime.handle().clone();
        Ok(Self { client, link: Mutex::default(), handle, runtime: Some(runtime) })
    }

    /// The connection, a new one if the last is lost. An error: nothing was sent.
    async fn connection(&self) -> Result<MultiplexedConnection, String> {
        let mut link = self.link.lock().await;
        if let Some(connection) = &link.open {
            return Ok(connection.clone());
        }
        if let Some((at, why)) = &link.failed
            && at.elapsed() < AGAIN
        {
            return Err(why.clone());
        }
        let client = self.client.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(WAIT));
        let connecting = self
            .handle
            .spawn(async move { client.get_multiplexed_async_connection_with_config(&config).await });
        match connecting.await.map_err(|error| error.to_string())? {
            Ok(made) => Ok(link.open.insert(made).clone()),
            Err(error) => {
                let why = format!("cannot connect: {error}");
                link.failed = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    /// Sends a command once. After an error that is no answer the next command gets another connection.
    async fn ask<T: FromRedisValue>(&self, command: Cmd) -> Result<T, Failed> {
        let mut connection = self.connection().await.map_err(Failed::Refused)?;
        let answer = command.query_async(&mut connection).await;
        match answer {
            Ok(value) => Ok(value),
            Err(error) => {
                if !is_answer(&error) {
                    self.link.lock().await.open = None;
                }
                Err(failed(&error))
            }
        }
    }

    async fn write(&self, write: Write) -> Result<Version, Failed> {
        let version = format!("{:032x}", fastrand::u128(..));
        let mut command = redis::cmd("EVAL");
        command.arg(PUT).arg(2).arg(row(&write.space, &write.key)).arg(list(&write.space));
        command.arg(write.expected.as_ref().map_or(&b""[..], |version| &version.0[..]));
        command.arg(&write.value[..]).arg(&version);
        command.arg(u64::try_from(write.kept.as_millis()).unwrap_or(u64::MAX).max(1));
        command.arg(write.open_until_ms.map(|until_ms| until_ms.to_string()).unwrap_or_default());
        command.arg(&write.key);
        match self.ask::<i64>(command).await? {
            1 => Ok(Version(version.into())),
            _ => Err(Failed::Conflict),
        }
    }

    async fn read(&self, space: &str, key: &str) -> Result<Option<Found>, String> {
        let mut command = redis::cmd("HMGET");
        command.arg(row(space, key)).arg("value").arg("version");
        let (value, version): (Option<Vec<u8>>, Option<Vec<u8>>) = self.ask(command).await.map_err(why)?;
        let (Some(value), Some(version)) = (value, version) else { return Ok(None) };
        Ok(Some(Found { value: value.into(), version: Version(Bytes::from(version)) }))
    }

    async fn find_overdue(&self, space: &str, now_ms: i64) -> Result<Vec<String>, String> {
        let mut command = redis::cmd("EVAL");
        command.arg(OVERDUE).arg(1).arg(list(space)).arg(now_ms).arg(now_ms - LISTED_MS).arg(MOST_OPEN);
        self.ask(command).await.map_err(why)
    }
}

impl Drop for RedisRows {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Rows for RedisRows {
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
        Some(
            "claims are in Redis, which answers before its replicas have them: a fail-over, or a restart without \
             appendfsync always, forgets claims; use a store that waits for a majority"
                .to_owned(),
        )
    }

    fn max_value_bytes(&self) -> usize {
        MAX_VALUE_BYTES
    }
}

/// One hash slot for a subscription's rows and their list, so that the script may touch both.
fn row(space: &str, key: &str) -> String {
    format!("kubeless:claims:{{{space}}}:{key}")
}

fn list(space: &str) -> String {
    format!("kubeless:claims:{{{space}}}")
}

fn info(address: &str, credentials: Option<&Path>) -> Result<ConnectionInfo, String> {
    if address.contains('@') {
        return Err("the address of the claim store holds a user or password: put them into files".to_owned());
    }
    let wrong = |error| format!("not an address of Redis ({error}); write redis://host:port");
    let info = address.into_connection_info().map_err(wrong)?;
    let Some((name, password)) = login(credentials)? else { return Ok(info) };
    if address.starts_with("redis://") {
        return Err("a password goes over TLS alone: write rediss://".to_owned());
    }
    let settings = info.redis_settings().clone().set_username(name).set_password(password);
    Ok(info.set_redis_settings(settings))
}

fn certificates(credentials: Option<&Path>) -> Result<TlsCertificates, String> {
    let client_tls = match (read(credentials, "tls.crt")?, read(credentials, "tls.key")?) {
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
        (None, None) => None,
        _ => return Err("tls.crt and tls.key go together: put both there or none".to_owned()),
    };
    Ok(TlsCertificates { client_tls, root_cert: read(credentials, "ca.crt")? })
}

/// Whether the server itself said so.
fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// What an error means for a write that was sent. The server refuses a script before its first write, or not at all.
fn failed(error: &RedisError) -> Failed {
    match error.kind() {
        // Said of a script that ran as well.
        ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::ExecAbort) => {
            Failed::Unknown(error.to_string())
        }
        ErrorKind::Server(_) | ErrorKind::AuthenticationFailed => Failed::Refused(error.to_string()),
        // Out of memory, no good replicas, not logged in, a script that runs too long before ours, a disk that fails.
        ErrorKind::Extension
            if matches!(error.code(), Some("OOM" | "NOREPLICAS" | "NOAUTH" | "BUSY" | "MISCONF")) =>
        {
            Failed::Refused(error.to_string())
        }
        _ => Failed::Unknown(error.to_string()),
    }
}

fn why(failed: Failed) -> String {
    match failed {
        Failed::Refused(why) | Failed::Unknown(why) => why,
        Failed::Conflict => "a conflict while reading".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_neither_in_the_address_nor_sent_in_the_clear() {
        let refused = |address, dir| info(address, dir).expect_err("refused");
        assert!(!refused("redis://me:secret@a:6379", None).contains("secret"));
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["username", "password"] {
            std::fs::write(dir.path().join(name), "secret").expect("written");
        }
        let error = refused("redis://a:6379", Some(dir.path()));
        assert!(error.contains("rediss://") && !error.contains("secret"), "{error}");
        let info = info("rediss://a:6379/3", Some(dir.path())).expect("with TLS it is taken");
        assert_eq!((info.redis_settings().db(), info.redis_settings().username()), (3, Some("secret")));
    }

    #[test]
    fn only_answers_that_say_so_mean_that_nothing_was_written() {
        let answer = |kind: ErrorKind| failed(&RedisError::from((kind, "said")));
        assert!(matches!(answer(ErrorKind::Server(ServerErrorKind::ReadOnly)), Failed::Refused(_)));
        for kind in [ErrorKind::Io, ErrorKind::Parse, ErrorKind::Server(ServerErrorKind::ResponseError)] {
            assert!(matches!(answer(kind), Failed::Unknown(_)), "{kind:?}");
        }
    }

    #[test]
    fn rows_and_their_list_share_a_hash_slot() {
        assert_eq!(row("s", "k"), "kubeless:claims:{s}:k");
        assert_eq!(list("s"), "kubeless:claims:{s}");
    }
}
