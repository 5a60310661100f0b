//! The flags that `deploy` and `update` share, under the names they have in Kubeless. Must never contact a cluster.

use super::{
    change::Changes,
    code::{self, Code},
    pairs::Pair,
};
use crate::cli::UsageError;
use clap::ValueEnum;

/// What a function is made of.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Runtime and version, as in python3.11 (kubeless get-server-config lists them).
    #[arg(short, long, value_name = "NAME")]
    runtime: Option<String>,
    /// What is called: <file without suffix>.<function>, as in hello.main.
    #[arg(long, value_name = "FILE.FUNCTION")]
    handler: Option<String>,
    /// Code: a file, - (standard input) or an http(s) URL; .zip, .tar.gz and the like are archives.
    #[arg(short, long, value_name = "FILE|URL")]
    from_file: Option<String>,
    /// Dependency file (requirements.txt, package.json, go.mod, ...): a file or URL.
    #[arg(short, long, value_name = "FILE|URL")]
    dependencies: Option<String>,
    /// The archive of --from-file brings its own dependency file.
    #[arg(long, requires = "from_file", conflicts_with = "dependencies")]
    bundled_dependencies: bool,
    /// Labels, by which triggers select functions; `key-` removes.
    #[arg(short, long, value_name = "K=V", value_delimiter = ',')]
    label: Vec<String>,
    /// Environment variable; may be given several times; `NAME-` removes.
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Secrets, each mounted at /<name>; `name-` removes.
    #[arg(long, alias = "secret", value_name = "NAME", value_delimiter = ',')]
    secrets: Vec<String>,
    /// Secrets whose keys become environment variables; `name-` removes.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    env_from_secrets: Vec<String>,
    /// Labels of the nodes that the function may run on; `key-` removes.
    #[arg(long, value_name = "K=V", value_delimiter = ',')]
    node_selectors: Vec<String>,
    /// ServiceAccount that the function runs as.
    #[arg(long, value_name = "NAME")]
    service_account: Option<String>,
    /// Memory, requested and limit, as in 128Mi.
    #[arg(long, value_name = "QUANTITY")]
    memory: Option<String>,
    /// CPU, requested and limit, as in 500m.
    #[arg(long, value_name = "QUANTITY")]
    cpu: Option<String>,
    /// Image to run in place of the runtime's.
    #[arg(long, value_name = "IMAGE")]
    runtime_image: Option<String>,
    /// When the node pulls the image: Always (default of deploy), IfNotPresent or Never.
    #[arg(long, value_name = "POLICY", ignore_case = true, hide_possible_values = true)]
    image_pull_policy: Option<PullPolicy>,
    /// Longest run of one call, in seconds. Default 180.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<String>,
    /// Port that the function listens on. Default 8080.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Port of its Service. Default: --port. `update --port` leaves it alone.
    #[arg(long = "servicePort", alias = "service-port", value_name = "PORT",
          value_parser = clap::value_parser!(u16).range(1..))]
    service_port: Option<u16>,
    /// Makes the Service headless; --headless=false undoes it.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    headless: Option<bool>,
}

/// `imagePullPolicy` of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    /// Asks the registry at every start.
    Always,
    /// Only what the node lacks.
    IfNotPresent,
    /// What the node lacks, it lacks.
    Never,
}

impl PullPolicy {
    /// As Kubernetes spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

impl Flags {
    /// Reads the files and URLs that the flags name.
    pub fn changes(&self) -> anyhow::Result<Changes> {
        for (flag, quantity) in [("memory", &self.memory), ("cpu", &self.cpu)] {
            check_quantity(flag, quantity.as_deref().unwrap_or_default())?;
        }
        let code = self.from_file.as_deref().map(|from| Code::read(from, self.bundled_dependencies));
        let dependencies = self.dependencies.as_deref().map(|from| match from {
            "" => Ok(String::new()),
            from => code::dependencies(from),
        });
        Ok(Changes {
            runtime: self.runtime.clone(),
            handler: self.handler.clone(),
            code: code.transpose()?,
            dependencies: dependencies.transpose()?,
            timeout: self.timeout.clone(),
            labels: Pair::all("label", &self.label, Pair::parse)?,
            env: Pair::all("env", &self.env, Pair::parse)?,
            secrets: Pair::all("secrets", &self.secrets, Pair::name)?,
            env_secrets: Pair::all("env-from-secrets", &self.env_from_secrets, Pair::name)?,
            node_selectors: Pair::all("node-selectors", &self.node_selectors, Pair::parse)?,
            service_account: self.service_account.clone(),
            memory: self.memory.clone(),
            cpu: self.cpu.clone(),
            image: self.runtime_image.clone(),
            pull_policy: self.image_pull_policy.map(|policy| policy.as_str().to_owned()),
            port: self.port,
            service_port: self.service_port,
            headless: self.headless,
        })
    }

    /// What a function cannot do without when it is new.
    pub fn check_new(&self) -> Result<(), UsageError> {
        let wrong = |text: &str| Err(UsageError(text.to_owned()));
        match (&self.runtime, &self.runtime_image, &self.handler, &self.from_file) {
            (None, None, ..) => wrong(
                "neither --runtime nor --runtime-image; write for example --runtime python3.11 (kubeless \
                 get-server-config lists the runtimes)",
            ),
            (Some(_), _, None, _) => wrong(
                "--runtime needs --handler <file without suffix>.<function>; for hello.py with def main(...): \
                 --handler hello.main",
            ),
            (Some(_), None, _, None) => wrong("--runtime needs the code; add --from-file FILE or URL"),
            _ => Ok(()),
        }
    }
}

/// Refuses what is no Kubernetes quantity: a number and a known unit.
pub fn check_quantity(flag: &str, text: &str) -> Result<(), UsageError> {
    const UNITS: [&str; 15] = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    if text.is_empty() || (number.parse::<f64>().is_ok() && UNITS.contains(&unit)) {
        return Ok(());
    }
    let example = if flag == "cpu" { "500m (half a core) or 2" } else { "128Mi or 1Gi" };
    Err(UsageError(format!("--{flag} {text:?} is not a quantity; write for example {example}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for text in ["", "1", "0.5", "500m", "128Mi", "1G"] {
            assert!(check_quantity("memory", text).is_ok(), "{text}");
        }
        for text in ["128mb", "Mi", "-1", "1 Gi"] {
            assert!(check_quantity("memory", text).is_err(), "{text}");
        }
    }
}
