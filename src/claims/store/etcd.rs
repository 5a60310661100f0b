//! Rows of claims in etcd: one transaction a write, which compares the row's revision and keeps the list of open rows with it.
//! Reads go through the quorum. Must never be pointed at the etcd of a cluster's own API server: a full one stops both.
//!
//! The servers' gateway in JSON is spoken (`/v3/kv/txn`), which is on by default: the client library for gRPC needs a compiler
//! of its own when it is built.

use super::{
    gateway::{Fate, Gateway, Login, login},
    shared::{Failed, Found, Rows, Version, Write},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

/// Before the addresses, with and without TLS.
const SCHEMES: [(&str, &str); 2] = [("etcds://", "https://"), ("etcd://", "http://")];
/// Before all keys.
const ROOT: &str = "kubeless/claims";
/// Most requests at once.
const MOST_AT_ONCE: usize = 64;
/// Most open rows read at once.
const MOST_OPEN: usize = 4096;
/// Rows share a lease for so long: one for each would be another round trip.
const SHARED_FOR: Duration = Duration::from_secs(30);
/// Lengths of leases are rounded up to this.
const STEP_SECONDS: u64 = 60;
/// What a server with its defaults takes, less the rest of a request and base64.
const MAX_VALUE_BYTES: usize = 1_000_000;
/// Codes of an answer that say: nothing was done. Not allowed, not there (the lease), too much, not known, malformed.
const REFUSALS: [u64; 5] = [3, 5, 7, 8, 16];
/// The one of them for a token that is over.
const UNAUTHENTICATED: u64 = 16;
/// The one for a lease that is not there.
const NOT_FOUND: u64 = 5;

/// See the module.
pub struct EtcdRows {
    server: Arc<Server>,
    /// Where requests wait for their answers.
    runtime: Option<Runtime>,
}

struct Server {
    gateway: Gateway,
    login: Option<Login>,
    token: Mutex<Option<String>>,
    /// Leases by their length: the id, and when it was made.
    leases: Mutex<HashMap<u64, (String, Instant)>>,
}

/// Whether an address is of etcd.
pub fn is_address(address: &str) -> bool {
    SCHEMES.iter().any(|(scheme, _)| address.starts_with(scheme))
}

impl EtcdRows {
    /// Rows on the servers at `address` (`etcd://host:port`, several with commas; `etcds://` with TLS).
    ///
    /// # Errors
    /// The address or the credentials make no sense.
    pub fn new(address: &str, credentials: Option<&Path>) -> Result<Self, String> {
        let servers = servers(address)?;
        let gateway = Gateway::new(servers, credentials)?;
        let login = login(credentials)?;
        if login.is_some() && servers_are_plain(address) {
            return Err("a password goes over TLS alone: write etcds://".to_owned());
        }
        let (token, leases) = (Mutex::default(), Mutex::default());
        let server = Arc::new(Server { gateway, login, token, leases });
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(1).max_blocking_threads(MOST_AT_ONCE).thread_name("claims-etcd");
        let runtime = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { server, runtime: Some(runtime) })
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Server) -> T + Send + 'static,
    ) -> Result<T, String> {
        let Some(runtime) = &self.runtime else { return Err("the store is closed".to_owned()) };
        let server = Arc::clone(&self.server);
        runtime.spawn_blocking(move || work(&server)).await.map_err(|error| error.to_string())
    }
}

impl Drop for EtcdRows {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Rows for EtcdRows {
    fn put(&self, write: Write) -> BoxFuture<'_, Result<Version, Failed>> {
        Box::pin(async move {
            self.ask(move |server| server.put(&write)).await.unwrap_or_else(|why| Err(Failed::Unknown(why)))
        })
    }

    fn get<'a>(&'a self, space: &'a str, key: &'a str) -> BoxFuture<'a, Result<Option<Found>, String>> {
        let key = row(space, key);
        Box::pin(async move { self.ask(move |server| server.get(&key)).await? })
    }

    fn overdue<'a>(&'a self, space: &'a str, now_ms: i64) -> BoxFuture<'a, Result<Vec<String>, String>> {
        let prefix = open(space, "");
        Box::pin(async move { self.ask(move |server| server.overdue(&prefix, now_ms)).await? })
    }

    fn weakness(&self) -> Option<String> {
        None
    }

    fn max_value_bytes(&self) -> usize {
        MAX_VALUE_BYTES
    }
}

fn servers_are_plain(address: &str) -> bool {
    address.starts_with("etcd://")
}

fn servers(address: &str) -> Result<Vec<String>, String> {
    let wrong = || "not an address of etcd; write etcd://host:port, several with commas".to_owned();
    if address.contains('@') {
        return Err("the address of the claim store holds a user or password: put them into files".to_owned());
    }
    let (scheme, url) = SCHEMES.iter().find(|(scheme, _)| address.starts_with(scheme)).ok_or_else(wrong)?;
    let parts = address.split(',').map(|part| part.trim().trim_start_matches(scheme).trim_end_matches('/'));
    let servers: Vec<String> = parts.map(|part| format!("{url}{part}")).collect();
    let is_sound = |server: &String| {
        let uri: Option<http::Uri> = server.parse().ok();
        uri.is_some_and(|uri| uri.host().is_some() && uri.path().len() <= 1)
    };
    if servers.iter().all(is_sound) { Ok(servers) } else { Err(wrong()) }
}

fn row(space: &str, key: &str) -> String {
    format!("{ROOT}/rows/{space}/{key}")
}

fn open(space: &str, key: &str) -> String {
    format!("{ROOT}/open/{space}/{key}")
}

fn encoded(text: impl AsRef<[u8]>) -> String {
    STANDARD.encode(text)
}

impl Server {
    /// One request, with a new token if the old one is over.
    fn ask(&self, path: &str, body: &Value) -> Result<Value, Failed> {
        let mut fresh = false;
        loop {
            let token = self.token(fresh)?;
            match self.gateway.post(path, body, token.as_deref()) {
                Fate::Answered(200, value) => return Ok(value),
                Fate::Answered(status, value) => {
                    let code = value["code"].as_u64().unwrap_or(0);
                    let why = value["message"].as_str().unwrap_or("no reason given");
                    let why = format!("etcd answers {status}: {why}");
                    if code == NOT_FOUND {
                        self.leases.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    }
                    // Nothing was done: it may be asked again.
                    if code == UNAUTHENTICATED && self.login.is_some() && !fresh {
                        fresh = true;
                        continue;
                    }
                    let refused = REFUSALS.contains(&code);
                    return Err(if refused { Failed::Refused(why) } else { Failed::Unknown(why) });
                }
                Fate::NotSent(why) => return Err(Failed::Refused(why)),
                Fate::Unknown(why) => return Err(Failed::Unknown(why)),
            }
        }
    }

    fn token(&self, fresh: bool) -> Result<Option<String>, Failed> {
        let Some((name, password)) = &self.login else { return Ok(None) };
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh || token.is_none() {
            let body = json!({ "name": name, "password": password });
            let answer = self.gateway.post("/v3/auth/authenticate", &body, None);
            let found = match &answer {
                Fate::Answered(200, value) => value["token"].as_str().map(str::to_owned),
                _ => None,
            };
            // The row was not sent, whatever became of this.
            let found =
                found.ok_or_else(|| Failed::Refused("etcd takes no such name and password".to_owned()));
            *token = Some(found?);
        }
        Ok(token.clone())
    }

    /// A lease that outlives `kept`, shared by the rows of some seconds.
    fn lease(&self, kept: Duration) -> Result<String, Failed> {
        let seconds = (kept + SHARED_FOR).as_secs().next_multiple_of(STEP_SECONDS);
        {
            let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
            leases.retain(|_, (_, made)| made.elapsed() < SHARED_FOR);
            if let Some((id, _)) = leases.get(&seconds) {
                return Ok(id.clone());
            }
        }
        let made = Instant::now();
        let answer = self.ask("/v3/lease/grant", &json!({ "TTL": seconds.to_string(), "ID": "0" }));
        let answer = answer.map_err(|failed| match failed {
            // The row was not sent; a lease without rows ends by itself.
            Failed::Unknown(why) => Failed::Refused(why),
            failed => failed,
        })?;
        let id = answer["ID"].as_str().map(str::to_owned);
        let id = id.ok_or_else(|| Failed::Refused("etcd names no lease".to_owned()))?;
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(leases.entry(seconds).or_insert((id, made)).0.clone())
    }

    fn put(&self, write: &Write) -> Result<Version, Failed> {
        let lease = self.lease(write.kept)?;
        let (key, index) = (encoded(row(&write.space, &write.key)), encoded(open(&write.space, &write.key)));
        let compare = match &write.expected {
            None => json!({ "key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0" }),
            Some(version) => {
                let revision = String::from_utf8_lossy(&version.0);
                json!({ "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": revision })
            }
        };
        let listed = match write.open_until_ms {
            Some(until_ms) => json!({ "request_put": {
                "key": index, "value": encoded(until_ms.to_string()), "lease": lease } }),
            None => json!({ "request_delete_range": { "key": index } }),
        };
        let put = json!({ "request_put": { "key": key, "value": encoded(&write.value), "lease": lease } });
        let answer = self.ask("/v3/kv/txn", &json!({ "compare": [compare], "success": [put, listed] }))?;
        judge(&answer)
    }

    fn range(&self, body: &Value) -> Result<Vec<Value>, String> {
        let answer = self.ask("/v3/kv/range", body).map_err(|failed| match failed {
            Failed::Refused(why) | Failed::Unknown(why) => why,
            Failed::Conflict => "a conflict while reading".to_owned(),
        })?;
        if answer["header"].is_null() {
            return Err("etcd's answer has no header".to_owned());
        }
        Ok(answer["kvs"].as_array().cloned().unwrap_or_default())
    }

    fn get(&self, key: &str) -> Result<Option<Found>, String> {
        let rows = self.range(&json!({ "key": encoded(key) }))?;
        let Some(row) = rows.first() else { return Ok(None) };
        let revision = row["mod_revision"].as_str().ok_or("a row without a revision")?;
        let value = decoded(&row["value"]).ok_or("a row without a value")?;
        Ok(Some(Found { value: value.into(), version: Version(Bytes::copy_from_slice(revision.as_bytes())) }))
    }

    fn overdue(&self, prefix: &str, now_ms: i64) -> Result<Vec<String>, String> {
        // The character behind a slash ends the range.
        let end = format!("{}0", prefix.trim_end_matches('/'));
        let limit = MOST_OPEN.to_string();
        let rows =
            self.range(&json!({ "key": encoded(prefix), "range_end": encoded(end), "limit": limit }))?;
        let overdue = rows.iter().filter_map(|row| {
            let until_ms: i64 = String::from_utf8(decoded(&row["value"])?).ok()?.parse().ok()?;
            let key = String::from_utf8(decoded(&row["key"])?).ok()?;
            (until_ms < now_ms).then(|| key.strip_prefix(prefix).map(str::to_owned))?
        });
        Ok(overdue.collect())
    }
}

fn decoded(value: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(value.as_str()?).ok()
}

/// What a transaction's answer says; the revision is that of every row it wrote.
fn judge(answer: &Value) -> Result<Version, Failed> {
    let Some(revision) = answer["header"]["revision"].as_str() else {
        return Err(Failed::Unknown("etcd's answer has no revision".to_owned()));
    };
    // The gateway leaves out what is false.
    if answer["succeeded"].as_bool().unwrap_or(false) {
        Ok(Version(Bytes::copy_from_slice(revision.as_bytes())))
    } else {
        Err(Failed::Conflict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_of_one_scheme_without_passwords() {
        let all = servers("etcd://a:2379,b:2379, etcd://c:2379/").expect("three of them");
        assert_eq!(all, ["http://a:2379", "http://b:2379", "http://c:2379"]);
        assert_eq!(servers("etcds://a:2379").expect("one"), ["https://a:2379"]);
        for wrong in ["etcd://", "etcd://a:2379/x", "etcd://me:secret@a:2379"] {
            let error = servers(wrong).expect_err("no address");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_password_is_not_sent_in_the_clear() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["username", "password"] {
            std::fs::write(dir.path().join(name), "secret").expect("written");
        }
        let error = EtcdRows::new("etcd://a:2379", Some(dir.path())).err().expect("refused");
        assert!(error.contains("etcds://") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn an_answer_that_does_not_say_what_it_did_is_unknown() {
        let granted = judge(&json!({ "header": { "revision": "7" }, "succeeded": true }));
        assert_eq!(granted, Ok(Version(Bytes::from_static(b"7"))));
        assert_eq!(judge(&json!({ "header": { "revision": "7" } })), Err(Failed::Conflict));
        assert!(matches!(judge(&json!({ "succeeded": true })), Err(Failed::Unknown(_))));
    }
}
