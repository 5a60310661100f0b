//! The dispatcher as a child process, started again when it dies, as Kubernetes would. Must never run two at once,
//! and never read or write what the dispatcher owns.

use super::{
    child::{Spawner, describe, stop},
    layout::{Layout, write_whole},
    output::say,
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

/// First and longest pause before it is started again. A successor has to wait for the end of the dead one's session
/// anyway; one that asks the embedded broker for its share within two seconds makes that broker deal twice, which
/// takes twice as long.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// A dispatcher that ran for longer starts over with the shortest pause.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Bytes at the end of its log that are shown when it dies young.
const SHOWN_LOG: u64 = 2048;

/// How to run the dispatcher.
#[derive(Debug)]
pub struct Dispatcher {
    /// Folders.
    pub layout: Layout,
    /// How children are started.
    pub spawner: Spawner,
    /// The executable.
    pub program: PathBuf,
    /// How long it may drain.
    pub grace: Duration,
}

impl Dispatcher {
    /// Keeps it running until `token`; then lets it drain and returns when it is gone.
    pub async fn supervise(self, token: CancellationToken) {
        let mut pause = BACK_OFF.0;
        while !token.is_cancelled() {
            let started = Instant::now();
            let problem = match self.start() {
                Err(error) => format!("{} cannot be started: {error}", self.program.display()),
                Ok(mut child) => {
                    tokio::select! {
                        status = child.wait() => status.map_or_else(|error| error.to_string(), describe),
                        () = token.cancelled() => {
                            if let Err(error) = stop(&mut child, self.grace).await {
                                say(&format!("  dispatcher  could not be stopped: {error}"));
                            }
                            break;
                        }
                    }
                }
            };
            let young = started.elapsed() < STABLE_AFTER;
            pause = if young { pause } else { BACK_OFF.0 };
            say(&format!("  dispatcher  {problem}; starting it again in {:.1} s", pause.as_secs_f64()));
            if young && problem.contains("code") {
                say(&self.end_of_log());
            }
            let _ = tokio::time::timeout(pause, token.cancelled()).await;
            pause = (pause * 2).min(BACK_OFF.1);
        }
        // Already gone with an interrupted start; nothing else reads it now.
        let _ = std::fs::remove_file(self.layout.dispatcher_pid());
    }

    fn start(&self) -> io::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(self.layout.dispatcher_log())?;
        let mut command = self.spawner.command(&self.program);
        command.arg("--config").arg(self.layout.dispatcher_config());
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn()?;
        let pid = child.id().map_or_else(String::new, |id| id.to_string());
        write_whole(&self.layout.dispatcher_pid(), format!("{pid}\n").as_bytes())?;
        say(&format!("  dispatcher  pid {pid}, log in {}", self.layout.dispatcher_log().display()));
        Ok(child)
    }

    fn end_of_log(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(self.layout.dispatcher_log())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(SHOWN_LOG)))?;
            let mut bytes = Vec::new();
            file.take(SHOWN_LOG).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }
}
