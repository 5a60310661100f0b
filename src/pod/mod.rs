//! What our image does inside the Pods of functions: `prepare` lays a function's files out before its runtime starts,
//! `tick` calls a function once from a scheduled Job. Must never hand anything that a user wrote to a shell, know the
//! cluster, or run with more rights than the function itself has.

pub mod prepare;
pub mod tick;

pub use prepare::hex;
