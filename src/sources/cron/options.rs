//! Section `[sources.cron]` of the dispatcher's configuration. Must never hold what belongs to a trigger.

use crate::config::quantity::duration;
use serde::{Deserialize, Serialize};
use std::{ops::RangeInclusive, time::Duration};

/// Every option of this source with its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// How far this machine's clock may be from the API server's before nothing is claimed.
    #[serde(with = "duration")]
    pub max_clock_skew: Duration,
    /// How long a claimed call may wait for its start; one that could not start by then is not made.
    #[serde(with = "duration")]
    pub start_window: Duration,
    /// Added to the end of the longest call before others name it in doubt: clocks, and the way of the answer.
    #[serde(with = "duration")]
    pub doubt_margin: Duration,
    /// How long nobody may have looked (a restart, say) before what came due meanwhile counts as missed.
    #[serde(with = "duration")]
    pub restart_grace: Duration,
    /// Longest wait for one answer of the API server.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_clock_skew: Duration::from_secs(2),
            start_window: Duration::from_secs(10),
            doubt_margin: Duration::from_secs(10),
            restart_grace: Duration::from_secs(60),
            request_timeout: Duration::from_secs(5),
        }
    }
}

/// Why the section cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key is unknown or has the wrong form.
    #[error("[sources.cron]: {0}")]
    Form(#[from] toml::de::Error),
    /// A value is out of range.
    #[error("[sources.cron] {key} = {value:?}: {rule}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: Duration,
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
        let second = Duration::from_secs(1);
        let check = |key, value: Duration, allowed: RangeInclusive<Duration>, rule| {
            if allowed.contains(&value) { Ok(()) } else { Err(Error::Range { key, value, rule }) }
        };
        check("max_clock_skew", options.max_clock_skew, second..=60 * second, "1s to 60s")?;
        check("start_window", options.start_window, second..=60 * second, "1s to 60s")?;
        let margin = 2 * options.max_clock_skew..=600 * second;
        check("doubt_margin", options.doubt_margin, margin, "twice max_clock_skew to 10m")?;
        check("restart_grace", options.restart_grace, Duration::ZERO..=3600 * second, "0s to 1h")?;
        let timeout = Duration::from_millis(100)..=options.start_window;
        check("request_timeout", options.request_timeout, timeout, "100ms to start_window")?;
        Ok(options)
    }
}
