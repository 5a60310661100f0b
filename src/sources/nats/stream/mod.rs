//! JetStream: a durable pull consumer whose state is kept by three servers. It delivers a message once (`max_deliver: 1`), and
//! only after a majority knows of it: the delivery is the claim. The acknowledgement is the outcome; what ends without one is
//! named by the server after `ack_wait`. Must never read from a consumer with fewer than three replicas: one that falls back
//! delivers again, and nobody can tell.

mod acks;
mod consumer;
mod delivery;
mod doubts;
mod pulls;
mod thread;

pub use consumer::Plan;
pub use thread::StreamThread;
