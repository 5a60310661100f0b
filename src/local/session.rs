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
    servers::Servers,
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

/// What local mode cannot know by itself: how manifests and sources are read. Wired by the binary.
pub trait Ground {
    /// Reads the folder. Bad objects are problems of the plan, never errors.
    fn plan(&self, dir: &Path) -> Plan;
    /// Starts the embedded server of every source that has one.
    fn start_servers(&self) -> Servers;
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
    admin: String,
    servers: Servers,
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
        let mut servers = ground.start_servers();
        let problems = servers.ensure(&plan);
        let admin = free_address().map_err(|source| io_error("looking for a free port", source))?;
        let grace = write_config(&layout, &servers, &admin)?;
        let (sender, reports) = mpsc::channel(REPORTS);
        let spawner = Spawner { kubeless: Some(options.kubeless.clone()) };
        let endpoints = Endpoints::new(layout.endpoints()).map_err(|source| io_error(&shown, source))?;
        let own = instance::Ground {
            layout: layout.clone(),
            spawner: spawner.clone(),
            prepared: tokio::sync::Mutex::default(),
            reports: sender,
        };
        announce(&layout, &plan, &mut servers, &admin, &options.kubeless);
        problems.iter().for_each(|problem| say(&format!("  server      {problem}")));
        write_session(&layout, &plan, &servers, &admin)?;
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
            admin,
            servers,
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

    /// Dispatcher first (it drains into the functions), then functions, then the servers.
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
        drop(self.servers);
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
        for problem in self.servers.ensure(&plan) {
            say(&format!("  server      {problem}"));
        }
        for (address, notice) in self.servers.unseen(&plan) {
            say(super::banner::server_lines(&address, &notice).trim_end());
        }
        for trigger in plan.triggers.iter().filter(|trigger| !self.plan.triggers.contains(trigger)) {
            say(super::banner::trigger_line(trigger).trim_end());
        }
        for problem in plan.problems.iter().filter(|problem| !self.plan.problems.contains(problem)) {
            say(&format!("  skipped     {problem}"));
        }
        self.functions.apply(&plan.functions)?;
        if plan.triggers != self.plan.triggers {
            let written = write_session(&self.layout, &plan, &self.servers, &self.admin);
            written.unwrap_or_else(|error| say(&format!("  session     {error}")));
        }
        self.plan = plan;
        Ok(())
    }
}

/// Writes the dispatcher's configuration; returns how long it may drain.
fn write_config(layout: &Layout, servers: &Servers, admin: &str) -> Result<Duration, Error> {
    let mut config = DispatcherConfig {
        manifests: vec![layout.dir.clone(), layout.endpoints()],
        state_dir: layout.state(),
        ..DispatcherConfig::default()
    };
    config.admin.listen = admin.parse().map_err(|error| Error::Config(format!("{admin}: {error}")))?;
    servers.point_at(&mut config);
    let text =
        format!("# Written by kubeless dev at each start; edits are lost.\n{}", crate::config::dump(&config));
    let path = layout.dispatcher_config();
    write_whole(&path, text.as_bytes()).map_err(|source| io_error(&path.display().to_string(), source))?;
    Ok(config.shutdown.grace)
}

/// Tells people what runs where.
fn announce(layout: &Layout, plan: &Plan, servers: &mut Servers, admin: &str, kubeless: &Path) {
    // What it prints can be copied, wherever the program lives.
    let program = if on_path("kubeless") { "kubeless".to_owned() } else { kubeless.display().to_string() };
    let used = servers.unseen(plan);
    let facts = Facts { dir: &layout.dir, used: &used, servers, admin, plan };
    say(banner(&facts).trim_end());
    say(&try_this(&facts, &program, on_path));
}

/// Tells programs what runs where.
fn write_session(layout: &Layout, plan: &Plan, servers: &Servers, admin: &str) -> Result<(), Error> {
    let mut session = servers.describe(plan);
    session["pid"] = std::process::id().into();
    session["admin"] = admin.into();
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
