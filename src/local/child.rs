//! Child processes that cannot outlive local mode. Must never signal a process that was not started here, and
//! never by name: only by the id of a child that has not been reaped.

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::process::{Child, Command};

/// How to start children: through this program's own `child` command, which asks the kernel to end the child with
/// its parent and then becomes the child.
///
/// The kernel watches the *thread* that started the child, so children are started from the main thread only
/// (local mode runs on a current-thread runtime).
#[derive(Clone, Debug)]
pub struct Spawner {
    /// The `kubeless` executable; `None` starts children directly (unit tests).
    pub kubeless: Option<PathBuf>,
}

impl Spawner {
    /// A command for `program`, in its own process group (Ctrl-C reaches local mode alone, which stops its
    /// children in order) and killed when its handle is dropped.
    pub fn command(&self, program: impl Into<OsString>) -> Command {
        let program = program.into();
        let mut command = match &self.kubeless {
            None => Command::new(program),
            Some(kubeless) => {
                let mut command = Command::new(kubeless);
                command
                    .arg("child")
                    .arg("--parent")
                    .arg(std::process::id().to_string())
                    .arg("--")
                    .arg(program);
                command
            }
        };
        command.process_group(0).kill_on_drop(true).stdin(Stdio::null());
        command
    }
}

/// Becomes `command`, to be ended by the kernel when `parent` ends. Returns only if that fails.
pub fn become_child(parent: u32, command: &[OsString]) -> io::Error {
    let Some((program, arguments)) = command.split_first() else {
        return io::Error::other("no command given");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return error.into();
    }
    // The parent may have died before the line above: then nobody will send that signal.
    if getppid().map(|pid| pid.as_raw_pid().unsigned_abs()) != Some(parent) {
        return io::Error::other("the parent process is gone");
    }
    std::process::Command::new(program).args(arguments).exec()
}

/// Asks a child to end, waits for `grace`, then kills it. Returns how it ended.
pub async fn stop(child: &mut Child, grace: Duration) -> io::Result<ExitStatus> {
    terminate(child);
    match tokio::time::timeout(grace, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            child.start_kill()?;
            child.wait().await
        }
    }
}

/// Sends SIGTERM to a child that has not been reaped.
pub fn terminate(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself a moment ago: then there is nothing to do.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// How a process ended, in words.
pub fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
