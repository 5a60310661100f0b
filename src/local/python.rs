//! Python functions: the runtime server unpacked from this binary, one virtual environment for it, the function's
//! code and own dependencies beside. Must never write outside DIR/.kubeless, pip's cache included.

use super::{
    child::Spawner,
    layout::Layout,
    output::say,
    plan::FunctionPlan,
    runtime_files,
    workshop::{failed, hash, is_ready, lay_out, mark_ready, run, unpack},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};
use tokio::process::Command;

/// Makes the virtual environment of the runtime, if it is not there for these very requirements.
pub async fn prepare(layout: &Layout, spawner: &Spawner) -> Result<(), String> {
    let runtime = layout.runtime("python");
    unpack(&runtime, runtime_files::PYTHON)?;
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
    mark_ready(&venv, &wanted)
}

/// Writes a function's code, installs its dependencies and returns the command that serves it.
pub async fn command(layout: &Layout, spawner: &Spawner, function: &FunctionPlan) -> Result<Command, String> {
    let laid = lay_out(layout, function, ".py")?;
    let packages = dependencies(layout, spawner, function, &laid.folder).await?;
    let mut path = vec![layout.runtime("python"), laid.volume.clone()];
    path.extend(packages);
    let mut command = spawner.command(layout.venv().join("bin/python"));
    command
        .args(["-m", "kubeless_runtime"])
        .current_dir(&laid.volume)
        .env("PYTHONPATH", std::env::join_paths(path).map_err(|error| error.to_string())?)
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    // The server keeps what is under the volume away from its own libraries.
    laid.tell(&mut command, function);
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
        mark_ready(&target, &wanted)?;
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
