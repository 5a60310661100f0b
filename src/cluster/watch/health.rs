//! How each watch is: when it was last heard, whether its list is complete, what is wrong. Written by the watch, read by
//! readiness, metrics and the stop rule. Must never wait.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    clock,
    telemetry::{WATCH_ENDINGS, WatchMetrics},
};

/// Why a watch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The server closed it in order, as it does every few minutes.
    Closed,
    /// Nothing was heard for too long: the connection may be dead without anybody having said so.
    Silent,
    /// The server does not remember where we were; the list begins anew.
    Expired,
    /// The server does not know the kind: its CRD is not installed.
    Missing(String),
    /// The server answers and says no.
    Refused(String),
    /// The server does not answer, or is not able to.
    Unreachable(String),
}

impl Ending {
    /// The words of [`WATCH_ENDINGS`], in its order.
    fn index(&self) -> usize {
        match self {
            Self::Closed => 0,
            Self::Silent => 1,
            Self::Expired => 2,
            Self::Missing(_) => 3,
            Self::Refused(_) => 4,
            Self::Unreachable(_) => 5,
        }
    }

    /// The closed word for it.
    pub fn reason(&self) -> &'static str {
        WATCH_ENDINGS[self.index()]
    }
}

/// How a watch stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Its first list is not complete.
    #[default]
    Starting,
    /// It runs.
    Running,
    /// Its kind does not exist on the server.
    Missing(String),
    /// The server says no.
    Refused(String),
    /// The server does not answer.
    Unreachable(String),
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Boot clock when the phase began.
    since_ms: u64,
    /// Boot clock of the last word from the server.
    heard_ms: u64,
    synced: bool,
    faulty: usize,
}

/// The state of one watch. Clones are the same.
#[derive(Clone, Debug)]
pub struct Health {
    /// Kind of its objects.
    pub kind: &'static str,
    /// Namespace it looks at; `None`: all.
    pub namespace: Option<Arc<str>>,
    state: Arc<Mutex<State>>,
    metrics: Arc<WatchMetrics>,
}

impl Health {
    /// Of a watch that begins now.
    pub fn new(kind: &'static str, namespace: Option<&str>) -> Self {
        let now = clock::boot_ms();
        let state = State { since_ms: now, heard_ms: now, ..State::default() };
        let metrics = Arc::new(WatchMetrics::new(kind, namespace.unwrap_or_default()));
        Self { kind, namespace: namespace.map(Into::into), state: Arc::new(Mutex::new(state)), metrics }
    }

    /// The server said something, if only that nothing happened. Returns whether it had been in trouble.
    pub(super) fn heard(&self) -> bool {
        let mut state = self.lock();
        state.heard_ms = clock::boot_ms();
        let recovered = state.synced && !matches!(state.phase, Phase::Running | Phase::Starting);
        if state.synced && state.phase != Phase::Running {
            (state.phase, state.since_ms) = (Phase::Running, state.heard_ms);
        }
        self.metrics.heard.set(clock::unix_ms() as f64 / 1000.0);
        self.metrics.up.set(f64::from(u8::from(state.synced)));
        recovered
    }

    /// The list is complete.
    pub(super) fn synced(&self) {
        self.lock().synced = true;
        self.heard();
    }

    /// What is known now.
    pub(super) fn count(&self, objects: usize, faulty: usize) {
        self.metrics.objects.set(objects as f64);
        self.metrics.faulty.set(faulty as f64);
        self.lock().faulty = faulty;
    }

    /// The watch ended. Returns whether this is news for people.
    pub(super) fn ended(&self, ending: &Ending) -> bool {
        if let Some(counter) = self.metrics.endings.get(ending.index()) {
            counter.increment(1);
        }
        let phase = match ending {
            // The next attempt tells.
            Ending::Closed | Ending::Silent | Ending::Expired => return false,
            Ending::Missing(why) => Phase::Missing(why.clone()),
            Ending::Refused(why) => Phase::Refused(why.clone()),
            Ending::Unreachable(why) => Phase::Unreachable(why.clone()),
        };
        self.metrics.up.set(0.0);
        let mut state = self.lock();
        // No such kind: a complete list of nothing, unless there was one before.
        state.synced |= matches!(phase, Phase::Missing(_));
        let news = std::mem::discriminant(&state.phase) != std::mem::discriminant(&phase);
        if news {
            state.since_ms = clock::boot_ms();
        }
        state.phase = phase;
        news
    }

    /// How it stands, and for how long.
    pub fn phase(&self) -> (Phase, Duration) {
        let state = self.lock();
        (state.phase.clone(), since(state.since_ms))
    }

    /// Whether its first list was complete at some time: what it knows may be old, but it is whole.
    pub fn is_synced(&self) -> bool {
        self.lock().synced
    }

    /// Objects that are skipped because they fail their checks.
    pub fn faulty(&self) -> usize {
        self.lock().faulty
    }

    /// How long nothing was heard.
    pub fn age(&self) -> Duration {
        since(self.lock().heard_ms)
    }

    /// Whether objects of this namespace are among those it looks at.
    pub fn covers(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = self.namespace.as_deref().unwrap_or("all namespaces");
        match self.phase().0 {
            Phase::Starting => write!(f, "{} ({place}): not listed yet", self.kind),
            Phase::Running => write!(f, "{} ({place}): watched", self.kind),
            Phase::Missing(why) => write!(f, "{} ({place}): no such kind: {why}", self.kind),
            Phase::Refused(why) => write!(f, "{} ({place}): refused: {why}", self.kind),
            Phase::Unreachable(why) => write!(f, "{} ({place}): {why}", self.kind),
        }
    }
}

fn since(then_ms: u64) -> Duration {
    Duration::from_millis(clock::boot_ms().saturating_sub(then_ms))
}
