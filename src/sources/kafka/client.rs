//! librdkafka configurations: what the protocol needs of the library, and security from files or Kubeless's
//! environment names. Must never log or return a secret.

use super::{
    options::Options,
    spec::{KafkaTrigger, SaslMechanism},
};
use crate::cluster::secrets::SecretData;
use rdkafka::ClientConfig;
use std::path::{Path, PathBuf};

/// Security of triggers that name no credentials: `KAFKA_ENABLE_TLS`, `KAFKA_CACERTS`, `KAFKA_CERT`, `KAFKA_KEY`,
/// `KAFKA_INSECURE`, `KAFKA_ENABLE_SASL`, `KAFKA_USERNAME`, `KAFKA_PASSWORD`, as Kubeless read them.
#[derive(Clone, Default)]
pub struct Security {
    tls: bool,
    insecure: bool,
    ca: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
    plain: Option<(String, String)>,
}

/// Why a client cannot be configured.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Nothing says where the brokers are.
    #[error("no brokers: set spec.bootstrapServers, [sources.kafka] bootstrap_servers or KAFKA_BROKERS")]
    NoBrokers,
    /// An environment variable makes no sense.
    #[error("{name}: {what}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What is wrong and how to fix it.
        what: &'static str,
    },
    /// A credentials file is missing.
    #[error("credentials {name}: cannot read {file}: {what}; mount the Secret there")]
    Credentials {
        /// `spec.credentials`.
        name: String,
        /// File.
        file: String,
        /// System message.
        what: String,
    },
    /// A Secret lacks a key, or holds no text under it.
    #[error("Secret {name}: {key} {what}")]
    Key {
        /// `spec.credentials`.
        name: String,
        /// Key of its data.
        key: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A client certificate without its key, or the reverse.
    #[error("credentials {name}: {file} is missing; tls.crt and tls.key go together: put both there or none")]
    Pair {
        /// `spec.credentials`.
        name: String,
        /// The missing one.
        file: &'static str,
    },
    /// SASL without credentials.
    #[error("spec.sasl needs credentials: set spec.credentials or KAFKA_USERNAME and KAFKA_PASSWORD")]
    NoCredentials,
}

impl Security {
    /// Reads the environment.
    ///
    /// # Errors
    /// A boolean that is none, or half of a pair.
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let flag = |name: &'static str| match env(name).as_deref() {
            None | Some("" | "false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
            Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
            Some(_) => Err(Error::Variable { name, what: "not a boolean; use true or false" }),
        };
        let path = |name: &str| env(name).filter(|p| !p.is_empty()).map(PathBuf::from);
        let certificate = match (path("KAFKA_CERT"), path("KAFKA_KEY")) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((cert, key)),
            _ => return Err(Error::Variable { name: "KAFKA_CERT", what: "set it together with KAFKA_KEY" }),
        };
        let plain = if flag("KAFKA_ENABLE_SASL")? {
            let text = |name: &str| env(name).filter(|text| !text.is_empty());
            match (text("KAFKA_USERNAME"), text("KAFKA_PASSWORD")) {
                (Some(user), Some(password)) => Some((user, password)),
                _ => {
                    let what = "KAFKA_ENABLE_SASL needs it together with KAFKA_PASSWORD";
                    return Err(Error::Variable { name: "KAFKA_USERNAME", what });
                }
            }
        } else {
            None
        };
        let (tls, insecure) = (flag("KAFKA_ENABLE_TLS")?, flag("KAFKA_INSECURE")?);
        Ok(Self { tls, insecure, ca: path("KAFKA_CACERTS"), certificate, plain })
    }
}

/// Connection part of a configuration for `trigger`: brokers and security. `secret` is what the Secret of its credentials
/// holds; without it they are files.
///
/// # Errors
/// No brokers are known, or credentials cannot be read.
pub fn connection(
    trigger: &KafkaTrigger,
    options: &Options,
    security: &Security,
    secret: Option<&SecretData>,
) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::new();
    let brokers = trigger.spec.bootstrap_servers.as_deref().unwrap_or(&options.bootstrap_servers);
    if brokers.trim().is_empty() {
        return Err(Error::NoBrokers);
    }
    config.set("bootstrap.servers", brokers).set("client.id", "kubeless-dispatcher");
    let credentials = trigger.spec.credentials.as_ref().map(|name| Credentials {
        name,
        place: secret.map_or_else(|| Place::Folder(options.credentials_dir.join(name)), Place::Secret),
    });
    if let Some(credentials) = &credentials {
        credentials.check()?;
    }
    let tls = trigger.spec.tls.enabled || security.tls && trigger.spec.bootstrap_servers.is_none();
    if tls {
        set_tls(&mut config, trigger, security, credentials.as_ref())?;
    }
    let sasl = set_sasl(&mut config, trigger, security, credentials.as_ref())?;
    let protocol = match (tls, sasl) {
        (false, false) => "plaintext",
        (true, false) => "ssl",
        (false, true) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    Ok(config)
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
    /// A folder that is not there, or half of a pair, must not quietly mean "without credentials".
    fn check(&self) -> Result<(), Error> {
        if let Place::Folder(dir) = &self.place {
            let found = std::fs::metadata(dir).map_err(|e| self.unreadable(dir, &e))?;
            if !found.is_dir() {
                return Err(self.unreadable(dir, &std::io::ErrorKind::NotADirectory.into()));
            }
        }
        let missing = match (self.has("tls.crt"), self.has("tls.key")) {
            (true, false) => "tls.key",
            (false, true) => "tls.crt",
            _ => return Ok(()),
        };
        Err(Error::Pair { name: self.name.to_owned(), file: missing })
    }

    fn has(&self, key: &str) -> bool {
        match &self.place {
            Place::Folder(dir) => dir.join(key).is_file(),
            Place::Secret(data) => data.get(key).is_some(),
        }
    }

    /// A value that must be there, as text.
    fn read(&self, key: &'static str) -> Result<String, Error> {
        let text = match &self.place {
            Place::Folder(dir) => {
                let path = dir.join(key);
                std::fs::read_to_string(&path).map_err(|e| self.unreadable(&path, &e))?
            }
            Place::Secret(data) => {
                let wrong = |what| Error::Key { name: self.name.to_owned(), key, what };
                let value = data.get(key).ok_or_else(|| wrong("is missing or empty; add it"))?;
                String::from_utf8(value.to_vec()).map_err(|_| wrong("is not UTF-8 text"))?
            }
        };
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Gives the library a certificate or key, if there is one: a folder by its path, a Secret by its text. Returns
    /// whether there was one.
    fn give(
        &self,
        config: &mut ClientConfig,
        key: &'static str,
        options: (&str, &str),
    ) -> Result<bool, Error> {
        if !self.has(key) {
            return Ok(false);
        }
        match &self.place {
            Place::Folder(dir) => config.set(options.0, dir.join(key).display().to_string()),
            Place::Secret(_) => config.set(options.1, self.read(key)?),
        };
        Ok(true)
    }

    fn unreadable(&self, path: &Path, error: &std::io::Error) -> Error {
        let (file, what) = (path.display().to_string(), error.to_string());
        Error::Credentials { name: self.name.to_owned(), file, what }
    }
}

/// Options of the library that take a path, and those that take the text itself.
const CA: (&str, &str) = ("ssl.ca.location", "ssl.ca.pem");
const CERTIFICATE: (&str, &str) = ("ssl.certificate.location", "ssl.certificate.pem");
const KEY: (&str, &str) = ("ssl.key.location", "ssl.key.pem");

fn set_tls(
    config: &mut ClientConfig,
    trigger: &KafkaTrigger,
    security: &Security,
    credentials: Option<&Credentials<'_>>,
) -> Result<(), Error> {
    let text = |path: &Path| path.display().to_string();
    // The environment's certificates belong to the environment's brokers only.
    let own = trigger.spec.bootstrap_servers.is_none().then_some(security);
    let given = |config: &mut ClientConfig, key, options| {
        credentials.map_or(Ok(false), |credentials| credentials.give(config, key, options))
    };
    if !given(config, "ca.crt", CA)?
        && let Some(ca) = own.and_then(|own| own.ca.as_ref())
    {
        config.set(CA.0, text(ca));
    }
    if given(config, "tls.crt", CERTIFICATE)? {
        given(config, "tls.key", KEY)?;
    } else if let Some((certificate, key)) = own.and_then(|own| own.certificate.as_ref()) {
        config.set(CERTIFICATE.0, text(certificate)).set(KEY.0, text(key));
    }
    let insecure = trigger.spec.tls.insecure_skip_verify || own.is_some_and(|s| s.insecure);
    config.set("enable.ssl.certificate.verification", if insecure { "false" } else { "true" });
    if insecure {
        config.set("ssl.endpoint.identification.algorithm", "none");
    }
    Ok(())
}

fn set_sasl(
    config: &mut ClientConfig,
    trigger: &KafkaTrigger,
    security: &Security,
    credentials: Option<&Credentials<'_>>,
) -> Result<bool, Error> {
    let Some(sasl) = &trigger.spec.sasl else {
        let Some((user, password)) = &security.plain else { return Ok(false) };
        if trigger.spec.bootstrap_servers.is_some() {
            // The environment's password goes to the environment's brokers only.
            return Ok(false);
        }
        config.set("sasl.mechanism", "PLAIN").set("sasl.username", user).set("sasl.password", password);
        return Ok(true);
    };
    config.set("sasl.mechanism", sasl.mechanism.as_str());
    let (user, password) = match credentials {
        Some(credentials) => (credentials.read("username")?, credentials.read("password")?),
        None if trigger.spec.bootstrap_servers.is_none() => {
            security.plain.clone().ok_or(Error::NoCredentials)?
        }
        None => return Err(Error::NoCredentials),
    };
    if sasl.mechanism == SaslMechanism::OauthBearer {
        config
            .set("sasl.oauthbearer.method", "oidc")
            .set("sasl.oauthbearer.client.id", user)
            .set("sasl.oauthbearer.client.secret", password);
        if let Some(endpoint) = &sasl.token_endpoint {
            config.set("sasl.oauthbearer.token.endpoint.url", endpoint);
        }
    } else {
        config.set("sasl.username", user).set("sasl.password", password);
    }
    Ok(true)
}

/// Consumer part: what the claim protocol needs of the library.
pub fn consumer(mut config: ClientConfig, options: &Options, group: &str) -> ClientConfig {
    let millis = |d: std::time::Duration| d.as_millis().to_string();
    config
        .set("group.id", group)
        // Offsets are claims: the library must never commit or store one by itself, nor choose a position (1.1).
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true")
        // K6: eager. Safety then needs our own library only: it cannot rejoin before this process unassigned.
        .set("partition.assignment.strategy", "range,roundrobin")
        // K1: a re-send by the library takes at least 0.8 s, so a quick answer was sent once.
        .set("retry.backoff.ms", "1000")
        .set("retry.backoff.max.ms", "1000")
        .set("session.timeout.ms", millis(options.session_timeout))
        .set("heartbeat.interval.ms", millis(options.heartbeat_interval))
        .set("max.poll.interval.ms", millis(options.max_poll_interval))
        // A full queue is looked at again after a moment: the library's own second is longer than a fast function takes
        // to empty the queue, and stood still for the rest of it.
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.max.messages.kbytes", (options.prefetch_bytes / 1024).max(64).to_string())
        // Small, so that an answer holds a little of every partition: claims run beside one another over partitions, and
        // a register has room for few of one. A larger record is fetched all the same.
        .set("fetch.message.max.bytes", (64 << 10).to_string())
        .set("fetch.wait.max.ms", "100")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .set("topic.metadata.refresh.interval.ms", "30000")
        .set("reconnect.backoff.max.ms", "2000")
        .set("statistics.interval.ms", "0");
    if !options.group_instance_id.is_empty() {
        config.set("group.instance.id", format!("{}-{group}", options.group_instance_id));
    }
    config
}
