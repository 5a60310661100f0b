//! The runtime servers, carried inside the binary so that local mode works without the source tree. Must never
//! differ from what the images hold: the files are included from deploy/runtimes.

/// Path inside the runtime's folder, and content.
pub type File = (&'static str, &'static str);

/// The pinned requirements of the Python runtime.
pub const PYTHON_REQUIREMENTS: &str = "requirements.txt";

/// The Python runtime.
pub const PYTHON: &[File] = &[];
