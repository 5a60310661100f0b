//! What one replica knows of its triggers: plain values, shown to people on /debug/subscriptions and read there by the
//! replica that writes statuses. Must never hold what an event contains.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::{api::conditions::Fact, cluster::target::TriggerRef};

/// How a subscription stands at its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not connected yet.
    #[default]
    Starting,
    /// The source answers and hands events over.
    Connected,
    /// Something is wrong; it is tried again.
    Troubled,
}

/// One subscription of one replica. Counters begin at 0 with the replica's process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscriptionReport {
    /// `kind` of the trigger.
    pub kind: String,
    /// Namespace and name of the trigger.
    pub trigger: String,
    /// Namespace and name of the function; empty: the trigger is not served here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub function: String,
    /// Whether new events may be claimed.
    pub claiming: bool,
    /// What is wrong, for people; empty: nothing.
    pub status: String,
    /// How it stands at its source.
    #[serde(skip_serializing_if = "is_starting")]
    pub state: State,
    /// The word of [`crate::api::conditions::reasons`] for what is wrong; empty: nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// See [`Counts`]; `None`: nothing runs.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
}

fn is_starting(state: &State) -> bool {
    *state == State::Starting
}

/// What a subscription that runs has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Whether it is on its way out.
    pub stopping: bool,
    /// Why nothing is claimed although nothing is wrong with it: what is known of its trigger is too old.
    pub held: Option<String>,
    /// Events taken over from the source.
    pub received: u64,
    /// Events that a predecessor left open.
    pub inherited: u64,
    /// Claimed events that have no outcome yet.
    pub in_flight: i64,
    /// 0 unless this program has a defect.
    pub residual: i64,
    /// Events that ended, by outcome.
    pub outcomes: BTreeMap<String, u64>,
}

/// One trigger as this replica sees it, beside its subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerView {
    /// The trigger.
    pub trigger: TriggerRef,
    /// Whether a source of this process serves it.
    pub served: bool,
    /// Whether its user has paused it.
    pub paused: bool,
    /// Why nothing is claimed for it: what is known of it is too old.
    pub held: Option<String>,
    /// The one function that it names; `None`: it selects by labels.
    pub names: Option<String>,
    /// Names of the functions that receive its events.
    pub functions: Vec<String>,
    /// Whether no event reaches a function twice.
    pub promise: Fact,
}

/// Everything that one replica knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Triggers that are the dispatcher's business.
    pub triggers: Vec<TriggerView>,
    /// Subscriptions.
    pub subscriptions: Vec<SubscriptionReport>,
}
