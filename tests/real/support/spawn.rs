//! Child processes that cannot outlive the test process: the kernel kills them when it dies, however it dies.
//! Must never spawn from a test's own thread: the kernel's promise is bound to the thread that spawned.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{LazyLock, Mutex, mpsc},
    thread,
    time::Duration,
};

use super::wait;

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Lives as long as the process, and so do the children it spawns, at most.
static NURSERY: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
    let (orders, inbox) = mpsc::channel::<Order>();
    let work = move || {
        for (mut command, answer) in inbox {
            let _ = answer.send(command.spawn());
        }
    };
    thread::Builder::new().name("nursery".into()).spawn(work).expect("one more thread is possible");
    Mutex::new(orders)
});

/// A command that runs `program` under `setpriv --pdeathsig KILL`, in a process group of its own.
pub fn bound_command(program: impl AsRef<OsStr>) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).process_group(0).stdin(Stdio::null());
    command
}

/// Spawns on the nursery thread.
pub fn spawn(command: Command) -> Child {
    let (answer, result) = mpsc::channel();
    let shown = format!("{command:?}");
    NURSERY.lock().expect("senders do not panic").send((command, answer)).expect("the nursery never ends");
    let result = result.recv().expect("the nursery answers each order");
    result.unwrap_or_else(|error| panic!("cannot start {shown}: {error}; run 'make setup'"))
}

/// Removes `dir` when this process is gone, however it went: for folders of statics, which are never dropped.
pub fn remove_after_exit(dir: &Path) {
    let script = r#"for _ in 1 2 3 4 5; do rm -rf -- "$1" 2>/dev/null && exit; sleep 1; done"#;
    run_after_exit(script, &[dir.as_os_str()]);
}

/// Runs a shell script with `args` when this process is gone, however it went. A child holds the read end of a
/// pipe whose write end closes with this process.
pub fn run_after_exit(script: &str, args: &[&OsStr]) {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("sh");
    command.args(["-c", &format!("read -r _; {script}"), "sh"]).args(args).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // The handle, and with it the pipe, is kept to the very end.
    std::mem::forget(spawn(command));
}

/// A running child with its output in a file. Killed and waited for on drop; the output's tail is printed when
/// the test is failing.
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Running {
    /// Starts `command` (from [`bound_command`]), appending its stdout and stderr to `log`.
    pub fn start(name: impl Into<String>, mut command: Command, log: PathBuf) -> Self {
        let open = || File::options().create(true).append(true).open(&log).expect("the test's own folder");
        command.stdout(open()).stderr(open());
        Self { name: name.into(), child: spawn(command), log, ended: None }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Everything the process printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of the output.
    pub fn tail(&self, lines: usize) -> String {
        let Ok(file) = File::open(&self.log) else { return String::new() };
        let mut kept = VecDeque::with_capacity(lines);
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            if kept.len() == lines {
                kept.pop_front();
            }
            kept.push_back(line);
        }
        Vec::from(kept).join("\n")
    }

    /// Sends a signal; a process that has ended gets none.
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_none() {
            let pid = Pid::from_raw(self.child.id() as i32).expect("a child's pid is positive");
            kill_process(pid, signal).expect("the child is not reaped yet");
        }
    }

    /// How the process ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("our own child");
        }
        self.ended
    }

    /// Waits for the end; panics with the output's tail after `limit`.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let ended = wait::try_until(limit, || self.exited());
        ended.unwrap_or_else(|| panic!("{} still runs after {limit:?}:\n{}", self.name, self.tail(40)))
    }

    /// SIGKILL, and waits until the process is gone (its ports are free, its files closed).
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        self.wait_exit(Duration::from_secs(20));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {} ({}), last lines:\n{}", self.name, self.log.display(), self.tail(40));
        }
        if self.exited().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
