//! The closed table of metrics: name, kind, unit, labels and help of every series that this product exports.
//! Must never grow a label whose values an event or a client can invent (event ids, keys, addresses).

/// What a metric is, in the words of the Prometheus text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations (seconds) in buckets.
    Histogram,
}

impl Kind {
    /// The word after `# TYPE <name>`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric. Two values are the same metric when their names are equal.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name on the page.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Unit of the value, as a person would say it.
    pub unit: &'static str,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// Upper bounds of the buckets, without +Inf; empty unless a histogram.
    pub buckets: &'static [f64],
    /// One sentence.
    pub help: &'static str,
}

/// Waiting and calling: 0.5 ms to 30 s.
const CALL_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// One durable write to the source's register: 50 us to 1 s.
const COMMIT_BUCKETS: &[f64] =
    &[0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// A source without a connection: 100 ms to half an hour.
const GAP_BUCKETS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];

/// What every series of a subscription carries.
pub const SUBSCRIPTION: &[&str] = &["namespace", "trigger", "function", "source"];

const OUTCOME: &[&str] = &["namespace", "trigger", "function", "source", "outcome"];
const ANSWER: &[&str] = &["namespace", "trigger", "function", "source", "answer"];
const RESULT: &[&str] = &["namespace", "trigger", "function", "source", "result"];
const KIND: &[&str] = &["namespace", "trigger", "function", "source", "kind"];
const CONTROLLER: &[&str] = &["controller"];
const PASS: &[&str] = &["controller", "result"];
const WRITE: &[&str] = &["controller", "kind"];
const SHARD: &[&str] = &["namespace", "trigger", "function", "source", "stream", "shard"];

/// The answers of a source's register to a claim: values of the label `answer`.
pub const ANSWERS: [&str; 3] = ["granted", "refused", "unknown"];

/// What became of a dead letter: values of the label `result`.
pub const DEAD_LETTER_RESULTS: [&str; 3] = ["written", "failed", "dropped"];

const WATCH: &[&str] = &["kind", "namespace"];
const WATCH_REASON: &[&str] = &["kind", "namespace", "reason"];

/// Why a watch of the API server ended: values of the label `reason`.
pub const WATCH_ENDINGS: [&str; 6] = ["closed", "silent", "expired", "missing", "refused", "unreachable"];

/// Writes the constants and the list of them in one place, so that none can be missing from the list.
macro_rules! metrics_table {
    ($($constant:ident = $kind:ident $name:literal [$unit:literal] $labels:expr, $buckets:expr, $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: Metric = Metric {
            name: $name, kind: Kind::$kind, unit: $unit, labels: $labels, buckets: $buckets, help: $help,
        };)*
        /// Every metric, in the order of docs/metrics.md.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics_table! {
    EVENTS_RECEIVED = Counter "kubeless_events_received_total" ["events"] SUBSCRIPTION, &[],
        "Events that a subscription took over from its source for the first time.";
    EVENTS_INHERITED = Counter "kubeless_events_inherited_total" ["events"] SUBSCRIPTION, &[],
        "Events found open in the source's register when a shard was taken over: claimed by a process that is gone.";
    EVENTS = Counter "kubeless_events_total" ["events"] OUTCOME, &[],
        "Events that ended, by outcome; received + inherited = sum over outcomes + in flight.";
    EVENTS_IN_FLIGHT = Gauge "kubeless_events_in_flight" ["events"] SUBSCRIPTION, &[],
        "Claimed events that have no outcome yet: queued or being called.";
    CONSERVATION_RESIDUAL = Gauge "kubeless_conservation_residual" ["events"] SUBSCRIPTION, &[],
        "received + inherited - outcomes - in flight; anything but 0 is a defect of this program.";
    INVOCATION_DURATION = Histogram "kubeless_invocation_duration_seconds" ["seconds"] SUBSCRIPTION, CALL_BUCKETS,
        "From the start of a call to its end, over all attempts.";
    DISPATCH_LATENCY = Histogram "kubeless_dispatch_latency_seconds" ["seconds"] SUBSCRIPTION, CALL_BUCKETS,
        "From the source's own timestamp of an event to its request being handed to a connection.";
    CLAIM_COMMIT_DURATION = Histogram "kubeless_claim_commit_duration_seconds" ["seconds"] SUBSCRIPTION, COMMIT_BUCKETS,
        "One durable write of claims to the source's register; one write serves many events.";
    INFLIGHT_INVOCATIONS = Gauge "kubeless_inflight_invocations" ["calls"] SUBSCRIPTION, &[],
        "Calls to the function that are running now.";
    INVOCATION_RETRIES = Counter "kubeless_invocation_retries_total" ["attempts"] SUBSCRIPTION, &[],
        "Repeated attempts of a call of which provably no byte had been sent.";
    CLAIMS = Counter "kubeless_claims_total" ["claims"] ANSWER, &[],
        "Claims by the register's answer: granted, refused (offered again) or unknown (never invoked).";
    CLAIMS_ENTRIES = Gauge "kubeless_claims_entries" ["ids"] SUBSCRIPTION, &[],
        "Business ids held in the deduplication window.";
    HELD_BYTES = Gauge "kubeless_held_event_bytes" ["bytes"] SUBSCRIPTION, &[],
        "Events in memory, waiting or running; over all subscriptions of a process at most about `memory.max_event_bytes`.";
    EVENTS_PARKED = Gauge "kubeless_events_parked" ["events"] SUBSCRIPTION, &[],
        "Events below the committed position that are not claimed yet because their key is busy.";
    SOURCE_LAG = Gauge "kubeless_source_lag" ["events"] SHARD, &[],
        "Events in a shard that this subscription has not taken over yet.";
    SOURCE_LAG_SECONDS = Gauge "kubeless_source_lag_seconds" ["seconds"] SHARD, &[],
        "How far behind the newest record of a shard its last read was, where the source tells a time and not a number of events.";
    SOURCE_CONNECTED = Gauge "kubeless_source_connected" ["0 or 1"] SUBSCRIPTION, &[],
        "1 while shards of the source are assigned to this subscription here.";
    CLOCK_SKEW = Gauge "kubeless_source_clock_skew_seconds" ["seconds"] SUBSCRIPTION, &[],
        "How far this machine's clock is at least from the API server's; calls by the clock stop beyond `sources.cron.max_clock_skew`.";
    SOURCE_RESTARTS = Counter "kubeless_source_restarts_total" ["restarts"] SUBSCRIPTION, &[],
        "How often the source was started anew after a failure.";
    SOURCE_GAPS = Histogram "kubeless_source_gap_seconds" ["seconds"] SUBSCRIPTION, GAP_BUCKETS,
        "Intervals without a connection to a source that keeps nothing: what was published meanwhile is lost and cannot be counted.";
    REGISTER_PROBLEMS = Counter "kubeless_register_problems_total" ["problems"] KIND, &[],
        "Unreadable or contradictory entries found in the source's claim register, by kind.";
    DEAD_LETTERS = Counter "kubeless_dead_letters_total" ["records"] RESULT, &[],
        "Dead letters by what became of them: written, failed or dropped.";
    CACHE_SYNCED = Gauge "kubeless_cache_synced" ["0 or 1"] &[], &[],
        "1 once every watched object has been read, so that routes are complete.";
    MANIFEST_PROBLEMS = Gauge "kubeless_manifest_problems" ["objects"] &[], &[],
        "Objects that are skipped now because they cannot be read or are not valid.";
    WATCH_HEARD = Gauge "kubeless_watch_last_heard_timestamp_seconds" ["seconds"] WATCH, &[],
        "When the API server last said anything on this watch, bookmarks included, since the Unix epoch: time() minus it is the age of the cache. No namespace: all of them.";
    WATCH_UP = Gauge "kubeless_watch_up" ["0 or 1"] WATCH, &[],
        "1 while the watch runs; 0 while its first list is read, and while the API server refuses it or does not answer.";
    WATCH_OBJECTS = Gauge "kubeless_watch_objects" ["objects"] WATCH, &[],
        "Objects that the watch knows.";
    WATCH_FAULTY = Gauge "kubeless_watch_malformed_objects" ["objects"] WATCH, &[],
        "Objects that the watch knows and that are skipped because they fail their checks.";
    WATCH_ENDED = Counter "kubeless_watch_ended_total" ["watches"] WATCH_REASON, &[],
        "How often the watch ended and was begun again, by reason.";
    CONTROLLER_PASSES = Counter "kubeless_controller_reconciles_total" ["passes"] PASS, &[],
        "Passes of the controller over one object, by result: ok or error.";
    CONTROLLER_PASS_DURATION = Histogram "kubeless_controller_reconcile_duration_seconds" ["seconds"] CONTROLLER, CALL_BUCKETS,
        "One pass over one object, requests to the API server included.";
    CONTROLLER_WRITES = Counter "kubeless_controller_writes_total" ["requests"] WRITE, &[],
        "Objects that were applied or deleted, by kind; stands still while everything is as it should be.";
    CONTROLLER_FAILING = Gauge "kubeless_controller_failing_objects" ["objects"] CONTROLLER, &[],
        "Objects whose last pass failed; each is tried again and says why in its conditions.";
    CONTROLLER_LEADING = Gauge "kubeless_controller_leading" ["0 or 1"] &[], &[],
        "1 while this process holds the Lease and acts.";
    CONTROLLER_CONFIG_PROBLEM = Gauge "kubeless_controller_config_problem" ["0 or 1"] &[], &[],
        "1 while the ConfigMap cannot be read; what it said last stays in force.";
    BUILD_INFO = Gauge "kubeless_build_info" ["always 1"] &["version", "component"], &[],
        "Version and component of the running program.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" ["seconds"] &[], &[],
        "User and system CPU time of this process.";
    PROCESS_RESIDENT = Gauge "process_resident_memory_bytes" ["bytes"] &[], &[],
        "Resident memory of this process.";
    PROCESS_FDS = Gauge "process_open_fds" ["descriptors"] &[], &[],
        "Open file descriptors of this process.";
    PROCESS_START = Gauge "process_start_time_seconds" ["seconds"] &[], &[],
        "When this process started, in seconds since the Unix epoch.";
}

/// The metric of that name, if it is one of ours.
pub fn by_name(name: &str) -> Option<&'static Metric> {
    ALL.iter().find(|metric| metric.name == name)
}

/// docs/metrics.md, whole.
pub fn to_markdown() -> String {
    let mut page = String::from(
        "# Metrics\n\nGenerated from `src/telemetry/metrics.rs` by `UPDATE=1 cargo test --test it docs`; do not edit.\n\n\
         Page: `GET /metrics` on the admin address, Prometheus text format. The series of a trigger vanish from the page \
         when the trigger is deleted. Labels are bounded by what is deployed, never by what events contain.\n\n\
         | name | kind | unit | labels | meaning |\n|---|---|---|---|---|\n",
    );
    for metric in ALL {
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        page.push_str(&format!(
            "| `{}` | {} | {} | {} | {} |\n",
            metric.name,
            metric.kind.as_str(),
            metric.unit,
            if labels.is_empty() { "-".to_owned() } else { labels },
            metric.help
        ));
    }
    page.push_str("\n## Buckets\n\n");
    for metric in ALL.iter().filter(|metric| metric.kind == Kind::Histogram) {
        let bounds = metric.buckets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        page.push_str(&format!("- `{}`: {bounds}\n", metric.name));
    }
    page
}
