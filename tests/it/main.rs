//! Fast tests: no outside process, no network beyond loopback, no sleeps as synchronisation.

mod admin;
mod backoff;
mod cli;
mod cli_functions;
mod compatibility;
mod config;
mod crds;
mod cron_zones;
mod decode;
mod desired;
mod docs;
mod endpoints;
mod filter;
mod fuzz_bodies;
mod headers;
mod install;
mod install_roles;

mod invoker;
mod journal;
mod kubeless_config;
mod lanes;
mod manifests;
mod monitoring;
mod prepare;
mod register;
mod resources;
mod router;
mod status;
mod tidy;
mod watch;
mod window;
