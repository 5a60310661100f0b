//! The invoker against misbehaving functions on loopback: what is delivered, what is tried again, what is final.

mod answers;
mod connections;
mod h2c;
mod property;
mod support;
