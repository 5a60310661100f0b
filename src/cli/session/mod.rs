//! One command's way to a cluster: which one, which namespace, and what happens on Ctrl-C. Must never outlive its
//! command, nor print data.

pub mod explain;
pub mod objects;

use super::{Exit, progress::Progress};
use crate::{
    api::DEFAULT_NAMESPACE,
    cluster::client::{Connect, Connection},
};
use std::future::Future;

/// The program's name in the API server's logs.
pub const PROGRAM: &str = "kubeless";

/// Where a command looks. The same flags in every command that talks to a cluster.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cluster")]
pub struct Place {
    /// Namespace. Default: that of the context.
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Which cluster, and as whom.
    #[command(flatten)]
    pub connect: Connect,
}

/// An open way to a cluster.
#[derive(Debug)]
pub struct Session {
    /// Clients.
    pub connection: Connection,
    /// The namespace in force.
    pub namespace: String,
}

/// What a kubeconfig says, or would say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offline {
    /// The namespace in force; `default` where nothing says another one.
    pub namespace: String,
    /// Host of the API server; empty if none is known.
    pub server: String,
}

impl Place {
    /// What can be known without contacting anything.
    pub fn offline(&self) -> anyhow::Result<Offline> {
        let namespace = |other: &str| self.namespace.clone().unwrap_or_else(|| other.to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match runtime.block_on(self.connect.open(PROGRAM)) {
            Ok(connection) => {
                let server = host(&connection.server);
                Ok(Offline { namespace: namespace(&connection.namespace), server })
            }
            // No cluster at all is what a dry run is for; a kubeconfig that is there must be right.
            Err(_) if self.connect.files().is_empty() && self.connect.context.is_none() => {
                Ok(Offline { namespace: namespace(DEFAULT_NAMESPACE), server: String::new() })
            }
            Err(error) => Err(explain::connect(&self.connect, &error)),
        }
    }

    /// Opens the way and runs a command on it until it ends or Ctrl-C.
    pub fn run(&self, command: impl AsyncFnOnce(&Session) -> anyhow::Result<Exit>) -> anyhow::Result<Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = runtime.block_on(async {
            let work = async {
                let connection =
                    self.connect.open(PROGRAM).await.map_err(|error| explain::connect(&self.connect, &error))?;
                let namespace = self.namespace.clone().unwrap_or_else(|| connection.namespace.clone());
                command(&Session { connection, namespace }).await
            };
            // Dropping the work closes its connections and takes the progress line away.
            tokio::select! {
                ended = work => ended,
                interrupted = tokio::signal::ctrl_c() => interrupted.map_or_else(|error| Err(error.into()), |()| Ok(Exit::Interrupted)),
            }
        });
        // A thread that reads standard input cannot be stopped, and the process ends anyway.
        runtime.shutdown_background();
        ended
    }
}

/// The host of a URL.
pub fn host(url: &str) -> String {
    let host = url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    host.unwrap_or_default().trim_matches(['[', ']']).to_owned()
}

/// Waits for something, and says what for if it takes more than a moment.
pub async fn shown<T>(what: &str, work: impl Future<Output = T>) -> T {
    let _progress = Progress::start(what);
    work.await
}
