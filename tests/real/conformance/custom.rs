//! A source of one's own for the suite: the example plug-in in Python, its log, and its place in it. The plug-in is what is killed in
//! place of a server.

use super::{Source, http::Http};
use crate::support::{
    ports,
    spawn::{Running, bound_command},
};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
};

const PLUGIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples/custom-source-python/plugin.py");
const TOKEN: &str = "suite-token";

pub struct Custom {
    plugin: Option<Running>,
    port: u16,
    // Last: removed after the plug-in is gone.
    dir: tempfile::TempDir,
}

impl Custom {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&mut self) {
        let text = |path: PathBuf| path.display().to_string();
        let mut command = bound_command("python3");
        command.args(["-u", PLUGIN, &text(self.path("log"))]);
        command.arg(format!("http://127.0.0.1:{}/events/default/trigger", self.port));
        command.args(["--place", &text(self.path("place"))]);
        command.args(["--token-file", &text(self.path("credentials/push/token"))]);
        self.plugin = Some(Running::start("plug-in", command, self.path("plugin.out")));
    }

    fn append(&self, text: &str) {
        let log = OpenOptions::new().create(true).append(true).open(self.path("log"));
        log.and_then(|mut log| log.write_all(text.as_bytes())).expect("a file in our own folder");
    }
}

impl Source for Custom {
    // Each event is synced to the disk twice, once with its claim and once with its end.
    const FLOOD: usize = 2;
    const KEEPS: bool = true;
    const KIND: &'static str = "CustomTrigger";

    fn shared() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let credentials = dir.path().join("credentials/push");
        fs::create_dir_all(&credentials).expect("a folder in our own folder");
        fs::write(credentials.join("token"), format!("{TOKEN}\n")).expect("a file in our own folder");
        let mut source = Self { plugin: None, port: ports::free_port(), dir };
        source.start();
        source
    }

    fn alone() -> Self {
        Self::shared()
    }

    fn spec(&self) -> String {
        // What a killed dispatcher left open is named once no call of it can run any more.
        let own = "  secret: push\n  delivery:\n    timeout: 8s\n";
        format!("{}{own}", super::BY_LABEL)
    }

    fn arguments(&self) -> Vec<String> {
        let listen = format!("listen=\"0.0.0.0:{}\"", self.port);
        let credentials = format!("credentials_dir=\"{}\"", self.path("credentials").display());
        let options = [listen.as_str(), &credentials, "start_window=2s", "doubt_margin=0ms"];
        options.into_iter().flat_map(|o| ["--set".to_owned(), format!("sources.custom.{o}")]).collect()
    }

    fn state(&self) -> Option<&Path> {
        // Claims are in its log, which the next dispatcher reads.
        Some(self.dir.path())
    }

    fn is_offer(line: &serde_json::Value) -> bool {
        Http::is_offer(line)
    }

    fn publish(&mut self, numbers: Range<usize>, padding: usize) {
        let pad = "x".repeat(padding);
        let lines = numbers.map(|n| {
            let event = serde_json::json!({
                "specversion": "1.0", "id": format!("e-{n}"), "source": "/suite", "type": "suite.event",
                "data": {"n": n, "pad": pad},
            });
            format!("{event}\n")
        });
        self.append(&lines.collect::<String>());
    }

    fn poison(&mut self) {
        self.append("no JSON\n");
    }

    fn kill_server(&mut self) {
        self.plugin.take().expect("it runs").kill9();
    }

    fn restart_server(&mut self) {
        self.start();
    }
}
