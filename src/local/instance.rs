//! One version of one function: starts it, says when it is ready, starts it again when it dies, until told to stop.
//! Must never decide which version receives calls: it reports.

use super::{
    child::{Spawner, describe, stop},
    echo::Echo,
    layout::Layout,
    nodejs,
    output::{relay, say},
    plan::FunctionPlan,
    python,
};
use std::{
    net::SocketAddr,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// What a runtime server prints when it accepts calls.
const READY_PREFIX: &str = "kubeless-runtime: listening on ";
/// Longest wait for that line.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// First and longest pause before a function that died is started again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// First pause when it never became ready: most likely only an edit helps, and it says so at length.
const HOPEFUL_BACK_OFF: Duration = Duration::from_secs(2);
/// A function that ran for longer starts over with the shortest pause.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// Longest wait for the end of a process that closed its output.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Added to a function's own timeout when it is asked to end.
const STOP_MARGIN: Duration = Duration::from_secs(2);

/// What an instance reports.
#[derive(Debug)]
pub struct Report {
    /// Which function, as planned for this version.
    pub function: Arc<FunctionPlan>,
    /// Which version.
    pub version: u64,
    /// What happened.
    pub change: Change,
}

/// What happened to an instance.
#[derive(Debug)]
pub enum Change {
    /// It accepts calls at this address, so long after its start.
    Ready(SocketAddr, Duration),
    /// It does not accept calls any more, or never did; it is started again unless that is hopeless.
    Down(String),
}

/// Languages whose runtimes this binary carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `python`, whatever its version.
    Python,
    /// `nodejs`, whatever its version.
    Nodejs,
}

impl Language {
    /// The language of a runtime as a Function names it: with a version, or without.
    fn of(runtime: &str) -> Option<Self> {
        match runtime.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') {
            "python" => Some(Self::Python),
            "nodejs" => Some(Self::Nodejs),
            _ => None,
        }
    }
}

/// What every instance needs to start.
#[derive(Debug)]
pub struct Ground {
    /// Folders.
    pub layout: Layout,
    /// How children are started.
    pub spawner: Spawner,
    /// One preparation of a runtime at a time; those that are there.
    pub prepared: tokio::sync::Mutex<Vec<Language>>,
    /// Where reports go.
    pub reports: mpsc::Sender<Report>,
}

/// A running version. Dropping it leaves the task running: stop it and await `task`.
#[derive(Debug)]
pub struct Instance {
    /// What it was made from.
    pub function: Arc<FunctionPlan>,
    /// Ends it.
    pub stop: CancellationToken,
    /// Ends when the process is gone.
    pub task: JoinHandle<()>,
}

impl Instance {
    /// Starts the task of a version.
    pub fn start(ground: Arc<Ground>, function: Arc<FunctionPlan>, version: u64) -> Self {
        let token = CancellationToken::new();
        let run = Run { ground, function: Arc::clone(&function), version, token: token.clone() };
        Self { function, stop: token, task: tokio::spawn(run.supervise()) }
    }
}

struct Run {
    ground: Arc<Ground>,
    function: Arc<FunctionPlan>,
    version: u64,
    token: CancellationToken,
}

impl Run {
    async fn supervise(self) {
        let mut pause = BACK_OFF.0;
        while !self.token.is_cancelled() {
            let started = Instant::now();
            let ended = if self.function.runtime == "echo" {
                self.echo(started).await
            } else {
                self.process(started).await
            };
            let problem = match ended {
                Ok(()) => return,
                Err(End::Hopeless(problem)) => return self.report(Change::Down(problem)).await,
                Err(End::Retry(problem)) => problem,
                Err(End::NeverReady(problem)) => {
                    pause = pause.max(HOPEFUL_BACK_OFF);
                    problem
                }
            };
            self.report(Change::Down(problem)).await;
            pause = if started.elapsed() > STABLE_AFTER { BACK_OFF.0 } else { pause };
            let _ = timeout(pause, self.token.cancelled()).await;
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    async fn echo(&self, started: Instant) -> Result<(), End> {
        let echo = Echo::bind().await.map_err(|error| End::Retry(error.to_string()))?;
        let address = echo.address().map_err(|error| End::Retry(error.to_string()))?;
        self.report(Change::Ready(address, started.elapsed())).await;
        let calls = echo.calls();
        echo.serve(self.token.clone()).await;
        let calls = calls.load(std::sync::atomic::Ordering::Relaxed);
        say(&format!("  function    {} answered {calls} calls", self.function.name));
        Ok(())
    }

    /// One life of the function's process. `Ok` means that it was told to stop.
    async fn process(&self, started: Instant) -> Result<(), End> {
        let command = tokio::select! {
            () = self.token.cancelled() => return Ok(()),
            command = self.command() => command?,
        };
        let (mut child, mut addresses, readers) = self.spawn(command)?;
        let ready = tokio::select! {
            () = self.token.cancelled() => None,
            ready = timeout(READY_TIMEOUT, addresses.recv()) => Some(ready),
        };
        let ended = match ready {
            None => Ok(()),
            Some(Ok(Some(address))) => {
                self.report(Change::Ready(address, started.elapsed())).await;
                tokio::select! {
                    () = self.token.cancelled() => Ok(()),
                    status = child.wait() => Err(End::Retry(words(status))),
                }
            }
            // It closed its output: it is about to end by itself.
            Some(Ok(None)) => match timeout(EXIT_TIMEOUT, child.wait()).await {
                Ok(status) => Err(End::NeverReady(words(status))),
                Err(_) => Err(End::NeverReady("closed its output without becoming ready".to_owned())),
            },
            Some(Err(_)) => {
                let seconds = READY_TIMEOUT.as_secs();
                Err(End::NeverReady(format!("did not become ready within {seconds} s")))
            }
        };
        let _ = stop(&mut child, self.function.timeout + STOP_MARGIN).await;
        // What it said on its way out comes before the report of its end.
        readers.finish().await;
        ended
    }

    async fn command(&self) -> Result<Command, End> {
        let (ground, function) = (&self.ground, &self.function);
        if !function.content_type.is_empty() && function.content_type != "text" {
            let kind = &function.content_type;
            let text = format!(
                "function-content-type `{kind}` is not supported in local mode yet; inline the code as text"
            );
            return Err(End::Hopeless(text));
        }
        let Some(language) = Language::of(&function.runtime) else {
            let runtime = &function.runtime;
            return Err(End::Hopeless(format!(
                "runtime `{runtime}` is not supported in local mode yet; use python, nodejs or echo"
            )));
        };
        let (layout, spawner) = (&ground.layout, &ground.spawner);
        let mut prepared = ground.prepared.lock().await;
        if !prepared.contains(&language) {
            match language {
                Language::Python => python::prepare(layout, spawner).await,
                Language::Nodejs => nodejs::prepare(layout, spawner).await,
            }
            .map_err(End::Retry)?;
            prepared.push(language);
        }
        drop(prepared);
        match language {
            Language::Python => python::command(layout, spawner, function).await,
            Language::Nodejs => nodejs::command(layout, spawner, function).await,
        }
        .map_err(End::Retry)
    }

    fn spawn(&self, mut command: Command) -> Result<(Child, mpsc::Receiver<SocketAddr>, Readers), End> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| End::Retry(format!("cannot be started: {error}")))?;
        let (sender, addresses) = mpsc::channel(1);
        let name = self.function.name.to_string();
        let out = child.stdout.take().map(|pipe| tokio::spawn(read(pipe, name.clone(), Some(sender))));
        let err = child.stderr.take().map(|pipe| tokio::spawn(read(pipe, name, None)));
        Ok((child, addresses, Readers([out, err])))
    }

    async fn report(&self, change: Change) {
        let report = Report { function: Arc::clone(&self.function), version: self.version, change };
        // The receiver is gone only when local mode ends.
        let _ = self.ground.reports.send(report).await;
    }
}

fn words(status: std::io::Result<std::process::ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), describe)
}

enum End {
    /// Worth another attempt.
    Retry(String),
    /// Worth another attempt, but not soon.
    NeverReady(String),
    /// Only an edit can help.
    Hopeless(String),
}

/// The tasks that relay a child's output.
struct Readers([Option<JoinHandle<()>>; 2]);

impl Readers {
    /// Waits for the last lines; a grandchild that keeps the pipe open cannot hold this up for long.
    async fn finish(self) {
        for task in self.0.into_iter().flatten() {
            let abort = task.abort_handle();
            if timeout(Duration::from_millis(500), task).await.is_err() {
                abort.abort();
            }
        }
    }
}

/// Relays lines to the terminal; the readiness line goes to whoever waits for it instead.
async fn read(pipe: impl AsyncRead + Unpin, name: String, ready: Option<mpsc::Sender<SocketAddr>>) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let address = line.strip_prefix(READY_PREFIX).and_then(|text| text.trim().parse().ok());
        match (address, &ready) {
            (Some(address), Some(ready)) => {
                let _ = ready.send(address).await;
            }
            _ => relay(&name, &line),
        }
    }
}
