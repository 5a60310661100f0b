//! One run of local mode, from the banner to the closing summary. Must never block its thread: children belong to it,
//! and the kernel ends them with it.

use super::{
    banner::{Facts, banner, try_this},
    child::Spawner,
    dispatcher::Dispatcher,
    endpoints::Endpoints,
    functions::Functions,
    instance::{self, Report},
    layout::{Layout, write_whole},
    output::{Live, say},
    plan::{Plan, fingerprint},
    tail::Tail,
};
use crate::{config::DispatcherConfig, shutdown::Shutdown};
use std::{
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle, time::interval};
use tokio_util::sync::CancellationToken;

/// How often the folder is looked at for edits.
const EDIT_POLL: Duration = Duration::from_millis(200);
/// How often the journal is looked at.
const JOURNAL_POLL: Duration = Duration::from_millis(50);
/// Reports of instances that may wait to be read.
const REPORTS: usize = 64;
/// Added to the dispatcher's own drain time before it is killed; its own deadline comes first.
const STOP_MARGIN: Duration = Duration::from_secs(8);

/// What the command line says.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// Folder of manifests.
    pub dir: PathBuf,
    /// JSON lines on standard output instead of columns.
    pub json: bool,
    /// This program, which starts children on behalf of local mode.
    pub kubeless: PathBuf,
    /// The dispatcher's executable.
    pub dispatcher: PathBuf,
}

/// An embedded broker. It ends when it is dropped.
pub trait Broker {
    /// `host:port` for clients.
    fn address(&self) -> String;
    /// What it is and what it does not prove, for the banner.
    fn notice(&self) -> String;
    /// Makes a topic, if it is not there yet.
    fn ensure_topic(&self, topic: &str) -> Result<(), String>;
    /// Makes triggers without servers use it.
    fn point_at(&self, config: &mut DispatcherConfig);
}

/// What local mode cannot know by itself: how manifests and sources are read. Wired by the binary.
pub trait Ground {
    /// Reads the folder. Bad objects are problems of the plan, never errors.
    fn plan(&self, dir: &Path) -> Plan;
    /// Starts the embedded broker.
    fn start_broker(&self) -> Result<Box<dyn Broker>, String>;
}

/// Why a local session could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// The embedded broker did not start.
    #[error("the embedded broker did not start: {0}; name real brokers in the trigger")]
    Broker(String),
    /// The generated configuration.
    #[error("the dispatcher's configuration cannot be written: {0}")]
    Config(String),
}

/// Runs local mode until a signal. Must be called on the main thread, outside of any runtime.
pub fn run(options: DevOptions, ground: &dyn Ground) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| io_error("starting the runtime", source))?;
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        let signals = shutdown.listen(None).map_err(|source| io_error("listening for signals", source))?;
        let signals = tokio::spawn(signals);
        let ended = Session::start(options, ground)?.until_stopped(&shutdown).await;
        shutdown.abort_now();
        let _ = signals.await;
        ended
    })
}

struct Session<'a> {
    ground: &'a dyn Ground,
    layout: Layout,
    plan: Plan,
    broker: Option<Box<dyn Broker>>,
    functions: Functions,
    reports: mpsc::Receiver<Report>,
    dispatcher: JoinHandle<()>,
    dispatcher_stop: CancellationToken,
    tail: Tail,
    live: Live,
    json: bool,
}

impl<'a> Session<'a> {
    fn start(options: DevOptions, ground: &'a dyn Ground) -> Result<Self, Error> {
        let shown = options.dir.display().to_string();
        let layout = Layout::prepare(&options.dir).map_err(|source| io_error(&shown, source))?;
        let plan = ground.plan(&layout.dir);
        let broker = start_broker(ground, &plan)?;
        let admin = free_address().map_err(|source| io_error("looking for a free port", source))?;
        let grace = write_config(&layout, broker.as_deref(), &admin)?;
        let (sender, reports) = mpsc::channel(REPORTS);
        let spawner = Spawner { kubeless: Some(options.kubeless.clone()) };
        let endpoints = Endpoints::new(layout.endpoints()).map_err(|source| io_error(&shown, source))?;
        let own = instance::Ground {
            layout: layout.clone(),
            spawner: spawner.clone(),
            prepared: tokio::sync::Mutex::default(),
            reports: sender,
        };
        announce(&layout, &plan, broker.as_deref(), &admin, &options.kubeless)?;
        let mut functions = Functions::new(Arc::new(own), endpoints);
        functions.apply(&plan.functions).map_err(|source| io_error(&shown, source))?;
        let tail = Tail::from_end(layout.journal());
        let dispatcher_stop = CancellationToken::new();
        let dispatcher = Dispatcher {
            layout: layout.clone(),
            spawner,
            program: options.dispatcher,
            grace: grace + STOP_MARGIN,
        };
        // Only a file of this session is of interest, and only then is its size bounded by a session.
        let _ = std::fs::remove_file(layout.dispatcher_log());
        let dispatcher = tokio::spawn(dispatcher.supervise(dispatcher_stop.clone()));
        let (json, live) = (options.json, Live::new(options.json));
        Ok(Self {
            ground,
            layout,
            plan,
            broker,
            functions,
            reports,
            dispatcher,
            dispatcher_stop,
            tail,
            live,
            json,
        })
    }

    async fn until_stopped(mut self, shutdown: &Shutdown) -> Result<(), Error> {
        let mut edits = interval(EDIT_POLL);
        let mut journal = interval(JOURNAL_POLL);
        let mut seen = fingerprint(&self.layout.dir);
        let worked = loop {
            let step = tokio::select! {
                () = shutdown.draining() => break Ok(()),
                Some(report) = self.reports.recv() => self.functions.report(report),
                _ = journal.tick() => self.print_events(),
                _ = edits.tick() => {
                    let now = fingerprint(&self.layout.dir);
                    if now == seen { Ok(()) } else { seen = now; self.replan() }
                }
            };
            if let Err(source) = step {
                break Err(io_error("local mode", source));
            }
        };
        self.stop(shutdown).await;
        worked
    }

    /// Dispatcher first (it drains into the functions), then functions, then the broker.
    async fn stop(mut self, shutdown: &Shutdown) {
        say("\nStopping: the dispatcher finishes running calls (again to stop at once)");
        self.dispatcher_stop.cancel();
        tokio::select! {
            _ = &mut self.dispatcher => {}
            () = shutdown.aborting() => self.dispatcher.abort(),
        }
        // What the dispatcher recorded last; a closed standard output must not keep processes alive.
        let _ = self.print_events();
        // Nobody reads reports any more: a full channel must not hold an instance up.
        self.reports.close();
        tokio::select! {
            () = self.functions.stop() => {}
            () = shutdown.aborting() => {}
        }
        drop(self.broker);
        let _ = std::fs::remove_file(self.layout.session());
        say(&format!("Stopped. {}", self.live.summary()));
        if self.json {
            let mut out = std::io::stdout().lock();
            let _ = io::Write::write_all(&mut out, format!("{}\n", self.live.counts()).as_bytes());
        }
    }

    fn print_events(&mut self) -> io::Result<()> {
        loop {
            let lines = self.tail.poll();
            if lines.is_empty() {
                return Ok(());
            }
            lines.iter().try_for_each(|line| self.live.event(line))?;
        }
    }

    /// An edit: functions are made to match; the dispatcher watches the folder by itself.
    fn replan(&mut self) -> io::Result<()> {
        let plan = self.ground.plan(&self.layout.dir);
        for trigger in plan.triggers.iter().filter(|trigger| !self.plan.triggers.contains(trigger)) {
            say(super::banner::trigger_line(trigger).trim_end());
        }
        match &self.broker {
            Some(broker) => {
                for problem in plan.embedded_topics().filter_map(|topic| broker.ensure_topic(topic).err()) {
                    say(&format!("  broker      {problem}"));
                }
            }
            None if plan.embedded_topics().next().is_some() => {
                say("  broker      a trigger now needs the embedded one: start kubeless dev again");
            }
            None => {}
        }
        for problem in plan.problems.iter().filter(|problem| !self.plan.problems.contains(problem)) {
            say(&format!("  skipped     {problem}"));
        }
        self.functions.apply(&plan.functions)?;
        self.plan = plan;
        Ok(())
    }
}

/// The embedded broker with its topics, if a trigger names no servers.
fn start_broker(ground: &dyn Ground, plan: &Plan) -> Result<Option<Box<dyn Broker>>, Error> {
    if plan.embedded_topics().next().is_none() {
        return Ok(None);
    }
    let broker = ground.start_broker().map_err(Error::Broker)?;
    plan.embedded_topics().try_for_each(|topic| broker.ensure_topic(topic)).map_err(Error::Broker)?;
    Ok(Some(broker))
}

/// Writes the dispatcher's configuration; returns how long it may drain.
fn write_config(layout: &Layout, broker: Option<&dyn Broker>, admin: &str) -> Result<Duration, Error> {
    let mut config = DispatcherConfig {
        manifests: vec![layout.dir.clone(), layout.endpoints()],
        state_dir: layout.state(),
        ..DispatcherConfig::default()
    };
    config.admin.listen = admin.parse().map_err(|error| Error::Config(format!("{admin}: {error}")))?;
    if let Some(broker) = broker {
        broker.point_at(&mut config);
    }
    let text =
        format!("# Written by kubeless dev at each start; edits are lost.\n{}", crate::config::dump(&config));
    let path = layout.dispatcher_config();
    write_whole(&path, text.as_bytes()).map_err(|source| io_error(&path.display().to_string(), source))?;
    Ok(config.shutdown.grace)
}

/// Tells people and programs what runs where.
fn announce(
    layout: &Layout,
    plan: &Plan,
    broker: Option<&dyn Broker>,
    admin: &str,
    kubeless: &Path,
) -> Result<(), Error> {
    let address = broker.map(Broker::address);
    let broker_is = broker.map(Broker::notice).unwrap_or_default();
    // What it prints can be copied, wherever the program lives.
    let program = if on_path("kubeless") { "kubeless".to_owned() } else { kubeless.display().to_string() };
    let facts = Facts { dir: &layout.dir, broker: address.as_deref(), broker_is: &broker_is, admin, plan };
    say(banner(&facts).trim_end());
    say(&try_this(&facts, &program, on_path));
    let session = serde_json::json!({ "pid": std::process::id(), "broker": address, "admin": admin });
    let path = layout.session();
    write_whole(&path, format!("{session}\n").as_bytes())
        .map_err(|source| io_error(&path.display().to_string(), source))
}

/// A loopback address that is free now; kept for the whole session, so that a restarted dispatcher has it again.
fn free_address() -> io::Result<String> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.to_string())
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn io_error(what: &str, source: io::Error) -> Error {
    Error::Io { what: what.to_owned(), source }
}
