//! A folder of manifests as the source of objects: read whole, checked, compared with what was read before. Must
//! never stop at a fault: each one is reported with file, line and fix, and the other documents go on.

pub mod diff;
pub mod documents;
pub mod folders;
pub mod walk;
pub mod watch;
pub mod yaml;

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::target::ObjectRef;
use crate::api::{
    function::Function,
    kind::{TriggerKind, TriggerObject},
};

/// Bounds of one reading; what lies beyond is reported, not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files read. Default 20000.
    pub max_files: usize,
    /// Bytes of one file. Default 16 MiB.
    pub max_file_bytes: u64,
    /// Bytes of all files. Default 256 MiB.
    pub max_total_bytes: u64,
    /// Levels of folders below the first. Default 16.
    pub max_depth: usize,
    /// Documents of one file, items of lists included. Default 20000.
    pub max_documents: usize,
    /// Faults reported; the rest is only counted. Default 1000.
    pub max_problems: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_files: 20_000,
            max_file_bytes: 16 * 1024 * 1024,
            max_total_bytes: 256 * 1024 * 1024,
            max_depth: 16,
            max_documents: 20_000,
            max_problems: 1_000,
        }
    }
}

/// Something that is wrong, where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// File, relative to the folder; empty for the folder itself.
    pub file: Arc<str>,
    /// Line from 1; 0 when the whole file is meant.
    pub line: u64,
    /// Column from 1; 0 when the whole line is meant.
    pub column: u64,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = if self.file.is_empty() { "." } else { &self.file };
        match (self.line, self.column) {
            (0, _) => write!(f, "{file}: {}; {}", self.what, self.fix),
            (line, 0) => write!(f, "{file}:{line}: {}; {}", self.what, self.fix),
            (line, column) => write!(f, "{file}:{line}:{column}: {}; {}", self.what, self.fix),
        }
    }
}

/// A well-formed object that nobody here reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// File, relative to the folder.
    pub file: Arc<str>,
    /// Line from 1.
    pub line: u64,
    /// `apiVersion` of the object.
    pub api_version: String,
    /// `kind` of the object.
    pub kind: String,
    /// `metadata.name`, empty if it has none.
    pub name: String,
}

/// One object with where it came from.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The object.
    pub object: Arc<T>,
    /// File, relative to the folder.
    pub file: Arc<str>,
    /// Line from 1.
    pub line: u64,
    /// Hash of the document's content: equal means nothing changed (comments and layout do not count).
    pub fingerprint: u128,
}

/// Objects of one kind by name.
pub type Objects<T> = BTreeMap<ObjectRef, Loaded<T>>;

/// Everything a folder says.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// Functions.
    pub functions: Objects<Function>,
    /// Triggers of all registered kinds, by kind and name.
    pub triggers: BTreeMap<(&'static str, ObjectRef), Loaded<TriggerObject>>,
    /// Services.
    pub services: Objects<Service>,
    /// EndpointSlices.
    pub slices: Objects<EndpointSlice>,
    /// What is wrong, in file order.
    pub problems: Vec<Problem>,
    /// Faults beyond [`Limits::max_problems`].
    pub more_problems: usize,
    /// What was understood and is not for us.
    pub ignored: Vec<Ignored>,
}

/// Stack of the reading thread: the deepest document that the budget lets through needs about 2 MiB unoptimised,
/// which is all that a worker thread has.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Reads `dir` and its subfolders. Blocking. Never fails: an unreadable folder is a [`Problem`].
///
/// `kinds` are the trigger kinds to read beside Function, Service and EndpointSlice.
pub fn load(dir: &Path, kinds: &[TriggerKind], limits: &Limits) -> Manifests {
    on_large_stack(|| load_here(dir, kinds, limits))
}

/// Reads `text` as the only file of a folder, called `name`. Blocking. Never fails, and a fault names `name`.
pub fn read_text(name: &str, text: &str, kinds: &[TriggerKind], limits: &Limits) -> Manifests {
    on_large_stack(|| {
        let mut reader = documents::Reader::new(kinds, limits);
        reader.file(&name.into(), text);
        reader.finish()
    })
}

fn on_large_stack(read: impl FnOnce() -> Manifests + Send) -> Manifests {
    let read = std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("manifest-load".to_owned()).stack_size(STACK_BYTES);
        builder.spawn_scoped(scope, read).ok()?.join().ok()
    });
    read.unwrap_or_else(|| {
        let what = "the folder could not be read: the reading thread did not start or broke off".to_owned();
        let fix = "check the limit of threads; if it persists, report the folder's content".to_owned();
        let problem = Problem { file: "".into(), line: 0, column: 0, what, fix };
        Manifests { problems: vec![problem], ..Manifests::default() }
    })
}

fn load_here(dir: &Path, kinds: &[TriggerKind], limits: &Limits) -> Manifests {
    let mut reader = documents::Reader::new(kinds, limits);
    let mut left = limits.max_total_bytes;
    let (files, problems) = walk::files(dir, limits);
    for file in files {
        match walk::read(&file.path, limits.max_file_bytes.min(left)) {
            Ok(text) => {
                left -= (text.len() as u64).min(left);
                reader.file(&file.name, &text);
            }
            Err((what, fix)) => reader.problem(&file.name, (0, 0), what, fix),
        }
    }
    for problem in problems {
        reader.problem(&problem.file, (0, 0), problem.what, problem.fix);
    }
    reader.finish()
}
