//! Outages and rollouts on a real cluster under a steady load: API server, etcd, the function's Pods, the dispatcher's Pods, the controller. A
//! witness outside the cluster says what the function was called with, the journals on the node how each event ended. Must never
//! run two of these at once: they share the cluster that they harm.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

mod control_plane;
mod controller;
mod rollouts;
mod stage;
