//! What every source must do, whatever its protocol: one suite, run against a real server of each. A new source implements
//! [`Source`] and adds a line to `sources.rs`. Must never know a protocol: what one of them cannot promise it declares.

mod jetstream;
mod kafka;
pub mod nats;
mod properties;
pub mod run;
mod sources;

pub use jetstream::JetStream;
pub use nats::Nats;
pub use run::Run;
use std::ops::Range;

/// One source with a server and a fresh topic (subject, stream) of its own.
pub trait Source: Sized {
    /// Whether the server keeps events for a subscription that is not connected. One that does not loses them, and the suite
    /// then publishes to a connected subscription and allows losses where the protocol has them.
    const KEEPS: bool;

    /// Kind of its trigger.
    const KIND: &'static str;

    /// Beside others on a server that no test harms.
    fn shared() -> Self;

    /// On a server of its own, which the test may kill.
    fn alone() -> Self;

    /// Lines of the trigger's spec that name the server and the topic (indented by two spaces).
    fn spec(&self) -> String;

    /// Further arguments of the dispatcher.
    fn arguments(&self) -> Vec<String> {
        Vec::new()
    }

    /// Publishes one CloudEvent for each number, with the id `e-<number>` and `padding` bytes of data; returns when the server
    /// has them.
    fn publish(&mut self, numbers: Range<usize>, padding: usize);

    /// Publishes one message that cannot become an event.
    fn poison(&mut self);

    /// SIGKILL to the server.
    fn kill_server(&mut self);

    /// The server is back with what it had.
    fn restart_server(&mut self);
}
