//! One connection of one subscription: made, watched, made again for ever. Every interval without it is told, because what
//! is published meanwhile cannot be counted. Must never block its thread, and never give up.

use super::client::{self, Access};
use crate::{clock, event::headers::rfc3339_ms, telemetry::Histogram, testkit};
use async_nats::{Client, Event, connection::State};
use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// What a look at the link found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// As before.
    None,
    /// There is a new client: nothing is subscribed.
    Opened,
    /// The same client is back on a new connection; it has subscribed again by itself.
    Reopened,
}

/// Says why nothing is received: to the status page and, once a change, to the log.
#[derive(Clone)]
pub struct Voice {
    /// Shown in the trigger's status, empty while all is well.
    pub status: Arc<Mutex<String>>,
    /// The trigger, for the log.
    pub trigger: String,
}

impl Voice {
    /// Sets the status.
    pub fn say(&self, why: &str) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if *status == why {
            return;
        }
        if why.is_empty() {
            tracing::info!(trigger = self.trigger, was = *status, "Receiving again");
        } else {
            tracing::warn!(trigger = self.trigger, why, "Receiving is in trouble");
        }
        why.clone_into(&mut status);
    }
}

enum Stage {
    Down(Instant),
    Opening(JoinHandle<Result<Client, async_nats::ConnectError>>),
    Up(Client),
}

/// See the module.
pub struct Link {
    access: Access,
    name: String,
    voice: Voice,
    stage: Stage,
    attempts: usize,
    connects: u64,
    /// When it was last seen connected, if ever.
    connected_ms: Option<i64>,
    /// Since when it is not, while it is not and was before.
    gap_from: Option<i64>,
    /// Takes the intervals, where what is published meanwhile is lost.
    gaps: Option<Histogram>,
    last_error: Arc<Mutex<String>>,
}

impl Link {
    /// A link that will be opened by the first look. `gaps` takes the intervals without a connection, where they cost messages.
    pub fn new(access: Access, name: String, voice: Voice, gaps: Option<Histogram>) -> Self {
        Self {
            access,
            name,
            voice,
            stage: Stage::Down(Instant::now()),
            attempts: 0,
            connects: 0,
            connected_ms: None,
            gap_from: None,
            gaps,
            last_error: Arc::default(),
        }
    }

    /// The client, if there is one; it may be reconnecting.
    pub fn client(&self) -> Option<&Client> {
        match &self.stage {
            Stage::Up(client) => Some(client),
            _ => None,
        }
    }

    /// Whether the connection stands as far as is known.
    pub fn is_up(&self) -> bool {
        self.client().is_some_and(|client| client.connection_state() == State::Connected)
    }

    /// Messages that this client has received from the server.
    pub fn in_messages(&self) -> u64 {
        self.client().map_or(0, |client| client.statistics().in_messages.load(Ordering::Relaxed))
    }

    /// Looks at the connection and does what is due. Cancel-safe: waits only for a task that has ended.
    pub async fn look(&mut self) -> Change {
        let change = match &mut self.stage {
            Stage::Down(until) if Instant::now() >= *until => {
                self.open();
                Change::None
            }
            Stage::Down(_) => Change::None,
            Stage::Opening(task) if task.is_finished() => match task.await {
                Ok(Ok(client)) => {
                    self.connects = client.statistics().connects.load(Ordering::Relaxed);
                    self.stage = Stage::Up(client);
                    self.attempts = 0;
                    Change::Opened
                }
                Ok(Err(error)) => {
                    self.lost(&error.to_string());
                    Change::None
                }
                Err(error) => {
                    self.lost(&error.to_string());
                    Change::None
                }
            },
            Stage::Opening(_) => Change::None,
            Stage::Up(client) => {
                let connects = client.statistics().connects.load(Ordering::Relaxed);
                let before = std::mem::replace(&mut self.connects, connects);
                if connects == before { Change::None } else { Change::Reopened }
            }
        };
        self.measure(change == Change::Reopened);
        change
    }

    fn open(&mut self) {
        self.attempts += 1;
        let last_error = Arc::clone(&self.last_error);
        let options = self.access.connection(&self.name).event_callback(move |event| {
            if let Event::ServerError(_) | Event::ClientError(_) = &event {
                *last_error.lock().unwrap_or_else(PoisonError::into_inner) = event.to_string();
            }
            std::future::ready(())
        });
        let servers = self.access.servers.clone();
        self.stage = Stage::Opening(tokio::spawn(options.connect(servers)));
    }

    /// The client is of no use any more: another one is made after a pause.
    pub fn lost(&mut self, why: &str) {
        let pause = client::pause(self.attempts);
        self.voice.say(&format!("no connection: {why}"));
        self.stage = Stage::Down(Instant::now() + pause);
    }

    /// Keeps the times between which nothing could be received.
    fn measure(&mut self, blinked: bool) {
        let now = clock::unix_ms();
        if !self.is_up() {
            let Some(from) = self.connected_ms else { return };
            if self.gap_from.is_none() {
                self.gap_from = Some(from);
            }
            if self.client().is_some() {
                let why = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
                self.voice.say(&format!("disconnected since {}: {why}", time(from)));
            }
            return;
        }
        let since = self.gap_from.take().or(self.connected_ms.filter(|_| blinked));
        if let Some(from) = since
            && let Some(gaps) = &self.gaps
            && !testkit::bug("gap_untold")
        {
            gaps.record(Duration::from_millis(u64::try_from(now - from).unwrap_or(0)));
            tracing::warn!(
                trigger = self.voice.trigger,
                from = time(from),
                to = time(now),
                "There was no connection: what was published in between cannot be counted"
            );
        }
        self.connected_ms = Some(now);
    }
}

fn time(ms: i64) -> String {
    rfc3339_ms(ms).map_or_else(String::new, |text| String::from_utf8_lossy(&text).into_owned())
}
