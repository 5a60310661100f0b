//! Kafka source.

pub mod decode;
pub mod register;
pub mod spec;
