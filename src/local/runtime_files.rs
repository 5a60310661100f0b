//! The runtime servers, carried inside the binary so that local mode works without the source tree. Must never
//! differ from what the images hold: the files are included from deploy/runtimes.

/// Path inside the runtime's folder, and content.
pub type File = (&'static str, &'static str);

/// The pinned requirements of the Python runtime.
pub const PYTHON_REQUIREMENTS: &str = "requirements.txt";

macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!("../../deploy/runtimes/python/", $name)))
    };
}

/// The Python runtime. A test compares the list with the folder.
pub const PYTHON: &[File] = &[
    file!("requirements.txt"),
    file!("kubeless_runtime/__init__.py"),
    file!("kubeless_runtime/__main__.py"),
    file!("kubeless_runtime/event.py"),
    file!("kubeless_runtime/metrics.py"),
    file!("kubeless_runtime/paths.py"),
    file!("kubeless_runtime/pool.py"),
    file!("kubeless_runtime/server.py"),
    file!("kubeless_runtime/settings.py"),
    file!("kubeless_runtime/wire.py"),
    file!("kubeless_runtime/worker.py"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_of_the_python_runtime_is_carried() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/runtimes/python/kubeless_runtime");
        let mut modules: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".py"))
            .map(|name| format!("kubeless_runtime/{name}"))
            .collect();
        modules.push(PYTHON_REQUIREMENTS.to_owned());
        modules.sort();
        let mut carried: Vec<&str> = PYTHON.iter().map(|(name, _)| *name).collect();
        carried.sort_unstable();
        assert_eq!(carried, modules);
    }
}
