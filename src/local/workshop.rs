//! What installing a runtime or a function's packages needs in every language: files unpacked, commands run to their end, what
//! is finished marked as such. Must never write outside DIR/.kubeless.

use super::{
    child::describe,
    layout::{Layout, write_whole},
    output::relay,
    plan::FunctionPlan,
    runtime_files::File,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};
use xxhash_rust::xxh3::xxh3_128;

/// Marks a folder whose installation finished; holds a hash of what was installed.
const READY: &str = ".ready";
/// Lines of a failed installation that are shown.
const SHOWN_LINES: usize = 12;

/// Writes a runtime's files into its folder.
pub fn unpack(folder: &Path, files: &[File]) -> Result<(), String> {
    for (name, content) in files {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(|error| failed(parent, &error))?;
        write_whole(&path, content.as_bytes()).map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

/// Where the code of one version of a function lies, and what of it is called.
pub struct Laid<'a> {
    /// Folder of all versions of the function.
    pub folder: PathBuf,
    /// Folder of this version.
    pub volume: PathBuf,
    /// The file with the code.
    pub file: PathBuf,
    /// Name of the module.
    pub module: &'a str,
    /// Name of the function in it.
    pub handler: &'a str,
}

/// Writes a function's code. A version has a folder of its own: the old process goes on with its own code until it has
/// drained.
pub fn lay_out<'a>(layout: &Layout, function: &'a FunctionPlan, suffix: &str) -> Result<Laid<'a>, String> {
    let (module, handler) = function
        .handler
        .split_once('.')
        .ok_or_else(|| format!("handler `{}` is not of the form module.function", function.handler))?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if module.is_empty() || !module.bytes().all(allowed) {
        return Err(format!("`{module}` in handler `{}` is not a module name", function.handler));
    }
    let folder = layout.functions().join(format!("{}.{}", function.name.namespace, function.name.name));
    let volume = folder.join(&hash(format!("{}\0{}", function.handler, function.code).as_bytes())[..12]);
    fs::create_dir_all(&volume).map_err(|error| failed(&volume, &error))?;
    let file = volume.join(format!("{module}{suffix}"));
    write_whole(&file, function.code.as_bytes()).map_err(|error| failed(&file, &error))?;
    Ok(Laid { folder, volume, file, module, handler })
}

impl Laid<'_> {
    /// What a runtime server wants to know, as its environment.
    pub fn tell(&self, command: &mut Command, function: &FunctionPlan) {
        command
            .env("KUBELESS_INSTALL_VOLUME", &self.folder)
            .env("KUBELESS_FUNC_PATH", &self.file)
            .env("MOD_NAME", self.module)
            .env("FUNC_HANDLER", self.handler)
            .env("FUNC_TIMEOUT", function.timeout.as_secs().max(1).to_string())
            .env("FUNC_RUNTIME", &function.runtime)
            // The live line of each event says it already.
            .env("FUNC_ACCESS_LOG", "0")
            .envs(&function.env)
            .env("FUNC_HOST", "127.0.0.1")
            .env("FUNC_PORT", "0");
    }
}

/// Runs a command to its end; its last lines are the problem when it fails. Its output is shown only then.
pub async fn run(mut command: Command, what: &str) -> Result<(), String> {
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{what} cannot be started: {error}"))?;
    let mut last = std::collections::VecDeque::new();
    if let Some(stderr) = child.stderr.take() {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if last.len() == SHOWN_LINES {
                last.pop_front();
            }
            last.push_back(line);
        }
    }
    let status = child.wait().await.map_err(|error| format!("{what}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let tool = what.split(' ').next().unwrap_or(what);
    last.iter().for_each(|line| relay(tool, line));
    Err(format!("{what} {}", describe(status)))
}

/// Whether just this was installed into the folder, to the end.
pub fn is_ready(folder: &Path, wanted: &str) -> bool {
    fs::read_to_string(folder.join(READY)).is_ok_and(|found| found == wanted)
}

/// Says so.
pub fn mark_ready(folder: &Path, installed: &str) -> Result<(), String> {
    fs::write(folder.join(READY), installed).map_err(|error| failed(folder, &error))
}

/// A name for content.
pub fn hash(content: &[u8]) -> String {
    format!("{:032x}", xxh3_128(content))
}

/// An error with its place.
pub fn failed(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}
