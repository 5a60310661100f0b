//! What the cluster (or a folder of manifests) says exists: the index contract, manifests, and the value types
//! that the router publishes and the invoker consumes. Must never call a function or a broker.

pub mod access;
pub mod address;
pub mod changes;
pub mod client;
pub mod index;
pub mod lease;
pub mod manifests;
pub mod objects;
pub mod secrets;
pub mod target;
pub mod watch;
