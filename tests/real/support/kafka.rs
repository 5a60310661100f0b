//! Apache Kafka (KRaft) as child processes in a folder of the test's own. Must never use a fixed port, wait by
//! the clock where an API can tell, or leave a broker behind.

use super::{kafka_client::Client, ports::free_port, spawn, spawn::Running, wait};
use rdkafka::consumer::Consumer;
use rustix::process::Signal;
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::Duration,
};

/// Longest wait for brokers to start, start again or stop. Usually 3 to 8 s; a busy machine takes longer.
const PATIENCE: Duration = Duration::from_secs(90);

/// What differs from a broker's defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// Partitions of `__consumer_offsets`: one means one coordinator for all groups.
    pub offsets_partitions: u32,
    /// `group.coordinator.append.linger.ms`; `None` leaves Kafka's default (the cost of a commit depends on it).
    pub append_linger_ms: Option<u32>,
    /// Where brokers listen and say that they are: `Cluster::machine` for clients in Pods.
    pub address: Ipv4Addr,
    /// Listeners of the first broker beside the plain one, by name and port; `extra` says what they speak.
    pub listeners: Vec<(String, u16)>,
    /// SCRAM users that exist from the start, as `kafka-storage format --add-scram` takes them.
    pub scram: Vec<String>,
    /// Further lines of the broker configuration.
    pub extra: Vec<(String, String)>,
}

impl Options {
    /// Lets members have sessions below Kafka's usual 6 s, so that a crash is noticed soon.
    pub fn short_sessions() -> Self {
        let extra = vec![("group.min.session.timeout.ms".into(), "1000".into())];
        Self { extra, ..Self::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            offsets_partitions: 1,
            append_linger_ms: None,
            address: Ipv4Addr::LOCALHOST,
            listeners: Vec::new(),
            scram: Vec::new(),
            extra: Vec::new(),
        }
    }
}

struct Broker {
    id: i32,
    address: SocketAddr,
    config: PathBuf,
    process: Option<Running>,
}

/// Brokers 1..=n, each also a controller. Everything goes away on drop.
pub struct KafkaCluster {
    brokers: Vec<Broker>,
    jars: String,
    client: Client,
    // Last: removed after the brokers are gone.
    dir: tempfile::TempDir,
}

/// One broker for all tests of the binary that do not harm it. Use topics and groups of your own.
pub fn shared() -> &'static KafkaCluster {
    static SHARED: LazyLock<KafkaCluster> =
        LazyLock::new(|| KafkaCluster::start(1, &Options::short_sessions()).for_a_static());
    &SHARED
}

impl KafkaCluster {
    /// Starts `n` brokers and returns when every one answers and the group coordinator works.
    pub fn start(n: usize, options: &Options) -> Self {
        let begun = std::time::Instant::now();
        let jars = format!("{}/*", parts_dir().display());
        let dir = tempfile::Builder::new().prefix("kubeless-kafka-").tempdir().expect("a temporary folder");
        let ports: Vec<(u16, u16)> = (0..n).map(|_| (free_port(), free_port())).collect();
        let mut brokers = Vec::new();
        for (i, (port, _)) in ports.iter().enumerate() {
            let home = dir.path().join(format!("broker-{}", i + 1));
            fs::create_dir(&home).expect("a folder in our own folder");
            fs::write(home.join("log4j2.yaml"), LOG4J).expect("a file in our own folder");
            let config = home.join("server.properties");
            fs::write(&config, properties(i, &ports, &home, options)).expect("a file in our own folder");
            brokers.push(Broker {
                id: i as i32 + 1,
                address: SocketAddr::from((options.address, *port)),
                config,
                process: None,
            });
        }
        let addresses: Vec<String> =
            ports.iter().map(|(port, _)| format!("{}:{port}", options.address)).collect();
        let client = Client::new(addresses.join(","));
        let mut cluster = Self { brokers, jars, client, dir };
        cluster.format(&options.scram);
        for i in 0..n {
            cluster.launch(i);
        }
        // From the last to the first: the first can only wait for a peer that did not come up.
        for i in (0..n).rev() {
            cluster.wait_answers(i);
        }
        cluster.client.wait_coordinator("warm-up", PATIENCE);
        println!("Kafka: {n} broker(s) answer after {:.1?}", begun.elapsed());
        cluster
    }

    /// For a cluster that is never dropped: the kernel ends the broker with this process, a janitor removes the folder.
    pub fn for_a_static(self) -> Self {
        spawn::remove_after_exit(self.dir.path());
        self
    }

    /// Comma-separated addresses of all brokers.
    pub fn bootstrap(&self) -> &str {
        self.client.bootstrap()
    }

    /// Topics, records, offsets.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The broker that coordinates `group`: the leader of the group's partition of `__consumer_offsets`.
    pub fn coordinator_of(&self, group: &str) -> i32 {
        self.client.wait_coordinator(group, PATIENCE);
        wait::until("a leader of the group's offsets partition", PATIENCE, || self.client.coordinator(group))
    }

    /// SIGKILL to broker `id`; returns when the process is gone.
    pub fn kill9(&mut self, id: i32) {
        self.process(id).kill9();
    }

    /// SIGTERM to broker `id`; returns when it has handed its leaderships over and ended.
    pub fn stop_graceful(&mut self, id: i32) {
        let process = self.process(id);
        process.signal(Signal::TERM);
        process.wait_exit(PATIENCE);
    }

    /// Starts broker `id` again on its old port and data; returns when it answers as a member of the cluster.
    pub fn restart(&mut self, id: i32) {
        let process = self.process(id);
        assert!(process.exited().is_some(), "broker {id} still runs");
        self.launch(id as usize - 1);
        self.wait_answers(id as usize - 1);
    }

    /// SIGSTOP: the broker keeps its connections and answers nothing.
    pub fn suspend(&mut self, id: i32) {
        self.process(id).signal(Signal::STOP);
    }

    /// SIGCONT after [`Self::suspend`].
    pub fn resume(&mut self, id: i32) {
        self.process(id).signal(Signal::CONT);
    }

    /// Returns when every replica of `topic` is in sync (after a restart: the broker has caught up).
    pub fn wait_in_sync(&self, topic: &str) {
        wait::until("all replicas in sync", PATIENCE, || self.client.in_sync(topic).then_some(()));
    }

    fn process(&mut self, id: i32) -> &mut Running {
        let broker = self.brokers.iter_mut().find(|broker| broker.id == id).expect("brokers are 1..=n");
        broker.process.as_mut().expect("every broker was launched")
    }

    /// Formats the first broker's storage with Kafka's own tool and gives the others a copy with their own ids:
    /// one Java start instead of n.
    fn format(&self, scram: &[String]) {
        let first = &self.brokers[0];
        let mut command = self.java(&first.config);
        command.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(&first.config);
        command.args(scram.iter().flat_map(|user| ["--add-scram", user]));
        let home = |broker: &Broker| broker.config.parent().expect("a file in a folder").to_path_buf();
        let mut run = Running::start("kafka storage format", command, home(first).join("format.log"));
        let status = run.wait_exit(PATIENCE);
        assert!(status.success(), "kafka.tools.StorageTool failed:\n{}", run.tail(40));
        let meta = fs::read_to_string(home(first).join("data/meta.properties")).expect("written by the tool");
        for broker in &self.brokers[1..] {
            let data = home(broker).join("data");
            fs::create_dir(&data).expect("a folder in our own folder");
            for entry in fs::read_dir(home(first).join("data")).expect("written by the tool").flatten() {
                fs::copy(entry.path(), data.join(entry.file_name())).expect("a plain file");
            }
            let own = |line: &str| match line.split_once('=') {
                Some(("node.id", _)) => format!("node.id={}\n", broker.id),
                // Any 22 characters of base64url that no other broker has.
                Some(("directory.id", _)) => format!("directory.id=a2FmdHJlYWxkaXJlY3Rv{}w\n", broker.id),
                _ => format!("{line}\n"),
            };
            let text: String = meta.lines().map(own).collect();
            fs::write(data.join("meta.properties"), text).expect("a file in our own folder");
        }
    }

    fn launch(&mut self, index: usize) {
        let mut command = self.java(&self.brokers[index].config);
        let broker = &mut self.brokers[index];
        command.arg("kafka.Kafka").arg(&broker.config);
        let log = broker.config.with_file_name("broker.log");
        broker.process = Some(Running::start(format!("kafka broker {}", broker.id), command, log));
    }

    fn java(&self, config: &Path) -> Command {
        let log4j = config.with_file_name("log4j2.yaml");
        let mut command = spawn::bound_command("java");
        command.args(["-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        command.arg(format!("-Dlog4j2.configurationFile={}", log4j.display()));
        command.args(["-cp", &self.jars]);
        command
    }

    /// Asks this very broker until it lists itself as a member.
    fn wait_answers(&mut self, index: usize) {
        let (id, address) = (self.brokers[index].id, self.brokers[index].address.to_string());
        let process = self.process(id);
        let probe = Client::consumer_at(&address, "probe");
        let answered = wait::try_until(PATIENCE, || {
            assert!(process.exited().is_none(), "broker {id} ended:\n{}", process.tail(60));
            let found = probe.fetch_metadata(None, Duration::from_secs(2)).ok()?;
            found.brokers().iter().any(|broker| broker.id() == id).then_some(())
        });
        assert!(answered.is_some(), "broker {id} does not answer:\n{}", process.tail(60));
    }
}

/// The verified jars in the parts cache.
fn parts_dir() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/parts.sh");
    let run = Command::new("bash").args([script, "kafka"]).output().expect("bash runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    PathBuf::from(String::from_utf8_lossy(&run.stdout).trim())
}

const CLUSTER_ID: &str = "a3ViZWxlc3N0ZXN0czAwMA";

const LOG4J: &str = "Configuration:
  status: warn
  Appenders:
    Console: {name: out, PatternLayout: {pattern: '%d{ISO8601} %p %c{1}: %m%n'}}
  Loggers:
    Root: {level: INFO, AppenderRef: {ref: out}}
";

fn properties(index: usize, ports: &[(u16, u16)], home: &Path, options: &Options) -> String {
    let ((port, controller), host) = (ports[index], options.address);
    let replicas = ports.len().min(3);
    let min_isr = replicas.div_ceil(2);
    let voter = |(i, (_, port)): (usize, &(u16, u16))| format!("{}@127.0.0.1:{port}", i + 1);
    let voters: Vec<String> = ports.iter().enumerate().map(voter).collect();
    let further = options.listeners.iter().filter(|_| index == 0);
    let further: String = further.map(|(name, port)| format!(",{name}://{host}:{port}")).collect();
    let mut text = format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://127.0.0.1:{controller}{further}
advertised.listeners=PLAINTEXT://{host}:{port}{further}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
offsets.topic.num.partitions={offsets}
offsets.topic.replication.factor={replicas}
default.replication.factor={replicas}
min.insync.replicas={min_isr}
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={min_isr}
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={min_isr}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
log.cleaner.enable=false
",
        id = index + 1,
        voters = voters.join(","),
        data = home.join("data").display(),
        offsets = options.offsets_partitions,
    );
    if let Some(linger) = options.append_linger_ms {
        text.push_str(&format!("group.coordinator.append.linger.ms={linger}\n"));
    }
    for (key, value) in &options.extra {
        text.push_str(&format!("{key}={value}\n"));
    }
    text
}
