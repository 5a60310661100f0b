//! Status conditions: the closed lists of types and reasons, and how one is set. Must never read a clock or write
//! to a cluster: who calls brings the time and sends the result.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message of a condition. Kubernetes takes 32 KiB; a status is read by people and kept in etcd.
pub const MAX_MESSAGE: usize = 1024;

/// A closed list of words: one constant each, and the table that documents them.
macro_rules! words {
    ($(#[doc = $about:literal])+ $table:ident; $($(#[doc = $meaning:literal])+ $name:ident = $text:literal,)+) => {
        $($(#[doc = $meaning])+ pub const $name: &str = $text;)+
        $(#[doc = $about])+
        pub const $table: &[(&str, &str)] = &[$(($text, concat!($($meaning),+))),+];
    };
}

/// Condition types.
pub mod types {
    words! {
        /// Every condition type with its meaning.
        ALL;
        /// Sums the others up: the object does its work.
        READY = "Ready",
        /// The object passes all checks.
        ACCEPTED = "Accepted",
        /// The objects made from this one (Deployment, Service, Ingress, CronJob, ...) are as asked.
        DEPLOYED = "Deployed",
        /// Functions: enough pods are ready.
        AVAILABLE = "Available",
        /// Functions: the image is built (only with the build step on).
        BUILT = "Built",
        /// Functions: the autoscaler is as asked.
        AUTOSCALED = "Autoscaled",
        /// Triggers: at least one function is there to receive events.
        FUNCTION_RESOLVED = "FunctionResolved",
        /// Triggers: the source is connected and hands events over.
        SOURCE_CONNECTED = "SourceConnected",
        /// Triggers: no event reaches a function twice, whatever fails.
        AT_MOST_ONCE = "AtMostOnce",
    }
}

/// Reasons of conditions. Stable: alerts and scripts may compare them.
pub mod reasons {
    words! {
        /// Every reason with its meaning.
        ALL;
        /// All that `Ready` sums up is true.
        ALL_GOOD = "AllGood",
        /// Nothing is known yet.
        PENDING = "Pending",
        /// The object is being deleted.
        DELETING = "Deleting",
        /// All checks pass.
        VALID = "Valid",
        /// A check fails; the message names the field and the fix.
        INVALID = "Invalid",
        /// The kind is known and checked, but no running component of this version serves it.
        NOT_SERVED = "NotServed",
        /// `spec.paused` (or `suspend`) is true: new events stay where they are.
        PAUSED = "Paused",
        /// The API server refused or did not answer; it is tried again.
        API_ERROR = "ApiError",
        /// The configuration (`kubeless-config`) is wrong or missing.
        CONFIG_INVALID = "ConfigInvalid",
        /// The objects are as asked.
        APPLIED = "Applied",
        /// An object of the same name is there that does not carry `created-by: kubeless`.
        CONFLICT = "Conflict",
        /// `spec.runtime` is not in the catalogue.
        UNKNOWN_RUNTIME = "UnknownRuntime",
        /// A Secret that is named does not exist or lacks a key.
        SECRET_MISSING = "SecretMissing",
        /// Enough pods are ready.
        ENOUGH_REPLICAS = "EnoughReplicas",
        /// Enough pods are ready, some of them still with what was asked for before.
        ROLLING_OUT = "RollingOut",
        /// Fewer pods are ready than are needed.
        TOO_FEW_REPLICAS = "TooFewReplicas",
        /// The function is scaled to zero.
        SCALED_TO_ZERO = "ScaledToZero",
        /// Pods cannot start (image, crash, quota); the message says why.
        PODS_FAILING = "PodsFailing",
        /// The image is in the registry.
        IMAGE_READY = "ImageReady",
        /// The image is being built.
        BUILDING = "Building",
        /// The image could not be built.
        BUILD_FAILED = "BuildFailed",
        /// The autoscaler's fields cannot be brought to autoscaling/v2.
        AUTOSCALER_INVALID = "AutoscalerInvalid",
        /// At least one function is there.
        FUNCTION_FOUND = "FunctionFound",
        /// The function that is named does not exist.
        FUNCTION_MISSING = "FunctionMissing",
        /// The selector matches no function of the namespace.
        NOTHING_SELECTED = "NothingSelected",
        /// The source answers and hands events over.
        CONNECTED = "Connected",
        /// The source is being connected.
        CONNECTING = "Connecting",
        /// The source does not answer; it is tried again.
        UNREACHABLE = "Unreachable",
        /// The source refuses the credentials.
        NOT_AUTHORIZED = "NotAuthorized",
        /// The source answers with an error, or serving it failed; it is tried again.
        SOURCE_ERROR = "SourceError",
        /// Each event is claimed durably at its source before the call.
        CLAIMED_AT_SOURCE = "ClaimedAtSource",
        /// The source hands each event to one consumer, once, and keeps no record of it: what a crash loses is not named.
        HANDED_OUT_ONCE = "HandedOutOnce",
        /// It holds within a limit; the message says what a restart, another replica or the server does not know.
        DEGRADED = "Degraded",
        /// Events pass by a component (ingress controller, Job) that may send one twice or not at all.
        OUTSIDE_THE_CLAIM = "OutsideTheClaim",
    }
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be told.
    Unknown,
}

impl Status {
    /// The word that Kubernetes uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// What is found out about one object at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// One of [`types`].
    pub kind: &'static str,
    /// Whether it holds.
    pub status: Status,
    /// One of [`reasons`].
    pub reason: &'static str,
    /// For people; cut at [`MAX_MESSAGE`]. May be empty.
    pub message: String,
}

impl Fact {
    /// Builds a fact.
    pub fn new(
        kind: &'static str,
        status: impl Into<Status>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, status: status.into(), reason, message: message.into() }
    }
}

/// Sets the condition of the fact's type. `generation` is the `metadata.generation` that was looked at. The transition
/// time is `now` only if the status changes. Returns whether anything changed: if not, nothing needs to be written.
pub fn set(conditions: &mut Vec<Condition>, fact: &Fact, generation: Option<i64>, now: Timestamp) -> bool {
    let old = conditions.iter().position(|condition| condition.type_ == fact.kind);
    let kept = old.map(|at| &conditions[at]).filter(|condition| condition.status == fact.status.as_str());
    let next = Condition {
        last_transition_time: kept
            .map_or_else(|| Time(whole_seconds(now)), |condition| condition.last_transition_time.clone()),
        message: cut(&fact.message).to_owned(),
        observed_generation: generation,
        reason: fact.reason.to_owned(),
        status: fact.status.as_str().to_owned(),
        type_: fact.kind.to_owned(),
    };
    match old {
        Some(at) if conditions[at] == next => return false,
        Some(at) => conditions[at] = next,
        None => conditions.push(next),
    }
    true
}

/// Removes the condition of a type that does not apply any more. Returns whether it was there.
pub fn clear(conditions: &mut Vec<Condition>, kind: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|condition| condition.type_ != kind);
    conditions.len() != before
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// What `Ready` has to say when these facts are all that matters, the most telling first: the first that is false,
/// else the first that is unknown, else that all is good.
pub fn sum_up(facts: &[Fact]) -> Fact {
    let first = |status: Status| facts.iter().find(|fact| fact.status == status);
    match first(Status::False).or_else(|| first(Status::Unknown)) {
        Some(fact) => Fact { kind: types::READY, ..fact.clone() },
        None => Fact::new(types::READY, true, reasons::ALL_GOOD, ""),
    }
}

/// docs/conditions.md, whole.
pub fn markdown() -> String {
    let mut page = "# Conditions\n\nGenerated from `src/api/conditions.rs` by `UPDATE=1 cargo test --test it docs`; do not edit.\n\n\
        Every resource carries `status.conditions` (`kubectl get TYPE NAME -o yaml`, `kubectl wait --for=condition=Ready`) and\n\
        `status.observedGeneration`. `status` is `True`, `False` or `Unknown`; `lastTransitionTime` moves only when it changes. Types and\n\
        reasons are stable: alerts and scripts may compare them. Messages are for people.\n"
        .to_owned();
    for (title, words) in [("Types", types::ALL), ("Reasons", reasons::ALL)] {
        page.push_str(&format!("\n## {title}\n\n| word | meaning |\n|---|---|\n"));
        words
            .iter()
            .for_each(|(word, meaning)| page.push_str(&format!("| `{word}` | {} |\n", meaning.trim())));
    }
    page
}

fn cut(message: &str) -> &str {
    let mut end = message.len().min(MAX_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

// metav1.Time has no fractions: what is written must equal what is read back.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::new(seconds, 5_000_000).unwrap()
    }

    fn seconds(conditions: &[Condition], kind: &str) -> i64 {
        find(conditions, kind).unwrap().last_transition_time.0.as_second()
    }

    #[test]
    fn the_transition_time_follows_the_status_only() {
        let mut conditions = Vec::new();
        let ready = Fact::new(types::READY, true, reasons::ALL_GOOD, "");
        assert!(set(&mut conditions, &ready, Some(1), at(10)));
        assert!(!set(&mut conditions, &ready, Some(1), at(20)), "the same again is no change");
        assert!(set(&mut conditions, &ready, Some(2), at(30)), "a new generation is");
        assert_eq!(seconds(&conditions, types::READY), 10);
        let other_reason = Fact::new(types::READY, true, reasons::VALID, "so");
        assert!(set(&mut conditions, &other_reason, Some(2), at(40)));
        assert_eq!(seconds(&conditions, types::READY), 10);
        let down = Fact::new(types::READY, false, reasons::UNREACHABLE, "gone");
        assert!(set(&mut conditions, &down, Some(2), at(50)));
        assert_eq!(seconds(&conditions, types::READY), 50);
        assert_eq!(conditions.len(), 1);
        let read: Vec<Condition> =
            serde_json::from_value(serde_json::to_value(&conditions).unwrap()).unwrap();
        assert_eq!(read, conditions, "what is written reads back equal");
        assert!(clear(&mut conditions, types::READY) && !clear(&mut conditions, types::READY));
    }

    #[test]
    fn messages_are_cut_at_a_character() {
        let mut conditions = Vec::new();
        let long = Fact::new(types::ACCEPTED, Status::Unknown, reasons::PENDING, "é".repeat(MAX_MESSAGE));
        set(&mut conditions, &long, None, at(0));
        assert!(conditions[0].message.len() <= MAX_MESSAGE && conditions[0].message.ends_with('é'));
    }

    #[test]
    fn ready_takes_the_first_trouble() {
        let good = Fact::new(types::ACCEPTED, true, reasons::VALID, "");
        let unknown = Fact::new(types::SOURCE_CONNECTED, Status::Unknown, reasons::CONNECTING, "b");
        let bad = Fact::new(types::FUNCTION_RESOLVED, false, reasons::FUNCTION_MISSING, "c");
        assert_eq!(sum_up(std::slice::from_ref(&good)).reason, reasons::ALL_GOOD);
        assert_eq!(sum_up(&[good.clone(), unknown.clone()]).reason, reasons::CONNECTING);
        let all = sum_up(&[good, unknown, bad]);
        assert_eq!(
            (all.kind, all.status, all.reason),
            (types::READY, Status::False, reasons::FUNCTION_MISSING)
        );
    }

    #[test]
    fn words_are_such_as_kubernetes_takes() {
        for (word, meaning) in types::ALL.iter().chain(reasons::ALL) {
            assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric()) && !meaning.is_empty(), "{word}");
        }
        let mut words: Vec<_> = reasons::ALL.iter().map(|(word, _)| word).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), reasons::ALL.len(), "no word twice");
    }
}
