//! Certificates for brokers and clients of one test, made by the `openssl` program in a folder of the test's own.
//! Must never be valid for long or for any host but this one.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Elliptic: a key takes milliseconds. Unencrypted PKCS#8, which Kafka and OpenSSL both read.
const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/// An authority that signs certificates.
pub struct Authority {
    dir: PathBuf,
    /// Its own certificate (PEM).
    pub certificate: PathBuf,
    key: PathBuf,
}

/// A certificate with its key (PEM).
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// A new authority called `name`, in `dir`.
    pub fn new(dir: &Path, name: &str) -> Self {
        let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        let subject = format!("/CN=test authority {name}");
        request(&subject, &certificate, &key, &["-addext", "keyUsage=critical,keyCertSign"]);
        Self { dir: dir.to_path_buf(), certificate, key }
    }

    /// A certificate for `name`, good for servers on this host and for clients.
    pub fn issue(&self, name: &str) -> Pair {
        let pair = Pair {
            certificate: self.dir.join(format!("{name}.crt")),
            key: self.dir.join(format!("{name}.key")),
        };
        let (ca, ca_key) = (self.certificate.to_string_lossy(), self.key.to_string_lossy());
        let extensions = ["subjectAltName=IP:127.0.0.1", "basicConstraints=critical,CA:FALSE"];
        let further = ["-CA", &ca, "-CAkey", &ca_key, "-addext", extensions[0], "-addext", extensions[1]];
        request(&format!("/CN={name}"), &pair.certificate, &pair.key, &further);
        pair
    }
}

fn request(subject: &str, certificate: &Path, key: &Path, further: &[&str]) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-days", "2", "-subj", subject]).args(KEY);
    command.arg("-keyout").arg(key).arg("-out").arg(certificate).args(further);
    let run = command.output().unwrap_or_else(|e| panic!("cannot start openssl: {e}; run 'make setup'"));
    assert!(run.status.success(), "openssl failed:\n{}", String::from_utf8_lossy(&run.stderr));
}
