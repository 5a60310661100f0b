//! The companion controller: makes the Kubernetes objects that Functions, HTTPTriggers and CronJobTriggers stand for,
//! keeps them so, and says in conditions what it found. Frees what Kubeless left behind. Must never call a function or touch an
//! event.
//!
//! One way through the room: `run` leads or waits, `drive` watches one kind and queues its objects, `reconcile` passes
//! over one object, `release` frees it from Kubeless's finalizers, `desired` says what should exist, `apply` makes it so, `status` and `events` tell.

mod apply;
pub mod args;
mod cache;
pub mod context;
pub mod desired;
mod drive;
mod error;
mod events;
mod live;
mod location;
pub mod permissions;
mod reconcile;
mod release;
mod run;
mod served;
mod settings;
mod status;

pub use self::{
    apply::MANAGER,
    run::{Error, run, serve},
};
