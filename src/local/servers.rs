//! The embedded servers of a session, one for each source that has one. All run from the start, so that a trigger that
//! appears later needs no other start. Must never fail a session for a server that no trigger needs.

use super::plan::{Plan, TriggerPlan};
use crate::config::DispatcherConfig;
use std::collections::BTreeSet;

/// An embedded server. It ends when it is dropped.
pub trait Broker {
    /// The source whose triggers it serves.
    fn source(&self) -> &'static str;
    /// Where clients find it, as `kubeless send --broker` takes it.
    fn address(&self) -> String;
    /// What it is and what it does not prove, for the banner.
    fn notice(&self) -> String;
    /// Makes a topic, if it is not there yet.
    fn ensure_topic(&self, topic: &str) -> Result<(), String>;
    /// Makes triggers without servers use it.
    fn point_at(&self, config: &mut DispatcherConfig);
}

/// A server, or why there is none.
pub type Started = Result<Box<dyn Broker>, String>;

/// All of them.
#[derive(Default)]
pub struct Servers {
    running: Vec<Box<dyn Broker>>,
    /// Sources whose server did not start, and why.
    failed: Vec<(&'static str, String)>,
    /// Sources whose server was shown.
    shown: BTreeSet<&'static str>,
}

impl Servers {
    /// Takes what was started, and why others were not.
    pub fn new(started: Vec<(&'static str, Started)>) -> Self {
        let mut servers = Self::default();
        for (source, started) in started {
            match started {
                Ok(server) => servers.running.push(server),
                Err(problem) => servers.failed.push((source, problem)),
            }
        }
        servers
    }

    /// Makes the topics of the plan; one sentence for each that cannot be.
    pub fn ensure(&self, plan: &Plan) -> Vec<String> {
        plan.embedded_topics().filter_map(|(source, topic)| self.ensure_one(source, topic).err()).collect()
    }

    fn ensure_one(&self, source: &str, topic: &str) -> Result<(), String> {
        match self.of(source) {
            Some(server) => {
                server.ensure_topic(topic).map_err(|problem| format!("{source} {topic}: {problem}"))
            }
            None => {
                let why = self.failed.iter().find(|(failed, _)| *failed == source);
                let why = why.map_or("this source has none", |(_, why)| why);
                Err(format!("no embedded server for {source} {topic}: {why}; name a server in the trigger"))
            }
        }
    }

    /// Makes triggers without servers use them.
    pub fn point_at(&self, config: &mut DispatcherConfig) {
        self.running.iter().for_each(|server| server.point_at(config));
    }

    /// Those that the plan needs and that were not shown yet.
    pub fn unseen(&mut self, plan: &Plan) -> Vec<(String, String)> {
        let needed: BTreeSet<&str> = plan.embedded_topics().map(|(source, _)| source).collect();
        let new = self.running.iter().filter(|server| needed.contains(server.source()));
        let new: Vec<_> = new.filter(|server| self.shown.insert(server.source())).collect();
        new.into_iter().map(|server| (server.address(), server.notice())).collect()
    }

    /// Where a trigger's embedded server is.
    pub fn address_of(&self, trigger: &TriggerPlan) -> Option<String> {
        self.of(trigger.source).filter(|_| trigger.embedded).map(Broker::address)
    }

    /// For programs: the address of each source, and of each topic of the plan.
    pub fn describe(&self, plan: &Plan) -> serde_json::Value {
        let servers: serde_json::Map<String, serde_json::Value> =
            self.running.iter().map(|server| (server.source().to_owned(), server.address().into())).collect();
        let topics = plan.triggers.iter().filter_map(|trigger| {
            Some(serde_json::json!({ "topic": trigger.topic, "address": self.address_of(trigger)? }))
        });
        serde_json::json!({ "servers": servers, "topics": topics.collect::<Vec<_>>() })
    }

    fn of(&self, source: &str) -> Option<&dyn Broker> {
        self.running.iter().find(|server| server.source() == source).map(AsRef::as_ref)
    }
}
