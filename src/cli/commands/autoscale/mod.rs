//! `kubeless autoscale …`: how many Pods a function has, by its load. Must never write to an autoscaler itself: it is
//! part of the Function, and the controller makes it.

mod body;
mod list;

use crate::cli::{
    Exit, UsageError,
    commands::function::check,
    listing::Listing,
    session::{
        Place,
        objects::{Changed, FUNCTIONS},
    },
    written::{DryRun, Writing},
};
use clap::Subcommand;
use serde_json::Value;

const EXAMPLES: &str = "Examples:
  kubeless autoscale create hello --min 2 --max 10 --metric cpu --value 70
  kubeless autoscale list
";
const CREATE_EXAMPLES: &str = "Examples:
  kubeless autoscale create hello --min 2 --max 10 --metric cpu --value 70
  kubeless autoscale create hello --max 20 --metric qps --value 100
";
const DELETE_EXAMPLES: &str = "Examples:
  kubeless autoscale delete hello
";
const LIST_EXAMPLES: &str = "Examples:
  kubeless autoscale list
  kubeless autoscale list -A -o json
";

/// Autoscaling.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Scales a function by its load.
    #[command(before_help = CREATE_EXAMPLES)]
    Create(Create),
    /// Leaves the number of Pods alone again.
    #[command(before_help = DELETE_EXAMPLES)]
    Delete(Delete),
    /// Lists the autoscalers of functions.
    #[command(visible_alias = "ls", before_help = LIST_EXAMPLES)]
    List(List),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Function.
    name: String,
    #[command(flatten)]
    bounds: body::Bounds,
    #[command(flatten)]
    writing: Writing,
}

#[derive(Debug, clap::Args)]
struct Delete {
    /// Function.
    name: String,
    #[command(flatten)]
    writing: Writing,
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    listing: Listing,
}

impl Args {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<Exit> {
        match &self.verb {
            Verb::Create(args) => {
                args.bounds.check()?;
                let edit = |function: &mut Value| {
                    let body = args.bounds.body(function);
                    function["spec"][FIELD] = body;
                };
                self.change(&args.name, &args.writing, ["autoscaled", "unchanged"], edit)
            }
            Verb::Delete(args) => {
                let edit = |function: &mut Value| {
                    if let Some(spec) = function["spec"].as_object_mut() {
                        spec.remove(FIELD);
                    }
                };
                self.change(&args.name, &args.writing, ["no longer autoscaled", "not autoscaled"], edit)
            }
            Verb::List(args) => self.place.run(async |session| list::run(&args.listing, session).await),
        }
    }

    /// Changes the function; `told` is what is said of it, and what if there was nothing to change.
    fn change(
        &self,
        name: &str,
        writing: &Writing,
        told: [&'static str; 2],
        edit: impl Fn(&mut Value),
    ) -> anyhow::Result<Exit> {
        let edit = |function: &mut Value| {
            edit(function);
            check(function)
        };
        self.place.run(async |session| {
            let (object, what) = match writing.dry_run() {
                DryRun::Client => {
                    let mut object = session.get(&FUNCTIONS, name).await?;
                    edit(&mut object)?;
                    (object, told[0])
                }
                _ => match session.update(&FUNCTIONS, name, writing.commit(), edit).await? {
                    Changed::Unchanged(object) => (object, told[1]),
                    Changed::Written(object) => (object, told[0]),
                },
            };
            writing.print(&[(FUNCTIONS, object, what)])?;
            Ok(Exit::Ok)
        })
    }
}

/// The part of a Function's spec that holds its autoscaler.
const FIELD: &str = "horizontalPodAutoscaler";

/// A bound that cannot be.
fn wrong(text: &str) -> Result<(), UsageError> {
    Err(UsageError(text.to_owned()))
}
