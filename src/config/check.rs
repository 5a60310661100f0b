//! Ranges of options and how options depend on each other. Must never change a value: it accepts or explains.

use super::{
    model::{DispatcherConfig, KubernetesConfig},
    quantity::{bytes, duration},
};
use std::{ops::RangeInclusive, time::Duration};

/// One thing wrong with a value: the dotted key and a sentence with the allowed range and what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Dotted key, as in `invoker.workers`.
    pub key: &'static str,
    /// What is wrong, what is allowed.
    pub problem: String,
}

const MIB: u64 = 1 << 20;
const MS: Duration = Duration::from_millis(1);
/// Each is watched by itself; whoever wants more wants all.
const MAX_NAMESPACES: usize = 256;

/// Everything wrong with the values of `config`.
pub fn check(config: &DispatcherConfig) -> Vec<Finding> {
    let mut found = Findings::default();
    let hour = Duration::from_secs(3600);
    let invoker = &config.invoker;
    found.require(
        "state_dir",
        !config.state_dir.as_os_str().is_empty(),
        "is empty; name a folder that may be written to",
    );
    found.require(
        "cluster_domain",
        is_domain(&config.cluster_domain),
        "is not a DNS name; use lower-case letters, digits, `-` and `.`, as in \"cluster.local\"",
    );
    found.number("invoker.workers", invoker.workers, &(1..=64));
    found.number("invoker.max_in_flight_per_function", invoker.max_in_flight_per_function, &(1..=65_536));
    found.duration("invoker.connect_timeout", invoker.connect_timeout, &(10 * MS..=60_000 * MS));
    found.duration("invoker.idle_timeout", invoker.idle_timeout, &(10 * MS..=hour));
    found.duration("invoker.timeout_margin", invoker.timeout_margin, &(Duration::ZERO..=hour));
    found.duration("invoker.backoff_interval", invoker.backoff_interval, &(Duration::ZERO..=hour));
    found.duration("shutdown.grace", config.shutdown.grace, &(MS..=hour));
    found.size("invoker.max_response_bytes", invoker.max_response_bytes, &(0..=64 * MIB));
    found.size("memory.max_event_bytes", config.memory.max_event_bytes, &(MIB..=1 << 40));
    found.size("journal.segment_bytes", config.journal.segment_bytes, &(64 << 10..=1 << 30));
    found.size("journal.max_bytes", config.journal.max_bytes, &(MIB..=1 << 40));
    found.require(
        "journal.max_bytes",
        config.journal.max_bytes >= 2 * config.journal.segment_bytes,
        "must hold at least two segments; raise it to twice journal.segment_bytes or lower that",
    );
    check_kubernetes(&config.kubernetes, &mut found);
    let status = &config.status;
    found.require(
        "status.lease",
        is_name(&status.lease),
        "is not an object name; use lower-case letters, digits and `-`",
    );
    found.require(
        "status.peers",
        status.peers.split(',').map(str::trim).filter(|peer| !peer.is_empty()).all(is_peer),
        "holds something that is not host:port, as in \"kubeless-dispatchers:9090\"",
    );
    found.duration("status.counters_every", status.counters_every, &(1000 * MS..=hour));
    found.0
}

fn check_kubernetes(config: &KubernetesConfig, found: &mut Findings) {
    let hour = 3_600_000 * MS;
    found.require(
        "kubernetes.functions_namespaces",
        config.functions_namespaces.len() <= MAX_NAMESPACES
            && config.functions_namespaces.iter().all(|name| is_name(name)),
        "names at most 256 namespaces of a-z, 0-9 and `-`; an empty list means all",
    );
    found.require(
        "kubernetes.forbidden_networks",
        config.forbidden_networks.iter().all(|text| text.parse::<ipnet::IpNet>().is_ok()),
        "holds something that is not a network; write for example [\"10.0.0.0/16\", \"fd00:1::/64\"]",
    );
    found.duration("kubernetes.secrets_interval", config.secrets_interval, &(1000 * MS..=24 * hour));
    found.duration("kubernetes.watch_silence", config.watch_silence, &(1000 * MS..=hour));
    found.duration("kubernetes.refused_budget", config.refused_budget, &(1000 * MS..=24 * hour));
    found.duration("kubernetes.unreachable_budget", config.unreachable_budget, &(Duration::ZERO..=24 * hour));
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn require(&mut self, key: &'static str, holds: bool, problem: &str) {
        if !holds {
            self.0.push(Finding { key, problem: problem.to_owned() });
        }
    }

    fn range<T: PartialOrd>(
        &mut self,
        key: &'static str,
        value: &T,
        range: &RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) {
        let problem = format!(
            "{} is out of range; allowed is {} to {}",
            show(value),
            show(range.start()),
            show(range.end())
        );
        self.require(key, range.contains(value), &problem);
    }

    fn number(&mut self, key: &'static str, value: usize, range: &RangeInclusive<usize>) {
        self.range(key, &value, range, ToString::to_string);
    }

    fn duration(&mut self, key: &'static str, value: Duration, range: &RangeInclusive<Duration>) {
        self.range(key, &value, range, |value| format!("\"{}\"", duration::format(*value)));
    }

    fn size(&mut self, key: &'static str, value: u64, range: &RangeInclusive<u64>) {
        self.range(key, &value, range, |value| format!("\"{}\"", bytes::format(*value)));
    }
}

fn is_name(text: &str) -> bool {
    is_domain(text) && !text.contains('.') && text.len() <= 63
}

fn is_peer(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_domain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        })
}
