//! The command line: wires commands to sources and local mode. Must never hold logic of its own.

use anyhow::{Context, anyhow};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kubeless::{
    api::{
        self,
        command::TriggerCommand,
        kind::{ServedBy, TriggerKind},
    },
    cli::{DevRequest, Message, Publisher, Wiring, run},
    cluster::manifests::{self, Limits, Manifests},
    config::DispatcherConfig,
    local::{
        self, Broker, DevOptions, Servers, child,
        plan::{Plan, TriggerFacts},
    },
    sources::{self, Embedded, KINDS, Outgoing, SourceKind},
};
use std::{ffi::OsString, path::Path, process::ExitCode};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Partitions of a topic of the embedded broker.
const LOCAL_SHARDS: i32 = 4;

struct Program;

impl Wiring for Program {
    fn triggers(&self) -> Vec<TriggerCommand> {
        sources::COMMANDS.to_vec()
    }

    fn definitions(&self) -> Vec<CustomResourceDefinition> {
        sources::crds()
    }

    fn crds(&self) -> anyhow::Result<String> {
        let texts: Vec<String> = sources::crds().iter().map(api::crd_yaml).collect::<Result<_, _>>()?;
        Ok(texts.join("---\n"))
    }

    fn trigger_kinds(&self) -> Vec<TriggerKind> {
        sources::TRIGGERS.to_vec()
    }

    fn topics(&self, servers: &str) -> anyhow::Result<Box<dyn sources::Topics>> {
        kind_of(servers)?.topics(servers).map_err(|error| anyhow!(error))
    }

    fn publisher(&self, servers: &str) -> anyhow::Result<Box<dyn Publisher>> {
        let publisher = kind_of(servers)?.publisher(servers).map_err(|error| anyhow!(error))?;
        Ok(Box::new(SourcePublisher(publisher)))
    }

    fn dev(&self, request: DevRequest) -> anyhow::Result<()> {
        let kubeless = std::env::current_exe().context("finding this program")?;
        let beside = kubeless.with_file_name("kubeless-dispatcher");
        let dispatcher = request.dispatcher.unwrap_or(beside);
        local::run(DevOptions { dir: request.dir, json: request.json, kubeless, dispatcher }, self)?;
        Ok(())
    }

    fn child(&self, parent: u32, command: &[OsString]) -> anyhow::Error {
        let error = child::become_child(parent, command);
        anyhow!(error).context(format!("starting {}", command.join(" ".as_ref()).display()))
    }
}

/// The source of an address; one without a scheme is the first source's.
fn kind_of(servers: &str) -> anyhow::Result<&'static dyn SourceKind> {
    let own = KINDS.iter().find(|kind| kind.is_address(servers));
    own.or(KINDS.first()).copied().context("this build has no source")
}

struct SourcePublisher(Box<dyn sources::Publisher>);

impl Publisher for SourcePublisher {
    fn publish(&mut self, messages: Vec<Message>) -> anyhow::Result<Vec<String>> {
        let outgoing: Vec<Outgoing> = messages.into_iter().map(outgoing).collect();
        self.0.publish(&outgoing).map_err(|error| anyhow!(error))
    }
}

/// CloudEvents binary mode; the attributes are there only if the event has an id.
fn outgoing(message: Message) -> Outgoing {
    let attributes = message.id.map(|id| {
        let own = [
            ("specversion", "1.0".to_owned()),
            ("id", id),
            ("source", message.source),
            ("type", message.kind),
        ];
        own.map(|(name, value)| (format!("ce_{name}"), value))
    });
    let mut headers: Vec<(String, String)> = attributes.into_iter().flatten().collect();
    headers.push(("content-type".to_owned(), message.content_type));
    headers.extend(message.headers);
    Outgoing { topic: message.topic, key: message.key, headers, data: message.data }
}

impl local::Ground for Program {
    fn plan(&self, dir: &Path) -> Plan {
        Plan::of(&load(dir), |trigger| {
            let kind = KINDS.iter().find(|kind| kind.trigger().kind == trigger.kind)?;
            let facts = TriggerFacts {
                source: kind.name(),
                topic: kind.address_of(trigger),
                embedded: !kind.names_server(trigger),
                beyond: kind.beyond_embedded(trigger),
            };
            (trigger.served_by == ServedBy::Dispatcher).then_some(facts)
        })
    }

    fn start_servers(&self) -> Servers {
        let start = |kind: &'static dyn SourceKind| -> Option<Result<Box<dyn Broker>, String>> {
            match kind.embed() {
                Ok(server) => Some(Ok(Box::new(LocalBroker { kind, server: server? }))),
                Err(error) => Some(Err(error.to_string())),
            }
        };
        Servers::new(KINDS.iter().filter_map(|kind| Some((kind.name(), start(*kind)?))).collect())
    }
}

struct LocalBroker {
    kind: &'static dyn SourceKind,
    server: Box<dyn Embedded>,
}

impl Broker for LocalBroker {
    fn source(&self) -> &'static str {
        self.kind.name()
    }

    fn address(&self) -> String {
        self.server.address()
    }

    fn notice(&self) -> String {
        self.server.notice().to_owned()
    }

    fn ensure_topic(&self, topic: &str) -> Result<(), String> {
        self.server.ensure_topic(topic, LOCAL_SHARDS).map_err(|error| error.to_string())
    }

    fn point_at(&self, config: &mut DispatcherConfig) {
        self.kind.point_at(config, &self.server.address());
    }
}

fn load(path: &Path) -> Manifests {
    manifests::load(path, sources::TRIGGERS, &Limits::default())
}

fn main() -> ExitCode {
    run(std::env::args_os(), &Program).into()
}
