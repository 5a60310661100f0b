//! Kinesis endpoints (kinesis-local, and moto for a second opinion) as child processes, and one stream, trigger and function with as many dispatchers as a test wants. Must
//! never use a fixed port or leave a server behind, nor know how the product works inside.

use super::{
    manifests::Manifests,
    metrics,
    oracle::{self, Invoked, Produced, Recorded, Report},
    ports::free_port,
    process::{Dispatcher, Launch},
    spawn,
    spawn::Running,
    wait,
    witness::Witness,
};
use aws_sdk_kinesis::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    primitives::Blob,
    types::{PutRecordsRequestEntry, ShardIteratorType, StreamStatus},
};
use rustix::process::Signal;
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    process::Command,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Longest wait for the endpoint to start or to finish a change of shards.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whose endpoint it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// kinesis-local.
    Local,
    /// The same, writing down all that it holds.
    Durable,
    /// moto, which shares no code with it.
    Moto,
}

/// The endpoint. Everything goes away on drop.
pub struct Kinesis {
    port: u16,
    tls_port: u16,
    process: Running,
    client: Client,
    runtime: tokio::runtime::Runtime,
    // Last: removed after the server is gone.
    dir: tempfile::TempDir,
}

/// One endpoint for all tests of the binary that do not harm it. Use streams of your own.
pub fn shared() -> &'static Kinesis {
    static SHARED: LazyLock<Kinesis> = LazyLock::new(|| {
        let kinesis = Kinesis::start();
        spawn::remove_after_exit(kinesis.dir.path());
        kinesis
    });
    &SHARED
}

/// The other endpoint for all tests of the binary that do not harm it.
pub fn shared_moto() -> &'static Kinesis {
    static SHARED: LazyLock<Kinesis> = LazyLock::new(|| {
        let kinesis = Kinesis::start_with(Kind::Moto);
        spawn::remove_after_exit(kinesis.dir.path());
        kinesis
    });
    &SHARED
}

impl Kinesis {
    /// Starts it and returns when it answers. What it holds goes with it.
    pub fn start() -> Self {
        Self::start_with(Kind::Local)
    }

    /// One that can be killed and started again. It writes down all that it holds all the time: for small tests.
    pub fn start_durable() -> Self {
        Self::start_with(Kind::Durable)
    }

    fn start_with(kind: Kind) -> Self {
        let dir = tempfile::Builder::new().prefix("kubeless-kinesis-").tempdir().expect("a temporary folder");
        let (port, tls_port) = (free_port(), free_port());
        let process = launch((port, tls_port), dir.path(), kind);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let timeouts = TimeoutConfig::builder().operation_timeout(PATIENCE).build();
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(format!("http://127.0.0.1:{port}"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .build();
        // Made inside: its connections belong to this runtime.
        let client = runtime.block_on(async { Client::from_conf(config) });
        let mut kinesis = Self { port, tls_port, process, client, runtime, dir };
        kinesis.wait_answers();
        kinesis
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// SIGKILL; what was there a moment before comes back with [`Self::restart`].
    pub fn kill9(&mut self) {
        // It writes its data in place; killed in the middle of that it could not read it again.
        wait::until("its data is whole", PATIENCE, || {
            self.suspend();
            let files = std::fs::read_dir(self.dir.path()).expect("our own folder").flatten();
            let data =
                files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
            let whole = |path: PathBuf| {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                serde_json::from_str::<serde_json::Value>(&text).is_ok()
            };
            let found: Vec<bool> = data.map(whole).collect();
            let all = !found.is_empty() && found.iter().all(|whole| *whole);
            if !all {
                self.resume();
            }
            all.then_some(())
        });
        self.process.kill9();
    }

    /// Returns when records with these sequence numbers are written down and would come back after [`Self::kill9`].
    pub fn wait_kept<'a>(&self, sequences: impl Iterator<Item = &'a str>) {
        let mut missing: Vec<&str> = sequences.collect();
        wait::until("the records are written down", PATIENCE, || {
            let files = std::fs::read_dir(self.dir.path()).expect("our own folder").flatten();
            let data =
                files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
            let texts: String = data.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
            missing.retain(|sequence| !texts.contains(sequence));
            missing.is_empty().then_some(())
        });
    }

    /// Starts it again on its old port and data.
    pub fn restart(&mut self) {
        assert!(self.process.exited().is_some(), "the endpoint still runs");
        self.process = launch((self.port, self.tls_port), self.dir.path(), Kind::Durable);
        self.wait_answers();
    }

    /// SIGSTOP: connections stay, nothing is answered.
    pub fn suspend(&mut self) {
        self.process.signal(Signal::STOP);
    }

    pub fn resume(&mut self) {
        self.process.signal(Signal::CONT);
    }

    fn wait_answers(&mut self) {
        let answered = wait::try_until(PATIENCE, || {
            assert!(self.process.exited().is_none(), "the endpoint ended:\n{}", self.process.tail(40));
            self.runtime.block_on(self.client.list_streams().send()).ok()
        });
        assert!(answered.is_some(), "the endpoint does not answer:\n{}", self.process.tail(40));
    }

    pub fn create_stream(&self, name: &str, shards: i32) {
        let made =
            self.runtime.block_on(self.client.create_stream().stream_name(name).shard_count(shards).send());
        made.expect("a stream");
        self.wait_active(name);
    }

    pub fn delete_stream(&self, name: &str) {
        let gone = self.runtime.block_on(self.client.delete_stream().stream_name(name).send());
        gone.expect("it is there");
        wait::until("the stream is gone", PATIENCE, || {
            let asked = self.client.describe_stream_summary().stream_name(name).send();
            self.runtime.block_on(asked).err().map(|_| ())
        });
    }

    fn wait_active(&self, name: &str) {
        wait::until("the stream is active", PATIENCE, || {
            let asked = self.client.describe_stream_summary().stream_name(name).send();
            let summary = self.runtime.block_on(asked).ok()?.stream_description_summary?;
            (summary.stream_status == StreamStatus::Active).then_some(())
        });
    }

    /// Ids of the shards that take records.
    pub fn open_shards(&self, name: &str) -> Vec<String> {
        let listed = self.runtime.block_on(self.client.list_shards().stream_name(name).send());
        let shards = listed.expect("the stream is there").shards.unwrap_or_default();
        let open = |shard: &aws_sdk_kinesis::types::Shard| {
            shard.sequence_number_range.as_ref().is_some_and(|range| range.ending_sequence_number.is_none())
        };
        let mut ids: Vec<String> = shards.into_iter().filter(open).map(|shard| shard.shard_id).collect();
        ids.sort();
        ids
    }

    /// Splits a shard in the middle of its keys.
    pub fn split(&self, name: &str, shard: &str) {
        let listed = self.runtime.block_on(self.client.list_shards().stream_name(name).send());
        let shards = listed.expect("the stream is there").shards.unwrap_or_default();
        let found = shards.into_iter().find(|s| s.shard_id == shard).expect("the shard is listed");
        let range = found.hash_key_range.expect("a shard has keys");
        let key = |text: &str| text.parse::<u128>().expect("a key of 128 bits");
        let (low, high) = (key(&range.starting_hash_key), key(&range.ending_hash_key));
        let middle = low + (high - low) / 2 + 1;
        let split = self.client.split_shard().stream_name(name).shard_to_split(shard);
        let split = split.new_starting_hash_key(middle.to_string()).send();
        self.runtime.block_on(split).expect("the shard is split");
        self.wait_active(name);
    }

    /// Merges two neighbours.
    pub fn merge(&self, name: &str, shards: (&str, &str)) {
        let merge = self.client.merge_shards().stream_name(name);
        let merge = merge.shard_to_merge(shards.0).adjacent_shard_to_merge(shards.1).send();
        self.runtime.block_on(merge).expect("the shards are merged");
        self.wait_active(name);
    }

    /// Data of the first `count` records of a stream; waits until there are so many.
    pub fn wait_records(&self, name: &str, count: usize) -> Vec<Vec<u8>> {
        wait::until("the records are there", PATIENCE, || {
            let all = self.records(name);
            (all.len() >= count).then_some(all)
        })
    }

    fn records(&self, name: &str) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for shard in self.open_shards(name) {
            let asked = self.client.get_shard_iterator().stream_name(name).shard_id(shard);
            let asked = asked.shard_iterator_type(ShardIteratorType::TrimHorizon).send();
            let mut next = self.runtime.block_on(asked).expect("the shard is there").shard_iterator;
            while let Some(iterator) = next.take() {
                let read = self.client.get_records().shard_iterator(iterator).send();
                let answer = self.runtime.block_on(read).expect("the shard can be read");
                let more = !answer.records.is_empty();
                all.extend(answer.records.into_iter().map(|record| record.data.into_inner()));
                next = answer.next_shard_iterator.filter(|_| more);
            }
        }
        all
    }

    /// Puts records (key, data) and returns their shards and sequence numbers.
    pub fn put(&self, name: &str, records: &[(String, Vec<u8>)]) -> Vec<(String, String)> {
        let mut placed = Vec::with_capacity(records.len());
        for chunk in records.chunks(250) {
            let entries = chunk.iter().map(|(key, data)| {
                let entry =
                    PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data.clone()));
                entry.build().expect("a whole entry")
            });
            let put = self.client.put_records().stream_name(name).set_records(Some(entries.collect())).send();
            let answer = self.runtime.block_on(put).expect("records are taken");
            assert_eq!(answer.failed_record_count.unwrap_or(0), 0, "every record is taken");
            placed.extend(answer.records.into_iter().map(|record| {
                (record.shard_id.expect("a shard"), record.sequence_number.expect("a sequence number"))
            }));
        }
        placed
    }
}

fn launch((port, tls_port): (u16, u16), dir: &std::path::Path, kind: Kind) -> Running {
    if kind == Kind::Moto {
        let mut command = spawn::bound_command(parts_dir("moto").join("bin/python"));
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]).current_dir(dir);
        return Running::start("moto", command, dir.join("server.log"));
    }
    let (parts, durable) = (parts_dir("kinesis"), kind == Kind::Durable);
    let mut command = spawn::bound_command("node");
    command.arg(parts.join("main.js")).current_dir(dir);
    command.env("KINESIS_MOCK_CERT_PATH", parts.join("server.json"));
    command.env("KINESIS_MOCK_PLAIN_PORT", port.to_string());
    command.env("KINESIS_MOCK_TLS_PORT", tls_port.to_string());
    for change in ["CREATE_STREAM", "DELETE_STREAM", "MERGE_SHARDS", "SPLIT_SHARD"] {
        command.env(format!("{change}_DURATION"), "20ms");
    }
    command.env("SHARD_LIMIT", "1000");
    command.env("SHOULD_PERSIST_DATA", durable.to_string());
    command.env("PERSIST_INTERVAL", "200ms").env("PERSIST_PATH", dir);
    command.env("LOG_LEVEL", "WARN");
    Running::start("kinesis endpoint", command, dir.join("server.log"))
}

/// The endpoint in the parts cache.
fn parts_dir(part: &str) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/parts.sh");
    let run = Command::new("bash").args([script, part]).output().expect("bash runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    PathBuf::from(String::from_utf8_lossy(&run.stdout).trim())
}

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// One stream, trigger and function. The function is called `witness`, the trigger `trigger`; every body says which record
/// it is.
pub struct Scene {
    pub dir: tempfile::TempDir,
    pub manifests: Manifests,
    pub witness: Witness,
    pub stream: String,
    pub endpoint: String,
    pub produced: Vec<Produced>,
    /// Number of the record that stands at these coordinates.
    pub places: HashMap<String, usize>,
}

impl Scene {
    /// Makes stream, witness and manifests; `trigger` holds further lines of its spec (indented by two spaces).
    pub fn new(kinesis: &Kinesis, shards: i32, trigger: &str) -> Self {
        Self::with(kinesis, shards, trigger, Witness::start())
    }

    /// The same with a witness of the test's own.
    pub fn with(kinesis: &Kinesis, shards: i32, trigger: &str, witness: Witness) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let stream = format!("events-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        kinesis.create_stream(&stream, shards);
        witness.keep_requests();
        let manifests = Manifests::new(dir.path());
        manifests.function("witness", &[("app", "witness")], &[witness.address()]);
        let credentials = dir.path().join("credentials/aws");
        std::fs::create_dir_all(&credentials).expect("a folder in our own folder");
        for key in ["aws_access_key_id", "aws_secret_access_key"] {
            std::fs::write(credentials.join(key), "test\n").expect("a file in our own folder");
        }
        let endpoint = kinesis.endpoint();
        let scene =
            Self { dir, manifests, witness, stream, endpoint, produced: Vec::new(), places: HashMap::new() };
        scene.trigger(trigger);
        scene
    }

    /// Writes the trigger with other further lines.
    pub fn trigger(&self, spec: &str) {
        let endpoint = &self.endpoint;
        let head = "apiVersion: kubeless.io/v1beta1\nkind: KinesisTrigger\nmetadata:\n  name: trigger\n  namespace: default\n";
        let own = format!("  stream: {}\n  aws-region: us-east-1\n  secret: aws\n", self.stream);
        let to = format!("  function-name: witness\n  endpoint: \"{endpoint}\"\n");
        self.manifests.write("kinesis-trigger", &format!("{head}spec:\n{own}{to}{spec}"));
    }

    /// Puts `count` records of `keys` keys.
    pub fn produce(&mut self, kinesis: &Kinesis, count: usize, keys: usize) {
        let base = self.produced.len();
        let records: Vec<(String, Vec<u8>)> =
            (base..base + count).map(|n| (format!("key-{}", n % keys), body(n))).collect();
        for (n, (shard, sequence)) in (base..).zip(kinesis.put(&self.stream, &records)) {
            self.remember(n, format!("{shard}/{sequence}"));
        }
    }

    /// Notes that record `n` stands at `coordinates`.
    pub fn remember(&mut self, n: usize, coordinates: String) {
        self.produced.push(Produced { at: (self.stream.clone(), 0, n as i64), business: None });
        self.places.insert(coordinates, n);
    }

    /// How to start a dispatcher called `name`; all share one register.
    pub fn launch(&self, name: &str) -> Launch {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let set = |launch: Launch, text: String| launch.arg("--set").arg(text);
        let launch =
            self.launch_bare(name).arg("--manifests").arg(self.manifests.dir().display().to_string());
        let launch = set(launch, format!("sources.kinesis.credentials_dir={}", path("credentials")));
        set(launch, format!("sources.kinesis.register_dir={}", path("register")))
    }

    /// One that is not told yet where its objects, its credentials and its register are.
    pub fn launch_bare(&self, name: &str) -> Launch {
        let mut launch = Launch::dispatcher(self.dir.path(), name)
            .arg("--state-dir")
            .arg(self.dir.path().join(format!("state-{name}")).display().to_string())
            .arg("--admin-listen=127.0.0.1:0")
            .arg("--log-format=json");
        for setting in
            ["shard_sync_interval=1s", "request_timeout=5s", "handover_drain=5s", "failover_time=2s"]
        {
            launch = launch.arg("--set").arg(format!("sources.kinesis.{setting}"));
        }
        launch
    }

    /// Starts a dispatcher and waits until it is ready.
    pub fn start(&self, name: &str) -> Dispatcher {
        let mut dispatcher = self.launch(name).start();
        dispatcher.wait_ready(Duration::from_secs(20));
        dispatcher
    }

    /// Returns once `shards` rows of the register have an owner.
    pub fn wait_held(&self, shards: usize) {
        wait::until("the shards are held", Duration::from_secs(30), || {
            (self.rows().iter().filter(|row| row["owner"].is_string()).count() >= shards).then_some(())
        });
    }

    /// The register's rows.
    pub fn rows(&self) -> Vec<serde_json::Value> {
        // A file that was replaced meanwhile is left out; whoever waits looks again.
        let text = |path: PathBuf| std::fs::read_to_string(path).ok();
        self.row_files().into_values().filter_map(|path| serde_json::from_str(&text(path)?).ok()).collect()
    }

    /// Changes every row of the register, while no dispatcher runs.
    pub fn edit_rows(&self, edit: impl Fn(&mut serde_json::Value)) {
        for path in self.row_files().into_values() {
            let text = std::fs::read_to_string(&path).expect("a row");
            let mut row = serde_json::from_str(&text).expect("JSON");
            edit(&mut row);
            std::fs::write(path, row.to_string()).expect("a file in our own folder");
        }
    }

    /// The latest version of each row: its name ends in `@` and the version, which has leading zeros.
    fn row_files(&self) -> BTreeMap<String, PathBuf> {
        let folders = std::fs::read_dir(self.dir.path().join("register")).into_iter().flatten().flatten();
        let files = folders.filter_map(|folder| std::fs::read_dir(folder.path()).ok()).flatten().flatten();
        let mut paths: Vec<PathBuf> = files.map(|file| file.path()).collect();
        paths.sort();
        let rows = paths.into_iter().filter_map(|path| {
            let (key, _) = path.file_name()?.to_str()?.rsplit_once('@')?;
            key.starts_with("shard.").then(|| (key.to_owned(), path.clone()))
        });
        rows.collect()
    }

    /// Lines of every journal that ever was.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        let states = std::fs::read_dir(self.dir.path()).expect("the test's folder").flatten();
        let segments =
            states.filter_map(|s| std::fs::read_dir(s.path().join("journal")).ok()).flatten().flatten();
        let texts = segments.map(|segment| std::fs::read_to_string(segment.path()).expect("a segment"));
        texts
            .flat_map(|text| text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect::<Vec<_>>())
            .collect()
    }

    /// What the oracle says now.
    pub fn judge(&self) -> Report {
        // Journals first: whatever they say has happened must be with the witness by then.
        let recorded: Vec<Recorded> = self.lines().iter().filter_map(|line| self.recorded(line)).collect();
        let seen = self.witness.seen();
        let invoked: Vec<Invoked> = seen
            .iter()
            .map(|seen| Invoked { at: (self.stream.clone(), 0, number(&seen.body)), id: seen.id.clone() })
            .collect();
        oracle::judge(&self.produced, &invoked, &recorded)
    }

    fn recorded(&self, line: &serde_json::Value) -> Option<Recorded> {
        let coordinates = line["coordinates"].as_str()?;
        // What nobody produced is told apart by a number that no record has.
        let n = self.places.get(coordinates).map_or(-1, |n| *n as i64);
        Some(Recorded { at: (self.stream.clone(), 0, n), outcome: line["outcome"].as_str()?.to_owned() })
    }

    /// Waits until every produced record has an outcome, and judges. Panics at the limit with what is missing.
    #[track_caller]
    pub fn settle(&self, limit: Duration) -> Report {
        let settled = wait::try_until(limit, || {
            let report = self.judge();
            (report.outcomes.values().sum::<usize>() >= self.produced.len()).then_some(report)
        });
        settled.unwrap_or_else(|| {
            let report = self.judge();
            panic!("not settled after {limit:?}: produced {} {report:?}", self.produced.len())
        })
    }

    /// The conservation residual of a dispatcher.
    pub fn residual(dispatcher: &mut Dispatcher) -> f64 {
        let page = metrics::scrape(dispatcher.admin());
        page.get("kubeless_conservation_residual", &[("trigger", "trigger")])
            .expect("the residual is published")
    }
}

/// The body of record `n`.
pub fn body(n: usize) -> Vec<u8> {
    format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(100)).into_bytes()
}

/// Which record an invocation was for.
pub fn number_of(seen: &super::witness::Seen) -> i64 {
    number(&seen.body)
}

fn number(body: &[u8]) -> i64 {
    serde_json::from_slice::<serde_json::Value>(body).ok().and_then(|json| json["n"].as_i64()).unwrap_or(-2)
}
