//! `prepare`: the first init container of every function with code of its own. Lays the code and the dependency file out
//! in the shared folder: decode or download, verify, unpack or copy. Must never leave a half-verified file behind: what
//! has a checksum is verified before anything is unpacked.

mod download;
mod tree;
mod unpack;

pub use tree::Limits;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::{Args, ValueEnum};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use tree::Tree;

/// Bytes of all unpacked files when nothing else is said: dependencies of scripting languages fit many times over.
pub const DEFAULT_MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Unpacked files and folders when nothing else is said.
pub const DEFAULT_MAX_ENTRIES: u64 = 200_000;
/// Bytes copied at once.
const CHUNK: usize = 64 * 1024;
/// Longest dependency file and longest text or base64 code: what a ConfigMap can hold.
const CONFIG_MAP_BYTES: u64 = 4 * 1024 * 1024;

/// What the file in `--code` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Given {
    /// The code.
    Text,
    /// The code, base64.
    Base64,
    /// Where the code is downloaded from.
    Url,
}

/// How the code is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Packed {
    /// One file.
    No,
    /// A zip file.
    Zip,
    /// A tar file, compressed with gzip, bzip2 or xz.
    Tar,
}

/// Flags of `prepare`. The code itself is never an argument.
#[derive(Args, Clone, Debug)]
pub struct PrepareArgs {
    /// File with the code, its base64 text, or its URL.
    #[arg(long, value_name = "FILE")]
    pub code: PathBuf,
    /// What that file holds.
    #[arg(long, value_enum, default_value = "text")]
    pub given: Given,
    /// How the code is packed.
    #[arg(long, value_enum, default_value = "no")]
    pub packed: Packed,
    /// SHA-256 of the code's bytes (decoded or downloaded, still packed), in hex.
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<String>,
    /// Folder that everything is written to.
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
    /// Name of the file that the code becomes, unless it is packed.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Dependency file that is copied beside the code.
    #[arg(long, value_name = "FILE")]
    pub deps: Option<PathBuf>,
    /// SHA-256 of the dependency file, in hex.
    #[arg(long, value_name = "HEX")]
    pub deps_sha256: Option<String>,
    /// Most bytes that are downloaded, and most bytes that are written.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_BYTES)]
    pub max_bytes: u64,
    /// Most files and folders that are written.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_ENTRIES)]
    pub max_entries: u64,
}

/// Why a function's files could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the Pod.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not the code that was meant.
    #[error("checksum of {what} is sha256:{found}, not sha256:{wanted}")]
    Checksum {
        /// Code or dependency file.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// The text is not base64.
    #[error("the code is not base64: {0}")]
    Base64(base64::DecodeError),
    /// More than `--max-bytes`.
    #[error("more than {0} bytes: make it smaller or raise --max-bytes")]
    TooLong(u64),
    /// No file came.
    #[error("download failed: {0}")]
    Download(#[from] download::Error),
    /// The archive is broken or holds what is refused.
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    /// A file could not be written.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// An unpacked file needs a name.
    #[error("--name is missing: code that is not packed becomes one file")]
    NoName,
}

/// Does it.
///
/// # Errors
/// See [`Error`]. The folder may then hold a part; the runtime does not start, and the next attempt replaces it.
pub fn run(arguments: &PrepareArgs) -> Result<(), Error> {
    let limits = Limits { bytes: arguments.max_bytes, entries: arguments.max_entries };
    let mut tree = Tree::new(&arguments.into, limits);
    let mut code = fetch(arguments)?;
    let found = sha256_of(&mut code, &arguments.code)?;
    verify("the code", &found, arguments.sha256.as_deref())?;
    match arguments.packed {
        Packed::Zip => unpack::zip(code, &mut tree)?,
        Packed::Tar => unpack::tar(code, &mut tree)?,
        Packed::No => {
            let name = arguments.name.as_deref().ok_or(Error::NoName)?;
            tree.file(Path::new(name), 0o644, &mut code)?;
        }
    }
    if let Some(deps) = &arguments.deps {
        let mut file = open(deps)?;
        let found = sha256_of(&mut file, deps)?;
        verify("the dependency file", &found, arguments.deps_sha256.as_deref())?;
        let name = deps.file_name().ok_or(Error::NoName)?;
        tree.file(Path::new(name), 0o644, &mut file)?;
    }
    Ok(())
}

/// The code as a file that can be read twice: to verify it, then to unpack it.
fn fetch(arguments: &PrepareArgs) -> Result<File, Error> {
    let path = &arguments.code;
    match arguments.given {
        Given::Text => open(path),
        Given::Base64 => {
            let mut text = read(path)?;
            // Command line tools break lines.
            text.retain(|byte| !byte.is_ascii_whitespace());
            let bytes = BASE64_STANDARD.decode(&text).map_err(Error::Base64)?;
            scratch(&arguments.into, &mut bytes.as_slice(), arguments.max_bytes)
        }
        Given::Url => {
            let url = String::from_utf8_lossy(&read(path)?).trim().to_owned();
            scratch(&arguments.into, &mut download::open(&url)?, arguments.max_bytes)
        }
    }
}

/// A file in the shared folder that has no name any more: it is gone with the process, whatever happens.
fn scratch(folder: &Path, content: &mut dyn Read, max_bytes: u64) -> Result<File, Error> {
    let path = folder.join(".kubeless-prepare");
    let io = |source| Error::Io { path: path.clone(), source };
    let _ = fs::remove_file(&path);
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).map_err(io)?;
    fs::remove_file(&path).map_err(io)?;
    let copied = io::copy(&mut content.take(max_bytes.saturating_add(1)), &mut file).map_err(io)?;
    if copied > max_bytes {
        return Err(Error::TooLong(max_bytes));
    }
    file.flush().map_err(io)?;
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    Ok(file)
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    open(path)?.take(CONFIG_MAP_BYTES).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// The hex digest of a file, which then stands at its beginning again.
fn sha256_of(file: &mut File, path: &Path) -> Result<String, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = file.read(&mut chunk).map_err(io)?;
        if count == 0 {
            break;
        }
        hasher.update(&chunk[..count]);
    }
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    Ok(hex(&hasher.finalize()))
}

fn verify(what: &'static str, found: &str, wanted: Option<&str>) -> Result<(), Error> {
    match wanted {
        Some(wanted) if !wanted.eq_ignore_ascii_case(found) => {
            Err(Error::Checksum { what, found: found.to_owned(), wanted: wanted.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Bytes in hex digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}
