//! Kubeless: events from Kafka (and other sources) to functions over HTTP, at most once per
//! (trigger, function, event).
//!
//! The way of one event, in the order of the modules below: a [`sources`] thread decodes a record into an
//! [`event::Event`] and hands it to [`dispatch`], which judges it (filter, deduplication window in [`claims`]),
//! waits until [`router`] knows a ready endpoint and a permit is free, has the source write the claim durably,
//! and only then gives a [`claims::Claimed`] to the [`invoker`]. Each event ends in exactly one
//! [`ledger::Outcome`]. `docs/ARCHITECTURE.md` walks the same way with the invariants.

// L0: no knowledge of the rest
pub mod clock;
pub mod event;
pub mod shutdown;
pub mod telemetry;
pub mod testkit;
// L1: what users write, what a cluster looks like, how events end, what runs inside function Pods
pub mod api;
pub mod cluster;
pub mod config;
pub mod ledger;
pub mod pod;
// L2: strangers to one another
pub mod claims;
pub mod invoker;
pub mod register;
pub mod router;
pub mod status;
// L3: the only room that sees claims, router and invoker together
pub mod dispatch;
// L4
pub mod admin;
pub mod cli;
pub mod controller;
pub mod local;
pub mod sources;
// L5: wiring
pub mod daemon;
