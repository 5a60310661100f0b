//! One file from a URL. Must never take an error page for the file, follow redirects without end, or show more of a
//! URL than its host and path: the rest may hold a token.

use std::{io, io::Read, sync::Arc, time::Duration};
use ureq::{
    Agent, Error as HttpError,
    tls::{RootCerts, TlsConfig},
};

/// Redirects that are followed: release pages of code hosts need two.
const REDIRECTS: u32 = 10;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// Longest wait for the head of the answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Longest silence of a body.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest download: a Pod that still downloads after this is stuck.
const WHOLE: Duration = Duration::from_secs(1800);

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither http nor https, or no URL at all.
    #[error("{0:?} is not an http or https URL")]
    NotAUrl(String),
    /// An answer that is not the file.
    #[error("{url} answered with status {status}")]
    Status {
        /// Host and path.
        url: String,
        /// Its status.
        status: u16,
    },
    /// No answer, or a broken one.
    #[error("{url}: {what}")]
    Failed {
        /// Host and path.
        url: String,
        /// What went wrong.
        what: String,
    },
}

/// Asks for `url`; the body of an answer that is 2xx. The variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY are obeyed.
///
/// # Errors
/// See [`Error`].
pub fn open(url: &str) -> Result<Box<dyn Read>, Error> {
    let shown = shown(url);
    if !(url.starts_with("http://") || url.starts_with("https://")) || url.contains(char::is_whitespace) {
        return Err(Error::NotAUrl(shown));
    }
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build();
    let agent: Agent = Agent::config_builder()
        .tls_config(tls)
        .max_redirects(REDIRECTS)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(ANSWER))
        .timeout_per_read(Some(SILENCE))
        .timeout_global(Some(WHOLE))
        .user_agent(concat!("kubeless-prepare/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    match agent.get(url).call() {
        Ok(answer) if answer.status().is_success() => Ok(Box::new(answer.into_body().into_reader())),
        Ok(answer) => Err(Error::Status { url: shown, status: answer.status().as_u16() }),
        Err(HttpError::StatusCode(status)) => Err(Error::Status { url: shown, status }),
        Err(HttpError::Io(error)) => Err(Error::Failed { url: shown, what: io_text(&error) }),
        Err(error) => Err(Error::Failed { url: shown, what: error.to_string() }),
    }
}

fn io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}

/// The URL without user, password, query and fragment.
fn shown(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = bare.split_once("://") else {
        return bare.chars().take(64).collect();
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or(host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_url_are_not_shown() {
        assert_eq!(shown("https://me:pw@host:8/a/b.zip?token=x#y"), "https://host:8/a/b.zip");
        assert_eq!(shown("https://host"), "https://host");
        for url in ["ftp://a/b", "file:///etc/passwd", "", "http://a/b c", "/src/x"] {
            assert!(matches!(open(url), Err(Error::NotAUrl(_))), "{url}");
        }
    }
}
