//! The code of a function on its way into a resource: from a file, standard input or a URL to text, content type and
//! checksum. Must never hold more of a download than one buffer, nor more of a file than a resource can carry.

use crate::cli::{UsageError, progress::Progress};
use anyhow::{Context, bail};
use base64::Engine as _;
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read},
    time::Duration,
};

/// Longest text that is put into a resource: the API server refuses objects above 1.5 MiB, and the ConfigMap that is
/// made from this one holds 1 MiB with everything else.
const MAX_TEXT: usize = 1_000_000;
/// Longest download that is hashed; the function's Pod downloads it again, into a volume of its node.
const MAX_DOWNLOAD: u64 = 1 << 30;
/// Longest download in all.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest wait for a connection and for the answer to begin.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const BUFFER: usize = 64 * 1024;

const TARS: [&str; 9] = [".tar.gz", ".taz", ".tgz", ".tar.bz2", ".tb2", ".tbz", ".tbz2", ".tz2", ".tar.xz"];

/// What `function`, `function-content-type` and `checksum` of a Function say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Source text, base64 text, or the URL.
    pub text: String,
    /// `text`, `base64` or `url`, with `+zip`, `+compressedtar`, `+deps` as they apply.
    pub content_type: String,
    /// `sha256:<hex>` of the raw bytes.
    pub checksum: String,
}

impl Code {
    /// Reads a file, `-` or an http(s) URL. `bundled`: the archive holds the dependency file, too.
    pub fn read(location: &str, bundled: bool) -> anyhow::Result<Self> {
        let archive = archive_of(location);
        if bundled && archive.is_empty() {
            let what = "--bundled-dependencies needs an archive";
            return Err(UsageError(format!("{what} (.zip, .tar.gz, …), and {location:?} is none")).into());
        }
        let end = if bundled { "+deps" } else { "" };
        if is_url(location) {
            let mut hash = Sha256::new();
            download(location, |part| {
                hash.update(part);
                Ok(())
            })?;
            let checksum = checksum(&hash.finalize());
            return Ok(Self {
                text: location.to_owned(),
                content_type: format!("url{archive}{end}"),
                checksum,
            });
        }
        let bytes = read_file(location)?;
        let checksum = checksum(&Sha256::digest(&bytes));
        let (kind, text) = match String::from_utf8(bytes) {
            Ok(text) => ("text", text),
            Err(error) => ("base64", base64::engine::general_purpose::STANDARD.encode(error.as_bytes())),
        };
        fits(location, text.len())?;
        Ok(Self { text, content_type: format!("{kind}{archive}{end}"), checksum })
    }
}

/// The text of a dependency file: a file, `-` or an http(s) URL.
pub fn dependencies(location: &str) -> anyhow::Result<String> {
    let bytes = if is_url(location) {
        let mut bytes = Vec::new();
        download(location, |part| {
            bytes.extend_from_slice(part);
            fits(location, bytes.len())
        })?;
        bytes
    } else {
        read_file(location)?
    };
    String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{location} is not text: name the dependency file"))
}

fn is_url(location: &str) -> bool {
    location.starts_with("http://") || location.starts_with("https://")
}

/// The part of the content type that an archive's name gives; of a URL the query does not count.
fn archive_of(location: &str) -> &'static str {
    let path =
        if is_url(location) { location.split(['?', '#']).next().unwrap_or(location) } else { location };
    let path = path.to_ascii_lowercase();
    match () {
        () if path.ends_with(".zip") => "+zip",
        () if TARS.iter().any(|end| path.ends_with(end)) => "+compressedtar",
        () => "",
    }
}

fn read_file(location: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = MAX_TEXT as u64 + 1;
    if location == "-" {
        io::stdin().lock().take(most).read_to_end(&mut bytes).context("reading standard input")?;
    } else {
        let file = File::open(location).with_context(|| format!("opening {location}"))?;
        if file.metadata().is_ok_and(|data| data.is_dir()) {
            bail!("{location} is a folder; pack it first: (cd {location} && zip -r ../code.zip .)");
        }
        file.take(most).read_to_end(&mut bytes).with_context(|| format!("reading {location}"))?;
    }
    fits(location, bytes.len())?;
    Ok(bytes)
}

fn fits(location: &str, length: usize) -> anyhow::Result<()> {
    if length > MAX_TEXT {
        bail!(
            "{location} is too large for a resource (more than {MAX_TEXT} bytes, base64 of binary files included); \
             put it on a server and give --from-file its URL"
        );
    }
    Ok(())
}

fn download(url: &str, mut take: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let progress = Progress::start(&format!("downloading {url}"));
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(DOWNLOAD_TIMEOUT))
        .timeout_connect(Some(ANSWER_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .user_agent(concat!("kubeless/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls())
        .build()
        .into();
    let answer = agent.get(url).call().with_context(|| {
        format!(
            "downloading {url} (for its checksum; the function's Pod downloads it again, by the same URL)"
        )
    })?;
    let mut body = answer.into_body().into_with_config().limit(MAX_DOWNLOAD).reader();
    let (mut buffer, mut total) = (vec![0; BUFFER], 0_u64);
    loop {
        let read = match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("downloading {url} after {total} bytes"));
            }
        };
        total += read as u64;
        progress.say(&format!("downloading {url}: {} MiB", total >> 20));
        take(&buffer[..read])?;
    }
}

/// The certificates that this machine trusts, checked by the one TLS library that the product links.
fn tls() -> ureq::tls::TlsConfig {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ureq::tls::TlsConfig::builder()
        .root_certs(ureq::tls::RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(provider)
        .build()
}

fn checksum(hash: &[u8]) -> String {
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_by_their_names() {
        for (location, wanted) in [
            ("a.zip", "+zip"),
            ("A.ZIP", "+zip"),
            ("https://h/a.zip?x=1", "+zip"),
            ("https://h/a.py?x=.zip", ""),
            ("a.tar.gz", "+compressedtar"),
            ("a.tgz", "+compressedtar"),
            ("a.tar.xz", "+compressedtar"),
            ("a.tar", ""),
            ("a.py", ""),
        ] {
            assert_eq!(archive_of(location), wanted, "{location}");
        }
    }
}
