//! Requests for `kubeless send`. Must never send an event twice: no redirect is followed, nothing is repeated.

use crate::sources::{Error, Outgoing, Publisher};
use std::time::Duration;

/// Longest wait for an answer: a function may take its time.
const WAIT: Duration = Duration::from_secs(300);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// One server.
pub struct HttpPublisher {
    base: String,
    agent: ureq::Agent,
}

impl HttpPublisher {
    /// A client for `base`, `http://HOST:PORT` or `https://…`, to which topics are added as paths.
    ///
    /// # Errors
    /// It is no such URL.
    pub fn new(base: &str) -> Result<Self, Error> {
        let uri: http::Uri = base.parse().map_err(|_| wrong(base))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(wrong(base));
        }
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(WAIT))
            .timeout_connect(Some(CONNECT))
            .max_redirects(0)
            .http_status_as_error(false)
            // A connection that the server has closed would mean a request whose fate is not known.
            .max_idle_connections(0)
            .user_agent(concat!("kubeless/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build()
            .into();
        Ok(Self { base: base.trim_end_matches('/').to_owned(), agent })
    }

    fn send(&self, message: &Outgoing) -> Result<String, Error> {
        // A trigger is a host name, if it has one, and a path.
        let (host, path) = message.topic.split_once('/').unwrap_or(("", &message.topic));
        let mut request = self.agent.post(format!("{}/{path}", self.base));
        if !host.is_empty() {
            request = request.header("host", host);
        }
        for (name, value) in &message.headers {
            let name = name.strip_prefix("ce_").map_or_else(|| name.clone(), |name| format!("ce-{name}"));
            request = request.header(name, value);
        }
        let answer = request.send(message.data.as_deref().unwrap_or_default())?;
        let status = answer.status();
        if status.is_success() {
            Ok(format!("{} {status}", message.topic))
        } else {
            Err(refused(message, answer))
        }
    }
}

fn wrong(base: &str) -> Error {
    format!("{base:?} is not a server; write http://HOST:PORT").into()
}

/// The answer in its own words, as far as they are of use.
fn refused(message: &Outgoing, answer: http::Response<ureq::Body>) -> Error {
    const MAX_SHOWN: u64 = 2048;
    let status = answer.status();
    let text = answer.into_body().into_with_config().limit(MAX_SHOWN).read_to_string().unwrap_or_default();
    format!("{} was answered with {status}: {}", message.topic, text.trim()).into()
}

impl Publisher for HttpPublisher {
    fn publish(&self, messages: &[Outgoing]) -> Result<Vec<String>, Error> {
        messages.iter().map(|message| self.send(message)).collect()
    }
}
