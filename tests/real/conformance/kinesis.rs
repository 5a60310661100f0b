//! Kinesis for the suite, on two endpoints that share no code: the stream keeps everything, the register is a folder that all
//! dispatchers share.

use super::{Property, Source};
use crate::support::kinesis::{self, Kinesis as Server};
use std::{
    fs,
    marker::PhantomData,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

const SHARDS: i32 = 3;
/// Largest body that is taken; padded events are smaller, poison is larger.
const LARGEST: usize = 16 << 10;

/// Records of one request: more of the padded ones may take the endpoint longer than a request may take.
const AT_ONCE: usize = 100;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// Whose endpoint.
pub trait Endpoint {
    const WITHOUT: &'static [(Property, &'static str)];

    fn shared() -> &'static Server;

    fn alone() -> Server;
}

/// kinesis-local.
pub struct Local;

/// moto: what both say is not the opinion of one.
pub struct Moto;

impl Endpoint for Local {
    const WITHOUT: &'static [(Property, &'static str)] = &[];

    fn shared() -> &'static Server {
        kinesis::shared()
    }

    fn alone() -> Server {
        Server::start_durable()
    }
}

impl Endpoint for Moto {
    const WITHOUT: &'static [(Property, &'static str)] = &[(
        Property::AServerThatWasAwayRepeatsNothing,
        "moto holds everything in memory and forgets it when it is killed; kinesis-local, which writes it down, stands in for it",
    )];

    fn shared() -> &'static Server {
        kinesis::shared_moto()
    }

    fn alone() -> Server {
        unreachable!("no property that harms a server means anything here")
    }
}

pub struct Kinesis<E> {
    endpoint: PhantomData<E>,
    own: Option<Server>,
    stream: String,
    // Last: removed after the server is gone.
    dir: tempfile::TempDir,
}

impl<E: Endpoint> Kinesis<E> {
    fn on(own: Option<Server>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let credentials = dir.path().join("credentials/aws");
        fs::create_dir_all(&credentials).expect("a folder in our own folder");
        for key in ["aws_access_key_id", "aws_secret_access_key"] {
            fs::write(credentials.join(key), "test\n").expect("a file in our own folder");
        }
        let stream = format!("suite-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let source = Self { endpoint: PhantomData, own, stream, dir };
        source.server().create_stream(&source.stream, SHARDS);
        source
    }

    fn server(&self) -> &Server {
        self.own.as_ref().unwrap_or_else(|| E::shared())
    }

    fn put(&self, records: &[(String, Vec<u8>)]) {
        for some in records.chunks(AT_ONCE) {
            let placed = self.server().put(&self.stream, some);
            if let Some(own) = &self.own {
                // It says yes before it has written anything down, and forgets that when it is killed.
                own.wait_kept(placed.iter().map(|(_, sequence)| sequence.as_str()));
            }
        }
    }
}

impl<E: Endpoint> Source for Kinesis<E> {
    // The endpoint of the tests takes a second or more for a megabyte.
    const FLOOD: usize = 1;
    const KEEPS: bool = true;
    const KIND: &'static str = "KinesisTrigger";
    const WITHOUT: &'static [(Property, &'static str)] = E::WITHOUT;

    fn shared() -> Self {
        Self::on(None)
    }

    fn alone() -> Self {
        Self::on(Some(E::alone()))
    }

    fn spec(&self) -> String {
        let (stream, endpoint) = (&self.stream, self.server().endpoint());
        let stream = format!("  stream: {stream}\n  aws-region: us-east-1\n  endpoint: \"{endpoint}\"\n");
        format!("{stream}  secret: aws\n  function-name: witness\n  startingPosition: TRIM_HORIZON\n")
    }

    fn arguments(&self) -> Vec<String> {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let options = [
            format!("credentials_dir={}", path("credentials")),
            format!("register_dir={}", path("register")),
            format!("max_body_bytes={LARGEST}B"),
            // A read is on its way before it is known how large it is.
            "max_read_records=20".to_owned(),
            "shard_sync_interval=1s".to_owned(),
            "request_timeout=5s".to_owned(),
            // A shard of a killed dispatcher goes to its successor this long after.
            "failover_time=2s".to_owned(),
        ];
        options.into_iter().flat_map(|o| ["--set".to_owned(), format!("sources.kinesis.{o}")]).collect()
    }

    fn publish(&mut self, numbers: Range<usize>, padding: usize) {
        let event = |n: usize| {
            let data = serde_json::json!({"n": n, "pad": "x".repeat(padding)});
            let event = serde_json::json!({
                "specversion": "1.0", "id": format!("e-{n}"), "source": "/suite", "type": "suite.event",
                "datacontenttype": "application/json", "data": data,
            });
            (format!("key-{}", n % 50), event.to_string().into_bytes())
        };
        self.put(&numbers.map(event).collect::<Vec<_>>());
    }

    fn poison(&mut self) {
        self.put(&[("key-0".to_owned(), vec![b'x'; LARGEST + 1])]);
    }

    fn kill_server(&mut self) {
        self.own.as_mut().expect("a server of its own").kill9();
    }

    fn restart_server(&mut self) {
        self.own.as_mut().expect("a server of its own").restart();
    }
}
