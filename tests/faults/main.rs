//! Crashes, partitions, stopped processes: real servers, seeded bugs, an outside witness.

#[path = "../real/support/mod.rs"]
mod support;
