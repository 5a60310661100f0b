//! The recorder behind the `metrics` facade and its Prometheus text page. A series lives exactly as long as a
//! handle on it lives, so a deleted trigger's series vanish with its handles. Must never export a name that is not
//! in the table of [`super::metrics`].
//!
//! Hot path: a counter is one `fetch_add`; a histogram two, on fixed memory (nothing is buffered until a scrape).
//! The locks here are taken when handles are made and when the page is rendered, never by an observation.

use super::{
    metrics::{self as table, Kind, Metric},
    process,
};
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Nanoseconds in a second: sums of histograms are kept in integers.
const NANOS: f64 = 1e9;

/// Dead series are dropped at every scrape, and whenever a family reaches a multiple of this size: a process that
/// nobody scrapes does not grow either.
const PRUNE_EVERY: usize = 256;

/// All live series. Cheap to clone; clones share the series.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    families: Arc<Mutex<BTreeMap<&'static str, Family>>>,
}

/// The series of one metric by their rendered labels (`a="b",c="d"`).
type Family = BTreeMap<String, Cell>;

#[derive(Clone, Debug)]
enum Cell {
    Counter(Arc<AtomicU64>),
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

impl Cell {
    fn new(metric: &Metric) -> Self {
        match metric.kind {
            Kind::Counter => Self::Counter(Arc::default()),
            Kind::Gauge => Self::Gauge(Arc::default()),
            Kind::Histogram => Self::Histogram(Arc::new(Buckets::new(metric.buckets))),
        }
    }

    /// Whether anybody beside the registry holds it.
    fn is_live(&self) -> bool {
        match self {
            Self::Counter(cell) | Self::Gauge(cell) => Arc::strong_count(cell) > 1,
            Self::Histogram(cell) => Arc::strong_count(cell) > 1,
        }
    }
}

/// Observations of one series: one counter for each bucket (the last is +Inf) and their sum.
#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum_nanos: AtomicU64::new(0) }
    }
}

impl HistogramFn for Buckets {
    fn record(&self, seconds: f64) {
        let index = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        // A clock that went backwards gives a negative wait: `as` makes it 0.
        self.sum_nanos.fetch_add((seconds * NANOS) as u64, Ordering::Relaxed);
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes this registry the one that all handles of the process belong to. Fails if there is one already.
    pub fn install(&self) -> Result<(), AlreadyInstalled> {
        metrics::set_global_recorder(self.clone()).map_err(|_| AlreadyInstalled)
    }

    /// Runs `make` so that the handles it builds belong to this registry (tests; several daemons in one process).
    pub fn scope<T>(&self, make: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(self, make)
    }

    /// The whole page in the Prometheus text format, ordered, with the process's own figures.
    pub fn render(&self) -> String {
        let mut page = String::with_capacity(16 * 1024);
        let mut families = self.lock();
        for metric in table::ALL {
            let Some(family) = families.get_mut(metric.name) else { continue };
            family.retain(|_, cell| cell.is_live());
            if family.is_empty() {
                continue;
            }
            head(&mut page, metric);
            for (labels, cell) in family.iter() {
                render_cell(&mut page, metric.name, labels, cell);
            }
        }
        drop(families);
        for (metric, value) in process::sample() {
            head(&mut page, &metric);
            line(&mut page, metric.name, "", "", value);
        }
        page
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Family>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cell of a key, made if missing; `None` when the name is not in the table or of another kind.
    fn cell(&self, key: &Key, kind: Kind) -> Option<Cell> {
        let metric = table::by_name(key.name()).filter(|metric| metric.kind == kind)?;
        let mut labels = String::new();
        for label in key.labels() {
            if !labels.is_empty() {
                labels.push(',');
            }
            // Writing to a String cannot fail.
            let _ = write!(labels, "{}=\"{}\"", label.key(), escape(label.value()));
        }
        let mut families = self.lock();
        let family = families.entry(metric.name).or_default();
        if family.len() % PRUNE_EVERY == PRUNE_EVERY - 1 {
            family.retain(|_, cell| cell.is_live());
        }
        Some(family.entry(labels).or_insert_with(|| Cell::new(metric)).clone())
    }
}

/// A recorder is installed already: one for each process.
#[derive(Debug, thiserror::Error)]
#[error("a metrics recorder is installed already in this process")]
pub struct AlreadyInstalled;

impl Recorder for Registry {
    // Help and unit come from the table.
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.cell(key, Kind::Counter) {
            Some(Cell::Counter(cell)) => Counter::from_arc(cell),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.cell(key, Kind::Gauge) {
            Some(Cell::Gauge(cell)) => Gauge::from_arc(cell),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.cell(key, Kind::Histogram) {
            Some(Cell::Histogram(cell)) => Histogram::from_arc(cell),
            _ => Histogram::noop(),
        }
    }
}

fn head(page: &mut String, metric: &Metric) {
    let _ = writeln!(page, "# HELP {} {}\n# TYPE {0} {}", metric.name, metric.help, metric.kind.as_str());
}

fn line(page: &mut String, name: &str, suffix: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = if labels.is_empty() {
        writeln!(page, "{name}{suffix} {value}")
    } else {
        writeln!(page, "{name}{suffix}{{{labels}}} {value}")
    };
}

fn render_cell(page: &mut String, name: &str, labels: &str, cell: &Cell) {
    match cell {
        Cell::Counter(value) => line(page, name, "", labels, value.load(Ordering::Relaxed)),
        Cell::Gauge(bits) => line(page, name, "", labels, f64::from_bits(bits.load(Ordering::Relaxed))),
        Cell::Histogram(buckets) => {
            let comma = if labels.is_empty() { "" } else { "," };
            let mut total = 0;
            for (index, count) in buckets.counts.iter().enumerate() {
                total += count.load(Ordering::Relaxed);
                let bound = buckets.bounds.get(index).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
                line(page, name, "_bucket", &format!("{labels}{comma}le=\"{bound}\""), total);
            }
            let sum = buckets.sum_nanos.load(Ordering::Relaxed) as f64 / NANOS;
            line(page, name, "_sum", labels, sum);
            line(page, name, "_count", labels, total);
        }
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
