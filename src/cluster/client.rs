//! The way to the API server: where it is, who we are, how long an answer may take. Shared by all three programs. Must
//! never log a token, and never wait without a bound.

use clap::Args;
use http::{HeaderValue, header::USER_AGENT};
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use std::{fmt::Write as _, path::PathBuf, time::Duration};
use tower::timeout::TimeoutLayer;

/// Longest wait for a connection: an API server is near, or it is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the head of an answer, repeated attempts (at most 15, after 429, 503 and 504) included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest silence inside an answer that is not a watch.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Which cluster, and as whom. Found as kubectl finds it: `--kubeconfig`, then `KUBECONFIG`, then ~/.kube/config, then
/// the Pod's own service account.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Connect {
    /// Kubeconfig file. Default: KUBECONFIG, ~/.kube/config, then the service account of this Pod.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig. Default: its current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// File whose content is the bearer token, in place of any other identity; read again every minute.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KUBELESS_TOKEN_FILE_PATH",
        hide_env_values = true
    )]
    pub token_file: Option<PathBuf>,
}

/// An API server that can be asked. Nothing is sent before the first request. Cheap to clone.
#[derive(Clone)]
pub struct Connection {
    /// For requests: every wait is bounded.
    pub client: Client,
    /// For watches: an answer may be silent for as long as the watch itself allows.
    pub watches: Client,
    /// Namespace of the context or of this Pod.
    pub namespace: String,
    /// Address of the API server, for people.
    pub server: String,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Why there is no way to an API server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file that was named cannot be used.
    #[error("kubeconfig {}: {what}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Neither a kubeconfig nor a service account.
    #[error(
        "no cluster: {0}; give --kubeconfig FILE, set KUBECONFIG, or run in a Pod with a service account"
    )]
    Nowhere(String),
    /// The token file cannot be used.
    #[error("token file {}: {what}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and how to fix it.
        what: String,
    },
    /// Certificates, credential plug-ins and the like.
    #[error("cannot set up the client: {0}")]
    Setup(String),
}

impl Connect {
    /// Reads certificates and credentials and makes the clients. `program` becomes the user agent, by which API
    /// servers tell clients apart in their audit logs and metrics.
    ///
    /// # Errors
    /// [`Error`]: what is missing or unreadable, with the file's name.
    pub async fn open(&self, program: &str) -> Result<Connection, Error> {
        let config = self.complete(program).await?;
        let mut requests = config.clone();
        requests.read_timeout = Some(READ_TIMEOUT);
        // Else the time that a connection lay idle would count as silence.
        requests.reset_reader_on_write = true;
        Ok(Connection {
            namespace: config.default_namespace.clone(),
            server: config.cluster_url.to_string(),
            client: build(requests, ANSWER_TIMEOUT)?,
            watches: build(config, ANSWER_TIMEOUT)?,
        })
    }

    /// A client that waits `answer` for the head of an answer and never sends a request again: for calls of functions
    /// through the API server, where every repetition would be another call.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn patient(&self, program: &str, answer: Duration) -> Result<Client, Error> {
        let mut config = self.complete(program).await?;
        config.default_retry = false;
        build(config, answer)
    }

    /// The configuration with this program's bounds and name, and the token that was asked for.
    async fn complete(&self, program: &str) -> Result<Config, Error> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        if let Some(path) = &self.token_file {
            check_token(path)?;
            // Only the token: an API server asks a client certificate first and would not look at the token.
            config.auth_info =
                AuthInfo { token_file: Some(path.display().to_string()), ..AuthInfo::default() };
        }
        let agent = format!("{program}/{} (kubeless)", env!("CARGO_PKG_VERSION"));
        if let Ok(agent) = HeaderValue::from_str(&agent) {
            config.headers.push((USER_AGENT, agent));
        }
        Ok(config)
    }

    async fn config(&self) -> Result<Config, Error> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let files = self.files();
        let wrong = |path: &PathBuf, error: KubeconfigError| Error::Kubeconfig {
            path: path.clone(),
            what: with_causes(&error),
        };
        let mut merged = None;
        for path in &files {
            let file = Kubeconfig::read_from(path).map_err(|error| wrong(path, error))?;
            merged = Some(match merged {
                None => file,
                Some(before) => Kubeconfig::merge(before, file).map_err(|error| wrong(path, error))?,
            });
        }
        if let (Some(file), Some(first)) = (merged, files.first()) {
            return Config::from_custom_kubeconfig(file, &options).await.map_err(|error| wrong(first, error));
        }
        // A context that was asked for by name must not silently become another identity.
        if self.context.is_some() {
            return Err(Error::Nowhere("there is no kubeconfig".to_owned()));
        }
        Config::incluster().map_err(|in_cluster| {
            Error::Nowhere(format!("there is no kubeconfig; {}", with_causes(&in_cluster)))
        })
    }

    /// The kubeconfigs in force: the one that was named, else what there is of the list in KUBECONFIG, else the one of
    /// the home folder if it is there.
    pub fn files(&self) -> Vec<PathBuf> {
        if let Some(path) = &self.kubeconfig {
            return vec![path.clone()];
        }
        let listed: Vec<PathBuf> = std::env::var_os("KUBECONFIG")
            .map(|list| std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect())
            .unwrap_or_default();
        let all = match listed.is_empty() {
            true => std::env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect(),
            false => listed,
        };
        all.into_iter().filter(|path| path.exists()).collect()
    }
}

fn build(config: Config, answer: Duration) -> Result<Client, Error> {
    let builder = ClientBuilder::try_from(config).map_err(|error| Error::Setup(with_causes(&error)))?;
    Ok(builder.with_layer(&TimeoutLayer::new(answer)).build())
}

/// A token with a line end would make every request fail with words about headers.
fn check_token(path: &PathBuf) -> Result<(), Error> {
    let wrong = |what: String| Error::Token { path: path.clone(), what };
    let token = std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if token.is_empty() || token.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(wrong(
            "must hold the token and nothing else: no blank, no line end (printf %s TOKEN)".to_owned(),
        ));
    }
    Ok(())
}

/// What went wrong with a request, in one line for people: the API server's own words where it answered, else the whole
/// chain of causes.
pub fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("HTTP {} {}", status.code, status.reason),
        other => with_causes(other),
    }
}

/// An error and what caused it, without the repetitions of errors that quote their cause.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
        clusters:\n- name: c\n  cluster: {server: \"http://127.0.0.1:1\"}\n\
        contexts:\n- name: here\n  context: {cluster: c, user: u, namespace: shop}\n\
        - name: there\n  context: {cluster: c, user: u, namespace: other}\n\
        users:\n- name: u\n  user: {token: secret}\n";

    fn file(content: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(content.as_bytes()).expect("written");
        file
    }

    fn connect(kubeconfig: &tempfile::NamedTempFile) -> Connect {
        Connect { kubeconfig: Some(kubeconfig.path().to_owned()), ..Connect::default() }
    }

    #[tokio::test]
    async fn the_context_that_was_asked_for_is_taken() {
        let file = file(KUBECONFIG);
        let here = connect(&file).open("test").await.expect("the current context");
        assert_eq!((here.namespace.as_str(), here.server.as_str()), ("shop", "http://127.0.0.1:1/"));
        let named = Connect { context: Some("there".to_owned()), ..connect(&file) };
        assert_eq!(named.open("test").await.expect("the named context").namespace, "other");
        let wrong = Connect { context: Some("nowhere".to_owned()), ..connect(&file) };
        let error = wrong.open("test").await.expect_err("no such context").to_string();
        assert!(error.contains("nowhere") && error.contains(&file.path().display().to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_wrong_file_is_named() {
        let missing = Connect { kubeconfig: Some("/nowhere/config".into()), ..Connect::default() };
        let error = missing.open("test").await.expect_err("no file").to_string();
        assert!(error.contains("/nowhere/config"), "{error}");
        let (config, token) = (file(KUBECONFIG), file("secret\n"));
        let connect = Connect { token_file: Some(token.path().to_owned()), ..connect(&config) };
        let error = connect.open("test").await.expect_err("a line end").to_string();
        assert!(error.contains("no line end") && !error.contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn the_token_file_takes_the_place_of_the_identity_and_an_error_is_one_line() {
        let (config, token) = (file(KUBECONFIG), file("other"));
        let connect = Connect { token_file: Some(token.path().to_owned()), ..connect(&config) };
        let connection = connect.open("test").await.expect("a connection");
        let error = connection.client.apiserver_version().await.expect_err("nobody listens on port 1");
        let text = explain(&error);
        assert!(text.contains("refused") && !text.contains('\n') && !text.contains("other"), "{text}");
    }
}
