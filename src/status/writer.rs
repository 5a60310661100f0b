//! The one replica that leads writes what all of them say. Must never write what has not changed, faster than its bound,
//! while another one leads, or any field that it does not own.

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    board::Board,
    change,
    facts::{self, Evidence, Replica},
    peers::{self, Answers},
    report::{SubscriptionReport, TriggerView, View},
};
use crate::{
    api::{
        API_VERSION,
        kind::{ServedBy, TriggerKind},
    },
    cluster::{
        client::explain,
        lease::Leadership,
        target::TriggerRef,
        watch::{Presence, Subject},
    },
};

/// Who owns the fields that are written here. What other writers own in a status stays theirs.
pub const MANAGER: &str = "kubeless-dispatcher";
/// How often it is looked whether anything must be written.
const LOOK: Duration = Duration::from_secs(1);
/// Writes in one look: conditions first, then counters. Five a second are little to an API server, and counters of many
/// triggers come more rarely.
const WRITES_A_LOOK: usize = 5;
/// How often the other replicas are asked.
const ASK_PEERS: Duration = Duration::from_secs(10);

/// First pause after a write that failed; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is written, and how often.
#[derive(Clone, Debug)]
pub struct WriterSettings {
    /// Trigger kinds whose objects are written.
    pub kinds: &'static [TriggerKind],
    /// Where the replicas answer; empty: only what this one knows is written.
    pub peers: Vec<String>,
    /// Port of this one.
    pub own_port: u16,
    /// Least time between two writes of which only counters are new.
    pub counters_every: Duration,
}

/// What this process wrote last.
struct Written {
    uid: String,
    version: String,
    status: Value,
    at: Instant,
}

/// A write that is due.
struct Due {
    trigger: TriggerRef,
    uid: String,
    /// Null: what was written is given up.
    status: Value,
    urgent: bool,
}

/// See the module. Somebody must run it.
pub struct Writer {
    client: Client,
    settings: WriterSettings,
    board: Board,
    view: Arc<Mutex<Arc<View>>>,
    written: HashMap<TriggerRef, Written>,
    /// When a write that failed is tried again, and the pause before.
    failed: HashMap<TriggerRef, (Instant, Duration)>,
    /// What the last failure was: said once, however many triggers it meets.
    trouble: String,
    /// Fields that the status of each kind has.
    fields: HashMap<&'static str, HashSet<String>>,
    answers: Answers,
    asked: Option<Instant>,
}

impl Writer {
    /// Nothing is read or written before [`Writer::run`].
    pub fn new(client: Client, settings: WriterSettings, board: Board, view: Arc<Mutex<Arc<View>>>) -> Self {
        let fields = settings.kinds.iter().map(|kind| (kind.kind, change::fields_of(*kind))).collect();
        Self {
            client,
            settings,
            board,
            view,
            written: HashMap::new(),
            failed: HashMap::new(),
            trouble: String::new(),
            fields,
            answers: Answers::default(),
            asked: None,
        }
    }

    /// Writes while this process leads, until `stop`.
    pub async fn run(mut self, mut leadership: Leadership, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = leadership.held() => {}
            }
            // What another one wrote meanwhile is on the objects; what this one wrote before is history.
            self.written.clear();
            self.failed.clear();
            let mut lost = leadership.clone();
            tokio::select! {
                () = stop.cancelled() => return,
                // A request that is under way ends with it: it would be sent again and again.
                () = lost.lost() => {}
                () = self.lead() => {}
            }
        }
    }

    async fn lead(&mut self) {
        loop {
            self.look().await;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&mut self) {
        let Some(objects) = self.board.snapshot() else { return };
        if self.asked.is_none_or(|asked| asked.elapsed() > ASK_PEERS) && !self.settings.peers.is_empty() {
            self.answers = peers::ask(&self.settings.peers, self.settings.own_port).await;
            self.asked = Some(Instant::now());
        }
        self.written.retain(|trigger, _| objects.contains_key(trigger));
        self.failed.retain(|trigger, _| objects.contains_key(trigger));
        let mut due = self.due(&objects);
        due.retain(|due| self.failed.get(&due.trigger).is_none_or(|(until, _)| *until <= Instant::now()));
        due.sort_by_key(|due| (!due.urgent, self.written.get(&due.trigger).map(|written| written.at)));
        for due in due.into_iter().take(WRITES_A_LOOK) {
            self.write(due).await;
        }
    }

    fn due(&self, objects: &BTreeMap<TriggerRef, Presence>) -> Vec<Due> {
        let view = Arc::clone(&self.view.lock().unwrap_or_else(PoisonError::into_inner));
        let views: HashMap<&TriggerRef, _> = view.triggers.iter().map(|view| (&view.trigger, view)).collect();
        let others = self.answers.replicas.iter().map(|(name, reports)| (name.as_str(), reports.as_slice()));
        let lists = std::iter::once(("", view.subscriptions.as_slice())).chain(others);
        let lists: Vec<_> = lists.map(|(name, reports)| (name, by_trigger(reports))).collect();
        let due = objects.iter().filter_map(|(trigger, presence)| match presence.served_by {
            ServedBy::Dispatcher => self.speak(trigger, presence, views.get(trigger).copied(), &lists),
            ServedBy::Controller => self.fall_silent(trigger, presence),
        });
        due.collect()
    }

    /// What to write about one trigger, if anything and if it is time.
    fn speak(
        &self,
        trigger: &TriggerRef,
        presence: &Presence,
        view: Option<&TriggerView>,
        lists: &[(&str, ByTrigger<'_>)],
    ) -> Option<Due> {
        if view.is_none() && presence.faults.is_empty() {
            // Seen, and not acted on yet.
            return None;
        }
        let name = trigger.object.to_string();
        let replicas: Vec<Replica<'_>> = lists
            .iter()
            .map(|(replica, list)| Replica { name: replica, subscriptions: of_trigger(list, trigger, &name) })
            .collect();
        let evidence = Evidence { presence, view, replicas: &replicas, unheard: &self.answers.unheard };
        let verdict = facts::judge(&evidence);
        let written = self.written.get(trigger).filter(|written| written.uid == presence.uid);
        let there = self.latest(trigger, presence).map_or(&presence.status, |written| &written.status);
        let fields = self.fields.get(trigger.kind)?;
        let change = change::compare(there, presence.generation, &verdict, fields, Timestamp::now())?;
        let rested = written.is_none_or(|written| written.at.elapsed() >= self.settings.counters_every);
        let due = Due {
            trigger: trigger.clone(),
            uid: presence.uid.clone(),
            status: change.status,
            urgent: change.urgent,
        };
        (change.urgent || rested).then_some(due)
    }

    /// An object that was handed to the controller: what was said of it here must not stand beside its words.
    fn fall_silent(&self, trigger: &TriggerRef, presence: &Presence) -> Option<Due> {
        let speaks = presence.status_writers.iter().any(|manager| manager == MANAGER);
        let given_up = self.latest(trigger, presence).is_some_and(|written| written.status.is_null());
        (speaks && !given_up).then(|| Due {
            trigger: trigger.clone(),
            uid: presence.uid.clone(),
            status: Value::Null,
            urgent: true,
        })
    }

    /// What was written here, if nobody has written to the object since.
    fn latest(&self, trigger: &TriggerRef, presence: &Presence) -> Option<&Written> {
        let written = self.written.get(trigger).filter(|written| written.uid == presence.uid);
        written.filter(|written| !is_newer(&presence.version, &written.version))
    }

    async fn write(&mut self, due: Due) {
        let Some(kind) = self.settings.kinds.iter().find(|kind| kind.kind == due.trigger.kind) else {
            return;
        };
        let (namespace, name) = (&*due.trigger.object.namespace, &*due.trigger.object.name);
        let resource = Subject::Triggers(*kind).resource();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let mut body = json!({
            "apiVersion": API_VERSION, "kind": kind.kind,
            // The uid: an object that was made anew under the name gets a status of its own.
            "metadata": {"name": name, "namespace": namespace, "uid": due.uid},
        });
        if !due.status.is_null() {
            body["status"] = due.status.clone();
        }
        let parameters = PatchParams::apply(MANAGER).force();
        let version = match api.patch_status(name, &parameters, &Patch::Apply(&body)).await {
            Ok(object) => object.metadata.resource_version.unwrap_or_default(),
            Err(error) => return self.refused(due.trigger, &error),
        };
        self.trouble.clear();
        self.failed.remove(&due.trigger);
        let written = Written { uid: due.uid, version, status: due.status, at: Instant::now() };
        self.written.insert(due.trigger, written);
    }

    fn refused(&mut self, trigger: TriggerRef, error: &kube::Error) {
        let before = self.failed.get(&trigger).map(|(_, pause)| *pause);
        let pause = before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        // Gone, or another one by now: the watch tells in a moment.
        let gone = matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409));
        let why = explain(error);
        if !gone && self.trouble != why {
            tracing::warn!(%trigger, why, "Status not written; trying again");
            self.trouble = why;
        }
        self.failed.insert(trigger, (Instant::now() + pause, pause));
    }
}

/// Subscriptions by kind and name of their trigger.
type ByTrigger<'a> = HashMap<(&'a str, &'a str), Vec<&'a SubscriptionReport>>;

fn by_trigger(reports: &[SubscriptionReport]) -> ByTrigger<'_> {
    let mut found = ByTrigger::new();
    for report in reports {
        found.entry((&report.kind, &report.trigger)).or_default().push(report);
    }
    found
}

fn of_trigger<'a>(
    reports: &'a ByTrigger<'_>,
    trigger: &TriggerRef,
    name: &'a str,
) -> &'a [&'a SubscriptionReport] {
    reports.get(&(trigger.kind, name)).map_or(&[], Vec::as_slice)
}

/// Whether the object was written after we wrote it. Versions of one resource are numbers that grow.
fn is_newer(seen: &str, written: &str) -> bool {
    match (seen.parse::<u64>(), written.parse::<u64>()) {
        (Ok(seen), Ok(written)) => seen > written,
        _ => seen != written,
    }
}
