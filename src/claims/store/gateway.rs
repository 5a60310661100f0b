//! Requests in JSON to the servers of a store: each is sent once, to one of them, and its fate is told. Must never send a
//! request again of which a byte may have left, nor show what it knows from its files.

use serde_json::Value;
use std::{
    fs,
    io::ErrorKind,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// Longest wait for one answer.
const WAIT: Duration = Duration::from_secs(3);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest answer.
const MAX_ANSWER: u64 = 16 << 20;

/// What became of a request.
#[derive(Debug)]
pub(super) enum Fate {
    /// Status and body.
    Answered(u16, Value),
    /// No server got it.
    NotSent(String),
    /// Nobody knows.
    Unknown(String),
}

/// Name and password.
pub(super) type Login = (String, String);

/// See the module.
pub(super) struct Gateway {
    agent: ureq::Agent,
    servers: Vec<String>,
    /// The one that answered last.
    at: AtomicUsize,
}

impl Gateway {
    /// A way to `servers` (URLs); `credentials`: folder of `ca.crt`, `tls.crt` and `tls.key`.
    pub(super) fn new(servers: Vec<String>, credentials: Option<&Path>) -> Result<Self, String> {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(provider);
        if let Some(ca) = read(credentials, "ca.crt")? {
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates(&ca, "ca.crt")?));
        }
        match (read(credentials, "tls.crt")?, read(credentials, "tls.key")?) {
            (Some(certificate), Some(key)) => {
                let key = PrivateKey::from_pem(&key).map_err(|_| "tls.key is not a PEM key".to_owned())?;
                let chain = certificates(&certificate, "tls.crt")?;
                tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
            }
            (None, None) => {}
            _ => return Err("tls.crt and tls.key go together: put both there or none".to_owned()),
        }
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(WAIT))
            .timeout_connect(Some(CONNECT))
            .max_redirects(0)
            .http_status_as_error(false)
            .proxy(None)
            .user_agent(concat!("kubeless/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .build();
        Ok(Self { agent: agent.into(), servers, at: AtomicUsize::new(0) })
    }

    /// Sends `body` to `path` of the first server that can be reached. Blocking.
    pub(super) fn post(&self, path: &str, body: &Value, token: Option<&str>) -> Fate {
        let mut why = "no server is named".to_owned();
        let start = self.at.load(Ordering::Relaxed);
        for step in 0..self.servers.len() {
            let at = (start + step) % self.servers.len();
            let Some(server) = self.servers.get(at) else { continue };
            let mut request = self.agent.post(format!("{server}{path}"));
            if let Some(token) = token {
                request = request.header("authorization", token);
            }
            let sent = request.header("content-type", "application/json").send(body.to_string());
            match sent {
                Ok(answer) => {
                    self.at.store(at, Ordering::Relaxed);
                    return answered(answer);
                }
                Err(error) if is_unsent(&error) => why = format!("{server}: {error}"),
                Err(error) => {
                    // It may be standing still: the next request goes elsewhere.
                    self.at.store(at + 1, Ordering::Relaxed);
                    return Fate::Unknown(format!("{server}: {error}"));
                }
            }
        }
        Fate::NotSent(why)
    }
}

fn answered(answer: http::Response<ureq::Body>) -> Fate {
    let status = answer.status().as_u16();
    let text = answer.into_body().into_with_config().limit(MAX_ANSWER).read_to_string();
    match text.map(|text| serde_json::from_str(&text)) {
        Ok(Ok(value)) => Fate::Answered(status, value),
        Ok(Err(error)) => Fate::Unknown(format!("the answer ({status}) cannot be read: {error}")),
        Err(error) => Fate::Unknown(error.to_string()),
    }
}

/// Whether no byte of the request can have left.
fn is_unsent(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Timeout(which) => matches!(which, ureq::Timeout::Connect | ureq::Timeout::Resolve),
        ureq::Error::Io(error) => error.kind() == ErrorKind::ConnectionRefused,
        _ => false,
    }
}

/// Name and password of a folder; `None`: there are none.
pub(super) fn login(credentials: Option<&Path>) -> Result<Option<Login>, String> {
    let text = |name| {
        let value = read(credentials, name)?.map(String::from_utf8).transpose();
        let value = value.map_err(|_| format!("{name} is not UTF-8 text"))?;
        Ok::<_, String>(value.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()))
    };
    match (text("username")?, text("password")?) {
        (Some(name), Some(password)) => Ok(Some((name, password))),
        (None, None) => Ok(None),
        _ => Err("username and password go together: put both there".to_owned()),
    }
}

pub(super) fn read(credentials: Option<&Path>, name: &str) -> Result<Option<Vec<u8>>, String> {
    let Some(path) = credentials.map(|dir| dir.join(name)) else { return Ok(None) };
    match fs::read(&path) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

fn certificates(pem: &[u8], name: &str) -> Result<Vec<Certificate<'static>>, String> {
    let found: Result<Vec<_>, _> = parse_pem(pem).collect();
    let items = found.map_err(|error| format!("{name}: {error}"))?;
    let list = items.into_iter().filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    let list: Vec<_> = list.collect();
    if list.is_empty() { Err(format!("{name} holds no PEM certificate")) } else { Ok(list) }
}
