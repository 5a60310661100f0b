//! Kinesis: so far the resource alone. A KinesisTrigger is read and checked, and its status says that nothing serves it.
//! Must never open a connection.

pub mod command;
pub mod spec;
