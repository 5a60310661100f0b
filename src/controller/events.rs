//! Kubernetes Events, for transitions only. Must never stop a pass: an Event that cannot be written is only a log line.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::apply::MANAGER;
use crate::api::conditions::{find, types};

/// Longest note that the API server takes.
const LONGEST_NOTE: usize = 1000;

/// Writes Events.
#[derive(Clone)]
pub struct Announcer {
    recorder: Recorder,
}

impl Announcer {
    /// For the process called `instance`.
    pub fn new(client: Client, instance: &str) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(instance.to_owned()) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Something is wrong with an object.
    pub async fn warn(&self, about: Option<&ObjectReference>, reason: &str, note: &str) {
        self.publish(about, EventType::Warning, reason, note).await;
    }

    /// Says what became different between two states of an object.
    pub async fn transitions(&self, about: &ObjectReference, before: &[Condition], after: &[Condition]) {
        for kind in [types::ACCEPTED, types::DEPLOYED, types::READY] {
            let Some(now) = find(after, kind) else { continue };
            let Some(event) = transition(find(before, kind), now) else { continue };
            let good = now.status != "False";
            let type_ = if good { EventType::Normal } else { EventType::Warning };
            self.publish(Some(about), type_, &event, &now.message).await;
        }
    }

    async fn publish(&self, about: Option<&ObjectReference>, type_: EventType, reason: &str, note: &str) {
        let Some(about) = about else { return };
        let mut note = note.to_owned();
        let mut end = note.len().min(LONGEST_NOTE);
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note).filter(|note| !note.is_empty()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::debug!(%error, reason, "Event not written");
        }
    }
}

/// What a change of one condition is called: its type where it became true or open, its reason where it became false.
fn transition(before: Option<&Condition>, now: &Condition) -> Option<String> {
    let same = before.is_some_and(|before| before.status == now.status && before.reason == now.reason);
    match now.status.as_str() {
        _ if same => None,
        "True" if now.type_ == types::ACCEPTED => None,
        "True" => Some(now.type_.clone()),
        "False" => Some(now.reason.clone()),
        _ => None,
    }
}
