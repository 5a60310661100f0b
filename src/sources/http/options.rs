//! Section `[sources.http]` of the dispatcher's configuration. Must never hold what belongs to a trigger.

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
    /// Where requests come in, for all triggers; bound when the first one is served.
    pub listen: SocketAddr,
    /// Where claims are kept.
    pub store: Store,
    /// Folder of what the servers of the store want to know, one file a value; empty: nothing.
    pub store_credentials: PathBuf,
    /// Folder of credentials, where they are mounted as files: `<dir>/<name>/token` or `key`.
    pub credentials_dir: PathBuf,
    /// Connections at once; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Requests at once, over all triggers; more are answered with 503.
    pub max_requests: usize,
    /// Requests of one trigger that wait for a free function; more are answered with 503.
    pub max_waiting: usize,
    /// How long one waits before it is answered with 503.
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
    /// Bytes of a function's answer that are handed on; a longer one is answered with 502.
    #[serde(with = "bytes")]
    pub max_answer_bytes: u64,
    /// Bytes of an answer's body that are kept for repeats.
    #[serde(with = "bytes")]
    pub kept_answer_bytes: u64,
    /// The same over all repeats of a trigger; beyond that only the status is kept.
    #[serde(with = "bytes")]
    pub kept_answers_bytes: u64,
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
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            store: Store::File,
            store_credentials: PathBuf::new(),
            credentials_dir: PathBuf::from("/etc/kubeless/credentials"),
            max_connections: 1024,
            max_requests: 512,
            max_waiting: 256,
            max_wait: Duration::from_secs(10),
            max_header_bytes: 32 << 10,
            max_body_bytes: 1 << 20,
            read_timeout: Duration::from_secs(30),
            max_answer_bytes: 1 << 20,
            kept_answer_bytes: 16 << 10,
            kept_answers_bytes: 64 << 20,
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
    #[error("[sources.http]: {0}")]
    Form(#[from] toml::de::Error),
    /// A value is out of range.
    #[error("[sources.http] {key} = {value}: {rule}")]
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
        options.check()?;
        Ok(options)
    }

    /// What the listener is held to.
    pub fn limits(&self) -> front::Limits {
        front::Limits {
            listen: self.listen,
            max_connections: self.max_connections,
            max_requests: self.max_requests,
            max_header_bytes: size(self.max_header_bytes),
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
            kept_answer_bytes: size(self.kept_answer_bytes),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let range = |ok: bool, key, value: String, rule| {
            if ok { Ok(()) } else { Err(Error::Range { key, value, rule }) }
        };
        let counts = [
            ("max_connections", self.max_connections),
            ("max_requests", self.max_requests),
            ("max_waiting", self.max_waiting),
        ];
        for (key, value) in counts {
            range((1..=1 << 20).contains(&value), key, value.to_string(), "1 to 1048576")?;
        }
        let sizes = [
            ("max_header_bytes", self.max_header_bytes, 8 << 10..=1 << 20, "8KiB to 1MiB"),
            ("max_body_bytes", self.max_body_bytes, 1..=64 << 20, "1B to 64MiB"),
            ("max_answer_bytes", self.max_answer_bytes, 1..=64 << 20, "1B to 64MiB"),
            ("kept_answer_bytes", self.kept_answer_bytes, 0..=512 << 10, "0B to 512KiB"),
            ("kept_answers_bytes", self.kept_answers_bytes, 0..=4 << 30, "0B to 4GiB"),
        ];
        for (key, value, allowed, rule) in sizes {
            range(allowed.contains(&value), key, format!("{value}B"), rule)?;
        }
        let times = [
            ("max_wait", self.max_wait, 0, 600, "0ms to 10m"),
            ("read_timeout", self.read_timeout, 100, 600, "100ms to 10m"),
            ("start_window", self.start_window, 1000, 60, "1s to 60s"),
            ("doubt_margin", self.doubt_margin, 0, 600, "0ms to 10m"),
        ];
        for (key, value, least, most, rule) in times {
            let allowed = Duration::from_millis(least)..=Duration::from_secs(most);
            range(allowed.contains(&value), key, format!("{value:?}"), rule)?;
        }
        Ok(())
    }
}

/// A configured number of bytes as the machine counts.
pub fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
