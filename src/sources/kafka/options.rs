//! Section `[sources.kafka]` of the dispatcher's configuration and Kubeless's environment names. Must never hold a
//! secret: credentials are files, named by the trigger and read when a client is made.

use crate::config::quantity::{bytes, duration};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// Every option of this source with its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Brokers for triggers that name none. `KAFKA_BROKERS` overrides it, as in Kubeless.
    pub bootstrap_servers: String,
    /// Folder of credentials: `<dir>/<name>/{username,password,ca.crt,tls.crt,tls.key,...}`.
    pub credentials_dir: PathBuf,
    /// Time without heartbeats after which the group takes a member's partitions away.
    #[serde(with = "duration")]
    pub session_timeout: Duration,
    /// Interval of heartbeats.
    #[serde(with = "duration")]
    pub heartbeat_interval: Duration,
    /// Time without polls after which a member leaves by itself; also the time the group waits in a rebalance.
    #[serde(with = "duration")]
    pub max_poll_interval: Duration,
    /// How long a revoked partition's calls are waited for before they end as `unanswered`.
    #[serde(with = "duration")]
    pub revoke_drain: Duration,
    /// Settled entries leave the register at least this often.
    #[serde(with = "duration")]
    pub flush_interval: Duration,
    /// How long the record of an inherited entry is looked for before it is named without its id.
    #[serde(with = "duration")]
    pub naming_patience: Duration,
    /// Records that wait unclaimed per subscription; a partition with a quarter of them is paused.
    pub max_waiting: usize,
    /// Records taken from the client by one round.
    pub max_poll_records: usize,
    /// Bytes that the client may fetch ahead per subscription.
    #[serde(with = "bytes")]
    pub prefetch_bytes: u64,
    /// Open, inherited and parked entries per partition in the register.
    pub register_entries: usize,
    /// Characters of a register that claims; a take-over may need 4096, the default of the broker's
    /// offset.metadata.max.bytes.
    pub metadata_chars: usize,
    /// Largest record body.
    #[serde(with = "bytes")]
    pub max_body_bytes: u64,
    /// Bytes of events over all subscriptions of the process; set from `memory.max_event_bytes`.
    #[serde(skip)]
    pub memory_bytes: usize,
    /// Static membership: `group.instance.id`; empty for none. Must be unique per replica.
    pub group_instance_id: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bootstrap_servers: String::new(),
            credentials_dir: PathBuf::from("/etc/kubeless/credentials"),
            session_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(2),
            max_poll_interval: Duration::from_secs(300),
            revoke_drain: Duration::from_secs(30),
            flush_interval: Duration::from_millis(250),
            naming_patience: Duration::from_secs(20),
            max_waiting: 4096,
            max_poll_records: 1024,
            prefetch_bytes: 8 << 20,
            register_entries: 256,
            metadata_chars: 2048,
            max_body_bytes: 1 << 20,
            memory_bytes: 256 << 20,
            group_instance_id: String::new(),
        }
    }
}

/// Why the section cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key is unknown or has the wrong form.
    #[error("[sources.kafka]: {0}")]
    Form(#[from] toml::de::Error),
    /// A value is out of range.
    #[error("[sources.kafka] {key} = {value}: {rule}")]
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
    /// Reads the section, then the environment (`KAFKA_BROKERS`).
    ///
    /// # Errors
    /// An unknown key, a wrong form, or a value out of range.
    pub fn read(table: Option<&toml::Table>, env: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let mut options: Self = match table {
            Some(table) => table.clone().try_into()?,
            None => Self::default(),
        };
        if let Some(brokers) = env("KAFKA_BROKERS").filter(|b| !b.is_empty()) {
            options.bootstrap_servers = brokers;
        }
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), Error> {
        let range = |ok: bool, key, value: String, rule| {
            if ok { Ok(()) } else { Err(Error::Range { key, value, rule }) }
        };
        let seconds = |d: Duration| format!("{d:?}");
        let (session, drain) = (self.session_timeout, self.revoke_drain);
        let allowed = Duration::from_secs(1)..=Duration::from_secs(1800);
        range(
            allowed.contains(&session),
            "session_timeout",
            seconds(session),
            "1s to 30m, within the broker's group.min.session.timeout.ms (6s) and group.max.session.timeout.ms",
        )?;
        let heartbeat = self.heartbeat_interval;
        range(
            heartbeat * 3 <= session,
            "heartbeat_interval",
            seconds(heartbeat),
            "at most a third of session_timeout",
        )?;
        // N4: the drain must end well before the group gives up on this member.
        range(
            drain < self.max_poll_interval / 2,
            "revoke_drain",
            seconds(drain),
            "below half of max_poll_interval",
        )?;
        let entries = self.register_entries;
        range((16..=256).contains(&entries), "register_entries", entries.to_string(), "16 to 256")?;
        let chars = self.metadata_chars;
        range((256..=4096).contains(&chars), "metadata_chars", chars.to_string(), "256 to 4096")?;
        range(self.max_waiting >= 64, "max_waiting", self.max_waiting.to_string(), "at least 64")?;
        range(self.max_poll_records >= 1, "max_poll_records", self.max_poll_records.to_string(), "at least 1")
    }

    /// How long a commit's answer is waited for: librdkafka itself defers a commit for up to a session (1.1).
    pub fn commit_wait(&self) -> Duration {
        self.session_timeout
    }
}
