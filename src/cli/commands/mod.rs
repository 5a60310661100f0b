//! One file for each command: its arguments and what it does. Must never print talk on standard output.

pub mod autoscale;
pub mod check;
pub mod child;
pub mod completion;
pub mod crds;
pub mod cron;
pub mod delete;
pub mod dev;
pub mod events;
pub mod function;
pub mod install;
pub mod send;
pub mod server_config;
pub mod topic;
pub mod trigger;
pub mod validate;
pub mod version;
