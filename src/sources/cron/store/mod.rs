//! Where the register of a trigger is kept: one trait with three answers, in a cluster or in a local file. Must never
//! report a write as refused that may still take effect.

pub mod cluster;
pub mod file;

use super::{
    protocol::Answer,
    register::{View, Write},
};

/// What was found out about the clock of this machine by asking another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// How far the clocks are apart at least, in milliseconds: the answer says only the second, and took a while.
    pub at_least_ms: i64,
    /// When it was found out, by the boot clock.
    pub boot_ms: u64,
}

/// Why the register was not read, or what a write's answer was in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Nobody answers, or not in time.
    #[error("{0}")]
    Away(String),
    /// It is not there, or may not be touched.
    #[error("{0}")]
    Refused(String),
}

/// What was read, with what else is known of the trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The register.
    pub view: View,
    /// When the trigger was made, where that is known (seconds).
    pub created: Option<i64>,
}

/// The register of one trigger. Blocking; every wait is bounded.
pub trait Store: Send {
    /// Reads it as it is now, never from a cache.
    ///
    /// # Errors
    /// [`Trouble`].
    fn read(&mut self) -> Result<Found, Trouble>;

    /// Writes it if the version still stands. The words are for people and empty when all is well.
    fn write(&mut self, write: &Write) -> (Answer, String);

    /// What the last answer said about this machine's clock; `None`: nobody else's clock can be asked here.
    fn skew(&self) -> Option<Skew>;
}
