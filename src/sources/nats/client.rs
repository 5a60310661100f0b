//! How a server is reached: its addresses, who we are, and TLS; from the trigger, the options, a Secret or its files. Must
//! never log or return a secret.

use super::{options::Options, spec::NATSTrigger};
use crate::cluster::secrets::SecretData;
use async_nats::{ConnectOptions, ServerAddr};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// First and longest pause between two attempts to connect; each is spread by half, so that members do not come at once.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));
/// Messages that the client library may hold; it drops what is more, which the statistics show.
const LIBRARY_QUEUE: usize = 1 << 18;

/// Why a server cannot be reached by this trigger.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Nothing says where the server is.
    #[error("no server: set spec.url, [sources.nats] url or NATS_URL")]
    NoServer,
    /// An address makes no sense. It is not shown: it may hold a password.
    #[error("{from}: not a server address; write nats://host:port, several with commas")]
    Address {
        /// Where it stands.
        from: &'static str,
    },
    /// Credentials cannot be read.
    #[error("credentials {name}: {what}")]
    Credentials {
        /// `spec.credentials`.
        name: String,
        /// What is wrong and how to fix it.
        what: String,
    },
}

/// Everything that is needed to connect.
#[derive(Clone)]
pub struct Access {
    /// The servers.
    pub servers: Vec<ServerAddr>,
    options: ConnectOptions,
}

impl Access {
    /// What `trigger` says. `secret` is what the Secret of its credentials holds; without it they are files.
    ///
    /// # Errors
    /// No server is known, or credentials cannot be read.
    pub fn of(trigger: &NATSTrigger, options: &Options, secret: Option<&SecretData>) -> Result<Self, Error> {
        let (text, from) = match &trigger.spec.url {
            Some(url) => (url.as_str(), "spec.url"),
            None => (options.url.as_str(), "[sources.nats] url or NATS_URL"),
        };
        let servers = servers(text, from)?;
        let mut connect = base(options);
        let credentials = trigger.spec.credentials.as_ref().map(|name| Credentials {
            name,
            place: secret.map_or_else(|| Place::Folder(options.credentials_dir.join(name)), Place::Secret),
        });
        if let Some(credentials) = &credentials {
            connect = credentials.identify(connect)?;
        }
        let tls = credentials.as_ref().map_or(Ok(None), Credentials::tls)?;
        if trigger.spec.tls.enabled || tls.is_some() {
            connect = connect.require_tls(true);
        }
        if let Some(tls) = tls {
            connect = connect.tls_client_config(tls);
        }
        Ok(Self { servers, options: connect })
    }

    /// Access to `servers` with the files of `credentials`, if there are any.
    ///
    /// # Errors
    /// An address is malformed, or credentials cannot be read.
    pub fn to(text: &str, from: &'static str, credentials: Option<&Path>) -> Result<Self, Error> {
        let mut connect = base(&Options::default());
        if let Some(folder) = credentials {
            let name = folder.display().to_string();
            let credentials = Credentials { name: &name, place: Place::Folder(folder.to_path_buf()) };
            connect = credentials.identify(connect)?;
            if let Some(tls) = credentials.tls()? {
                connect = connect.require_tls(true).tls_client_config(tls);
            }
        }
        Ok(Self { servers: servers(text, from)?, options: connect })
    }

    /// Options for one connection, called `name` in the server's own lists.
    pub fn connection(&self, name: &str) -> ConnectOptions {
        self.options.clone().name(name)
    }
}

fn base(options: &Options) -> ConnectOptions {
    ConnectOptions::new()
        .connection_timeout(options.connect_timeout)
        .ping_interval(options.ping_interval)
        .subscription_capacity(LIBRARY_QUEUE)
        // For ever: a server that is away comes back.
        .max_reconnects(None)
        .reconnect_delay_callback(pause)
}

/// Pause before attempt number `attempts`.
pub fn pause(attempts: usize) -> Duration {
    let doubled =
        PAUSES.0 * 2_u32.saturating_pow(u32::try_from(attempts.saturating_sub(1)).unwrap_or(31).min(16));
    doubled.min(PAUSES.1).mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// The addresses of `text`, which are separated by commas.
///
/// # Errors
/// There is none, or one is malformed.
pub fn servers(text: &str, from: &'static str) -> Result<Vec<ServerAddr>, Error> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let servers: Result<Vec<ServerAddr>, _> = parts.map(str::parse).collect();
    match servers {
        Ok(servers) if servers.is_empty() => Err(Error::NoServer),
        Ok(servers) => Ok(servers),
        Err(_) => Err(Error::Address { from }),
    }
}

/// Where credentials are.
enum Place<'a> {
    /// One file a value.
    Folder(PathBuf),
    /// One key a value.
    Secret(&'a SecretData),
}

struct Credentials<'a> {
    name: &'a str,
    place: Place<'a>,
}

impl Credentials<'_> {
    fn wrong(&self, what: impl Into<String>) -> Error {
        Error::Credentials { name: self.name.to_owned(), what: what.into() }
    }

    /// A value, if it is there.
    fn find(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        match &self.place {
            Place::Secret(data) => Ok(data.get(key).map(<[u8]>::to_vec)),
            Place::Folder(dir) => match std::fs::read(dir.join(key)) {
                Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(self.wrong(format!("cannot read {}: {error}", dir.join(key).display()))),
            },
        }
    }

    fn text(&self, key: &str) -> Result<Option<String>, Error> {
        let Some(value) = self.find(key)? else { return Ok(None) };
        let text = String::from_utf8(value).map_err(|_| self.wrong(format!("{key} is not UTF-8 text")))?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// Who we are: exactly one way, or the client certificate alone.
    fn identify(&self, connect: ConnectOptions) -> Result<ConnectOptions, Error> {
        let (creds, nkey, token) = (self.text("creds")?, self.text("nkey")?, self.text("token")?);
        let (user, password) = (self.text("username")?, self.text("password")?);
        let ways = [creds.is_some(), nkey.is_some(), token.is_some(), user.is_some() || password.is_some()];
        if ways.iter().filter(|way| **way).count() > 1 {
            return Err(self.wrong("more than one of creds, nkey, token, username: keep one"));
        }
        if let Some(creds) = creds {
            return connect
                .credentials(&creds)
                .map_err(|_| self.wrong("creds is not a credentials file of nsc"));
        }
        if let Some(seed) = nkey {
            return Ok(connect.nkey(seed));
        }
        if let Some(token) = token {
            return Ok(connect.token(token));
        }
        match (user, password) {
            (Some(user), Some(password)) => Ok(connect.user_and_password(user, password)),
            (None, None) if self.find("tls.crt")?.is_some() || self.find("ca.crt")?.is_some() => Ok(connect),
            (None, None) => Err(self.wrong(
                "holds none of creds, nkey, token, username and password, tls.crt, ca.crt; mount the Secret there",
            )),
            _ => Err(self.wrong("username and password go together: put both there")),
        }
    }

    /// Certificates; `None`: there are none of our own.
    fn tls(&self) -> Result<Option<ClientConfig>, Error> {
        let (ca, certificate, key) = (self.find("ca.crt")?, self.find("tls.crt")?, self.find("tls.key")?);
        if certificate.is_some() != key.is_some() {
            return Err(self.wrong("tls.crt and tls.key go together: put both there or none"));
        }
        let Some(ca) = ca else {
            let none = certificate.is_none();
            return if none {
                Ok(None)
            } else {
                Err(self.wrong("tls.crt needs ca.crt, which signed the server"))
            };
        };
        let mut roots = RootCertStore::empty();
        for authority in self.certificates(&ca, "ca.crt")? {
            roots.add(authority).map_err(|error| self.wrong(format!("ca.crt: {error}")))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| self.wrong(error.to_string()))?
            .with_root_certificates(roots);
        let (Some(certificate), Some(key)) = (certificate, key) else {
            return Ok(Some(builder.with_no_client_auth()));
        };
        let chain = self.certificates(&certificate, "tls.crt")?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| self.wrong("tls.key is not a PEM key"))?;
        builder
            .with_client_auth_cert(chain, key)
            .map(Some)
            .map_err(|error| self.wrong(format!("tls.key: {error}")))
    }

    fn certificates(&self, pem: &[u8], key: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match found {
            Ok(list) if !list.is_empty() => Ok(list),
            _ => Err(self.wrong(format!("{key} holds no PEM certificate"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_pauses() {
        assert_eq!(servers("nats://a:1, b:2", "x").map(|list| list.len()), Ok(2));
        assert_eq!(servers(" ", "x"), Err(Error::NoServer));
        assert_eq!(servers("nats://u:secret@[", "x"), Err(Error::Address { from: "x" }));
        for (attempt, most) in [(0, 250), (1, 250), (2, 500), (40, 8000)] {
            let pause = pause(attempt);
            assert!(
                pause <= Duration::from_millis(most) && pause >= Duration::from_millis(125),
                "{attempt}: {pause:?}"
            );
        }
    }
}
