//! `kubeless trigger KIND publish` and the verb that makes a stream, from the descriptions that the sources give. Must never
//! say that an event was sent before the server has it, nor ask a cluster.

use crate::{
    api::command::{Publish, TriggerCommand},
    cli::{
        Exit, Message, UsageError, Wiring,
        commands::send,
        output::{self, Format, Table, talk},
    },
};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

/// Id of the flag of the format.
const OUTPUT: &str = "output";
/// Id of the flag of parts.
const PARTS: &str = "parts";
/// CloudEvents attributes of events with an id.
const SOURCE: &str = "/kubeless/publish";
const TYPE: &str = "dev.kubeless.publish";

/// Adds the verbs to a kind that has them.
pub fn with_verbs(command: Command, kind: &TriggerCommand) -> Command {
    let Some(publish) = &kind.publish else { return command };
    let verb = Command::new("publish")
        .about("Sends events and waits until the server has them")
        .before_help(format!("Examples:\n  {}\n", publish.example))
        .arg(topic_arg(publish))
        .arg(
            text(publish.data, "DATA", "Body of an event; may be given several times")
                .action(ArgAction::Append)
                .required(true),
        )
        .arg(text("id", "ID", "Id of the event: the same id is delivered once").action(ArgAction::Set))
        .args(
            publish.key.map(|name| text(name, "KEY", "Events of one key keep their order. Default: the id")),
        )
        .args(server_args(publish))
        .arg(format_arg());
    let command = command.subcommand(verb);
    let Some(make) = &publish.make else { return command };
    command.subcommand(
        Command::new(make.verb)
            .about(make.about)
            .before_help(format!("Examples:\n  {}\n", make.example))
            .arg(text(make.name, "NAME", "Its name").required(true))
            .arg(
                Arg::new(PARTS)
                    .long(make.parts)
                    .value_name("NUMBER")
                    .default_value("1")
                    .value_parser(value_parser!(i32).range(1..=100_000))
                    .help("How many shards it has"),
            )
            .args(server_args(publish))
            .arg(format_arg()),
    )
}

/// Runs a verb, if it is one of ours.
pub fn run(
    kind: &TriggerCommand,
    verb: &str,
    matches: &ArgMatches,
    wiring: &dyn Wiring,
) -> Option<anyhow::Result<Exit>> {
    let publish = kind.publish.as_ref()?;
    match &publish.make {
        _ if verb == "publish" => Some(send_all(publish, matches, wiring)),
        Some(make) if verb == make.verb => {
            let name = value(matches, make.name).unwrap_or_default();
            Some(create(publish, &name, matches, wiring))
        }
        _ => None,
    }
}

fn send_all(publish: &Publish, matches: &ArgMatches, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
    let topic = value(matches, publish.topic).unwrap_or_default();
    let server = address(publish, matches, &topic)?;
    let bodies: Vec<&String> = matches.get_many(publish.data).into_iter().flatten().collect();
    let id = value(matches, "id");
    if id.is_some() && bodies.len() > 1 {
        let text = format!("--id names one event: give one --{}, or leave --id out", publish.data);
        return Err(UsageError(text).into());
    }
    let key = publish.key.and_then(|name| value(matches, name)).or_else(|| id.clone());
    let messages = bodies.into_iter().map(|body| Message {
        topic: topic.clone(),
        key: key.clone(),
        id: id.clone(),
        source: SOURCE.to_owned(),
        kind: TYPE.to_owned(),
        content_type: send::content_type(body.as_bytes()).to_owned(),
        headers: Vec::new(),
        data: Some(body.clone().into_bytes()),
    });
    let places = wiring.publisher(&server)?.publish(messages.collect())?;
    let format = matches.get_one::<Format>(OUTPUT).copied().unwrap_or_default();
    let table = |places: &[String]| {
        let mut table = Table::plain();
        places.iter().for_each(|place| table.row(&[place]));
        table
    };
    output::list(&mut output::stdout(), format, &places, table, Clone::clone)?;
    talk(&format!("{} sent to {topic} at {server}", places.len()));
    Ok(Exit::Ok)
}

fn create(publish: &Publish, name: &str, matches: &ArgMatches, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
    let server = address(publish, matches, "")?;
    let parts = matches.get_one::<i32>(PARTS).copied().unwrap_or(1);
    wiring.topics(&server)?.create(name, parts, 0).map_err(|error| anyhow::anyhow!(error))?;
    let made = serde_json::json!({ "name": name, "shards": parts });
    let format = matches.get_one::<Format>(OUTPUT).copied().unwrap_or_default();
    let table = |_: &[serde_json::Value]| {
        let mut table = Table::plain();
        table.row(&[format!("{name} created")]);
        table
    };
    output::list(&mut output::stdout(), format, &[made], table, |_| name.to_owned())?;
    Ok(Exit::Ok)
}

/// Where the server is: as the flags say, else the local session of this folder.
fn address(publish: &Publish, matches: &ArgMatches, topic: &str) -> anyhow::Result<String> {
    let said = |name: &str| value(matches, name);
    match (publish.address)(&said).map_err(UsageError)? {
        Some(address) => Ok(address),
        None => send::servers(None, topic, publish.is_ours),
    }
}

fn value(matches: &ArgMatches, name: &str) -> Option<String> {
    matches.get_one::<String>(name).cloned()
}

fn text(name: &'static str, value_name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value_name).help(help)
}

fn topic_arg(publish: &Publish) -> Arg {
    let arg = text(publish.topic, "NAME", "Where to");
    match publish.default_topic {
        Some(topic) => arg.default_value(topic),
        None => arg.required(true),
    }
}

fn server_args(publish: &Publish) -> impl Iterator<Item = Arg> {
    publish.server.iter().map(|flag| text(flag.name, flag.value_name, flag.help))
}

fn format_arg() -> Arg {
    Arg::new(OUTPUT)
        .long(OUTPUT)
        .short('o')
        .value_name("FORMAT")
        .value_parser(value_parser!(Format))
        .help("Output format")
}
