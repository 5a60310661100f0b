//! What every source must do, whatever its protocol: one suite, run against a real server of each. A new source implements
//! [`Source`] and adds a line to `sources.rs`. Must never know a protocol: what one of them cannot promise it declares.

mod bugs;
mod cron;
mod custom;
mod http;
mod jetstream;
mod kafka;
mod kinesis;
pub mod nats;
mod properties;
pub mod run;
mod sources;

pub use jetstream::{JetStream, SingleCopy};
pub use nats::Nats;
pub use properties::Property;
pub use run::Run;
use std::{ops::Range, path::Path, time::Duration};

/// One source with a server and a fresh topic (subject, stream) of its own.
pub trait Source: Sized {
    /// Whether events are kept for a subscription that is not connected. A source that does not loses them, and the suite
    /// then publishes to a connected subscription and allows losses where the protocol has them.
    const KEEPS: bool;

    /// Whether what comes while the trigger is paused is called for later.
    const KEEPS_WHILE_PAUSED: bool = Self::KEEPS;

    /// Whether the server's delivery is the claim: what a killed server had sent and nobody received is then in doubt.
    const CLAIMS_BY_DELIVERY: bool = false;

    /// Most events that are kept for a subscription; of more, the oldest end as `missed`.
    const HOLDS: usize = usize::MAX;

    /// Thousands of events with 8 kB each that a subscription is flooded with, and MiB that it may hold.
    const FLOOD: usize = 8;

    /// Kind of its trigger.
    const KIND: &'static str;

    /// Properties that cannot mean anything here, each with the reason, which the suite prints.
    const WITHOUT: &'static [(Property, &'static str)] = &[];

    /// Longest wait for what a property promises; usually far less.
    const PATIENCE: Duration = run::LIMIT;

    /// Beside others on a server that no test harms.
    fn shared() -> Self;

    /// On a server of its own, which the test may kill.
    fn alone() -> Self;

    /// Lines of the trigger's spec that name the server, the topic and the functions (indented by two spaces). A group
    /// `delivery` comes last: what a test adds to it follows.
    fn spec(&self) -> String;

    /// Further arguments of the dispatcher.
    fn arguments(&self) -> Vec<String> {
        Vec::new()
    }

    /// Environment of the dispatcher.
    fn environment(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The one state folder of all dispatchers, where the source keeps what they share. Without it each has its own.
    fn state(&self) -> Option<&Path> {
        None
    }

    /// Whether a line of the journal is about an offer whose event comes again (it was refused, or it is a repeat), not about
    /// how an event ended.
    fn is_offer(_line: &serde_json::Value) -> bool {
        false
    }

    /// Publishes one event for each number, with `padding` bytes of data; returns when the server has them.
    fn publish(&mut self, numbers: Range<usize>, padding: usize);

    /// Id of the event that was published for a number.
    fn id(&self, number: usize) -> String {
        format!("e-{number}")
    }

    /// Publishes one message that cannot become an event.
    fn poison(&mut self);

    /// SIGKILL to the server.
    fn kill_server(&mut self);

    /// The server is back with what it had.
    fn restart_server(&mut self);

    /// Returns when events count again after a pause, where that takes the source more than being connected.
    fn resumed(&self) {}
}

/// The lines of a spec that select the function of the suite by its label.
pub const BY_LABEL: &str = "  functionSelector:\n    matchLabels:\n      app: witness\n";
