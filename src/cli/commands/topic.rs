//! `kubeless topic create|delete|list|publish`: topics of a broker, by the broker's own protocol. Must never run a program
//! inside a Pod, as Kubeless did, nor ask a cluster.

use super::send;
use crate::cli::{
    Exit, Wiring,
    output::{self, Format, Table},
};
use anyhow::anyhow;
use clap::Subcommand;
use serde_json::json;
use std::io::Write as _;

/// Lines of the help.
pub const EXAMPLES: &str = "Examples:
  kubeless topic create orders --partitions 6 --broker broker:9092
  kubeless topic list
  kubeless topic publish --topic orders --data '{\"id\":42}'
  kubeless topic delete orders
";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes a topic.
    #[command(
        before_help = "Examples:\n  kubeless topic create orders --partitions 6 --broker broker:9092\n"
    )]
    Create(Create),
    /// Removes topics and all that is in them.
    #[command(before_help = "Examples:\n  kubeless topic delete orders --broker broker:9092\n")]
    Delete(Delete),
    /// Lists topics.
    #[command(
        visible_alias = "ls",
        before_help = "Examples:\n  kubeless topic list --broker broker:9092 -o json\n"
    )]
    List(List),
    /// Sends one event.
    #[command(
        before_help = "Examples:\n  kubeless topic publish --topic orders --data '{\"id\":42}' --id order-42\n"
    )]
    Publish(Publish),
}

/// Where the brokers are.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// Brokers as HOST:PORT,…; kinesis://REGION for streams. Default: the session of `kubeless dev` in this folder.
    #[arg(long, value_name = "SERVERS", env = "KUBELESS_BROKER")]
    broker: Option<String>,
}

/// Arguments of `create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Name of the topic.
    name: String,
    /// Partitions: how many events can be worked on in order side by side.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    partitions: i32,
    /// Copies of each. Default: as the brokers are set up.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    #[arg(value_parser = clap::value_parser!(i32).range(0..=1000))]
    replicas: i32,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `delete`.
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// Names of topics.
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `publish`.
#[derive(Debug, clap::Args)]
pub struct Publish {
    /// Name of the topic.
    #[arg(long, default_value = "kubeless")]
    topic: String,
    /// Body: text, @FILE, or @- for standard input.
    #[arg(long)]
    data: String,
    /// Id of the event: the same id is delivered once.
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    place: Place,
}

impl Place {
    fn servers(&self) -> anyhow::Result<String> {
        // The addresses of brokers have no scheme.
        send::servers(self.broker.as_deref(), "", |address| !address.contains("://"))
    }
}

impl Command {
    /// Runs the command.
    pub fn run(&self, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
        match self {
            Self::Create(args) => create(args, wiring),
            Self::Delete(args) => delete(args, wiring),
            Self::List(args) => list(args, wiring),
            Self::Publish(args) => {
                let servers = args.place.servers()?;
                send::run(&send::Args::one(&args.topic, &args.data, args.id.clone(), servers), wiring)
            }
        }
    }
}

fn create(args: &Create, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
    let servers = args.place.servers()?;
    let topics = wiring.topics(&servers)?;
    topics
        .create(&args.name, args.partitions, args.replicas)
        .map_err(|error| anyhow!("{error} (at {servers})"))?;
    let made = json!({ "name": args.name, "partitions": args.partitions });
    let table = |_: &[serde_json::Value]| {
        let mut table = Table::plain();
        table.row(&[format!("topic {} created", args.name)]);
        table
    };
    output::list(&mut output::stdout(), args.output, &[made], table, |_| args.name.clone())?;
    Ok(Exit::Ok)
}

fn delete(args: &Delete, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
    let servers = args.place.servers()?;
    let topics = wiring.topics(&servers)?;
    let mut out = output::stdout();
    for name in &args.names {
        topics.delete(name).map_err(|error| anyhow!("{error} (at {servers})"))?;
        writeln!(out, "topic {} deleted", output::printable(name))?;
    }
    Ok(Exit::Ok)
}

fn list(args: &List, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
    let servers = args.place.servers()?;
    let found = wiring.topics(&servers)?.list().map_err(|error| anyhow!("{error} (at {servers})"))?;
    let known = |number: usize| if number == 0 { "-".to_owned() } else { number.to_string() };
    let items: Vec<serde_json::Value> = found
        .iter()
        .map(
            |topic| json!({ "name": topic.name, "partitions": topic.partitions, "replicas": topic.replicas }),
        )
        .collect();
    let table = |_: &[serde_json::Value]| {
        let mut table = Table::new(&["NAME", "PARTITIONS", "REPLICAS"]);
        for topic in &found {
            table.row(&[topic.name.clone(), known(topic.partitions), known(topic.replicas)]);
        }
        table
    };
    let name = |item: &serde_json::Value| item["name"].as_str().unwrap_or_default().to_owned();
    output::list(&mut output::stdout(), args.output, &items, table, name)?;
    Ok(Exit::Ok)
}
