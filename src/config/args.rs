//! The flags that a daemon takes and how they become overrides. Must never hold a secret: those come as files.

use super::load::{self, Checks, Origin, Override};
use super::model::DispatcherConfig;
use crate::telemetry::{LogFormat, LogOptions};
use clap::Args;
use std::path::PathBuf;

/// Flags about configuration and logs.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// Configuration file (TOML); config/dispatcher.toml lists every option.
    #[arg(long, value_name = "FILE", env = "KUBELESS_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder of manifests, in place of a cluster; may be given several times. Same as --set manifests=DIR:DIR.
    #[arg(long, value_name = "DIR")]
    pub manifests: Vec<PathBuf>,
    /// Folder that may be written to. Same as --set state_dir=DIR.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Address of /metrics, /livez and /readyz. Same as --set admin.listen=ADDR.
    #[arg(long, value_name = "ADDR")]
    pub admin_listen: Option<String>,
    /// Sets one option by its dotted name, as in --set invoker.workers=2. Wins over environment and file.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Prints the configuration in effect as TOML and exits.
    #[arg(long)]
    pub dump_config: bool,
    /// Shape of log lines: auto (text on a terminal, else JSON), json or text.
    #[arg(long, value_name = "FORMAT", env = "KUBELESS_LOG_FORMAT", default_value = "auto")]
    pub log_format: String,
    /// Log filter, as in info or info,kubeless::sources=debug. Also KUBELESS_LOG, RUST_LOG.
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,
}

impl ConfigArgs {
    /// The configuration in effect: these flags over the environment over the file over the defaults. What is only
    /// to be shown need not be complete.
    pub fn load(&self) -> Result<DispatcherConfig, load::Error> {
        let checks = if self.dump_config { Checks::Types } else { Checks::All };
        load::load(self.config.as_deref(), |name| std::env::var(name).ok(), self.overrides()?, checks)
    }

    /// What to do about logs.
    pub fn log_options(&self) -> Result<LogOptions, String> {
        let format: LogFormat = self.log_format.parse()?;
        Ok(LogOptions { format, filter: self.log_level.clone() })
    }

    fn overrides(&self) -> Result<Vec<Override>, load::Error> {
        let mut overrides = Vec::new();
        let mut push = |key: &str, value: String, flag: &str| {
            let origin = Origin::Flag(flag.to_owned());
            overrides.push(Override { key: key.to_owned(), value, origin });
        };
        if !self.manifests.is_empty() {
            let list: Vec<String> = self.manifests.iter().map(|path| path.display().to_string()).collect();
            push("manifests", list.join(":"), "--manifests");
        }
        if let Some(folder) = &self.state_dir {
            push("state_dir", folder.display().to_string(), "--state-dir");
        }
        if let Some(address) = &self.admin_listen {
            push("admin.listen", address.clone(), "--admin-listen");
        }
        for setting in &self.set {
            let Some((key, value)) = setting.split_once('=') else {
                return Err(load::Error(vec![load::Problem {
                    key: setting.clone(),
                    origin: Origin::Flag("--set".to_owned()),
                    problem: "has no value; write --set KEY=VALUE, as in --set invoker.workers=2".to_owned(),
                }]));
            };
            push(key.trim(), value.to_owned(), "--set");
        }
        Ok(overrides)
    }
}
