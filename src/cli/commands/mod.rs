//! One file for each command: its arguments and what it does. Must never print talk on standard output.

pub mod child;
pub mod crds;
pub mod dev;
pub mod events;
pub mod send;
pub mod validate;
pub mod version;
