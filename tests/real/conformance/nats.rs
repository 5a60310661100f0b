//! Core NATS for the suite. Its server keeps nothing: what is published while nobody listens is gone, and what a killed
//! dispatcher held is lost without a name.

use super::{BY_LABEL, Source};
use crate::support::nats::{Client, Message, NatsCluster};
use std::{
    ops::Range,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// A server that no test harms; never dropped, its folder is removed after this process.
static SHARED: LazyLock<NatsCluster> = LazyLock::new(|| NatsCluster::start(1).for_a_static());

pub struct Nats {
    own: Option<NatsCluster>,
    client: Option<Client>,
    prefix: String,
}

impl Nats {
    pub fn server(&self) -> &NatsCluster {
        self.own.as_ref().unwrap_or(&SHARED)
    }

    /// What its subjects begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn send(&mut self, messages: impl IntoIterator<Item = Message>) {
        let client = self.client.take().unwrap_or_else(|| self.server().client());
        client.publish(messages);
        self.client = Some(client);
    }
}

pub fn message(subject: &str, n: usize, padding: usize) -> Message {
    Message::new(subject, format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(padding)))
        .header("ce-specversion", "1.0")
        .header("ce-id", format!("e-{n}"))
        .header("ce-source", "/suite")
        .header("ce-type", "suite.event")
}

impl Source for Nats {
    const KEEPS: bool = false;
    const KIND: &'static str = "NATSTrigger";

    fn shared() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { own: None, client: None, prefix: format!("suite-{number}") }
    }

    fn alone() -> Self {
        Self { own: Some(NatsCluster::start(1)), ..Self::shared() }
    }

    fn spec(&self) -> String {
        format!("{BY_LABEL}  topic: \"{}.*\"\n  url: \"{}\"\n", self.prefix, self.server().url())
    }

    fn publish(&mut self, numbers: Range<usize>, padding: usize) {
        let prefix = self.prefix.clone();
        self.send(numbers.map(|n| message(&format!("{prefix}.part-{}", n % 3), n, padding)));
    }

    fn poison(&mut self) {
        let subject = format!("{}.poison", self.prefix);
        self.send([Message::new(&subject, "no JSON").header("content-type", "application/cloudevents+json")]);
    }

    fn kill_server(&mut self) {
        self.client = None;
        self.own.as_mut().expect("a server of its own").kill9(0);
    }

    fn restart_server(&mut self) {
        self.own.as_mut().expect("a server of its own").restart(0);
    }
}
