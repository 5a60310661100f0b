//! Finds and reads manifest files. Must never leave its bounds: hidden entries, loops of links, special files and
//! files that are too large are passed over or reported.

use std::{
    collections::HashSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Limits, Problem};

/// One file to read.
#[derive(Clone, Debug)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// What it is called in messages: relative to the folder.
    pub name: Arc<str>,
}

/// The manifest files below `dir` (`*.yaml`, `*.yml`, `*.json`), sorted, and what could not be looked at.
///
/// Names that begin with a dot are passed over: that is where editors, git and mounted ConfigMaps keep their own.
pub fn files(dir: &Path, limits: &Limits) -> (Vec<File>, Vec<Problem>) {
    let mut walk = Walk { root: dir, limits, seen: HashSet::new(), files: Vec::new(), problems: Vec::new() };
    walk.folder(dir, 0);
    (walk.files, walk.problems)
}

struct Walk<'a> {
    root: &'a Path,
    limits: &'a Limits,
    seen: HashSet<PathBuf>,
    files: Vec<File>,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    fn problem(&mut self, path: &Path, what: String, fix: &str) {
        let file = name_of(self.root, path);
        self.problems.push(Problem { file, line: 0, column: 0, what, fix: fix.to_owned() });
    }

    fn folder(&mut self, dir: &Path, depth: usize) {
        if depth > self.limits.max_depth {
            let what = format!("folders nested deeper than {}", self.limits.max_depth);
            return self.problem(dir, what, "flatten the folder");
        }
        // The canonical path of every folder on the way: a link back to one of them would never end.
        let real = match fs::canonicalize(dir) {
            Ok(real) => real,
            Err(error) => {
                return self.problem(dir, format!("cannot be opened: {error}"), "check path and rights");
            }
        };
        if !self.seen.insert(real) {
            return;
        }
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) => {
                return self.problem(dir, format!("cannot be listed: {error}"), "check path and rights");
            }
        };
        let mut paths: Vec<PathBuf> =
            entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        paths.sort_unstable();
        for path in paths {
            if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                self.entry(path, depth);
            }
        }
    }

    fn entry(&mut self, path: PathBuf, depth: usize) {
        let wanted = is_manifest(&path);
        match fs::metadata(&path) {
            Ok(data) if data.is_dir() => self.folder(&path, depth + 1),
            Ok(data) if wanted && data.is_file() && self.files.len() >= self.limits.max_files => {
                let what = format!("more than {} files", self.limits.max_files);
                if !self.problems.iter().any(|problem| problem.what == what) {
                    self.problem(&path, what, "split the folder");
                }
            }
            Ok(data) if wanted && data.is_file() => {
                self.files.push(File { name: name_of(self.root, &path), path });
            }
            Err(error) if wanted => self.problem(&path, format!("cannot be read: {error}"), "check the link"),
            Ok(_) | Err(_) => {}
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension
        .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|e| e.eq_ignore_ascii_case(extension)))
}

fn name_of(root: &Path, path: &Path) -> Arc<str> {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into()
}

/// The text of one file of at most `max` bytes.
///
/// # Errors
/// What is wrong and what to do: unreadable, too large or not UTF-8.
pub fn read(path: &Path, max: u64) -> Result<String, (String, String)> {
    let unreadable =
        |error: std::io::Error| (format!("cannot be read: {error}"), "check path and rights".to_owned());
    let mut bytes = Vec::new();
    // One byte more than allowed tells "too large" apart, even while the file grows.
    fs::File::open(path).map_err(unreadable)?.take(max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > max {
        return Err((format!("is larger than {max} bytes"), "split the file".to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        (format!("is not UTF-8 (byte {at})"), "save it as UTF-8".to_owned())
    })
}
