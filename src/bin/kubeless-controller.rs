//! The companion controller, and what its image does inside the Pods of functions. Wiring only.

use clap::{Parser, Subcommand};
use kubeless::{
    controller::{self, args::ControllerArgs},
    pod::{prepare, tick},
    shutdown::Shutdown,
    sources::TRIGGERS,
    telemetry,
};
use std::{process::ExitCode, time::Duration};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for a wrong flag, variable or configuration (sysexits EX_USAGE).
const USAGE: u8 = 64;
/// How long stopping may take before it is given up.
const GRACE: Duration = Duration::from_secs(25);

/// Makes workloads of Functions, and keeps them so.
///
/// Example: kubeless-controller --controllers function,http,cronjob --namespace kubeless
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    in_pod: Option<InPod>,
    #[command(flatten)]
    controller: ControllerArgs,
}

#[derive(Subcommand)]
enum InPod {
    /// Lays a function's files out before its runtime starts (an init container of every function).
    Prepare(prepare::PrepareArgs),
    /// Calls a function once at a scheduled time (the Pod of a cron trigger's Job).
    Tick(tick::TickArgs),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.in_pod {
        Some(InPod::Prepare(arguments)) => ended(prepare::run(&arguments)),
        Some(InPod::Tick(arguments)) => ended(tick::run(&arguments, &mut std::io::stdout())),
        None => control(&arguments.controller),
    }
}

fn control(arguments: &ControllerArgs) -> ExitCode {
    let options = match arguments.log_options() {
        Ok(options) => options,
        Err(error) => return complain(&error, USAGE),
    };
    if let Err(error) = telemetry::init(&options) {
        return complain(&error, USAGE);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, 1),
    };
    runtime.block_on(async {
        let connection = match arguments.connect.open("kubeless-controller").await {
            Ok(connection) => connection,
            Err(error) => return complain(&error, USAGE),
        };
        let shutdown = Shutdown::new();
        let signals = match shutdown.listen(Some(GRACE)) {
            Ok(signals) => tokio::spawn(signals),
            Err(error) => return complain(&error, 1),
        };
        let served = tokio::select! {
            served = controller::serve(arguments, TRIGGERS, connection, shutdown.clone()) => ended(served),
            () = shutdown.aborting() => complain(&"stopped at once", 1),
        };
        shutdown.abort_now();
        let _ = signals.await;
        served
    })
}

fn ended<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, 1),
    }
}

fn complain(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("kubeless-controller: {error}");
    ExitCode::from(code)
}
