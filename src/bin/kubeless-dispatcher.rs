//! The data-plane daemon. Wiring only.

use clap::Parser;
use kubeless::{cluster::client::Connect, config::ConfigArgs, daemon::Daemon, shutdown::Shutdown, telemetry};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for a wrong flag, variable or configuration (sysexits EX_USAGE).
const USAGE: u8 = 64;

/// Consumes events and invokes functions, at most once.
///
/// Objects come from the folders of --manifests, or, where none is named, from a cluster.
///
/// Example: kubeless-dispatcher --manifests ./manifests --state-dir ./state --admin-listen 127.0.0.1:9090
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    connect: Connect,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = match arguments.config.log_options() {
        Ok(options) => options,
        Err(error) => return complain(&error, USAGE),
    };
    if let Err(error) = telemetry::init(&options) {
        return complain(&error, USAGE);
    }
    let config = match arguments.config.load() {
        Ok(config) => config,
        Err(error) => return complain(&error, USAGE),
    };
    if arguments.config.dump_config {
        print!("{}", kubeless::config::dump(&config));
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, 1),
    };
    let grace = config.shutdown.grace;
    let result = runtime.block_on(async {
        let shutdown = Shutdown::new();
        let signals = tokio::spawn(shutdown.listen(Some(grace + std::time::Duration::from_secs(3)))?);
        let daemon = Daemon::build(config, &arguments.connect).await?;
        let result = daemon.run(shutdown.clone()).await;
        shutdown.abort_now();
        let _ = signals.await;
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, 1),
    }
}

fn complain(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("kubeless-dispatcher: {error}");
    ExitCode::from(code)
}
