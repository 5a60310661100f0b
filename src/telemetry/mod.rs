//! Logs and metrics: the one room that touches the `metrics` facade and the tracing subscriber.
//! Must never know an event, a trigger or a configuration: it takes words and numbers.

mod controller;
mod handles;
mod logging;
pub mod metrics;
mod process;
mod registry;

pub use self::{
    controller::{ControllerMetrics, LeaderMetrics},
    handles::{ProcessMetrics, SubscriptionMetrics, WatchMetrics},
    logging::{Error as LogError, LogFormat, LogOptions, init},
    metrics::WATCH_ENDINGS,
    registry::{AlreadyInstalled, Registry},
};
pub use ::metrics::{Counter, Gauge, Histogram};

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
