//! Log lines on standard error: text on a terminal, JSON elsewhere, RFC 3339 times. Must never let bytes from
//! outside (topic names, header values) act on the reader's terminal: control characters are escaped.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    str::FromStr,
};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// The level when nobody says otherwise. The cluster client reports each failed request by itself, some with the whole
/// answer; who asked reports it too, once and without what it held.
const DEFAULT_FILTER: &str = "info,kube_client=off";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// One line of text for people.
    Text,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            other => Err(format!("`{other}` is not a log format: use auto, json or text")),
        }
    }
}

/// What the command line says about logs.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Shape of the lines.
    pub format: LogFormat,
    /// Filter such as `info` or `info,kubeless::sources=debug`; then `KUBELESS_LOG`, then `RUST_LOG`, then `info`.
    pub filter: Option<String>,
}

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter does not parse.
    #[error(
        "log filter `{filter}` from {origin} is not valid: {cause}; use for example `info` or `info,kubeless::sources=debug`"
    )]
    Filter {
        /// The filter as given.
        filter: String,
        /// Flag or variable it came from.
        origin: &'static str,
        /// What the parser says.
        cause: String,
    },
    /// A subscriber is there already.
    #[error("logs are set up already in this process")]
    AlreadyInstalled,
}

/// Sets up the process's logs. Called once, by a binary.
pub fn init(options: &LogOptions) -> Result<(), Error> {
    let filter = filter(options.filter.as_deref(), |name| std::env::var(name).ok())?;
    let json = match options.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    let done = if json {
        builder.json().flatten_event(true).with_writer(io::stderr).try_init()
    } else {
        builder.with_writer(EscapedStderr).try_init()
    };
    done.map_err(|_| Error::AlreadyInstalled)
}

fn filter(flag: Option<&str>, env: impl Fn(&'static str) -> Option<String>) -> Result<EnvFilter, Error> {
    let set = |name| env(name).filter(|value| !value.is_empty()).map(|value| (value, name));
    let (filter, origin) = flag
        .map(|value| (value.to_owned(), "--log-level"))
        .or_else(|| set("KUBELESS_LOG"))
        .or_else(|| set("RUST_LOG"))
        .unwrap_or_else(|| (DEFAULT_FILTER.to_owned(), "the default"));
    EnvFilter::builder().parse(&filter).map_err(|error| Error::Filter {
        filter,
        origin,
        cause: error.to_string(),
    })
}

/// Standard error that receives whole lines and escapes the control characters inside them.
struct EscapedStderr;

impl<'a> MakeWriter<'a> for EscapedStderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for EscapedStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(escape_line(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Escapes every control character but the newline at the end.
fn escape_line(line: &str) -> String {
    let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
    let mut escaped = String::with_capacity(line.len());
    for character in body.chars() {
        if character.is_control() {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "{}", character.escape_unicode());
        } else {
            escaped.push(character);
        }
    }
    escaped + end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_cannot_reach_the_terminal() {
        assert_eq!(escape_line("a\u{1b}[2Jb\nc\n"), "a\\u{1b}[2Jb\\u{a}c\n");
    }

    #[test]
    fn flag_then_own_variable_then_common_variable_then_default() {
        let env = |name| (name == "RUST_LOG").then(|| "warn".to_owned());
        assert_eq!(filter(Some("debug"), env).unwrap().to_string(), "debug");
        assert_eq!(filter(None, env).unwrap().to_string(), "warn");
        let default = filter(None, |_| None).unwrap().to_string();
        assert!(default.contains("info") && default.contains("kube_client=off"), "{default}");
        let both =
            |name: &'static str| Some(if name == "KUBELESS_LOG" { "trace" } else { "warn" }.to_owned());
        assert_eq!(filter(None, both).unwrap().to_string(), "trace");
    }

    #[test]
    fn a_wrong_filter_names_where_it_came_from() {
        let error = filter(Some("kubeless=loud"), |_| None).unwrap_err().to_string();
        assert!(error.contains("--log-level") && error.contains("kubeless=loud"), "{error}");
    }
}
