//! Archives into a [`Tree`]: zip, and tar with gzip, bzip2, xz or no compression. Must never create what the tree would
//! refuse: devices, pipes and sockets are refused here, everything else goes through it.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::tree::{self, Tree};

/// Memory that an xz stream may ask for: `xz -9` needs 65 MiB; more is an attack on the Pod's memory.
const XZ_MEMORY: u64 = 128 * 1024 * 1024;
/// Longest target of a link in a zip file, where it is the file's content.
const LONGEST_TARGET: u64 = 4096;
/// Where a tar file says what it is.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An entry was refused.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// Not a zip file, or a broken one.
    #[error("the zip file cannot be read: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// Broken, cut off or unreadable.
    #[error("the archive cannot be read: {0}")]
    Io(#[from] io::Error),
    /// None of the compressions.
    #[error("not a tar file compressed with gzip, bzip2 or xz; check function-content-type")]
    UnknownCompression,
    /// Something that is neither file, folder nor link.
    #[error("{path:?} is a device, a pipe or the like: remove it from the archive")]
    Special {
        /// As named.
        path: PathBuf,
    },
}

/// Unpacks a zip file.
///
/// # Errors
/// See [`Error`]; what was unpacked before stays.
pub fn zip(file: File, tree: &mut Tree) -> Result<(), Error> {
    let mut archive = zip::ZipArchive::new(BufReader::new(file))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let path = zip_path(entry.name_raw());
        if entry.is_dir() {
            tree.folder(&path)?;
        } else if entry.is_symlink() {
            let mut target = Vec::new();
            entry.by_ref().take(LONGEST_TARGET).read_to_end(&mut target)?;
            tree.link(&path, Path::new(OsStr::from_bytes(&target)))?;
        } else if entry.is_file() {
            let mode = entry.unix_mode().unwrap_or(0o644);
            tree.file(&path, mode, &mut entry)?;
        } else {
            return Err(Error::Special { path });
        }
    }
    Ok(())
}

/// Some programs of Windows write backslashes; what unzip makes of them.
fn zip_path(raw: &[u8]) -> PathBuf {
    let mut raw = raw.to_vec();
    if !raw.contains(&b'/') {
        for byte in raw.iter_mut().filter(|byte| **byte == b'\\') {
            *byte = b'/';
        }
    }
    PathBuf::from(OsStr::from_bytes(&raw))
}

/// Unpacks a tar file; its first bytes say how it is compressed.
///
/// # Errors
/// See [`Error`]; what was unpacked before stays.
pub fn tar(mut file: File, tree: &mut Tree) -> Result<(), Error> {
    let mut head = Vec::new();
    file.by_ref().take(512).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    let file = BufReader::new(file);
    let (at, magic) = TAR_MAGIC;
    let content: Box<dyn Read> = if head.starts_with(b"\x1f\x8b") {
        Box::new(flate2::bufread::MultiGzDecoder::new(file))
    } else if head.starts_with(b"BZh") {
        Box::new(bzip2::bufread::MultiBzDecoder::new(file))
    } else if head.starts_with(b"\xfd7zXZ\0") {
        let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)
            .map_err(io::Error::from)?;
        Box::new(liblzma::bufread::XzDecoder::new_stream(file, stream))
    } else if head.get(at..at + magic.len()) == Some(magic) {
        Box::new(file)
    } else {
        return Err(Error::UnknownCompression);
    };
    unpack_tar(content, tree)
}

fn unpack_tar(content: Box<dyn Read>, tree: &mut Tree) -> Result<(), Error> {
    let mut archive = tar::Archive::new(content);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            tree.folder(&path)?;
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            let mode = entry.header().mode().unwrap_or(0o644);
            tree.file(&path, mode, &mut entry)?;
        } else if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            let target = Path::new(OsStr::from_bytes(&target));
            if kind.is_symlink() {
                tree.link(&path, target)?;
            } else {
                tree.hard_link(&path, target)?;
            }
        } else if kind.is_pax_global_extensions() {
            // What `git archive` puts in front: a comment.
        } else {
            return Err(Error::Special { path });
        }
    }
    Ok(())
}
