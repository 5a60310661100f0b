//! `kubeless send TOPIC`: publishes events. Must never say that an event was sent before the broker has said so.

use crate::cli::{
    Exit, Message, Publisher, UsageError, Wiring,
    output::{self, talk},
    progress::Progress,
};
use anyhow::Context;
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::Duration,
};

/// CloudEvents attributes of events that say none.
const DEFAULT_SOURCE: &str = "/kubeless/send";
const DEFAULT_TYPE: &str = "dev.kubeless.send";

/// Lines of a file that are published together and acknowledged before more are taken.
const BATCH: usize = 1000;
/// A line waits no longer than this for others: lines of a slow pipe go out as they come.
const LINGER: Duration = Duration::from_millis(50);

/// Where `kubeless dev` says what runs.
const SESSION: &str = ".kubeless/run/dev.json";

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Topic, subject or stream.
    topic: String,
    /// Body: text, @FILE, or @- for standard input. Default: an empty body.
    data: Option<String>,
    /// Same as the second argument.
    #[arg(long = "data", value_name = "DATA", conflicts_with = "data")]
    data_flag: Option<String>,
    /// Publish every line of this file (- is standard input) as one event.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "data_flag", "id"])]
    file: Option<PathBuf>,
    /// With --file: print where each event went (topic/partition/offset), one a line.
    #[arg(long, requires = "file")]
    positions: bool,
    /// Id of the event: the same id is delivered once.
    #[arg(long)]
    id: Option<String>,
    /// With --file: the member of each JSON line that is the id.
    #[arg(long, value_name = "MEMBER", requires = "file")]
    id_from: Option<String>,
    /// Key: events of one key keep their order and meet in one partition. Default: the id, so that a repeat meets the
    /// event it repeats (ids are remembered for each partition).
    #[arg(long)]
    key: Option<String>,
    /// With --file: the member of each JSON line that is the key.
    #[arg(long, value_name = "MEMBER", requires = "file", conflicts_with = "key")]
    key_from: Option<String>,
    /// A header; may be given several times.
    #[arg(long = "header", short = 'H', value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// Content type. Default: JSON if the body is JSON, else text or octets.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// CloudEvents source of events with an id.
    #[arg(long, default_value = DEFAULT_SOURCE)]
    source: String,
    /// CloudEvents type of events with an id.
    #[arg(long = "type", value_name = "TYPE", default_value = DEFAULT_TYPE)]
    kind: String,
    /// Kafka: HOST:PORT,…; NATS: nats://HOST:PORT, or nats+js://… to wait until a stream stored the event; Kinesis:
    /// kinesis://REGION or kinesis+http://HOST:PORT; an HTTP trigger's path: http://HOST:PORT. Default: the session of `kubeless dev` in this folder.
    #[arg(long, value_name = "SERVERS", env = "KUBELESS_BROKER")]
    broker: Option<String>,
}

impl Args {
    /// What sends one event to `topic`.
    pub fn one(topic: &str, data: &str, id: Option<String>, broker: String) -> Self {
        Self {
            topic: topic.to_owned(),
            data: Some(data.to_owned()),
            data_flag: None,
            file: None,
            positions: false,
            id,
            id_from: None,
            key: None,
            key_from: None,
            headers: Vec::new(),
            content_type: None,
            source: DEFAULT_SOURCE.to_owned(),
            kind: DEFAULT_TYPE.to_owned(),
            broker: Some(broker),
        }
    }
}

/// Runs the command.
pub fn run(args: &Args, wiring: &dyn Wiring) -> anyhow::Result<Exit> {
    let headers = args.headers.iter().map(|text| header(text)).collect::<Result<Vec<_>, _>>()?;
    let servers = servers(args.broker.as_deref(), &args.topic, |_| true)?;
    let mut publisher = wiring.publisher(&servers)?;
    let sent = match &args.file {
        None => {
            let message = single(args, headers)?;
            let waiting = Progress::start(&format!("waiting for {servers} to take the event (15 s at most)"));
            let positions = publisher.publish(vec![message]);
            drop(waiting);
            let positions = positions?;
            let mut out = output::stdout();
            positions.iter().try_for_each(|position| writeln!(out, "{position}"))?;
            positions.len()
        }
        Some(path) => of_file(args, path, &headers, publisher.as_mut())?,
    };
    talk(&format!("{sent} sent to {} at {servers}", args.topic));
    Ok(Exit::Ok)
}

/// Publishes a file line by line, a bounded number at a time; returns how many. What stands before a bad line is sent.
fn of_file(
    args: &Args,
    path: &Path,
    headers: &[(String, String)],
    publisher: &mut dyn Publisher,
) -> anyhow::Result<usize> {
    let lines = read_ahead(lines(path)?);
    let (mut waiting, mut number, mut sent) = (Vec::new(), 0, 0);
    let mut out = output::stdout();
    let mut flush = |waiting: &mut Vec<Message>| -> anyhow::Result<usize> {
        if waiting.is_empty() {
            return Ok(0);
        }
        let progress = Progress::start("waiting for the broker to take events (15 s at most)");
        let positions = publisher.publish(std::mem::take(waiting));
        drop(progress);
        let positions = positions?;
        if args.positions {
            positions.iter().try_for_each(|position| writeln!(out, "{position}"))?;
        }
        Ok(positions.len())
    };
    loop {
        // Nothing waits: there is time for the next line, however late it comes.
        let next = if waiting.is_empty() {
            lines.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            lines.recv_timeout(LINGER)
        };
        match next {
            Ok(line) => {
                number += 1;
                let at = || format!("{}:{number}", path.display());
                let message = line.map_err(anyhow::Error::from).and_then(|line| {
                    if line.trim().is_empty() { Ok(None) } else { of_line(args, headers, line).map(Some) }
                });
                match message.with_context(at) {
                    Ok(message) => waiting.extend(message),
                    Err(problem) => {
                        sent += flush(&mut waiting)?;
                        talk(&format!("{sent} sent to {}, those before the line that is wrong", args.topic));
                        return Err(problem);
                    }
                }
                if waiting.len() == BATCH {
                    sent += flush(&mut waiting)?;
                }
            }
            Err(RecvTimeoutError::Timeout) => sent += flush(&mut waiting)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(sent + flush(&mut waiting)?),
        }
    }
}

/// Reads on a thread of its own, a batch ahead at most, so that a pipe without news does not hold up what came.
fn read_ahead(lines: Box<dyn Iterator<Item = io::Result<String>> + Send>) -> Receiver<io::Result<String>> {
    let (sender, receiver) = sync_channel(BATCH);
    // It ends with the file, with an error of it, or with the receiver; the process does not wait for it.
    std::thread::spawn(move || {
        for line in lines {
            let last = line.is_err();
            if sender.send(line).is_err() || last {
                return;
            }
        }
    });
    receiver
}

fn single(args: &Args, headers: Vec<(String, String)>) -> anyhow::Result<Message> {
    let data = match args.data.as_deref().or(args.data_flag.as_deref()) {
        None => Vec::new(),
        Some("@-") => {
            let mut body = Vec::new();
            io::stdin().read_to_end(&mut body)?;
            body
        }
        Some(text) => match text.strip_prefix('@') {
            Some(path) => std::fs::read(path).with_context(|| path.to_owned())?,
            None => text.as_bytes().to_vec(),
        },
    };
    Ok(message(args, headers, args.id.clone(), args.key.clone(), data))
}

fn of_line(args: &Args, headers: &[(String, String)], line: String) -> anyhow::Result<Message> {
    let member = |name: &Option<String>| -> anyhow::Result<Option<String>> {
        let Some(name) = name else { return Ok(None) };
        let value: serde_json::Value = serde_json::from_str(&line).context("the line is not JSON")?;
        match value.get(name) {
            Some(serde_json::Value::String(text)) => Ok(Some(text.clone())),
            Some(other) if !other.is_null() => Ok(Some(other.to_string())),
            _ => anyhow::bail!("the line has no member `{name}`"),
        }
    };
    let id = member(&args.id_from)?;
    let key = member(&args.key_from)?.or_else(|| args.key.clone());
    Ok(message(args, headers.to_vec(), id, key, line.into_bytes()))
}

fn message(
    args: &Args,
    headers: Vec<(String, String)>,
    id: Option<String>,
    key: Option<String>,
    data: Vec<u8>,
) -> Message {
    Message {
        topic: args.topic.clone(),
        key: key.or_else(|| id.clone()),
        id,
        source: args.source.clone(),
        kind: args.kind.clone(),
        content_type: args.content_type.clone().unwrap_or_else(|| content_type(&data).to_owned()),
        headers,
        data: Some(data),
    }
}

/// Content type of a body that has none of its own.
pub fn content_type(data: &[u8]) -> &'static str {
    match std::str::from_utf8(data) {
        Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => "application/json",
        Ok(_) => "text/plain; charset=utf-8",
        Err(_) => "application/octet-stream",
    }
}

fn header(text: &str) -> Result<(String, String), UsageError> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| UsageError(format!("`{text}` is not a header; write --header NAME=VALUE")))
}

fn lines(path: &Path) -> anyhow::Result<Box<dyn Iterator<Item = io::Result<String>> + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin()).lines()));
    }
    let file = File::open(path).with_context(|| path.display().to_string())?;
    Ok(Box::new(BufReader::new(file).lines()))
}

/// The servers named, or those that the local session of this folder has for the topic.
///
/// # Errors
/// Nothing says where they are; the sentence names the flag.
pub fn servers(named: Option<&str>, topic: &str, fits: impl Fn(&str) -> bool) -> anyhow::Result<String> {
    if let Some(servers) = named {
        return Ok(servers.to_owned());
    }
    let session = std::fs::read(SESSION).ok();
    let session = session.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let missing = "no server is named and no `kubeless dev` runs in this folder; \
                   write --broker ADDRESS or set KUBELESS_BROKER";
    let session = session.ok_or_else(|| UsageError(missing.to_owned()))?;
    let text = |value: &serde_json::Value, key: &str| value.get(key)?.as_str().map(str::to_owned);
    let topics = session.get("topics").and_then(serde_json::Value::as_array).into_iter().flatten();
    let of_topic =
        topics.filter(|known| text(known, "topic").is_some_and(|pattern| matches(&pattern, topic)));
    let found = of_topic.filter_map(|known| text(known, "address")).filter(|address| fits(address));
    let found: BTreeSet<String> = found.collect();
    let all = session.get("servers").and_then(serde_json::Value::as_object).into_iter().flatten();
    let all: Vec<&str> =
        all.filter_map(|(_, address)| address.as_str()).filter(|address| fits(address)).collect();
    match (found.len(), all.as_slice()) {
        (1, _) => return Ok(found.into_iter().next().unwrap_or_default()),
        // Only one server comes into question, whoever reads the topic.
        (0, [only]) => return Ok((*only).to_owned()),
        _ => {}
    }
    let what = if found.is_empty() { "no trigger of this session reads" } else { "several sources have" };
    Err(UsageError(format!("{what} {topic}; write --broker with one of {}", all.join(" "))).into())
}

/// Whether a trigger of `pattern` reads `topic`: the same name, or one that its wildcards stand for.
fn matches(pattern: &str, topic: &str) -> bool {
    let (mut wanted, mut tokens) = (pattern.split('.'), topic.split('.'));
    loop {
        match (wanted.next(), tokens.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some(word), Some(token)) if word == token || word == "*" => {}
            _ => return false,
        }
    }
}
