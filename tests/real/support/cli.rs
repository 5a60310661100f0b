//! The `kubeless` binary as a person runs it: an environment of its own, what it printed, how it ended, how long it took.
//! Must never use the machine's own kubeconfig.

use super::spawn::{self, Running};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Where and as whom commands run.
#[derive(Clone)]
pub struct Cli {
    pub kubeconfig: PathBuf,
    pub namespace: String,
    pub environment: Vec<(String, String)>,
}

/// One command that has ended.
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

impl Cli {
    pub fn new(kubeconfig: &Path, namespace: &str) -> Self {
        Self { kubeconfig: kubeconfig.to_owned(), namespace: namespace.to_owned(), environment: Vec::new() }
    }

    fn command(&self, mut command: Command, arguments: &[&str]) -> Command {
        for name in ["KUBERNETES_SERVICE_HOST", "KUBELESS_TOKEN_FILE_PATH", "KUBELESS_CONFIG"] {
            command.env_remove(name);
        }
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", "/nonexistent");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(arguments);
        if !self.namespace.is_empty() {
            command.args(["-n", &self.namespace]);
        }
        command
    }

    /// Runs to the end and prints how long it took.
    pub fn run(&self, arguments: &[&str]) -> Run {
        self.run_with_input(arguments, "")
    }

    pub fn run_with_input(&self, arguments: &[&str], input: &str) -> Run {
        use std::io::Write;
        let begun = Instant::now();
        let mut command = self.command(Command::new(env!("CARGO_BIN_EXE_kubeless")), arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary was built");
        // Most commands do not read it.
        let _ = child.stdin.take().expect("piped above").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("our own child");
        let took = begun.elapsed();
        println!("{:>6} ms  kubeless {}", took.as_millis(), arguments.join(" "));
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Run {
            code: output.status.code().expect("it ended by itself"),
            out: text(&output.stdout),
            err: text(&output.stderr),
            took,
        }
    }

    /// Runs a command that has to work, and returns what it printed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let run = self.run(arguments);
        assert_eq!(run.code, 0, "kubeless {}:\n{}{}", arguments.join(" "), run.out, run.err);
        run.out
    }

    /// Runs a command that has to fail with this code and these words on standard error; it prints no data.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let run = self.run(arguments);
        assert_eq!(run.code, code, "kubeless {}:\n{}{}", arguments.join(" "), run.out, run.err);
        assert_eq!(run.out, "", "kubeless {}", arguments.join(" "));
        for word in words {
            assert!(run.err.contains(word), "{word:?} is missing in {:?}", run.err);
        }
    }

    /// Starts a command that goes on; what it prints goes to a file in `dir`.
    pub fn start(&self, dir: &Path, arguments: &[&str]) -> Running {
        let command = self.command(spawn::bound_command(env!("CARGO_BIN_EXE_kubeless")), arguments);
        let log = dir.join(format!("{:08x}.log", fastrand::u32(..)));
        Running::start(format!("kubeless {}", arguments.join(" ")), command, log)
    }
}
