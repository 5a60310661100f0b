//! The process's own figures from /proc, read when the metrics page is asked for. Must never fail: a figure
//! that cannot be read is left out.

use super::metrics::{self as table, Metric};
use std::fs;

/// Kernel ticks in a second as /proc shows them (USER_HZ: 100 on every Linux this is built for).
const TICKS_PER_SECOND: f64 = 100.0;

/// Current values of the process metrics.
pub fn sample() -> Vec<(Metric, f64)> {
    let mut found = Vec::with_capacity(4);
    // Fields after the command name, which may itself contain spaces and brackets: start behind the last ')'.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or_else(Vec::new, |(_, rest)| rest.split_whitespace().collect());
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok());
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        found.push((table::PROCESS_CPU, (user + system) / TICKS_PER_SECOND));
    }
    if let Some(bytes) = resident_bytes() {
        found.push((table::PROCESS_RESIDENT, bytes));
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        found.push((table::PROCESS_FDS, entries.count() as f64));
    }
    if let (Some(boot), Some(start)) = (boot_time(), field(22)) {
        found.push((table::PROCESS_START, boot + start / TICKS_PER_SECOND));
    }
    found
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kibibytes.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? * 1024.0)
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}
