//! Kafka source.

pub mod decode;
pub mod register;
