//! The runtime servers, carried inside the binary so that local mode works without the source tree. Must never
//! differ from what the images hold: the files are included from deploy/runtimes.

/// Path inside the runtime's folder, and content.
pub type File = (&'static str, &'static str);

/// The pinned requirements of the Python runtime.
pub const PYTHON_REQUIREMENTS: &str = "requirements.txt";
/// The pinned packages of the Node runtime.
pub const NODEJS_LOCK: &str = "package-lock.json";

macro_rules! file {
    ($language:literal, $name:literal) => {
        ($name, include_str!(concat!("../../deploy/runtimes/", $language, "/", $name)))
    };
}

/// The Python runtime. A test compares the list with the folder.
pub const PYTHON: &[File] = &[
    file!("python", "requirements.txt"),
    file!("python", "kubeless_runtime/__init__.py"),
    file!("python", "kubeless_runtime/__main__.py"),
    file!("python", "kubeless_runtime/event.py"),
    file!("python", "kubeless_runtime/metrics.py"),
    file!("python", "kubeless_runtime/paths.py"),
    file!("python", "kubeless_runtime/pool.py"),
    file!("python", "kubeless_runtime/server.py"),
    file!("python", "kubeless_runtime/settings.py"),
    file!("python", "kubeless_runtime/wire.py"),
    file!("python", "kubeless_runtime/worker.py"),
];

/// The Node runtime. A test compares the list with the folder.
pub const NODEJS: &[File] = &[
    file!("nodejs", "lib/call.js"),
    file!("nodejs", "lib/main.js"),
    file!("nodejs", "lib/metrics.js"),
    file!("nodejs", "lib/pool.js"),
    file!("nodejs", "lib/server.js"),
    file!("nodejs", "lib/settings.js"),
    file!("nodejs", "lib/worker-process.js"),
    file!("nodejs", "lib/worker.js"),
    file!("nodejs", "package-lock.json"),
    file!("nodejs", "package.json"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn is_carried(carried: &[File], language: &str, inner: &str, suffix: &str, others: &[&str]) {
        let folder = format!("{}/deploy/runtimes/{language}/{inner}", env!("CARGO_MANIFEST_DIR"));
        let mut wanted: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(suffix))
            .map(|name| format!("{inner}/{name}"))
            .collect();
        wanted.extend(others.iter().map(|name| (*name).to_owned()));
        wanted.sort();
        let mut carried: Vec<&str> = carried.iter().map(|(name, _)| *name).collect();
        carried.sort_unstable();
        assert_eq!(carried, wanted);
    }

    #[test]
    fn every_module_of_the_runtimes_is_carried() {
        is_carried(PYTHON, "python", "kubeless_runtime", ".py", &[PYTHON_REQUIREMENTS]);
        is_carried(NODEJS, "nodejs", "lib", ".js", &[NODEJS_LOCK, "package.json"]);
    }
}
