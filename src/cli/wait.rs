//! `--wait`: until a function is ready, with what it waits for on standard error, and why it is not when time is up.
//! Must never wait without a bound.

use super::{
    Exit, age,
    listing::api,
    output::{printable_lines, talk},
    progress::Progress,
    session::{
        Session,
        objects::{FUNCTIONS, conditions},
    },
    workload::{self, Workload},
};
use crate::{
    api::conditions::{find, reasons, types},
    cluster::client,
    config::quantity::duration,
};
use futures_util::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Events that are shown.
const EVENTS: usize = 5;

/// What is said while no controller has.
const SILENCE: &str = "nothing has reported on it yet";

/// The flag.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Wait {
    /// Waits until it is ready, at most this long (2m), and says why if it is not.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "2m",
          value_parser = duration::parse)]
    wait: Option<Duration>,
}

/// What the object says about itself.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Ready(String),
    /// It will not become ready by waiting.
    Refused(String),
    Waiting(String),
}

impl Wait {
    /// Waits, if that was asked for.
    pub async fn run(&self, session: &Session, name: &str) -> anyhow::Result<Option<Exit>> {
        let Some(limit) = self.wait else { return Ok(None) };
        let began = Instant::now();
        let progress = Progress::start(&format!("waiting for {name}"));
        let mut last = SILENCE.to_owned();
        let ended = tokio::time::timeout(limit, watch(session, name, &progress, &mut last)).await;
        drop(progress);
        match ended {
            Ok(Ok(State::Ready(replicas))) => {
                let took = age::span(i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX));
                talk(&format!("function {name} is ready ({replicas}) after {took}"));
                Ok(Some(Exit::Ok))
            }
            Ok(Ok(State::Refused(why) | State::Waiting(why))) => {
                talk(&format!("error: function {name} cannot become ready: {why}"));
                Ok(Some(Exit::Failed))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let after = age::span(i64::try_from(limit.as_secs()).unwrap_or(i64::MAX));
                talk(&format!("error: function {name} is not ready after {after}: {last}"));
                if last == SILENCE {
                    talk("  is the controller running? kubeless check");
                }
                explain(session, name).await;
                Ok(Some(Exit::Unknown))
            }
        }
    }
}

async fn watch(
    session: &Session,
    name: &str,
    progress: &Progress,
    last: &mut String,
) -> anyhow::Result<State> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(api(session, &FUNCTIONS, false), config).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                match state(&serde_json::to_value(object)?) {
                    State::Waiting(why) => {
                        progress.say(&format!("waiting for {name}: {why}"));
                        *last = why;
                    }
                    end => return Ok(end),
                }
            }
            Ok(watcher::Event::Delete(_)) => return Ok(State::Refused("it was deleted".to_owned())),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => *last = format!("it cannot be watched: {}", client::with_causes(&error)),
        }
    }
    Ok(State::Waiting(last.clone()))
}

fn state(function: &Value) -> State {
    let conditions = conditions(function);
    let generation = function["metadata"]["generation"].as_i64();
    let current = |condition: &&Condition| condition.observed_generation >= generation;
    let told = |condition: &Condition| match condition.message.as_str() {
        "" => condition.reason.clone(),
        message => format!("{}: {message}", condition.reason),
    };
    if let Some(refused) = find(&conditions, types::ACCEPTED).filter(current)
        && refused.status == "False"
    {
        return State::Refused(told(refused));
    }
    let available = find(&conditions, types::AVAILABLE);
    match find(&conditions, types::READY) {
        None => State::Waiting(SILENCE.to_owned()),
        Some(ready) if !current(&ready) => {
            State::Waiting("the controller has not seen this change yet".to_owned())
        }
        // Earlier code still answers.
        Some(ready)
            if ready.status == "True"
                && available.is_some_and(|told| told.reason == reasons::ROLLING_OUT) =>
        {
            State::Waiting(available.map_or_else(String::new, told))
        }
        Some(ready) if ready.status == "True" => {
            let count = |field: &str| function["status"][field].as_i64().unwrap_or(0);
            State::Ready(format!("{}/{}", count("readyReplicas"), count("replicas")))
        }
        Some(ready) => State::Waiting(told(ready)),
    }
}

/// Everything that may say why: Pods, events, the last lines of what fails.
async fn explain(session: &Session, name: &str) {
    let found = Workload::read(session, name).await;
    for pod in &found.pods {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Unknown");
        let troubles: Vec<String> = workload::statuses(pod).filter_map(workload::trouble).collect();
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        let troubles = if troubles.is_empty() { "not ready".to_owned() } else { troubles.join(", ") };
        talk(&printable_lines(&format!("  Pod {pod} ({phase}): {troubles}")));
    }
    if found.pods.is_empty() && found.unseen.is_empty() {
        talk("  there is no Pod yet");
    }
    for event in found.events.iter().rev().take(EVENTS).rev() {
        let (reason, message) = (event.reason.as_deref(), event.message.as_deref());
        talk(&printable_lines(&format!(
            "  event {}: {}",
            reason.unwrap_or_default(),
            message.unwrap_or_default()
        )));
    }
    if let Some((whose, lines)) = found.last_lines(session).await {
        talk(&printable_lines(&format!(
            "  last lines of {whose}:\n    {}",
            lines.trim_end().replace('\n', "\n    ")
        )));
    }
    for unseen in &found.unseen {
        talk(&printable_lines(&format!("  could not look at {unseen}")));
    }
    talk(&format!("  more: kubeless function describe {name}; kubeless function logs {name}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn function(conditions: &Value) -> Value {
        json!({ "metadata": { "name": "f", "generation": 2 },
                "status": { "replicas": 1, "readyReplicas": 1, "conditions": conditions } })
    }

    fn condition(kind: &str, status: &str, generation: i64) -> Value {
        json!({ "type": kind, "status": status, "reason": "Why", "message": "so", "observedGeneration": generation,
                "lastTransitionTime": "2026-01-01T00:00:00Z" })
    }

    #[test]
    fn ready_counts_only_for_this_generation() {
        let old = json!([condition("Ready", "True", 1)]);
        assert!(matches!(state(&function(&old)), State::Waiting(_)));
        let new = json!([condition("Ready", "True", 2)]);
        assert_eq!(state(&function(&new)), State::Ready("1/1".to_owned()));
        let refused = json!([condition("Ready", "False", 2), condition("Accepted", "False", 2)]);
        assert_eq!(state(&function(&refused)), State::Refused("Why: so".to_owned()));
        let waiting = json!([condition("Ready", "False", 2), condition("Accepted", "False", 1)]);
        assert_eq!(state(&function(&waiting)), State::Waiting("Why: so".to_owned()));
        assert!(matches!(state(&function(&json!([]))), State::Waiting(_)));
    }

    #[test]
    fn ready_with_earlier_code_is_not_waited_for() {
        let mut available = condition("Available", "True", 2);
        let both = |available: &Value| json!([condition("Ready", "True", 2), available]);
        assert!(matches!(state(&function(&both(&available))), State::Ready(_)));
        available["reason"] = "RollingOut".into();
        assert_eq!(state(&function(&both(&available))), State::Waiting("RollingOut: so".to_owned()));
    }
}
