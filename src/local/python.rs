//! Python functions: the runtime server unpacked from this binary, one virtual environment for it, the function's
//! code and own dependencies beside. Must never write outside DIR/.kubeless, pip's cache included.

use super::{
    child::{Spawner, describe},
    layout::{Layout, write_whole},
    output::{relay, say},
    plan::FunctionPlan,
    runtime_files,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
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

/// Makes the virtual environment of the runtime, if it is not there for these very requirements.
pub async fn prepare(layout: &Layout, spawner: &Spawner) -> Result<(), String> {
    let runtime = layout.runtime("python");
    for (name, content) in runtime_files::PYTHON {
        let path = runtime.join(name);
        let folder = path.parent().unwrap_or(&runtime);
        fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
        write_whole(&path, content.as_bytes()).map_err(|error| failed(&path, &error))?;
    }
    let (venv, requirements) = (layout.venv(), runtime.join(runtime_files::PYTHON_REQUIREMENTS));
    let wanted = hash(&fs::read(&requirements).map_err(|error| failed(&requirements, &error))?);
    if is_ready(&venv, &wanted) {
        return Ok(());
    }
    let started = Instant::now();
    say("  python      making .kubeless/venv (once; usually 5 to 30 s)");
    let mut create = spawner.command("python3");
    create.args(["-m", "venv", "--clear"]).arg(&venv);
    run(create, "python3 -m venv").await.map_err(|problem| {
        format!("{problem}; install Python 3 with its venv module (Debian: apt-get install python3-venv)")
    })?;
    let mut install = pip(layout, spawner);
    install.args(["--require-hashes", "--requirement"]).arg(&requirements);
    run(install, "pip install").await?;
    say(&format!("  python      ready after {:.1} s", started.elapsed().as_secs_f64()));
    fs::write(venv.join(READY), wanted).map_err(|error| failed(&venv, &error))
}

/// Writes a function's code, installs its dependencies and returns the command that serves it.
pub async fn command(layout: &Layout, spawner: &Spawner, function: &FunctionPlan) -> Result<Command, String> {
    let (module, handler) = function
        .handler
        .split_once('.')
        .ok_or_else(|| format!("handler `{}` is not of the form module.function", function.handler))?;
    if module.is_empty()
        || !module.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    {
        return Err(format!("`{module}` in handler `{}` is not a module name", function.handler));
    }
    let folder = layout.functions().join(format!("{}.{}", function.name.namespace, function.name.name));
    // A version of its own folder: the old process goes on with its own code until it has drained.
    let volume = folder.join(&hash(format!("{}\0{}", function.handler, function.code).as_bytes())[..12]);
    fs::create_dir_all(&volume).map_err(|error| failed(&volume, &error))?;
    let file = volume.join(format!("{module}.py"));
    write_whole(&file, function.code.as_bytes()).map_err(|error| failed(&file, &error))?;
    let packages = dependencies(layout, spawner, function, &folder).await?;
    let mut path = vec![layout.runtime("python"), volume.clone()];
    path.extend(packages);
    let mut command = spawner.command(layout.venv().join("bin/python"));
    command
        .args(["-m", "kubeless_runtime"])
        .current_dir(&volume)
        .env("PYTHONPATH", std::env::join_paths(path).map_err(|error| error.to_string())?)
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // The server keeps what is under the volume away from its own libraries.
        .env("KUBELESS_INSTALL_VOLUME", &folder)
        .env("KUBELESS_FUNC_PATH", &file)
        .env("MOD_NAME", module)
        .env("FUNC_HANDLER", handler)
        .env("FUNC_TIMEOUT", function.timeout.as_secs().max(1).to_string())
        .env("FUNC_RUNTIME", &function.runtime)
        // The live line of each event says it already.
        .env("FUNC_ACCESS_LOG", "0")
        .envs(&function.env)
        .env("FUNC_HOST", "127.0.0.1")
        .env("FUNC_PORT", "0");
    Ok(command)
}

/// The folder with a function's own dependencies, installed if it is not there yet.
async fn dependencies(
    layout: &Layout,
    spawner: &Spawner,
    function: &FunctionPlan,
    folder: &Path,
) -> Result<Option<PathBuf>, String> {
    if function.deps.trim().is_empty() {
        return Ok(None);
    }
    let wanted = hash(function.deps.as_bytes());
    let target = folder.join(format!("deps-{}", &wanted[..12]));
    if !is_ready(&target, &wanted) {
        say(&format!("  function    {} installing its dependencies", function.name));
        fs::create_dir_all(&target).map_err(|error| failed(&target, &error))?;
        let requirements = target.join("requirements.txt");
        fs::write(&requirements, &function.deps).map_err(|error| failed(&requirements, &error))?;
        let mut install = pip(layout, spawner);
        install.arg("--upgrade").arg("--target").arg(&target).arg("--requirement").arg(&requirements);
        run(install, "pip install").await?;
        fs::write(target.join(READY), wanted).map_err(|error| failed(&target, &error))?;
    }
    Ok(Some(target))
}

fn pip(layout: &Layout, spawner: &Spawner) -> Command {
    let mut command = spawner.command(layout.venv().join("bin/python"));
    command
        .args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet"])
        .env("PIP_CACHE_DIR", layout.root().join("pip-cache"));
    command
}

/// Runs a command to its end; its last lines are the problem when it fails. Its output is shown only then.
async fn run(mut command: Command, what: &str) -> Result<(), String> {
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
    last.iter().for_each(|line| relay("pip", line));
    Err(format!("{what} {}", describe(status)))
}

fn is_ready(folder: &Path, wanted: &str) -> bool {
    fs::read_to_string(folder.join(READY)).is_ok_and(|found| found == wanted)
}

fn hash(content: &[u8]) -> String {
    format!("{:032x}", xxh3_128(content))
}

fn failed(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}
