//! Kafka source.

pub mod decode;
pub mod ffi;
pub mod protocol;
pub mod register;
pub mod spec;
