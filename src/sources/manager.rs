//! Desired against running sources: starts, stops, edits and restarts subscriptions as triggers, functions and
//! routes come and go. Must never let one subscription's failure reach another.

use super::{Environment, Exit, Order, Running, Source, SourceKind};
use crate::{
    api::{
        conditions::{Fact, reasons, types},
        kind::{ServedBy, TriggerObject},
    },
    cluster::{
        objects::Stale,
        secrets::Secrets,
        target::{ObjectRef, TriggerRef},
    },
    dispatch::{Route, Router, Settings, SubscriptionKey},
    ledger::Outcome,
    status::report::{Counts, State, SubscriptionReport, TriggerView, View},
    testkit,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// First pause before a failed source is started again; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

struct Entry {
    running: Running,
    restart_key: String,
    stopping: bool,
    started: Instant,
}

struct Failure {
    /// What failed: another version of the trigger or its credentials need not wait.
    restart_key: String,
    pause: Duration,
    until: Instant,
    /// One of [`reasons`].
    reason: &'static str,
    why: String,
}

/// Owns all running sources. Driven by its owner: [`SourceManager::reconcile`] after every change and every second.
pub struct SourceManager {
    sources: HashMap<&'static str, Box<dyn Source>>,
    router: Router,
    environment: Environment,
    permits: HashMap<ObjectRef, Arc<Semaphore>>,
    triggers: BTreeMap<TriggerRef, Arc<TriggerObject>>,
    entries: HashMap<SubscriptionKey, Entry>,
    failures: HashMap<SubscriptionKey, Failure>,
    drain: Duration,
    held: Vec<Stale>,
    secrets: Option<Secrets>,
    snapshot: Arc<Mutex<serde_json::Value>>,
    view: Arc<Mutex<Arc<View>>>,
}

impl SourceManager {
    /// A manager with nothing to run. `sources` are the opened [`SourceKind`]s; `drain` bounds how long the calls
    /// of a deleted or restarted subscription are waited for.
    pub fn new(
        sources: Vec<(&'static dyn SourceKind, Box<dyn Source>)>,
        router: Router,
        environment: Environment,
        drain: Duration,
    ) -> Self {
        Self {
            sources: sources.into_iter().map(|(kind, source)| (kind.trigger().kind, source)).collect(),
            router,
            environment,
            permits: HashMap::new(),
            triggers: BTreeMap::new(),
            entries: HashMap::new(),
            failures: HashMap::new(),
            drain,
            held: Vec::new(),
            secrets: None,
            snapshot: Arc::default(),
            view: Arc::default(),
        }
    }

    /// Has credentials read from Secrets of the triggers' own namespaces, in place of mounted files.
    pub fn with_secrets(mut self, secrets: Secrets) -> Self {
        self.secrets = Some(secrets);
        self
    }

    /// Whether a source of this process serves triggers like this one. One that the controller acts on is nobody's
    /// business here; any other that is not served stays unserved until the dispatcher is replaced.
    pub fn serves(&self, trigger: &TriggerObject) -> bool {
        trigger.served_by == ServedBy::Dispatcher && self.sources.contains_key(trigger.kind)
    }

    /// Adds or replaces a trigger; takes effect with the next [`SourceManager::reconcile`].
    pub fn apply(&mut self, trigger: Arc<TriggerObject>) {
        if trigger.served_by == ServedBy::Dispatcher && !self.serves(&trigger) {
            let name = trigger.core.reference.to_string();
            tracing::warn!(
                trigger = name,
                kind = trigger.kind,
                "Trigger accepted, but not served: no such source here"
            );
        }
        self.triggers.insert(trigger.core.key(), trigger);
    }

    /// Removes a trigger.
    pub fn delete(&mut self, trigger: &TriggerRef) {
        self.triggers.remove(trigger);
    }

    /// Claims nothing for these triggers until they are left out again: what is known of them is too old to act on. Takes
    /// effect with the next [`SourceManager::reconcile`].
    pub fn hold(&mut self, held: Vec<Stale>) {
        for stale in held.iter().filter(|stale| !self.held.iter().any(|old| old.concerns_same(stale))) {
            let (kind, why) = (stale.kind, &stale.why);
            tracing::error!(
                kind,
                why,
                "Claiming stopped for these triggers: what is known of them is too old"
            );
        }
        for old in self.held.iter().filter(|old| !held.iter().any(|stale| stale.concerns_same(old))) {
            tracing::info!(kind = old.kind, "Claiming goes on");
        }
        self.held = held;
    }

    fn held(&self, trigger: &TriggerRef) -> Option<&Stale> {
        self.held.iter().find(|stale| stale.covers(trigger))
    }

    /// A page for people: every subscription and how it is.
    pub fn snapshot(&self) -> Arc<Mutex<serde_json::Value>> {
        Arc::clone(&self.snapshot)
    }

    /// What this process knows of its triggers, for the writer of statuses.
    pub fn view(&self) -> Arc<Mutex<Arc<View>>> {
        Arc::clone(&self.view)
    }

    /// Brings what runs to what is desired. Never blocks: a source that has to stop drains on its own thread and is
    /// collected by a later round.
    pub fn reconcile(&mut self) {
        self.collect_ended();
        let desired = self.desired();
        if let Some(secrets) = &self.secrets {
            let wanted = desired.values().filter_map(|(trigger, _)| self.secret_of(trigger));
            secrets.want(&wanted.collect());
        }
        let keys: HashMap<SubscriptionKey, String> =
            desired.iter().map(|(key, (trigger, _))| (key.clone(), self.restart_key(trigger))).collect();
        let held = &self.held;
        for (key, entry) in self.entries.iter_mut().filter(|(_, entry)| !entry.stopping) {
            let wanted = desired.get(key).filter(|_| keys.get(key) == Some(&entry.restart_key));
            if let Some((trigger, _)) = wanted {
                let mut settings = Settings::of(&trigger.core, self.environment.timeout_margin);
                settings.paused |= held.iter().any(|stale| stale.covers(&key.trigger));
                if !testkit::bug("deaf_to_edits") {
                    entry.running.subscription.update(settings);
                }
            } else {
                entry.stop(Instant::now() + self.drain);
            }
        }
        self.failures.retain(|key, failure| keys.get(key) == Some(&failure.restart_key));
        let functions: HashSet<&ObjectRef> = desired.keys().map(|key| &key.function).collect();
        self.permits.retain(|function, _| functions.contains(function));
        for (key, (trigger, route)) in desired {
            // One that may claim nothing need not begin either.
            if !self.entries.contains_key(&key) && self.held(&key.trigger).is_none() {
                self.start(key, &trigger, &route);
            }
        }
        self.publish();
    }

    /// The Secret that a trigger's credentials are in, if they are in one.
    fn secret_of(&self, trigger: &TriggerObject) -> Option<ObjectRef> {
        self.secrets.as_ref()?;
        let name = self.sources.get(trigger.kind)?.credentials(trigger)?;
        Some(ObjectRef::new(Arc::clone(&trigger.core.reference.namespace), name))
    }

    /// Differs when the running source must be replaced: by what its trigger says, or by what its Secret holds.
    fn restart_key(&self, trigger: &TriggerObject) -> String {
        let source = self.sources.get(trigger.kind);
        let key = source.map(|source| source.restart_key(trigger)).unwrap_or_default();
        let secret = self.secrets.as_ref().zip(self.secret_of(trigger));
        match secret.and_then(|(secrets, name)| secrets.get(&name).data) {
            Some(data) => format!("{key} {:x}", data.fingerprint()),
            None => key,
        }
    }

    fn desired(&self) -> HashMap<SubscriptionKey, (Arc<TriggerObject>, Arc<Route>)> {
        let mut desired = HashMap::new();
        for (key, trigger) in self.triggers.iter().filter(|(_, trigger)| self.serves(trigger)) {
            for route in self.router.subscriptions(key).iter() {
                let value = (Arc::clone(trigger), Arc::clone(route));
                desired.insert(route.key.clone(), value);
            }
        }
        desired
    }

    fn start(&mut self, key: SubscriptionKey, trigger: &TriggerObject, route: &Route) {
        if self.failures.get(&key).is_some_and(|f| f.until > Instant::now()) {
            return;
        }
        let Some(source) = self.sources.get(key.trigger.kind) else { return };
        let restart_key = self.restart_key(trigger);
        let mut secret = None;
        if let Some((secrets, name)) = self.secrets.as_ref().zip(self.secret_of(trigger)) {
            let known = secrets.get(&name);
            secret = known.data;
            if secret.is_none() {
                // It begins as soon as the Secret is there. Its reader has logged what is wrong.
                let why = if known.problem.is_empty() {
                    format!("Secret {name}: not read yet")
                } else {
                    known.problem
                };
                let (pause, until) = (FIRST_PAUSE / 2, Instant::now());
                self.failures
                    .insert(key, Failure { restart_key, pause, until, reason: reasons::SECRET_MISSING, why });
                return;
            }
        }
        let limit = route.target.load().max_in_flight;
        let permits =
            self.permits.entry(route.key.function.clone()).or_insert_with(|| Arc::new(Semaphore::new(limit)));
        let environment = Environment { permits: Arc::clone(permits), secret, ..self.environment.clone() };
        match source.start(trigger, route, &environment) {
            Ok(running) => {
                tracing::info!(kind = key.trigger.kind, trigger = %key.trigger.object, function = %key.function, "Subscription started");
                self.entries
                    .insert(key, Entry { running, restart_key, stopping: false, started: Instant::now() });
            }
            Err(error) => {
                self.failed(key, restart_key, error.to_string(), (Instant::now(), Duration::ZERO));
            }
        }
    }

    /// `ran`: since when it ran, and the least pause it asks for.
    fn failed(&mut self, key: SubscriptionKey, restart_key: String, why: String, ran: (Instant, Duration)) {
        let (started, least) = ran;
        // One that ran for long starts over with a short pause.
        let before = self.failures.get(&key).map(|f| f.pause).filter(|_| started.elapsed() < LONGEST_PAUSE);
        let pause = before.map_or(FIRST_PAUSE, |p| (p * 2).min(LONGEST_PAUSE)).max(least);
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        tracing::error!(kind = key.trigger.kind, trigger = %key.trigger.object, function = %key.function, why, pause_ms, "Subscription failed");
        self.failures.insert(
            key,
            Failure { restart_key, pause, until: Instant::now() + pause, reason: reasons::SOURCE_ERROR, why },
        );
    }

    fn collect_ended(&mut self) {
        let ended: Vec<SubscriptionKey> = self
            .entries
            .iter()
            .filter(|(_, e)| e.running.thread.is_finished())
            .map(|(k, _)| k.clone())
            .collect();
        for key in ended {
            let Some(entry) = self.entries.remove(&key) else { continue };
            let exit = entry.running.thread.join();
            match exit {
                Ok(Exit::Stopped) => {
                    tracing::info!(kind = key.trigger.kind, trigger = %key.trigger.object, function = %key.function, "Subscription stopped");
                }
                Ok(Exit::Failed(why, least)) => {
                    self.failed(key, entry.restart_key, why, (entry.started, least));
                }
                // The panic was reported by its own thread.
                Err(_) => {
                    let why = "its thread panicked".to_owned();
                    self.failed(key, entry.restart_key, why, (entry.started, Duration::ZERO));
                }
            }
        }
    }

    /// Asks every source to stop: claims end now, running calls have until `deadline`.
    pub fn stop_all(&mut self, deadline: Instant) {
        let deadline = if testkit::bug("no_drain") { Instant::now() } else { deadline };
        self.triggers.clear();
        for entry in self.entries.values_mut() {
            entry.stop(deadline);
        }
    }

    /// Whether every source has ended.
    pub fn is_stopped(&mut self) -> bool {
        self.collect_ended();
        self.entries.is_empty()
    }

    fn publish(&self) {
        let mut subscriptions: Vec<SubscriptionReport> =
            self.entries.iter().map(|(key, entry)| self.report(key, entry)).collect();
        // A failure is remembered for the next pause while its successor runs; the page tells how it is now.
        for (key, failure) in self.failures.iter().filter(|(key, _)| !self.entries.contains_key(key)) {
            subscriptions.push(SubscriptionReport {
                function: key.function.to_string(),
                status: failure.why.clone(),
                state: State::Troubled,
                reason: failure.reason.to_owned(),
                ..report_of(&key.trigger)
            });
        }
        let ours = self.triggers.iter().filter(|(_, trigger)| trigger.served_by == ServedBy::Dispatcher);
        let triggers: Vec<TriggerView> = ours.map(|(key, trigger)| self.look(key, trigger)).collect();
        for view in triggers.iter().filter(|view| !view.served) {
            let status = format!("not served: this dispatcher has no source for {}", view.trigger.kind);
            subscriptions.push(SubscriptionReport { status, ..report_of(&view.trigger) });
        }
        subscriptions
            .sort_by(|a, b| (&a.kind, &a.trigger, &a.function).cmp(&(&b.kind, &b.trigger, &b.function)));
        let page = serde_json::to_value(&subscriptions).unwrap_or_default();
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = page;
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(View { triggers, subscriptions });
    }

    fn report(&self, key: &SubscriptionKey, entry: &Entry) -> SubscriptionReport {
        let subscription = &entry.running.subscription;
        let conservation = subscription.conservation();
        let status = entry.running.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = match (status.is_empty(), subscription.is_connected() && !entry.stopping) {
            (false, _) => State::Troubled,
            (true, true) => State::Connected,
            // One that is on its way out serves nobody for long; its successor is not there yet.
            (true, false) => State::Starting,
        };
        let source = self.sources.get(key.trigger.kind).filter(|_| state == State::Troubled);
        let (received, inherited) = conservation.taken();
        let outcomes = Outcome::ALL.into_iter().map(|o| (o.as_str().to_owned(), conservation.outcome(o)));
        let counts = Counts {
            stopping: entry.stopping,
            held: self.held(&key.trigger).map(|stale| stale.why.clone()),
            received,
            inherited,
            in_flight: conservation.in_flight(),
            residual: conservation.residual(),
            outcomes: outcomes.filter(|(_, count)| *count > 0).collect(),
        };
        SubscriptionReport {
            function: key.function.to_string(),
            claiming: subscription.may_claim(),
            reason: source.map_or("", |source| source.reason_of(&status)).to_owned(),
            status,
            state,
            counts: Some(counts),
            ..report_of(&key.trigger)
        }
    }

    fn look(&self, key: &TriggerRef, trigger: &TriggerObject) -> TriggerView {
        let source = self.sources.get(key.kind);
        let routes = self.router.subscriptions(key);
        let nobody = || Fact::new(types::AT_MOST_ONCE, true, reasons::NOT_SERVED, "");
        TriggerView {
            trigger: key.clone(),
            served: source.is_some(),
            paused: trigger.core.paused,
            held: self.held(key).map(|stale| stale.why.clone()),
            names: trigger.core.selector.name().map(str::to_owned),
            functions: routes.iter().map(|route| route.key.function.name.to_string()).collect(),
            promise: source.map_or_else(nobody, |source| source.promise(trigger)),
        }
    }
}

fn report_of(trigger: &TriggerRef) -> SubscriptionReport {
    SubscriptionReport {
        kind: trigger.kind.to_owned(),
        trigger: trigger.object.to_string(),
        ..SubscriptionReport::default()
    }
}

impl Entry {
    fn stop(&mut self, deadline: Instant) {
        self.stopping = true;
        // A thread that has ended needs no order.
        let _ = self.running.orders.send(Order::Stop(deadline));
    }
}
