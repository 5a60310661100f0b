//! Section `[sources.nats]` of the dispatcher's configuration and Kubeless's environment name. Must never hold a secret
//! but the one that `NATS_URL` may carry, as Kubeless let it.

use crate::{
    config::quantity::{bytes, duration},
    register::Choice,
};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// Every option of this source with its default.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Servers for triggers that name none, several with commas. `NATS_URL` overrides it, as in Kubeless.
    pub url: String,
    /// Folder of credentials: `<dir>/<name>/{username,password,token,nkey,creds,ca.crt,tls.crt,tls.key}`.
    pub credentials_dir: PathBuf,
    /// Longest wait for a connection.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// Interval of pings; a server that misses two of them is gone.
    #[serde(with = "duration")]
    pub ping_interval: Duration,
    /// Messages of a subscription that wait for the function; what comes on top ends as `missed`.
    pub max_waiting: usize,
    /// How long the server keeps a request for messages of a stream.
    #[serde(with = "duration")]
    pub pull_expires: Duration,
    /// Beyond the longest call: how long a stream waits for an acknowledgement before it names the event.
    #[serde(with = "duration")]
    pub ack_margin: Duration,
    /// Where the register of streams with fewer than three copies is kept.
    pub register: Choice,
    /// Folder of that register; empty: `nats` in the state folder. Dispatchers that share a stream share it.
    pub register_dir: PathBuf,
    /// A dispatcher whose row of that register stood still for so long does not read its stream any more.
    #[serde(with = "duration")]
    pub failover_time: Duration,
    /// Largest message body.
    #[serde(with = "bytes")]
    pub max_body_bytes: u64,
    /// Largest answer of a function that goes out as a reply.
    #[serde(with = "bytes")]
    pub max_reply_bytes: u64,
    /// Bytes of events over all subscriptions of the process; set from `memory.max_event_bytes`.
    #[serde(skip)]
    pub memory_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: "nats://nats.nats-io.svc.cluster.local:4222".to_owned(),
            credentials_dir: PathBuf::from("/etc/kubeless/credentials"),
            connect_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(10),
            max_waiting: 65_536,
            pull_expires: Duration::from_secs(2),
            ack_margin: Duration::from_secs(30),
            register: Choice::Auto,
            register_dir: PathBuf::new(),
            failover_time: Duration::from_secs(10),
            max_body_bytes: 1 << 20,
            max_reply_bytes: 512 << 10,
            memory_bytes: 256 << 20,
        }
    }
}

/// Why the section cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key is unknown or has the wrong form.
    #[error("[sources.nats]: {0}")]
    Form(#[from] toml::de::Error),
    /// A value is out of range.
    #[error("[sources.nats] {key} = {value}: {rule}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
}

impl Options {
    /// Reads the section, then the environment (`NATS_URL`).
    ///
    /// # Errors
    /// An unknown key, a wrong form, or a value out of range.
    pub fn read(table: Option<&toml::Table>, env: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let mut options: Self = match table {
            Some(table) => table.clone().try_into()?,
            None => Self::default(),
        };
        if let Some(url) = env("NATS_URL").filter(|url| !url.is_empty()) {
            options.url = url;
        }
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), Error> {
        let range = |ok: bool, key, value: String, rule| {
            if ok { Ok(()) } else { Err(Error::Range { key, value, rule }) }
        };
        let between = |key, value: Duration, least: u64, most: u64, rule| {
            let allowed = Duration::from_millis(least)..=Duration::from_secs(most);
            range(allowed.contains(&value), key, format!("{value:?}"), rule)
        };
        between("connect_timeout", self.connect_timeout, 100, 300, "100ms to 5m")?;
        between("ping_interval", self.ping_interval, 100, 3600, "100ms to 1h")?;
        between("pull_expires", self.pull_expires, 1000, 60, "1s to 1m")?;
        between("ack_margin", self.ack_margin, 1000, 3600, "1s to 1h")?;
        between("failover_time", self.failover_time, 1000, 3600, "1s to 1h")?;
        let waiting = self.max_waiting;
        range((64..=1 << 24).contains(&waiting), "max_waiting", waiting.to_string(), "64 to 16777216")
    }
}
