//! What a run of the benchmark is made of, with the variables that change it.

/// Sizes of everything.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Runs of each measurement (`BENCH_RUNS`).
    pub runs: usize,
    /// Events of a run with the function at 0 ms (`BENCH_EVENTS`).
    pub events: usize,
    /// Events of a run with the function at 5 ms.
    pub slow_events: usize,
    /// Seconds of `wrk` in a run.
    pub limit_seconds: f64,
    /// Seconds of a run for latency.
    pub latency_seconds: f64,
    /// Different keys at 0 ms (`BENCH_KEYS`; 0: events have none).
    pub keys: usize,
    /// A quick look whether it works at all (`BENCH_SMOKE=1`): one run, the broker's default only.
    pub smoke: bool,
}

impl Settings {
    /// From the environment.
    pub fn read() -> Self {
        let smoke = std::env::var("BENCH_SMOKE").is_ok_and(|v| v == "1");
        let number = |name: &str, default: usize| {
            std::env::var(name).map_or(default, |text| match text.parse() {
                Ok(number) => number,
                Err(_) => panic!("{name}={text}: not a number"),
            })
        };
        let events = number("BENCH_EVENTS", if smoke { 20_000 } else { 400_000 });
        Self {
            runs: number("BENCH_RUNS", if smoke { 1 } else { 5 }).max(1),
            events,
            slow_events: (events * 15 / 100).max(1000),
            limit_seconds: if smoke { 1.0 } else { 5.0 },
            latency_seconds: if smoke { 1.0 } else { 5.0 },
            keys: number("BENCH_KEYS", 10_000),
            smoke,
        }
    }
}
