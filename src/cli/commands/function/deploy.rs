//! `kubeless function deploy NAME`: a new function. Must never change one that exists.

use super::{
    change::{self, Changes},
    flags::{Flags, PullPolicy},
};
use crate::{
    api::{Violation, command, cronjob_trigger, function},
    cli::{
        Exit, UsageError,
        output::{self, talk},
        session::{
            Place, Session,
            objects::{FUNCTIONS, Kind, check_name},
        },
        system::{Runtimes, System},
        wait::Wait,
        written::{DryRun, Writing},
    },
};
use anyhow::bail;
use serde_json::{Value, json};

const CRONJOBS: Kind = command::cronjob::COMMAND.resource;

const EXAMPLES: &str = "Examples:
  kubeless function deploy hello -r python3.11 --handler hello.main --from-file hello.py --wait
  kubeless function deploy hello -r nodejs18 --handler app.run -f code.zip -d package.json
  kubeless function deploy hello -r python3.11 --handler a.b -f a.py -e LEVEL=debug -l topic=orders
  kubeless function deploy hello --runtime-image registry.example/hello:1 --port 3000
  kubeless function deploy hello -r python3.11 --handler a.b -f a.py --dry-run > hello.yaml
";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Name of the function.
    name: String,
    #[command(flatten)]
    flags: Flags,
    /// Also calls it by this schedule, as in '*/10 * * * *' (a CronJobTrigger of the same name).
    #[arg(long, value_name = "CRON")]
    schedule: Option<String>,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    wait: Wait,
}

/// Runs the command.
pub fn run(args: &Args, place: &Place) -> anyhow::Result<Exit> {
    check_name(&FUNCTIONS, &args.name)?;
    args.flags.check_new()?;
    // Files and URLs are read before anything is asked of a cluster.
    let mut changes = args.flags.changes()?;
    changes.pull_policy.get_or_insert_with(|| PullPolicy::Always.as_str().to_owned());
    if args.writing.dry_run() == DryRun::Client {
        let namespace = place.offline()?.namespace;
        let objects = objects(args, &changes, &namespace)?;
        let done: Vec<_> = objects.into_iter().map(|(kind, object)| (kind, object, "created")).collect();
        args.writing.print(&done)?;
        return Ok(Exit::Ok);
    }
    place.run(async |session| create(args, &changes, session).await)
}

/// The function and, with a schedule, its trigger.
fn objects(args: &Args, changes: &Changes, namespace: &str) -> anyhow::Result<Vec<(Kind, Value)>> {
    let mut object = change::blank(namespace, &args.name);
    changes.apply(&mut object);
    check(&object)?;
    let mut objects = vec![(FUNCTIONS, object)];
    if let Some(schedule) = &args.schedule {
        objects.push((CRONJOBS, trigger(&args.name, namespace, schedule)?));
    }
    Ok(objects)
}

async fn create(args: &Args, changes: &Changes, session: &Session) -> anyhow::Result<Exit> {
    check_runtime(changes, session).await?;
    let objects = objects(args, changes, &session.namespace)?;
    let mut done = Vec::new();
    for (kind, object) in &objects {
        match session.create(kind, object, args.writing.commit()).await {
            Ok(created) => done.push((*kind, created, "created")),
            Err(error) => {
                // What was made stays, and whoever reads this must know it.
                args.writing.print(&done)?;
                return Err(error);
            }
        }
    }
    args.writing.print(&done)?;
    if args.writing.dry_run() != DryRun::None {
        return Ok(Exit::Ok);
    }
    match args.wait.run(session, &args.name).await? {
        Some(exit) => Ok(exit),
        None => {
            talk(&format!("it takes a moment to start: kubeless function describe {}", args.name));
            Ok(Exit::Ok)
        }
    }
}

/// Refuses a runtime that the cluster does not have; who may not see which there are is only told so.
pub async fn check_runtime(changes: &Changes, session: &Session) -> anyhow::Result<()> {
    let Some(runtime) = changes.runtime.as_deref().filter(|_| changes.image.is_none()) else { return Ok(()) };
    match System::find(session).await.runtimes(session).await {
        Runtimes::Unknown(why) => {
            talk(&output::printable_lines(&format!("warning: runtime {runtime} is not checked: {why}")));
            Ok(())
        }
        known => match known.catalogue().map(|catalogue| catalogue.find(runtime)) {
            Some(Err(unknown)) => Err(UsageError(unknown.to_string()).into()),
            _ => Ok(()),
        },
    }
}

/// What the API server or the controller would refuse.
pub fn check(object: &Value) -> anyhow::Result<()> {
    told(function::decode(object.clone()).map(drop))
}

fn told(checked: Result<(), Vec<Violation>>) -> anyhow::Result<()> {
    let Err(violations) = checked else { return Ok(()) };
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    bail!(UsageError(lines.join("\n       ")))
}

fn trigger(name: &str, namespace: &str, schedule: &str) -> anyhow::Result<Value> {
    let object = json!({
        "apiVersion": crate::api::API_VERSION,
        "kind": CRONJOBS.kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": { (change::CREATED_BY.0): change::CREATED_BY.1, "function": name },
        },
        "spec": { "schedule": schedule, "function-name": name },
    });
    told(cronjob_trigger::decode(object.clone()).map(drop))?;
    Ok(object)
}
