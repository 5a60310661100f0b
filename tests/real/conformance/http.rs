//! Requests for the suite. The dispatcher keeps nothing of what it has not claimed, so the owner of the events does: it offers each
//! one until it is told that this one may not come again, over breaks, stops and kills.

use super::{Property, Source};
use crate::support::ports;
use kubeless::event::message::Rejection;
use std::{
    collections::VecDeque,
    ops::Range,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Requests at once.
const CALLERS: usize = 48;
/// Pause before an event is offered again.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for an answer; usually far less.
const WAIT: Duration = Duration::from_secs(60);

pub struct Http {
    upstream: Arc<Upstream>,
    callers: Vec<JoinHandle<()>>,
    port: u16,
    dir: tempfile::TempDir,
}

/// An event, or what only says that it is one.
enum Offer {
    Event(usize, usize),
    Poison,
}

/// What was published and has no end yet.
#[derive(Default)]
struct Upstream {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Offer>,
    stop: bool,
}

impl Upstream {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while holding it")
    }

    fn put(&self, offers: impl IntoIterator<Item = Offer>) {
        self.lock().waiting.extend(offers);
        self.changed.notify_all();
    }

    /// The next one; `None` once the test is over.
    fn take(&self) -> Option<Offer> {
        let waits = |state: &mut State| state.waiting.is_empty() && !state.stop;
        let mut state = self.changed.wait_while(self.lock(), waits).expect("no panic while holding it");
        if state.stop { None } else { state.waiting.pop_front() }
    }

    fn pause(&self) {
        let waits = |state: &mut State| !state.stop;
        drop(self.changed.wait_timeout_while(self.lock(), PAUSE, waits).expect("no panic while holding it"));
    }

    fn call(&self, base: &str) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(WAIT))
            .max_redirects(0)
            .http_status_as_error(false)
            .build()
            .into();
        while let Some(offer) = self.take() {
            if !offer.send(&agent, base) {
                self.pause();
                self.put([offer]);
            }
        }
    }
}

impl Offer {
    /// Whether it need not come again.
    fn send(&self, agent: &ureq::Agent, base: &str) -> bool {
        let request = agent.post(format!("{base}/suite"));
        let answer = match self {
            Self::Event(number, padding) => {
                let body = serde_json::json!({"n": number, "pad": "x".repeat(*padding)}).to_string();
                let attributes = [("specversion", "1.0"), ("source", "/suite"), ("type", "suite.event")];
                let request = attributes
                    .into_iter()
                    .fold(request, |request, (name, value)| request.header(format!("ce-{name}"), value));
                request.header("ce-id", format!("e-{number}")).content_type("application/json").send(body)
            }
            Self::Poison => request.content_type("application/cloudevents+json").send("no JSON"),
        };
        let Ok(answer) = answer else { return false };
        let status = answer.status().as_u16();
        let said = |name| answer.headers().contains_key(name);
        let over = match status {
            404 | 408 | 503 => false,
            // A call for it runs; or it has ended.
            409 => said("idempotent-replayed"),
            // A dispatcher that ends may say so without knowing whether it had claimed.
            502 => said("kubeless-outcome"),
            _ => true,
        };
        // Read to its end, so that the connection is used again.
        answer.into_body().read_to_vec().is_ok() && over
    }
}

impl Source for Http {
    // Each event is synced to the disk twice, once with its claim and once with its end.
    const FLOOD: usize = 2;
    const KEEPS: bool = true;
    const KIND: &'static str = "HTTPTrigger";
    const WITHOUT: &'static [(Property, &'static str)] = &[(
        Property::AServerThatWasAwayRepeatsNothing,
        "there is no server that the dispatcher is connected to: callers come to it; callers that break off and come again are \
         part of the other properties",
    )];

    fn shared() -> Self {
        let (upstream, port) = (Arc::new(Upstream::default()), ports::free_port());
        let caller = |_| {
            let (upstream, base) = (Arc::clone(&upstream), format!("http://127.0.0.1:{port}"));
            thread::spawn(move || upstream.call(&base))
        };
        let callers = (0..CALLERS).map(caller).collect();
        Self { upstream, callers, port, dir: tempfile::tempdir().expect("a temporary folder") }
    }

    fn alone() -> Self {
        Self::shared()
    }

    fn spec(&self) -> String {
        let way = "  function-name: witness\n  path: suite\n";
        // What a killed dispatcher left open is named once no call of it can run any more.
        format!("{way}  delivery:\n    through: Dispatcher\n    timeout: 8s\n")
    }

    fn arguments(&self) -> Vec<String> {
        let listen = format!("listen=\"127.0.0.1:{}\"", self.port);
        let options = [listen.as_str(), "start_window=2s", "doubt_margin=0ms"];
        options.into_iter().flat_map(|o| ["--set".to_owned(), format!("sources.http.{o}")]).collect()
    }

    fn state(&self) -> Option<&Path> {
        // Claims are in its log, which the next dispatcher reads.
        Some(self.dir.path())
    }

    fn is_offer(line: &serde_json::Value) -> bool {
        let refused = || !Rejection::REASONS.iter().any(|reason| line["reason"] == *reason);
        match line["outcome"].as_str() {
            Some("duplicate" | "unreachable") => true,
            Some("rejected") => refused(),
            _ => false,
        }
    }

    fn publish(&mut self, numbers: Range<usize>, padding: usize) {
        self.upstream.put(numbers.map(|number| Offer::Event(number, padding)));
    }

    fn poison(&mut self) {
        self.upstream.put([Offer::Poison]);
    }

    fn kill_server(&mut self) {
        unreachable!("declared");
    }

    fn restart_server(&mut self) {
        unreachable!("declared");
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.upstream.lock().stop = true;
        self.upstream.changed.notify_all();
        for caller in self.callers.drain(..) {
            let _ = caller.join();
        }
    }
}
