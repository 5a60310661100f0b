//! Crashes, partitions, stopped processes: real servers, seeded bugs, an outside witness.
//!
//! Needs the product's binaries built with the `testkit` feature: crash points and seeded bugs.

#[path = "../real/support/mod.rs"]
mod support;

mod bugs;
mod cluster;
mod function;
mod group;
mod kills;
mod servers;
