//! What one trigger says, ready to use: its schedule, its policies, and how one of its instants becomes an event. Must
//! never change while its thread runs: an edit starts another.

use crate::{
    api::{
        cronjob_trigger::{ConcurrencyPolicy, CronJobTrigger},
        kind::TriggerObject,
        occurrences::{self, Occurrences},
    },
    cluster::target::ObjectRef,
    event::{Event, Position, tick::Tick},
};
use bytes::Bytes;
use jiff::Timestamp;
use std::sync::Arc;

/// See the module.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The trigger.
    pub reference: ObjectRef,
    /// Its uid.
    pub uid: Arc<str>,
    /// When.
    pub occurrences: Occurrences,
    /// `startingDeadlineSeconds`.
    pub patience: Option<i64>,
    /// Missed instants that are made up for.
    pub catch_up: usize,
    /// What happens when a call is due while another runs.
    pub policy: ConcurrencyPolicy,
    source: String,
    payload: Option<Bytes>,
}

impl Facts {
    /// What `trigger` says.
    ///
    /// # Errors
    /// Its schedule names no instants; a checked trigger has one that does.
    pub fn of(trigger: &TriggerObject, typed: &CronJobTrigger) -> Result<Self, occurrences::Error> {
        let (spec, reference) = (&typed.spec, &trigger.core.reference);
        let payload = (!spec.payload.is_null()).then(|| Bytes::from(spec.payload.to_string()));
        Ok(Self {
            reference: reference.clone(),
            uid: Arc::clone(&trigger.core.uid),
            occurrences: Occurrences::of(&spec.schedule, spec.time_zone.as_deref())?,
            patience: spec.starting_deadline_seconds,
            catch_up: usize::try_from(typed.catch_up_limit()).unwrap_or(usize::MAX),
            policy: spec.concurrency_policy,
            source: format!(
                "/apis/kubeless.io/v1beta1/namespaces/{}/cronjobtriggers/{}",
                reference.namespace, reference.name
            ),
            payload,
        })
    }

    /// Whether the function gets a body.
    pub fn has_payload(&self) -> bool {
        self.payload.is_some()
    }

    /// The event of an instant.
    pub fn event(&self, instant: i64) -> Event {
        let name = Timestamp::from_second(instant).map_or_else(|_| instant.to_string(), |t| t.to_string());
        let tick = Tick {
            trigger_uid: &self.uid,
            source: &self.source,
            name,
            time_ms: instant.saturating_mul(1000),
            payload: self.payload.clone().unwrap_or_default(),
        };
        tick.event()
    }

    /// The place of an instant in journal lines.
    pub fn position(&self, instant: i64) -> Position {
        Position {
            stream: Arc::clone(&self.uid),
            coordinates: None,
            shard: 0,
            sequence: instant,
            epoch: -1,
            time_ms: instant.saturating_mul(1000),
        }
    }
}
