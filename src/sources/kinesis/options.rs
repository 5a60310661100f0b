//! Section `[sources.kinesis]` of the dispatcher's configuration. Must never hold a secret: credentials are named by the
//! trigger, or found by Amazon's own chain (environment, profile, Pod or instance identity).

use crate::{
    config::quantity::{bytes, duration},
    register::Choice,
};
use serde::{Deserialize, Serialize};
use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

/// Where the register is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Register {
    /// In Leases where objects come from a cluster, else in a folder.
    #[default]
    Auto,
    /// In Leases of the dispatcher's own namespace.
    Leases,
    /// In files of `register_dir`.
    Folder,
    /// In the DynamoDB table `register_table`.
    DynamoDb,
}

impl Register {
    /// The same among the places that all sources have; `None`: it is one of our own.
    pub fn common(self) -> Option<Choice> {
        match self {
            Self::Auto => Some(Choice::Auto),
            Self::Leases => Some(Choice::Leases),
            Self::Folder => Some(Choice::Folder),
            Self::DynamoDb => None,
        }
    }
}

/// Every option of this source with its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Folder of credentials: `<dir>/<name>/{aws_access_key_id,aws_secret_access_key,aws_session_token}`.
    pub credentials_dir: PathBuf,
    /// URL of the service for triggers without `spec.endpoint`; empty: Amazon's own of their region.
    pub endpoint: String,
    /// `endpoint` knows nobody: requests to it carry a key pair that means nothing, not the trigger's.
    pub anonymous: bool,
    /// Where the register is kept.
    pub register: Register,
    /// Folder of the register; empty: `kinesis` in the state folder. Dispatchers that share a stream share it.
    pub register_dir: PathBuf,
    /// Name of the table of `register = "dynamodb"`; made if it is not there and that is allowed.
    pub register_table: String,
    /// Region of that table; empty: the trigger's.
    pub register_region: String,
    /// URL of DynamoDB; empty: Amazon's own of the region.
    pub register_endpoint: String,
    /// A holder whose row stood still for so long has lost its shard.
    #[serde(with = "duration")]
    pub failover_time: Duration,
    /// How often a shard is read; the service allows five reads a second for all readers together.
    #[serde(with = "duration")]
    pub poll_interval: Duration,
    /// How often the stream's shards are listed; also whenever one ends.
    #[serde(with = "duration")]
    pub shard_sync_interval: Duration,
    /// Settled entries leave the register at least this often.
    #[serde(with = "duration")]
    pub flush_interval: Duration,
    /// How long the record of an inherited entry is looked for before it is named without its id.
    #[serde(with = "duration")]
    pub naming_patience: Duration,
    /// How long calls are waited for when a shard goes to another dispatcher, before they end as `unanswered`.
    #[serde(with = "duration")]
    pub handover_drain: Duration,
    /// Longest wait for a connection to the service.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// Longest wait for an answer of the service.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// Records of one read.
    pub max_read_records: usize,
    /// Records that wait unclaimed per shard; a shard with so many is not read.
    pub max_waiting: usize,
    /// Open, inherited and parked entries of a shard in the register.
    pub register_entries: usize,
    /// Largest record body.
    #[serde(with = "bytes")]
    pub max_body_bytes: u64,
    /// Bytes of events over all subscriptions of the process; set from `memory.max_event_bytes`.
    #[serde(skip)]
    pub memory_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            credentials_dir: PathBuf::from("/etc/kubeless/credentials"),
            endpoint: String::new(),
            anonymous: false,
            register: Register::Auto,
            register_dir: PathBuf::new(),
            register_table: "kubeless-kinesis".to_owned(),
            register_region: String::new(),
            register_endpoint: String::new(),
            failover_time: Duration::from_secs(10),
            poll_interval: Duration::from_millis(250),
            shard_sync_interval: Duration::from_secs(30),
            flush_interval: Duration::from_millis(500),
            naming_patience: Duration::from_secs(20),
            handover_drain: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(10),
            max_read_records: 1000,
            max_waiting: 2000,
            register_entries: 256,
            max_body_bytes: 10 << 20,
            memory_bytes: 256 << 20,
        }
    }
}

/// Why the section cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key is unknown or has the wrong form.
    #[error("[sources.kinesis]: {0}")]
    Form(#[from] toml::de::Error),
    /// A value is out of range.
    #[error("[sources.kinesis] {key} = {value}: {rule}")]
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
    /// Reads the section.
    ///
    /// # Errors
    /// An unknown key, a wrong form, or a value out of range.
    pub fn read(table: Option<&toml::Table>) -> Result<Self, Error> {
        let options: Self = match table {
            Some(table) => table.clone().try_into()?,
            None => Self::default(),
        };
        let ms = Duration::from_millis;
        let time = |key, value: Duration, range: RangeInclusive<Duration>, rule| {
            if range.contains(&value) { Ok(()) } else { Err(refused(key, format!("{value:?}"), rule)) }
        };
        let count = |key, value: usize, range: RangeInclusive<usize>, rule| {
            if range.contains(&value) { Ok(()) } else { Err(refused(key, value.to_string(), rule)) }
        };
        let (second, hour) = (ms(1000), ms(3_600_000));
        time("failover_time", options.failover_time, second..=hour, "1s to 1h")?;
        // More often than five times a second is refused by the service.
        time("poll_interval", options.poll_interval, ms(200)..=ms(60_000), "200ms to 1m")?;
        time("shard_sync_interval", options.shard_sync_interval, second..=hour, "1s to 1h")?;
        time("flush_interval", options.flush_interval, ms(10)..=ms(60_000), "10ms to 1m")?;
        time("naming_patience", options.naming_patience, ms(0)..=hour, "at most 1h")?;
        time("handover_drain", options.handover_drain, ms(0)..=hour, "at most 1h")?;
        time("connect_timeout", options.connect_timeout, ms(10)..=ms(60_000), "10ms to 1m")?;
        time("request_timeout", options.request_timeout, ms(100)..=ms(300_000), "100ms to 5m")?;
        count("max_read_records", options.max_read_records, 1..=10_000, "1 to 10000")?;
        count("max_waiting", options.max_waiting, 64..=1_000_000, "64 to 1000000")?;
        count("register_entries", options.register_entries, 16..=1024, "16 to 1024")?;
        options.check_table()?;
        Ok(options)
    }

    fn check_table(&self) -> Result<(), Error> {
        let name = &self.register_table;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if !(3..=255).contains(&name.len()) || !name.bytes().all(plain) {
            let rule = "3 to 255 of a-z, A-Z, 0-9, '_', '-' and '.', as DynamoDB names tables";
            return Err(refused("register_table", name.clone(), rule));
        }
        let url = &self.register_endpoint;
        if !url.is_empty() && !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(refused(
                "register_endpoint",
                url.clone(),
                "a URL, for example http://localhost:8000",
            ));
        }
        Ok(())
    }
}

fn refused(key: &'static str, value: String, rule: &'static str) -> Error {
    Error::Range { key, value, rule }
}
