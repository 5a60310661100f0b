//! Handles on the series of one subscription and of the process, made once and kept in the struct that uses them.
//! Must never be made on the hot path: a look-up hashes labels, a handle is one atomic operation.

use super::metrics::{self as table, Metric};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata};
use std::collections::BTreeMap;

/// Every series of one subscription. They vanish from the page when this value (and what was cloned from it) is gone.
#[derive(Debug)]
pub struct SubscriptionMetrics {
    labels: [String; 4],
    outcomes: BTreeMap<&'static str, Counter>,
    /// `kubeless_events_received_total`.
    pub received: Counter,
    /// `kubeless_events_inherited_total`.
    pub inherited: Counter,
    /// `kubeless_events_in_flight`.
    pub in_flight: Gauge,
    /// `kubeless_conservation_residual`.
    pub residual: Gauge,
    /// `kubeless_invocation_duration_seconds`.
    pub invocation_duration: Histogram,
    /// `kubeless_dispatch_latency_seconds`.
    pub dispatch_latency: Histogram,
    /// `kubeless_claim_commit_duration_seconds`.
    pub claim_commit_duration: Histogram,
    /// `kubeless_inflight_invocations`.
    pub inflight_invocations: Gauge,
    /// `kubeless_invocation_retries_total`.
    pub retries: Counter,
    /// `kubeless_claims_total{answer="granted"}`.
    pub claims_granted: Counter,
    /// `kubeless_claims_total{answer="refused"}`.
    pub claims_refused: Counter,
    /// `kubeless_claims_total{answer="unknown"}`.
    pub claims_unknown: Counter,
    /// `kubeless_claims_entries`.
    pub window_entries: Gauge,
    /// `kubeless_held_event_bytes`.
    pub held_bytes: Gauge,
    /// `kubeless_events_parked`.
    pub parked: Gauge,
    /// `kubeless_source_connected`.
    pub connected: Gauge,
    /// `kubeless_source_restarts_total`.
    pub restarts: Counter,
    /// `kubeless_dead_letters_total{result="written"}`.
    pub dead_letters_written: Counter,
    /// `kubeless_dead_letters_total{result="failed"}`.
    pub dead_letters_failed: Counter,
    /// `kubeless_dead_letters_total{result="dropped"}`.
    pub dead_letters_dropped: Counter,
}

impl SubscriptionMetrics {
    /// Registers the series of a subscription; `outcomes` are the label values of `kubeless_events_total`.
    pub fn new(
        namespace: &str,
        trigger: &str,
        function: &str,
        source: &str,
        outcomes: &[&'static str],
    ) -> Self {
        let labels = [namespace, trigger, function, source].map(str::to_owned);
        let own: Vec<&str> = labels.iter().map(String::as_str).collect();
        let with = |last: &'static str| [own.as_slice(), &[last]].concat();
        let [granted, refused, unknown] = table::ANSWERS.map(|answer| counter(&table::CLAIMS, &with(answer)));
        let [written, failed, dropped] =
            table::DEAD_LETTER_RESULTS.map(|result| counter(&table::DEAD_LETTERS, &with(result)));
        Self {
            outcomes: outcomes.iter().map(|name| (*name, counter(&table::EVENTS, &with(name)))).collect(),
            received: counter(&table::EVENTS_RECEIVED, &own),
            inherited: counter(&table::EVENTS_INHERITED, &own),
            in_flight: gauge(&table::EVENTS_IN_FLIGHT, &own),
            residual: gauge(&table::CONSERVATION_RESIDUAL, &own),
            invocation_duration: histogram(&table::INVOCATION_DURATION, &own),
            dispatch_latency: histogram(&table::DISPATCH_LATENCY, &own),
            claim_commit_duration: histogram(&table::CLAIM_COMMIT_DURATION, &own),
            inflight_invocations: gauge(&table::INFLIGHT_INVOCATIONS, &own),
            retries: counter(&table::INVOCATION_RETRIES, &own),
            claims_granted: granted,
            claims_refused: refused,
            claims_unknown: unknown,
            window_entries: gauge(&table::CLAIMS_ENTRIES, &own),
            held_bytes: gauge(&table::HELD_BYTES, &own),
            parked: gauge(&table::EVENTS_PARKED, &own),
            connected: gauge(&table::SOURCE_CONNECTED, &own),
            restarts: counter(&table::SOURCE_RESTARTS, &own),
            dead_letters_written: written,
            dead_letters_failed: failed,
            dead_letters_dropped: dropped,
            labels,
        }
    }

    /// The counter of one outcome. Take it once for each outcome and keep it.
    pub fn outcome(&self, outcome: &str) -> Counter {
        self.outcomes.get(outcome).cloned().unwrap_or_else(Counter::noop)
    }

    /// `kubeless_source_lag` of one shard; the series lives as long as the handle, so drop it with the shard.
    pub fn lag(&self, stream: &str, shard: i32) -> Gauge {
        gauge(&table::SOURCE_LAG, &[self.own().as_slice(), &[stream, &shard.to_string()]].concat())
    }

    /// `kubeless_source_lag_seconds` of one shard; likewise.
    pub fn lag_seconds(&self, stream: &str, shard: i32) -> Gauge {
        gauge(&table::SOURCE_LAG_SECONDS, &[self.own().as_slice(), &[stream, &shard.to_string()]].concat())
    }

    /// `kubeless_source_gap_seconds`, for a source that can have such gaps.
    pub fn gaps(&self) -> Histogram {
        histogram(&table::SOURCE_GAPS, &self.own())
    }

    /// `kubeless_source_clock_skew_seconds`; the series lives as long as the handle.
    pub fn clock_skew(&self) -> Gauge {
        gauge(&table::CLOCK_SKEW, &self.own())
    }

    /// `kubeless_register_problems_total` of one kind. `kind` comes from a closed list, never from data.
    pub fn register_problem(&self, kind: &'static str) -> Counter {
        counter(&table::REGISTER_PROBLEMS, &[self.own().as_slice(), &[kind]].concat())
    }

    fn own(&self) -> Vec<&str> {
        self.labels.iter().map(String::as_str).collect()
    }
}

/// Series of one watch of the API server.
#[derive(Debug)]
pub struct WatchMetrics {
    /// `kubeless_watch_last_heard_timestamp_seconds`.
    pub heard: Gauge,
    /// `kubeless_watch_up`.
    pub up: Gauge,
    /// `kubeless_watch_objects`.
    pub objects: Gauge,
    /// `kubeless_watch_malformed_objects`.
    pub faulty: Gauge,
    /// `kubeless_watch_ended_total`, in the order of [`table::WATCH_ENDINGS`].
    pub endings: [Counter; table::WATCH_ENDINGS.len()],
}

impl WatchMetrics {
    /// Registers them; `namespace` is empty for all.
    pub fn new(kind: &str, namespace: &str) -> Self {
        let own = [kind, namespace];
        Self {
            heard: gauge(&table::WATCH_HEARD, &own),
            up: gauge(&table::WATCH_UP, &own),
            objects: gauge(&table::WATCH_OBJECTS, &own),
            faulty: gauge(&table::WATCH_FAULTY, &own),
            endings: table::WATCH_ENDINGS
                .map(|reason| counter(&table::WATCH_ENDED, &[kind, namespace, reason])),
        }
    }
}

/// Series of the process as a whole.
#[derive(Debug)]
pub struct ProcessMetrics {
    /// `kubeless_cache_synced`.
    pub cache_synced: Gauge,
    /// `kubeless_manifest_problems`.
    pub manifest_problems: Gauge,
    _build: Gauge,
}

impl ProcessMetrics {
    /// Registers them; `component` is the program's name.
    pub fn new(component: &'static str) -> Self {
        let build = gauge(&table::BUILD_INFO, &[super::VERSION, component]);
        build.set(1.0);
        Self {
            cache_synced: gauge(&table::CACHE_SYNCED, &[]),
            manifest_problems: gauge(&table::MANIFEST_PROBLEMS, &[]),
            _build: build,
        }
    }
}

const METADATA: Metadata<'static> = Metadata::new("kubeless", Level::INFO, None);

fn key(metric: &Metric, values: &[&str]) -> Key {
    debug_assert_eq!(metric.labels.len(), values.len(), "labels of {}", metric.name);
    let labels: Vec<Label> = metric
        .labels
        .iter()
        .zip(values)
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    Key::from_parts(metric.name, labels)
}

pub(super) fn counter(metric: &Metric, values: &[&str]) -> Counter {
    metrics::with_recorder(|recorder| recorder.register_counter(&key(metric, values), &METADATA))
}

pub(super) fn gauge(metric: &Metric, values: &[&str]) -> Gauge {
    metrics::with_recorder(|recorder| recorder.register_gauge(&key(metric, values), &METADATA))
}

pub(super) fn histogram(metric: &Metric, values: &[&str]) -> Histogram {
    metrics::with_recorder(|recorder| recorder.register_histogram(&key(metric, values), &METADATA))
}
