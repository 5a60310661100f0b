//! `kubeless function logs NAME`: what the Pods of a function write, merged, and on with it as Pods come and go. Must
//! never hold more than one piece of a line for each Pod.

use crate::{
    cli::{
        Exit,
        output::{printable, talk},
        session::{Session, objects::FUNCTIONS, shown},
    },
    cluster::client,
    config::quantity::duration,
};
use anyhow::anyhow;
use futures_util::{AsyncBufReadExt, StreamExt, future, io::AsyncBufRead, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{ListParams, LogParams},
    runtime::{WatchStreamExt, watcher},
};
use std::{
    collections::HashSet,
    io::{IsTerminal, Write},
    time::Duration,
};

/// Bytes of a line after which it is broken: nobody reads longer ones, and they cost memory.
const MAX_LINE: usize = 64 * 1024;
/// Pods that are read at once.
const MAX_PODS: u32 = 100;

const EXAMPLES: &str = "Examples:
  kubeless function logs hello
  kubeless function logs hello -f --since 10m
  kubeless function logs hello --tail 20 --previous
";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Name of the function.
    name: String,
    /// Goes on with what is written, and with new Pods, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Only what was written since, as in 10m.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    since: Option<Duration>,
    /// Only the last so many lines of each Pod.
    #[arg(long, value_name = "LINES")]
    tail: Option<i64>,
    /// Container. Default: the function's.
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// What the container wrote before it was started anew.
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
    /// Puts the time before each line.
    #[arg(long)]
    timestamps: bool,
}

/// Runs the command.
pub async fn run(args: &Args, session: &Session) -> anyhow::Result<Exit> {
    let api: Api<Pod> = Api::namespaced(session.connection.watches.clone(), &session.namespace);
    let labels = format!("function={}", args.name);
    let params = ListParams::default().labels(&labels).limit(MAX_PODS);
    let what = format!("looking for the Pods of {}", args.name);
    let pods = shown(&what, api.list(&params)).await.map_err(|error| anyhow!(client::explain(&error)))?.items;
    if pods.is_empty() {
        // A function without Pods and no function at all are different mistakes.
        session.get(&FUNCTIONS, &args.name).await?;
        let hint = format!("why: kubeless function describe {}", args.name);
        if !args.follow {
            talk(&format!("error: function {} has no Pod; {hint}", args.name));
            return Ok(Exit::Failed);
        }
        talk(&format!("function {} has no Pod yet ({hint}); waiting for one", args.name));
    }
    let reader = Reader { args, api: &api, named: pods.len() > 1 || args.follow };
    if args.follow {
        return reader.follow(&labels).await;
    }
    let mut exit = Exit::Ok;
    for pod in &pods {
        if let Err(error) = reader.read(pod, From::Flags).await {
            talk(&format!("error: {error:#}"));
            exit = Exit::Failed;
        }
    }
    Ok(exit)
}

/// Where the reading of a Pod begins: what it wrote before it was first seen is wanted as far as the flags say, of its
/// later runs everything is.
#[derive(Clone, Copy)]
enum From {
    Flags,
    Start,
}

struct Reader<'a> {
    args: &'a Args,
    api: &'a Api<Pod>,
    named: bool,
}

impl Reader<'_> {
    /// Reads one Pod to the end of what there is, or of the Pod.
    async fn read(&self, pod: &Pod, from: From) -> anyhow::Result<()> {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let params = LogParams {
            container: Some(self.container(pod)),
            follow: self.args.follow,
            previous: self.args.previous,
            since_seconds: match from {
                From::Flags => {
                    self.args.since.map(|since| i64::try_from(since.as_secs().max(1)).unwrap_or(i64::MAX))
                }
                From::Start => None,
            },
            tail_lines: match from {
                From::Flags => self.args.tail,
                From::Start => None,
            },
            timestamps: self.args.timestamps,
            ..LogParams::default()
        };
        let stream = self.api.log_stream(&name, &params).await;
        let stream = stream.map_err(|error| anyhow!("Pod {name}: {}", client::explain(&error)))?;
        let pod = self.named.then_some(name.as_str());
        copy(stream, |line| print(pod, line)).await
    }

    fn container(&self, pod: &Pod) -> String {
        let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let own = containers.iter().find(|container| container.name == self.args.name).or(containers.first());
        let own = own.map(|container| container.name.clone()).unwrap_or_default();
        self.args.container.clone().unwrap_or(own)
    }

    /// Reads every Pod that runs, from when it runs, until Ctrl-C.
    async fn follow(&self, labels: &str) -> anyhow::Result<Exit> {
        let config = watcher::Config::default().labels(labels);
        let mut pods = std::pin::pin!(watcher(self.api.clone(), config).default_backoff());
        let mut known: HashSet<(String, i32)> = HashSet::new();
        let mut streams = FuturesUnordered::new();
        loop {
            tokio::select! {
                event = pods.next() => match event {
                    Some(Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod))) => {
                        let Some(run) = self.run_of(&pod) else { continue };
                        let again = known.iter().any(|(uid, _)| *uid == run.0);
                        let from = if again { From::Start } else { From::Flags };
                        if known.insert(run) {
                            streams.push(async move { self.read(&pod, from).await });
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => talk(&format!("the Pods cannot be watched: {}", client::with_causes(&error))),
                    None => return Ok(Exit::Ok),
                },
                ended = next(&mut streams) => if let Err(error) = ended {
                    talk(&format!("{error:#}"));
                },
            }
        }
    }

    /// The run of the container that can be read now: Pod and number of restarts.
    fn run_of(&self, pod: &Pod) -> Option<(String, i32)> {
        let name = self.container(pod);
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        let status = statuses.iter().find(|status| status.name == name)?;
        let state = status.state.as_ref()?;
        let readable = state.running.is_some() || state.terminated.is_some();
        readable.then(|| (pod.metadata.uid.clone().unwrap_or_default(), status.restart_count))
    }
}

/// The next stream that ends; none running is for ever pending, so that a `select!` waits for the others.
async fn next<F: Future>(streams: &mut FuturesUnordered<F>) -> F::Output {
    match streams.next().await {
        Some(ended) => ended,
        None => future::pending().await,
    }
}

/// Hands on line by line; what is longer than a line may be comes in pieces.
async fn copy(
    stream: impl AsyncBufRead,
    mut print: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let mut stream = std::pin::pin!(stream);
    let mut line = Vec::new();
    loop {
        let piece = stream.fill_buf().await?;
        if piece.is_empty() {
            if !line.is_empty() {
                print(&line)?;
            }
            return Ok(());
        }
        let end = piece.iter().position(|byte| *byte == b'\n');
        let room = MAX_LINE - line.len();
        let taken = end.unwrap_or(piece.len()).min(room);
        line.extend_from_slice(&piece[..taken]);
        let complete = end == Some(taken);
        let used = taken + usize::from(complete);
        stream.as_mut().consume(used);
        if complete || line.len() >= MAX_LINE {
            print(&line)?;
            line.clear();
        }
    }
}

/// A line as it is for a file or pipe; on a terminal control characters are shown, and colours are dropped.
fn print(pod: Option<&str>, line: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if let Some(pod) = pod {
        write!(out, "{pod}  ")?;
    }
    match out.is_terminal() {
        true => {
            let text = String::from_utf8_lossy(line);
            let plain = anstream::adapter::strip_str(&text).to_string();
            writeln!(out, "{}", printable(plain.trim_end_matches('\r')))?;
        }
        false => {
            out.write_all(line)?;
            writeln!(out)?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_cut_where_they_end_or_where_they_are_too_long() {
        let text = [b"a\n\nb".as_slice(), &vec![b'x'; MAX_LINE]].concat();
        let mut lengths = Vec::new();
        let reader = futures_util::io::BufReader::with_capacity(7, text.as_slice());
        let print = |line: &[u8]| {
            lengths.push(line.len());
            Ok(())
        };
        copy(reader, print).await.unwrap();
        assert_eq!(lengths, [1, 0, MAX_LINE, 1]);
    }
}
