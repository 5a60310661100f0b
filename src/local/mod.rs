//! Local mode (`kubeless dev DIR`): the dispatcher, the functions and, if need be, servers of events on this machine, from
//! the same manifests as a cluster. Must never write outside DIR/.kubeless and never leave a process behind.

mod banner;
pub mod child;
mod dispatcher;
mod echo;
mod endpoints;
mod functions;
mod instance;
mod layout;
mod nodejs;
mod output;
pub mod plan;
mod python;
mod runtime_files;
mod servers;
mod session;
mod tail;
mod workshop;

pub use servers::{Broker, Servers};
pub use session::{DevOptions, Error, Ground, run};
