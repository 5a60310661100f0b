//! Node functions: the runtime server unpacked from this binary with its packages, the function's code and own packages
//! beside. Must never write outside DIR/.kubeless, npm's cache and logs included.

use super::{
    child::Spawner,
    layout::Layout,
    output::say,
    plan::FunctionPlan,
    runtime_files,
    workshop::{Laid, failed, hash, is_ready, lay_out, mark_ready, run, unpack},
};
use std::{fs, os::unix::fs::symlink, time::Instant};
use tokio::process::Command;

/// Installs the packages of the runtime, if just these are not there.
pub async fn prepare(layout: &Layout, spawner: &Spawner) -> Result<(), String> {
    let runtime = layout.runtime("nodejs");
    unpack(&runtime, runtime_files::NODEJS)?;
    let lock = runtime.join(runtime_files::NODEJS_LOCK);
    let wanted = hash(&fs::read(&lock).map_err(|error| failed(&lock, &error))?);
    if is_ready(&runtime, &wanted) {
        return Ok(());
    }
    let started = Instant::now();
    say("  nodejs      installing the runtime's packages (once; usually 2 to 10 s)");
    let mut install = npm(layout, spawner);
    install.arg("ci").current_dir(&runtime);
    run(install, "npm ci").await.map_err(|problem| {
        format!("{problem}; install Node 18 or later with npm (Debian: apt-get install nodejs npm)")
    })?;
    say(&format!("  nodejs      ready after {:.1} s", started.elapsed().as_secs_f64()));
    mark_ready(&runtime, &wanted)
}

/// Writes a function's code, installs its packages and returns the command that serves it.
pub async fn command(layout: &Layout, spawner: &Spawner, function: &FunctionPlan) -> Result<Command, String> {
    let laid = lay_out(layout, function, ".js")?;
    dependencies(layout, spawner, function, &laid).await?;
    let mut command = spawner.command("node");
    command.arg(layout.runtime("nodejs").join("lib/main.js")).current_dir(&laid.volume);
    laid.tell(&mut command, function);
    Ok(command)
}

/// Installs a function's own packages, and puts them where its code looks for them.
async fn dependencies(
    layout: &Layout,
    spawner: &Spawner,
    function: &FunctionPlan,
    laid: &Laid<'_>,
) -> Result<(), String> {
    let link = laid.volume.join("node_modules");
    // Of an earlier start of the same code.
    let _ = fs::remove_file(&link);
    if function.deps.trim().is_empty() {
        return Ok(());
    }
    let wanted = hash(function.deps.as_bytes());
    let target = laid.folder.join(format!("deps-{}", &wanted[..12]));
    if !is_ready(&target, &wanted) {
        say(&format!("  function    {} installing its dependencies", function.name));
        fs::create_dir_all(&target).map_err(|error| failed(&target, &error))?;
        let package = target.join("package.json");
        fs::write(&package, &function.deps).map_err(|error| failed(&package, &error))?;
        let mut install = npm(layout, spawner);
        install.arg("install").current_dir(&target);
        run(install, "npm install").await?;
        mark_ready(&target, &wanted)?;
    }
    symlink(target.join("node_modules"), &link).map_err(|error| failed(&link, &error))
}

fn npm(layout: &Layout, spawner: &Spawner) -> Command {
    let mut command = spawner.command("npm");
    command
        .args(["--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"])
        .env("npm_config_cache", layout.root().join("npm-cache"));
    command
}
