//! NATS servers with JetStream as child processes in a folder of the test's own, and a client. Must never use a fixed
//! port, wait by the clock where an API can tell, or leave a server behind.

use super::{ports::free_port, spawn, spawn::Running, wait};
use async_nats::{
    ConnectOptions, HeaderMap,
    jetstream::{self, stream},
};
use rustix::process::Signal;
use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::Duration,
};
use tokio::runtime::Runtime;

/// Longest wait for servers to start, start again or stop. Usually well below a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// Drives the clients of all tests of the binary.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime of one more thread")
});

struct Server {
    port: u16,
    config: PathBuf,
    process: Option<Running>,
}

/// Servers 0..n, one cluster if they are several. Everything goes away on drop.
pub struct NatsCluster {
    servers: Vec<Server>,
    /// Where they listen for clients.
    address: Ipv4Addr,
    // Last: removed after the servers are gone.
    dir: tempfile::TempDir,
}

/// A message to publish.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub subject: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn new(subject: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { subject: subject.to_owned(), headers: Vec::new(), body: body.into() }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

impl NatsCluster {
    /// Starts `n` servers and returns when JetStream answers on each.
    pub fn start(n: usize) -> Self {
        Self::start_with(n, "")
    }

    /// One server on another address of this machine, for Pods.
    pub fn start_on(address: Ipv4Addr) -> Self {
        let mut cluster = Self::prepare(1, (address, ""));
        cluster.launch(0);
        cluster.wait_answers();
        cluster
    }

    /// The same with further lines of configuration (authorization, TLS); those must let a client in by itself if the
    /// test uses [`Self::client`].
    pub fn start_with(n: usize, extra: &str) -> Self {
        let mut cluster = Self::prepare(n, (Ipv4Addr::LOCALHOST, extra));
        for at in 0..n {
            cluster.launch(at);
        }
        if extra.is_empty() {
            cluster.wait_answers();
        }
        cluster
    }

    /// For a cluster that is never dropped: the kernel ends the servers with this process, a janitor removes the folder.
    pub fn for_a_static(self) -> Self {
        spawn::remove_after_exit(self.dir.path());
        self
    }

    fn prepare(n: usize, (address, extra): (Ipv4Addr, &str)) -> Self {
        let dir = tempfile::Builder::new().prefix("kubeless-nats-").tempdir().expect("a temporary folder");
        let ports: Vec<(u16, u16)> = (0..n).map(|_| (free_port(), free_port())).collect();
        let servers = ports.iter().enumerate().map(|(at, (port, _))| {
            let home = dir.path().join(format!("server-{at}"));
            fs::create_dir(&home).expect("a folder in our own folder");
            let config = home.join("server.conf");
            fs::write(&config, configuration(at, &ports, &home, (address, extra)))
                .expect("a file in our own folder");
            Server { port: *port, config, process: None }
        });
        Self { servers: servers.collect(), address, dir }
    }

    /// Folder of all servers.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Comma-separated addresses of all servers.
    pub fn url(&self) -> String {
        let all: Vec<String> = (0..self.servers.len()).map(|at| self.url_of(at)).collect();
        all.join(",")
    }

    /// Ports of all servers.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.servers.iter().map(|server| server.port)
    }

    /// Address of one server.
    pub fn url_of(&self, at: usize) -> String {
        format!("nats://{}:{}", self.address, self.servers[at].port)
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill9(&mut self, at: usize) {
        self.process(at).kill9();
    }

    /// Starts a server again on its old port and data; returns when all answer.
    pub fn restart(&mut self, at: usize) {
        assert!(self.process(at).exited().is_some(), "server {at} still runs");
        self.launch(at);
        self.wait_answers();
    }

    /// Starts all servers again that do not run; returns when all answer.
    pub fn restart_all(&mut self) {
        for at in 0..self.servers.len() {
            if self.process(at).exited().is_some() {
                self.launch(at);
            }
        }
        self.wait_answers();
    }

    /// SIGSTOP: the server keeps its connections and answers nothing.
    pub fn suspend(&mut self, at: usize) {
        self.process(at).signal(Signal::STOP);
    }

    /// SIGCONT after [`Self::suspend`].
    pub fn resume(&mut self, at: usize) {
        self.process(at).signal(Signal::CONT);
    }

    /// A client without credentials.
    pub fn client(&self) -> Client {
        self.client_with(&ConnectOptions::new())
    }

    /// A client with `options`.
    pub fn client_with(&self, options: &ConnectOptions) -> Client {
        Client::connect(&self.url(), options)
    }

    fn process(&mut self, at: usize) -> &mut Running {
        self.servers[at].process.as_mut().expect("every server was launched")
    }

    fn launch(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let mut command = spawn::bound_command(program());
        command.arg("-c").arg(&server.config);
        let log = server.config.with_file_name("server.log");
        server.process = Some(Running::start(format!("nats-server {at}"), command, log));
    }

    fn wait_answers(&mut self) {
        for at in 0..self.servers.len() {
            let url = self.url_of(at);
            let process = self.process(at);
            if process.exited().is_some() {
                // Killed on purpose; a server that cannot start shows below, in its own turn.
                continue;
            }
            let answered = wait::try_until(PATIENCE, || {
                assert!(process.exited().is_none(), "nats-server {at} ended:\n{}", process.tail(30));
                RUNTIME.block_on(async {
                    let options = ConnectOptions::new().connection_timeout(Duration::from_secs(2));
                    let client = options.connect(&url).await.ok()?;
                    let context = jetstream::new(client);
                    let asked = tokio::time::timeout(Duration::from_secs(2), context.query_account());
                    asked.await.ok()?.ok().map(|_| ())
                })
            });
            assert!(answered.is_some(), "nats-server {at} does not answer:\n{}", process.tail(30));
        }
    }
}

/// A blocking client.
pub struct Client {
    client: async_nats::Client,
}

impl Client {
    /// Connects, and goes on trying for a while.
    pub fn connect(url: &str, options: &ConnectOptions) -> Self {
        let servers: Vec<&str> = url.split(',').collect();
        let client = wait::until("a NATS connection", PATIENCE, || {
            let options = options.clone().retry_on_initial_connect();
            RUNTIME.block_on(options.connect(&servers)).ok()
        });
        let connected = RUNTIME.block_on(async { tokio::time::timeout(PATIENCE, client.flush()).await });
        assert!(matches!(connected, Ok(Ok(()))), "no NATS server at {url}");
        Self { client }
    }

    /// Publishes on core NATS; returns when a server has them all.
    pub fn publish(&self, messages: impl IntoIterator<Item = Message>) -> usize {
        RUNTIME.block_on(async {
            let mut count = 0;
            for message in messages {
                let headers = headers(&message);
                let sent =
                    self.client.publish_with_headers(message.subject, headers, message.body.into()).await;
                sent.expect("the server takes it");
                count += 1;
            }
            self.client.flush().await.expect("the server answers");
            count
        })
    }

    /// Makes a file stream over `subjects` on `replicas` servers.
    pub fn create_stream(&self, name: &str, subjects: &[&str], replicas: usize) {
        let config = stream::Config {
            name: name.to_owned(),
            subjects: subjects.iter().map(ToString::to_string).collect(),
            num_replicas: replicas,
            ..stream::Config::default()
        };
        wait::until("the stream is made", PATIENCE, || {
            RUNTIME.block_on(self.jetstream().get_or_create_stream(config.clone())).ok().map(|_| ())
        });
        self.wait_leader(name);
    }

    /// Returns when the stream has a leader: until then a publisher is told that there is no stream.
    pub fn wait_leader(&self, name: &str) {
        wait::until("the stream has a leader", PATIENCE, || {
            let info = async { self.jetstream().get_stream(name).await.ok()?.get_info().await.ok() };
            let cluster = RUNTIME.block_on(info)?.cluster;
            // A server of its own has no cluster and always leads.
            cluster.is_none_or(|cluster| cluster.leader.is_some()).then_some(())
        });
    }

    /// Publishes into a stream; returns the sequences once every one is acknowledged.
    pub fn publish_stream(&self, messages: impl IntoIterator<Item = Message>) -> Vec<u64> {
        let context = self.jetstream();
        RUNTIME.block_on(async {
            let mut waiting = Vec::new();
            let mut sequences = Vec::new();
            for message in messages {
                let headers = headers(&message);
                let sent = context.publish_with_headers(message.subject, headers, message.body.into()).await;
                waiting.push(sent.expect("it is sent"));
                // The client takes a bounded number of unacknowledged messages.
                if waiting.len() >= 100 {
                    for ack in waiting.drain(..) {
                        sequences.push(ack.await.expect("the stream takes it").sequence);
                    }
                }
            }
            for ack in waiting {
                sequences.push(ack.await.expect("the stream takes it").sequence);
            }
            sequences
        })
    }

    /// JetStream through this client, to be used with [`Self::block_on`].
    pub fn jetstream(&self) -> jetstream::Context {
        // The context starts a task of its own.
        let _inside = RUNTIME.enter();
        let mut context = jetstream::new(self.client.clone());
        context.set_timeout(Duration::from_secs(10));
        context
    }

    /// The client itself.
    pub fn raw(&self) -> &async_nats::Client {
        &self.client
    }

    /// Runs a future of this client.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        RUNTIME.block_on(future)
    }
}

fn headers(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &message.headers {
        headers.append(name.as_str(), value.as_str());
    }
    headers
}

/// The program in the parts cache.
fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/parts.sh");
        let run = Command::new("bash").args([script, "nats"]).output().expect("bash runs");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        Path::new(String::from_utf8_lossy(&run.stdout).trim()).join("nats-server")
    });
    &PROGRAM
}

fn configuration(at: usize, ports: &[(u16, u16)], home: &Path, (address, extra): (Ipv4Addr, &str)) -> String {
    let (port, own_route) = ports[at];
    let mut text = format!(
        "server_name: server-{at}\nlisten: {address}:{port}\njetstream {{ store_dir: {:?} }}\n",
        home.join("data").display().to_string()
    );
    if ports.len() > 1 {
        let routes: Vec<String> =
            ports.iter().map(|(_, route)| format!("\"nats://127.0.0.1:{route}\"")).collect();
        let _ = writeln!(
            text,
            "cluster {{ name: tests, no_advertise: true, listen: \"127.0.0.1:{own_route}\", routes: [{}] }}",
            routes.join(", ")
        );
    }
    text + extra
}
