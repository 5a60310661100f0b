//! `kubeless version`: what this program is. Must never contact anything.

use crate::{
    cli::{
        Exit,
        output::{self, Format},
    },
    telemetry::VERSION,
};
use std::io::Write;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut out = output::stdout();
    match args.output {
        Format::Json | Format::Yaml => {
            let value =
                serde_json::json!({ "client": { "version": VERSION }, "resources": "kubeless.io/v1beta1" });
            output::document(&mut out, args.output, &value)?;
        }
        Format::Table | Format::Name => writeln!(out, "kubeless {VERSION}")?,
    }
    Ok(Exit::Ok)
}
