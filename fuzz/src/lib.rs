//! Bodies of the fuzz targets; `tests/it/fuzz_bodies.rs` runs the same functions on stable.

pub mod bodies;
