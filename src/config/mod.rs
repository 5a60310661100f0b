//! One typed configuration value, read once, handed down by reference. Must never be a global, and never hold a
//! default that config/dispatcher.toml does not show.

mod args;
mod check;
mod load;
mod model;
pub mod quantity;

pub use self::{
    args::ConfigArgs,
    load::{Checks, Error, Origin, Override, Problem, dump, keys, load, variable_of},
    model::{
        AdminConfig, CredentialsOption, DispatcherConfig, EndpointsOption, InvokerConfig, JournalConfig,
        KubernetesConfig, MemoryConfig, ShutdownConfig, StatusConfig,
    },
};
