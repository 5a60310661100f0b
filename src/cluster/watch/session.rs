//! One watch over the network: list, follow, and again for as long as the process lives. Must never give up, spin, or
//! trust a connection on which nothing is heard.
//!
//! kube's own `watcher` is not used because it keeps bookmarks and reconnections to itself: from outside, a quiet
//! cluster and a dead connection look alike (`docs/decisions/0013-own-watch-loop.md`).

use futures_util::TryStreamExt as _;
use kube::{
    api::{DynamicObject, ListParams, WatchEvent, WatchParams},
    core::{ObjectList, Request},
};
use serde_json::Value;
use std::{pin::pin, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    feed::{Batch, Feed, Heard},
    health::{Ending, Health},
};
use crate::{
    api::dotted,
    cluster::client::{Connection, explain},
};

/// Objects of one page of a list.
const PAGE: u32 = 500;
/// Length of one watch in seconds, as asked of the server; spread so that not all end at once.
const WATCH_SECONDS: std::ops::Range<u32> = 240..300;
/// Pauses between attempts that failed: first and longest, doubling.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Pause while the server does not know the kind.
const MISSING_PAUSE: Duration = Duration::from_secs(10);
/// A watch that was closed earlier than this counts as failed: no busy loop.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);
/// Longest description of one object's faults in the log.
const LOGGED_FAULTS: usize = 3;

/// One watch. Its owner runs it.
pub(super) struct Session {
    connection: Connection,
    path: String,
    feed: Feed,
    health: Health,
    out: mpsc::Sender<Batch>,
    /// Longest silence that is believed.
    silence: Duration,
    /// Where the next watch begins; `None`: with a list.
    position: Option<String>,
}

impl Session {
    pub(super) fn new(
        connection: Connection,
        feed: Feed,
        health: Health,
        out: mpsc::Sender<Batch>,
        silence: Duration,
    ) -> Self {
        use kube::Resource as _;
        let path = DynamicObject::url_path(&feed.subject().resource(), health.namespace.as_deref());
        Self { connection, path, feed, health, out, silence, position: None }
    }

    /// Lists and watches until `stop`, or until nobody listens any more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut pause = PAUSE.0;
        while !self.out.is_closed() {
            let begun = tokio::time::Instant::now();
            let ending = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.attempt() => ended.err().unwrap_or(Ending::Closed),
            };
            let lasted = begun.elapsed();
            self.report(&ending);
            pause = if lasted > PAUSE.1 { PAUSE.0 } else { pause };
            let wait = match ending {
                Ending::Expired => {
                    self.position = None;
                    continue;
                }
                Ending::Closed | Ending::Silent if lasted > SHORTEST_WATCH => continue,
                Ending::Missing(_) => MISSING_PAUSE,
                _ => {
                    let now = pause;
                    pause = (pause * 2).min(PAUSE.1);
                    now
                }
            };
            let spread = wait.mul_f64(0.5 + fastrand::f64());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(spread) => {}
            }
        }
    }

    fn report(&self, ending: &Ending) {
        let news = self.health.ended(ending);
        let (kind, reason) = (self.health.kind, ending.reason());
        match ending {
            Ending::Closed => {}
            Ending::Silent | Ending::Expired => tracing::info!(kind, reason, "Watch begins again"),
            Ending::Missing(why) if news => {
                tracing::error!(kind, why, "No such kind: install the CRDs (kubeless crds); looking again");
            }
            Ending::Refused(why) if news => {
                tracing::error!(kind, why, "The API server refuses the watch: grant the role; trying again");
            }
            Ending::Unreachable(why) if news => {
                tracing::warn!(kind, why, "The API server does not answer; what is known stays in force");
            }
            _ => {}
        }
    }

    /// One list, if one is needed, and one watch to its end.
    async fn attempt(&mut self) -> Result<(), Ending> {
        if self.position.is_none() {
            self.list().await?;
        }
        let position = self.position.clone().unwrap_or_default();
        let parameters = WatchParams {
            label_selector: self.feed.subject().selector().map(str::to_owned),
            timeout: Some(fastrand::u32(WATCH_SECONDS)),
            ..WatchParams::default()
        };
        let request = Request::new(self.path.as_str()).watch(&parameters, &position);
        let request = request.map_err(|error| Ending::Refused(error.to_string()))?;
        let opened = self.connection.watches.request_events::<Value>(request).await;
        let mut events = pin!(opened.map_err(|error| ending(&error))?);
        self.heard();
        loop {
            let next = tokio::time::timeout(self.silence, events.try_next()).await;
            let event = match next {
                Err(_) => return Err(Ending::Silent),
                Ok(Err(error)) => return Err(ending(&error)),
                Ok(Ok(None)) => return Ok(()),
                Ok(Ok(Some(event))) => event,
            };
            self.heard();
            self.event(event).await?;
        }
    }

    fn heard(&self) {
        if self.health.heard() {
            tracing::info!(kind = self.health.kind, "The API server answers again");
        }
    }

    async fn event(&mut self, event: WatchEvent<Value>) -> Result<(), Ending> {
        let heard = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                self.advance(version_of(&object));
                Heard::Applied(object)
            }
            WatchEvent::Deleted(object) => {
                self.advance(version_of(&object));
                Heard::Deleted(object)
            }
            WatchEvent::Bookmark(bookmark) => {
                let version = bookmark.metadata.resource_version;
                if self.went_back(&version) {
                    self.feed.distrust();
                    return Err(Ending::Expired);
                }
                self.advance(version);
                return Ok(());
            }
            WatchEvent::Error(status) => return Err(ending(&kube::Error::Api(status))),
        };
        let batch = self.feed.hear(heard);
        self.hand_on(batch).await
    }

    fn advance(&mut self, version: String) {
        if !version.is_empty() {
            self.position = Some(version);
        }
    }

    /// A server whose history ends before our position was restored from a backup: it would tell us nothing until it
    /// has caught up.
    fn went_back(&self, version: &str) -> bool {
        let number = |text: &str| text.parse::<u64>().ok();
        let position = self.position.as_deref().and_then(number);
        position.zip(number(version)).is_some_and(|(position, version)| version < position)
    }

    /// Consistent: without a resource version the server answers with what etcd has. Lists that are streamed are not asked for:
    /// one way for every server, and each right that it takes is used.
    async fn list(&mut self) -> Result<(), Ending> {
        self.feed.hear(Heard::ListBegins);
        let mut parameters = ListParams { limit: Some(PAGE), ..ListParams::default() };
        parameters.label_selector = self.feed.subject().selector().map(str::to_owned);
        loop {
            let request = Request::new(self.path.as_str()).list(&parameters);
            let request = request.map_err(|error| Ending::Refused(error.to_string()))?;
            let page: ObjectList<Value> =
                self.connection.client.request(request).await.map_err(|error| ending(&error))?;
            self.heard();
            for object in page.items {
                self.feed.hear(Heard::Listed(object));
            }
            parameters.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if parameters.continue_token.is_none() {
                self.position = page.metadata.resource_version;
                return self.list_ended().await;
            }
        }
    }

    async fn list_ended(&mut self) -> Result<(), Ending> {
        let batch = self.feed.hear(Heard::ListEnds);
        // Readers have it before anybody calls the cache complete.
        self.hand_on(batch).await?;
        self.health.synced();
        Ok(())
    }

    async fn hand_on(&mut self, batch: Batch) -> Result<(), Ending> {
        self.health.count(self.feed.objects(), self.feed.faulty());
        for seen in &batch.seen {
            let Some(present) = seen.present.as_ref().filter(|present| present.was_read) else {
                continue;
            };
            if present.faults.is_empty() {
                continue;
            }
            let faults = present.faults.iter().take(LOGGED_FAULTS).map(|fault| {
                let place = dotted(&fault.path);
                format!("{place}: {}; {}", fault.what, fault.fix)
            });
            let faults = faults.collect::<Vec<_>>().join(" | ");
            tracing::error!(kind = seen.kind, object = %seen.reference, faults, kept = present.kept, "Object skipped");
        }
        if batch.is_empty() {
            return Ok(());
        }
        // Nobody listens: the process is stopping.
        self.out.send(batch).await.map_err(|_| Ending::Closed)
    }
}

fn version_of(object: &Value) -> String {
    let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    version.unwrap_or_default().to_owned()
}

fn ending(error: &kube::Error) -> Ending {
    let why = explain(error);
    match error {
        kube::Error::Api(status) => match status.code {
            410 => Ending::Expired,
            404 => Ending::Missing(why),
            429 | 500.. => Ending::Unreachable(why),
            _ => Ending::Refused(why),
        },
        _ => Ending::Unreachable(why),
    }
}
