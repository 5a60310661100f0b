//! What a folder of manifests asks local mode to run: plain values, compared to find what an edit changed.
//! Must never start anything.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Namespace.
    pub namespace: String,
    /// Name in it.
    pub name: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One function to run. Two equal values need no restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionPlan {
    /// Namespace and name.
    pub name: Name,
    /// `echo`, `python3.11`, …
    pub runtime: String,
    /// `module.function`.
    pub handler: String,
    /// Source text.
    pub code: String,
    /// How `code` is written; only text is run in local mode.
    pub content_type: String,
    /// Dependencies in the runtime's own form (requirements.txt).
    pub deps: String,
    /// Longest run of one call.
    pub timeout: Duration,
    /// Port of its Service.
    pub port: u16,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
}

/// One trigger, as far as the banner and the embedded broker need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerPlan {
    /// Namespace and name.
    pub name: Name,
    /// Topic or subject it listens to.
    pub topic: String,
    /// Functions it selects.
    pub functions: Vec<String>,
    /// The brokers it names, if any; none means the embedded one.
    pub servers: Option<String>,
}

/// Everything a folder asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Functions by name.
    pub functions: BTreeMap<Name, FunctionPlan>,
    /// Triggers in order.
    pub triggers: Vec<TriggerPlan>,
    /// What was skipped and why, one sentence each with file and line.
    pub problems: Vec<String>,
}

/// Changes whenever a manifest is written: paths, sizes and times of the files that a reader of the folder reads.
pub fn fingerprint(dir: &std::path::Path) -> Vec<(PathBuf, u64, Option<std::time::SystemTime>)> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let (path, Ok(data)) = (entry.path(), entry.metadata()) else { continue };
            let is_manifest =
                path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
            if data.is_dir() {
                folders.push(path);
            } else if is_manifest {
                found.push((path, data.len(), data.modified().ok()));
            }
        }
    }
    found.sort();
    found
}
