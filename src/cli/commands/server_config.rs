//! `kubeless get-server-config`: what the cluster's configuration says, first of all which runtimes functions may use.
//! Must never change it.

use crate::{
    api::runtimes::{Catalogue, Phase, Runtime, RuntimeVersion},
    cli::{
        Exit,
        commands::function::some,
        output::{self, Format, Table, talk},
        session::{Place, Session},
        system::{Runtimes, System},
    },
};
use serde::Serialize;
use std::io::Write;

const EXAMPLES: &str = "Examples:
  kubeless get-server-config
  kubeless get-server-config -o wide
  kubeless get-server-config -o name
";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Serialize)]
struct Row {
    runtime: String,
    dependencies: String,
    suffix: String,
    image: String,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    args.place.run(async |session| show(args.output, session).await)
}

async fn show(format: Format, session: &Session) -> anyhow::Result<Exit> {
    let system = System::find(session).await;
    let catalogue = match system.runtimes(session).await {
        Runtimes::Configured(catalogue) => {
            talk(&format!("configuration: ConfigMap {}/{}", system.namespace, system.config));
            catalogue
        }
        Runtimes::BuiltIn => {
            let (namespace, config) = (&system.namespace, &system.config);
            talk(&format!("there is no ConfigMap {namespace}/{config}: the built-in runtimes are in force"));
            Catalogue::built_in().clone()
        }
        Runtimes::Unknown(why) => anyhow::bail!(
            "the ConfigMap {}/{} cannot be read: {why}; KUBELESS_NAMESPACE and KUBELESS_CONFIG name another one",
            system.namespace,
            system.config
        ),
    };
    let mut out = output::stdout();
    match format {
        // The line of Kubeless, for scripts that read it.
        Format::Table => writeln!(out, "Supported Runtimes are: {}", catalogue.names().join(", "))?,
        format => output::list(&mut out, format, &rows(&catalogue), table, |row| row.runtime.clone())?,
    }
    Ok(Exit::Ok)
}

fn rows(catalogue: &Catalogue) -> Vec<Row> {
    let row = |runtime: &Runtime, version: &RuntimeVersion| Row {
        runtime: format!("{}{}", runtime.id, version.version),
        dependencies: runtime.dep_name.clone(),
        suffix: runtime.file_name_suffix.clone(),
        image: version.image(Phase::Runtime).map(|image| image.image.clone()).unwrap_or_default(),
    };
    let all = catalogue.runtimes().iter();
    all.flat_map(|runtime| runtime.versions.iter().map(move |version| row(runtime, version))).collect()
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&["RUNTIME", "DEPENDENCIES", "SUFFIX", "IMAGE"]);
    for row in rows {
        table.row(&[row.runtime.clone(), some(&row.dependencies), some(&row.suffix), some(&row.image)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runtime_has_a_row() {
        let rows = rows(Catalogue::built_in());
        assert_eq!(rows.len(), Catalogue::built_in().names().len());
        assert!(rows.iter().all(|row| !row.image.is_empty()));
    }
}
