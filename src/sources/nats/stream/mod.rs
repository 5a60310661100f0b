//! JetStream: a durable pull consumer whose state is kept by three servers. It delivers a message once (`max_deliver: 1`), and
//! only after a majority knows of it: the delivery is the claim. The acknowledgement is the outcome; what ends without one is
//! named by the server after `ack_wait`. With fewer copies the server may forget a delivery and make it again: one dispatcher
//! at a time then reads, and claims what it was delivered in a register of ours. Must never take the word of such a server
//! for a claim.

mod acks;
mod consumer;
mod delivery;
mod doubts;
mod ending;
mod holder;
mod pulls;
mod row;
mod seen;
mod single;
mod taking;
mod thread;

pub use consumer::{Plan, REPLICAS};
pub use single::Register;
pub use thread::StreamThread;
