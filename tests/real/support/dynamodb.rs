//! DynamoDB, Amazon's own for one machine, as a child process. Must never use a fixed port, ask anybody outside, or leave a
//! server behind.

use super::{ports::free_port, spawn, spawn::Running, wait};
use aws_sdk_dynamodb::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    types::AttributeValue,
};
use std::{collections::HashMap, path::Path, process::Command, sync::LazyLock, time::Duration};

/// Longest wait for it to start or to answer. Usually 2 to 5 s.
const PATIENCE: Duration = Duration::from_secs(90);

/// An item as the service holds it.
pub type Item = HashMap<String, AttributeValue>;

/// The server. Everything goes away on drop.
pub struct DynamoDb {
    port: u16,
    process: Running,
    client: Client,
    runtime: tokio::runtime::Runtime,
    // Last: removed after the server is gone.
    dir: tempfile::TempDir,
}

/// One for all tests of the binary that do not harm it. Use tables of your own.
pub fn shared() -> &'static DynamoDb {
    static SHARED: LazyLock<DynamoDb> = LazyLock::new(|| {
        let server = DynamoDb::start();
        spawn::remove_after_exit(server.dir.path());
        server
    });
    &SHARED
}

impl DynamoDb {
    /// Starts it and returns when it answers. What it holds outlives [`Self::kill9`].
    pub fn start() -> Self {
        // In memory, where there is such a folder: else each write waits for a disk that may be busy with builds.
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("kubeless-dynamodb-").tempdir_in(root);
        let dir = dir.expect("a temporary folder");
        let port = free_port();
        let process = launch(port, dir.path());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(format!("http://127.0.0.1:{port}"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(PATIENCE).build())
            .build();
        // Made inside: its connections belong to this runtime.
        let client = runtime.block_on(async { Client::from_conf(config) });
        let mut server = Self { port, process, client, runtime, dir };
        server.wait_answers();
        server
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Environment in which a dispatcher finds credentials, as in a Pod with an identity.
    pub fn identity() -> [(&'static str, &'static str); 2] {
        [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again on its old port and data.
    pub fn restart(&mut self) {
        assert!(self.process.exited().is_some(), "the server still runs");
        self.process = launch(self.port, self.dir.path());
        self.wait_answers();
    }

    /// All items of a table; none where there is no such table.
    pub fn items(&self, table: &str) -> Vec<Item> {
        let page = self.client.scan().table_name(table).consistent_read(true).send();
        self.runtime.block_on(page).ok().and_then(|page| page.items).unwrap_or_default()
    }

    fn wait_answers(&mut self) {
        let answered = wait::try_until(PATIENCE, || {
            assert!(self.process.exited().is_none(), "DynamoDB ended:\n{}", self.process.tail(40));
            self.runtime.block_on(self.client.list_tables().send()).ok()
        });
        assert!(answered.is_some(), "DynamoDB does not answer:\n{}", self.process.tail(40));
    }
}

fn launch(port: u16, dir: &Path) -> Running {
    let parts = parts_dir();
    let mut command = spawn::bound_command("java");
    // The native library lies beside the jars.
    command.arg("-Xmx256m").arg(format!("-Djava.library.path={parts}")).args(["-cp", &format!("{parts}/*")]);
    command.arg("com.amazonaws.services.dynamodbv2.local.main.ServerRunner");
    command.args(["-disableTelemetry", "-sharedDb", "-port", &port.to_string()]);
    command.arg("-dbPath").arg(dir).current_dir(dir);
    Running::start("DynamoDB", command, dir.join("server.log"))
}

/// The server in the parts cache.
fn parts_dir() -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/parts.sh");
    let run = Command::new("bash").args([script, "dynamodb"]).output().expect("bash runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).trim().to_owned()
}
