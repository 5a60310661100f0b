//! Section `[sources.custom]` of the dispatcher's configuration. Must never hold what belongs to a trigger.

use crate::{
    config::quantity::{bytes, duration},
    sources::push::{Holding, front, stores::Store},
};
use serde::{Deserialize, Serialize};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// Every option of this source with its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Where events come in, for all triggers; bound when the first one is served.
    pub listen: SocketAddr,
    /// Where claims are kept.
    pub store: Store,
    /// Folder of what the servers of the store want to know, one file a value; empty: nothing.
    pub store_credentials: PathBuf,
    /// Folder of credentials, where they are mounted as files: `<dir>/<name>/token`.
    pub credentials_dir: PathBuf,
    /// Connections at once; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Requests at once, over all triggers; more are answered with 503.
    pub max_requests: usize,
    /// Events of one batch; a longer one is answered with 413.
    pub max_batch: usize,
    /// Events of one request that are offered to the functions at once.
    pub max_at_once: usize,
    /// Events of one trigger and function that wait for it; more may come again.
    pub max_waiting: usize,
    /// How long one waits before it may come again.
    #[serde(with = "duration")]
    pub max_wait: Duration,
    /// Bytes of a request's head.
    #[serde(with = "bytes")]
    pub max_header_bytes: u64,
    /// Bytes of a request's body.
    #[serde(with = "bytes")]
    pub max_body_bytes: u64,
    /// Longest wait for the head, and then for the body, of a request.
    #[serde(with = "duration")]
    pub read_timeout: Duration,
    /// How long a claimed call may wait for its start.
    #[serde(with = "duration")]
    pub start_window: Duration,
    /// Added to the end of the longest call before an open claim is named in doubt.
    #[serde(with = "duration")]
    pub doubt_margin: Duration,
    /// Bytes of events over all subscriptions of the process; set from `memory.max_event_bytes`.
    #[serde(skip)]
    pub memory_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8081)),
            store: Store::File,
            store_credentials: PathBuf::new(),
            credentials_dir: PathBuf::from("/etc/kubeless/credentials"),
            max_connections: 1024,
            max_requests: 512,
            max_batch: 256,
            max_at_once: 64,
            max_waiting: 256,
            max_wait: Duration::from_secs(10),
            max_header_bytes: 32 << 10,
            max_body_bytes: 4 << 20,
            read_timeout: Duration::from_secs(30),
            start_window: Duration::from_secs(10),
            doubt_margin: Duration::from_secs(10),
            memory_bytes: 256 << 20,
        }
    }
}

/// Why the section cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key is unknown or has the wrong form.
    #[error("[sources.custom]: {0}")]
    Form(#[from] toml::de::Error),
    /// A value is out of range.
    #[error("[sources.custom] {key}: write {rule}")]
    Range {
        /// The key.
        key: &'static str,
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
        let wrong = options.ranges().into_iter().find(|(_, fits, _)| !fits);
        wrong.map_or(Ok(options), |(key, _, rule)| Err(Error::Range { key, rule }))
    }

    /// Keys, whether their values are allowed, and what is.
    fn ranges(&self) -> [(&'static str, bool, &'static str); 11] {
        let count = |value: usize| (1..=1 << 20).contains(&value);
        let time = |value: Duration, least: u64, most: u64| {
            (Duration::from_millis(least)..=Duration::from_secs(most)).contains(&value)
        };
        const COUNT: &str = "1 to 1048576";
        [
            ("max_connections", count(self.max_connections), COUNT),
            ("max_requests", count(self.max_requests), COUNT),
            ("max_batch", (1..=10_000).contains(&self.max_batch), "1 to 10000"),
            ("max_at_once", (1..=4096).contains(&self.max_at_once), "1 to 4096"),
            ("max_waiting", count(self.max_waiting), COUNT),
            ("max_header_bytes", (8 << 10..=1 << 20).contains(&self.max_header_bytes), "8KiB to 1MiB"),
            ("max_body_bytes", (1..=64 << 20).contains(&self.max_body_bytes), "1B to 64MiB"),
            ("max_wait", time(self.max_wait, 0, 600), "0ms to 10m"),
            ("read_timeout", time(self.read_timeout, 100, 600), "100ms to 10m"),
            ("start_window", time(self.start_window, 1000, 60), "1s to 60s"),
            ("doubt_margin", time(self.doubt_margin, 0, 600), "0ms to 10m"),
        ]
    }

    /// What the listener is held to.
    pub fn limits(&self) -> front::Limits {
        front::Limits {
            listen: self.listen,
            max_connections: self.max_connections,
            max_requests: self.max_requests,
            max_header_bytes: usize::try_from(self.max_header_bytes).unwrap_or(usize::MAX),
            read_timeout: self.read_timeout,
        }
    }

    /// How much of a trigger may wait.
    pub fn holding(&self) -> Holding {
        Holding {
            max_waiting: self.max_waiting,
            max_wait: self.max_wait,
            memory_bytes: self.memory_bytes,
            start_window: self.start_window,
            doubt_margin: self.doubt_margin,
            // Nobody is told what a function said.
            kept_answer_bytes: 0,
        }
    }
}
