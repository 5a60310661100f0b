//! [`Tree`]: the folder that a function's files are written into. Must never create, follow or replace anything outside
//! its root, whatever an archive says: no absolute paths, no `..`, nothing written through a link, no devices, no
//! set-user-id bits, and no more files and bytes than the limits allow.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

/// Bytes copied at once.
const CHUNK: usize = 64 * 1024;
/// Longest path inside the root, as Linux takes it.
const LONGEST_PATH: usize = 4096;

/// How much may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together: a small archive can hold very much of nothing.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

/// What is refused, and why. The path is the one that the archive names.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path leaves the root or cannot be one.
    #[error("{path:?} is not a path inside the folder: remove it from the archive")]
    Outside {
        /// As named.
        path: PathBuf,
    },
    /// A link that does not stay inside the root.
    #[error(
        "link {path:?} points to {target:?}, outside the folder or by a detour: make it relative and direct"
    )]
    Link {
        /// As named.
        path: PathBuf,
        /// As named.
        target: PathBuf,
    },
    /// Something in the way: a link where a folder is needed, a folder where a file is.
    #[error("{path:?} is already there as something else")]
    InTheWay {
        /// As named.
        path: PathBuf,
    },
    /// More than [`Limits`] allows.
    #[error("more than {limit} {what}: make the archive smaller or raise {flag}")]
    TooMuch {
        /// The limit.
        limit: u64,
        /// Of what.
        what: &'static str,
        /// The flag that raises it.
        flag: &'static str,
    },
    /// The disk or the archive.
    #[error("{path:?}: {source}")]
    Io {
        /// As named.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A root folder and what may still be written into it.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    limits: Limits,
    left: Limits,
    /// The folder that was looked at last: archives list the files of a folder one after another.
    known: PathBuf,
}

impl Tree {
    /// Writes into `root`, which must exist.
    pub fn new(root: &Path, limits: Limits) -> Self {
        Self { root: root.to_owned(), limits, left: limits, known: PathBuf::new() }
    }

    /// A folder and its parents.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn folder(&mut self, path: &Path) -> Result<(), Error> {
        let inside = self.admit(path)?;
        self.folders(&inside, path)
    }

    /// A file with everything that `content` gives. Only the execute bit of `mode` is kept.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn file(&mut self, path: &Path, mode: u32, content: &mut dyn Read) -> Result<(), Error> {
        let full = self.place(path)?;
        let io = |source| Error::Io { path: path.to_owned(), source };
        let mut file = create(&full).map_err(io)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = match content.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(io(error)),
            };
            self.left.bytes = self.left.bytes.checked_sub(count as u64).ok_or(Error::TooMuch {
                limit: self.limits.bytes,
                what: "bytes",
                flag: "--max-bytes",
            })?;
            file.write_all(&chunk[..count]).map_err(io)?;
        }
        // After the umask, which a container image may set to anything.
        let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
        file.set_permissions(Permissions::from_mode(mode)).map_err(io)
    }

    /// A symbolic link that stays inside the root.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn link(&mut self, path: &Path, target: &Path) -> Result<(), Error> {
        let full = self.place(path)?;
        let depth = normal(path).map_or(0, |inside| inside.components().count().saturating_sub(1));
        if !stays_inside(target, depth) {
            return Err(Error::Link { path: path.to_owned(), target: target.to_owned() });
        }
        symlink(target, &full).map_err(|source| Error::Io { path: path.to_owned(), source })
    }

    /// A second name of a file that was written before.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), Error> {
        let wrong = || Error::Link { path: path.to_owned(), target: target.to_owned() };
        let inside = normal(target).ok_or_else(wrong)?;
        if inside.parent().is_some_and(|parent| !self.is_real_folder(parent)) {
            return Err(wrong());
        }
        let original = self.root.join(&inside);
        if !fs::symlink_metadata(&original).is_ok_and(|found| found.is_file()) {
            return Err(wrong());
        }
        let full = self.place(path)?;
        fs::hard_link(&original, &full).map_err(|source| Error::Io { path: path.to_owned(), source })
    }

    /// Counts an entry and gives its path below the root.
    fn admit(&mut self, path: &Path) -> Result<PathBuf, Error> {
        let inside = normal(path).ok_or_else(|| Error::Outside { path: path.to_owned() })?;
        self.left.entries = self.left.entries.checked_sub(1).ok_or(Error::TooMuch {
            limit: self.limits.entries,
            what: "files and folders",
            flag: "--max-entries",
        })?;
        Ok(inside)
    }

    /// Makes room for an entry that is not a folder: parents exist, and nothing has its name.
    fn place(&mut self, path: &Path) -> Result<PathBuf, Error> {
        let inside = self.admit(path)?;
        let (Some(parent), Some(_)) = (inside.parent(), inside.file_name()) else {
            return Err(Error::Outside { path: path.to_owned() });
        };
        self.folders(parent, path)?;
        let full = self.root.join(&inside);
        match fs::symlink_metadata(&full) {
            // A Pod whose first attempt was cut off finds its own files again.
            Ok(found) if !found.is_dir() => {
                fs::remove_file(&full).map_err(|source| Error::Io { path: path.to_owned(), source })?;
            }
            Ok(_) => return Err(Error::InTheWay { path: path.to_owned() }),
            Err(_) => {}
        }
        Ok(full)
    }

    /// Creates what is missing of a folder below the root; each step must be a folder, not a link to one.
    fn folders(&mut self, inside: &Path, named: &Path) -> Result<(), Error> {
        if inside == self.known {
            return Ok(());
        }
        let mut step = self.root.clone();
        for part in inside.components() {
            step.push(part);
            match fs::symlink_metadata(&step) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => return Err(Error::InTheWay { path: named.to_owned() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let made = fs::create_dir(&step)
                        .and_then(|()| fs::set_permissions(&step, Permissions::from_mode(0o755)));
                    made.map_err(|source| Error::Io { path: named.to_owned(), source })?;
                }
                Err(source) => return Err(Error::Io { path: named.to_owned(), source }),
            }
        }
        self.known = inside.to_owned();
        Ok(())
    }

    fn is_real_folder(&self, inside: &Path) -> bool {
        let mut step = self.root.clone();
        inside.components().all(|part| {
            step.push(part);
            fs::symlink_metadata(&step).is_ok_and(|found| found.is_dir())
        })
    }
}

/// A new file under that very name: `O_EXCL` follows no link.
fn create(full: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(full)
}

/// The path without `.` parts; `None` if it is absolute, has a `..`, a NUL or is too long.
fn normal(path: &Path) -> Option<PathBuf> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.len() > LONGEST_PATH || bytes.contains(&0) {
        return None;
    }
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => inside.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(inside)
}

/// Whether a link in a folder `depth` levels below the root leads to a place inside. `..` may only stand in front:
/// behind a name it would be taken from wherever that name, if it is a link, leads to.
fn stays_inside(target: &Path, depth: usize) -> bool {
    let (mut up, mut down) = (0, false);
    for part in target.components() {
        match part {
            Component::ParentDir if !down => up += 1,
            Component::Normal(_) => down = true,
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    up <= depth && target.as_os_str().len() <= LONGEST_PATH
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 1000, entries: 20 };

    fn tree(folder: &tempfile::TempDir) -> Tree {
        let root = folder.path().join("root");
        let _ = fs::create_dir(&root);
        Tree::new(&root, LIMITS)
    }

    fn write(tree: &mut Tree, path: &str) -> Result<(), Error> {
        tree.file(Path::new(path), 0o4777, &mut "text".as_bytes())
    }

    #[test]
    fn files_lose_their_special_bits_and_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = tree(&folder);
        write(&mut tree, "a/./b/c").unwrap();
        write(&mut tree, "a/b/c").unwrap();
        let mode = fs::metadata(folder.path().join("root/a/b/c")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        tree.hard_link(Path::new("a/d"), Path::new("a/b/c")).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("root/a/d")).unwrap(), "text");
    }

    #[test]
    fn no_path_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = tree(&folder);
        for path in ["../x", "/x", "a/../../x", "a/..", "", "."] {
            assert!(write(&mut tree, path).is_err(), "{path}");
        }
        let long = "x/".repeat(LONGEST_PATH);
        assert!(write(&mut tree, &long).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the root");
    }

    #[test]
    fn no_link_leads_out_and_nothing_is_written_through_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = tree(&folder);
        for target in ["/etc", "..", "../x", "x/../../y", "x/.."] {
            assert!(tree.link(Path::new("l"), Path::new(target)).is_err(), "{target}");
        }
        assert!(tree.link(Path::new("a/b/l"), Path::new("../../../x")).is_err());
        tree.link(Path::new("a/b/l"), Path::new("../..")).unwrap();
        assert!(write(&mut tree, "a/b/l/file").is_err(), "the way leads through a link");
        assert!(tree.folder(Path::new("a/b/l")).is_err());
        assert!(tree.hard_link(Path::new("h"), Path::new("a/b/l/a")).is_err());
        assert!(tree.hard_link(Path::new("h"), Path::new("../../etc/passwd")).is_err());
        write(&mut tree, "a/b/l").unwrap();
        assert!(fs::symlink_metadata(folder.path().join("root/a/b/l")).unwrap().is_file(), "replaced");
        assert!(write(&mut tree, "a/b").is_err(), "a folder is not");
    }

    #[test]
    fn limits_hold() {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = tree(&folder);
        let error = tree.file(Path::new("big"), 0, &mut io::repeat(0)).unwrap_err();
        assert!(error.to_string().contains("more than 1000 bytes"), "{error}");
        let refused = (0..30).filter(|n| tree.folder(Path::new(&n.to_string())).is_err()).count();
        assert_eq!(refused, 11, "the file was one entry");
    }
}
