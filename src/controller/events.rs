//! Kubernetes Events, for transitions only. Must never stop a pass: an Event that cannot be written is only a log line.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::apply::MANAGER;
use crate::api::conditions::{find, reasons, types};

/// Longest note that the API server takes.
const LONGEST_NOTE: usize = 1000;
/// What the beginning of a function's Pods is called.
const STARTING: &str = "Starting";

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
            let before = find(before, kind);
            let Some(event) = transition(before, now) else { continue };
            let good = now.status != "False" || is_starting(before, now);
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
        "False" if is_starting(before, now) => Some(STARTING.to_owned()),
        "False" => Some(now.reason.clone()),
        _ => None,
    }
}

/// Pods that are not there yet, of something that was not ready before: nothing is wrong.
fn is_starting(before: Option<&Condition>, now: &Condition) -> bool {
    now.reason == reasons::TOO_FEW_REPLICAS && before.is_none_or(|before| before.status != "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

    fn ready(status: &str, reason: &str) -> Condition {
        Condition {
            type_: types::READY.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: String::new(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: None,
        }
    }

    #[test]
    fn pods_that_are_not_there_yet_are_no_warning_and_pods_that_go_are_one() {
        let few = ready("False", reasons::TOO_FEW_REPLICAS);
        for before in [None, Some(ready("Unknown", reasons::PENDING)), Some(ready("False", reasons::INVALID))]
        {
            assert!(is_starting(before.as_ref(), &few), "{before:?}");
            assert_eq!(transition(before.as_ref(), &few).as_deref(), Some(STARTING));
        }
        let before = ready("True", reasons::ALL_GOOD);
        assert!(!is_starting(Some(&before), &few));
        assert_eq!(transition(Some(&before), &few).as_deref(), Some(reasons::TOO_FEW_REPLICAS));
        assert!(!is_starting(None, &ready("False", reasons::PODS_FAILING)));
    }
}
