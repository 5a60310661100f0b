//! HTTP triggers, a function and as many dispatchers as a test wants, with a client that says what it was told. Must never
//! know how the product works inside.

use crate::support::{
    manifests::Manifests,
    metrics,
    process::{Dispatcher, Launch},
    wait,
    witness::Witness,
};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
};

use super::LIMIT;

/// One function `witness` and one trigger `door` for the path `/orders`.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub manifests: Manifests,
    pub witness: Witness,
    arguments: Vec<String>,
    /// Of the dispatchers.
    pub environment: Vec<(&'static str, String)>,
}

/// What a caller was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Told {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

impl Rig {
    /// `options`: `key=value` of the section `sources.http`; `spec`: further lines of the trigger's spec (indented by two).
    pub fn new(options: &[&str], spec: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temp folder");
        let (witness, manifests) = (Witness::start(), Manifests::new(dir.path()));
        witness.keep_requests();
        manifests.function_with("witness", &[], &[witness.address()], "  timeout: \"2\"\n");
        let head = "apiVersion: kubeless.io/v1beta1\nkind: HTTPTrigger\nmetadata:\n  name: door\n  namespace: default\n";
        let own = "spec:\n  function-name: witness\n  path: orders\n  delivery:\n    through: Dispatcher\n";
        manifests.write("trigger-door", &format!("{head}{own}{spec}"));
        let listen = ["listen=\"127.0.0.1:0\""];
        let options = listen.iter().chain(options).map(|option| format!("sources.http.{option}"));
        let arguments = options.flat_map(|option| ["--set".to_owned(), option]).collect();
        Self { dir, manifests, witness, arguments, environment: Vec::new() }
    }

    pub fn state(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("state-{name}"))
    }

    pub fn launch(&self, name: &str) -> Launch {
        let text = |path: PathBuf| path.display().to_string();
        let launch = Launch::dispatcher(self.dir.path(), name);
        let launch = self.environment.iter().fold(launch, |launch, (name, value)| launch.env(name, value));
        launch
            .args(["--manifests", &text(self.manifests.dir().to_path_buf())])
            .args(["--state-dir", &text(self.state(name)), "--admin-listen", "127.0.0.1:0"])
            .args(["--log-format", "json"])
            .args(self.arguments.clone())
    }

    /// Starts a dispatcher and waits until it takes requests.
    pub fn start(&self, name: &str) -> (Dispatcher, SocketAddr) {
        let mut dispatcher = self.launch(name).start();
        let address = opened(&mut dispatcher);
        (dispatcher, address)
    }

    /// Outcomes of the trigger's journal, of all dispatchers, each with its id.
    pub fn outcomes(&self) -> Vec<(String, String)> {
        let states = std::fs::read_dir(self.dir.path()).expect("the test's folder").flatten();
        let segments = states.filter_map(|s| std::fs::read_dir(s.path().join("journal")).ok()).flatten();
        let texts = segments.flatten().filter_map(|segment| std::fs::read_to_string(segment.path()).ok());
        let mut found = Vec::new();
        for text in texts {
            for line in text.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok()) {
                let word = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
                for _ in 0..line["count"].as_u64().unwrap_or(1) {
                    found.push((word("outcome"), word("id")));
                }
            }
        }
        found.sort();
        found
    }

    /// Waits until the journal has `outcome` for `id`.
    #[track_caller]
    pub fn wait_outcome(&self, outcome: &str, id: &str) {
        let there = || self.outcomes().contains(&(outcome.to_owned(), id.to_owned())).then_some(());
        wait::until(&format!("{outcome} of {id}"), LIMIT, there);
    }
}

/// The address in the log, once the first trigger is served.
pub fn opened(dispatcher: &mut Dispatcher) -> SocketAddr {
    dispatcher.wait_ready(LIMIT);
    wait::until("the listener's address in the log", LIMIT, || {
        dispatcher.output().lines().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let fields = line.get("fields").unwrap_or(&line);
            let is_it = fields["message"] == "HTTP requests are taken";
            is_it.then(|| fields["address"].as_str()?.parse().ok())?
        })
    })
}

/// The residual of the trigger.
pub fn residual(dispatcher: &mut Dispatcher) -> f64 {
    let page = metrics::scrape(dispatcher.admin());
    page.get("kubeless_conservation_residual", &[("trigger", "door")]).expect("it is published")
}

/// One request on a connection of its own; `target` is method and path.
pub fn ask(to: SocketAddr, target: &str, headers: &[(&str, &str)], body: &str) -> Told {
    try_ask(to, target, headers, body).unwrap_or_else(|error| panic!("{target}: {error}"))
}

/// The same where no answer may come.
pub fn try_ask(to: SocketAddr, target: &str, headers: &[(&str, &str)], body: &str) -> std::io::Result<Told> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut head = format!("{target} HTTP/1.1\r\nhost: any.example.com\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let broken = || std::io::Error::other(format!("no answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    let pairs = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers = pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Ok(Told { status, headers, body: body.to_owned() })
}
