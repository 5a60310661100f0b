//! Exit codes and errors that carry one. Must never exit: only a binary does.

use std::fmt;

/// How the program ends, for scripts. Listed in `kubeless --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It did not work.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The function answered, and not with 2xx.
    FunctionFailed = 3,
    /// Nobody knows whether it happened: time ran out or the connection broke.
    Unknown = 4,
    /// A check found problems.
    ProblemsFound = 5,
    /// Ended by Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The text of the codes in `--help`.
pub const HELP: &str = "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 the function answered with an error; \
4 nobody knows whether it happened; 5 problems found; 130 interrupted.";

/// An error of which the command line is the cause.
#[derive(Debug)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}
