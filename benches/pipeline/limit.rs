//! The limit: what `wrk` makes of the same sink with the same request, while a bare consumer drains the same topic at
//! the same pace. Must never spare either side a cost that the other pays.

use crate::{
    child::{Role, Sink, values},
    kafka,
};
use std::{collections::HashMap, path::Path};

/// What one measurement of the limit found.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Requests a second.
    pub per_s: f64,
    /// CPU seconds of `wrk` per million requests.
    pub wrk_cpu: f64,
    /// CPU seconds of the bare consumer per million records.
    pub drain_cpu: f64,
}

/// The topic to drain.
#[derive(Clone, Copy, Debug)]
pub struct Topic<'a> {
    /// Brokers.
    pub bootstrap: &'a str,
    /// Name.
    pub name: &'a str,
    /// Partitions.
    pub partitions: usize,
}

/// A script that sends the very headers of `head` (one of the product's requests) with an event's body.
pub fn script(head: &str, to: &Path) {
    let mut text = String::from("wrk.method = \"POST\"\n");
    text.push_str(&format!("wrk.body = [[{}]]\n", kafka::body(None)));
    for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(':')) {
        // wrk writes these two itself.
        if !["host", "content-length"].contains(&name.to_ascii_lowercase().as_str()) {
            text.push_str(&format!("wrk.headers[\"{name}\"] = [[{}]]\n", value.trim()));
        }
    }
    text.push_str("done = function(summary, latency, requests)\n");
    text.push_str("  io.write(string.format(\"requests=%d\\nduration_us=%d\\n\", summary.requests, summary.duration))\n");
    text.push_str("  local e = summary.errors\n");
    text.push_str(
        "  io.write(string.format(\"errors=%d\\n\", e.connect + e.read + e.write + e.status + e.timeout))\n",
    );
    text.push_str("end\n");
    std::fs::write(to, text).expect("a file in our own folder");
}

/// One measurement of `seconds`; `pace` is the rate at which the consumer drains, the limit found before.
pub fn measure(sink: &Sink, topic: Topic<'_>, script: &Path, seconds: f64, pace: f64) -> Limit {
    let (partitions, pace_text) = (topic.partitions.to_string(), pace.to_string());
    let duration = seconds.ceil().to_string();
    let mut drain = Role::own(&["drain", topic.bootstrap, topic.name, &partitions, &pace_text, &duration]);
    assert_eq!(drain.line(), "begun");
    let (per_s, wrk_cpu) = wrk(&format!("http://{}/", sink.address), script, seconds);
    let drained = values(&drain.finish().0);
    Limit { per_s, wrk_cpu, drain_cpu: read(&drained, "cpu") / read(&drained, "records") * 1e6 }
}

/// Requests a second that `wrk` makes of `url` for `seconds`, and its CPU seconds per million of them.
pub fn wrk(url: &str, script: &Path, seconds: f64) -> (f64, f64) {
    let (duration, script) = (format!("-d{}s", seconds.ceil()), script.display().to_string());
    let (said, cpu) = Role::start("wrk", &["-t1", "-c64", &duration, "-s", &script, url]).finish();
    let said = values(&said);
    assert_eq!(read(&said, "errors"), 0.0, "wrk met errors");
    let requests = read(&said, "requests");
    (requests / (read(&said, "duration_us") / 1e6), cpu / requests * 1e6)
}

fn read(from: &HashMap<String, f64>, name: &str) -> f64 {
    from.get(name).copied().unwrap_or_else(|| panic!("no {name} in {from:?}"))
}
