//! What runs for a function: its Pods, the events about them, the last lines of a container that fails. Must never
//! fail because something may not be seen: what is missing is said.

use super::session::Session;
use crate::cluster::client;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ContainerState, ContainerStatus, Event, Pod},
};
use kube::{
    Api,
    api::{ListParams, LogParams},
};

/// Pods of a function that are looked at; more tell nothing new.
const MAX_PODS: u32 = 100;
/// Events of a namespace that are read to find those about a function.
const MAX_EVENTS: u32 = 500;
/// Lines of a failing container that are shown.
const LOG_LINES: i64 = 10;
/// Bytes of them.
const LOG_BYTES: i64 = 8 * 1024;

/// What was found.
#[derive(Debug, Default)]
pub struct Workload {
    /// The Deployment, if there is one and it may be seen.
    pub deployment: Option<Deployment>,
    /// Pods, newest first.
    pub pods: Vec<Pod>,
    /// Events about the function and what was made for it, oldest first.
    pub events: Vec<Event>,
    /// What could not be seen, and why.
    pub unseen: Vec<String>,
}

impl Workload {
    /// Looks at what runs for the function of this name.
    pub async fn read(session: &Session, name: &str) -> Self {
        let mut found = Self::default();
        let client = &session.connection.client;
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), &session.namespace);
        match deployments.get_opt(name).await {
            Ok(deployment) => found.deployment = deployment,
            Err(error) => found.unseen.push(format!("Deployment: {}", client::explain(&error))),
        }
        let pods: Api<Pod> = Api::namespaced(client.clone(), &session.namespace);
        match pods.list(&ListParams::default().labels(&format!("function={name}")).limit(MAX_PODS)).await {
            Ok(list) => found.pods = list.items,
            Err(error) => found.unseen.push(format!("Pods: {}", client::explain(&error))),
        }
        found.pods.sort_by_key(|pod| std::cmp::Reverse(pod.metadata.creation_timestamp.clone()));
        let events: Api<Event> = Api::namespaced(client.clone(), &session.namespace);
        match events.list(&ListParams::default().limit(MAX_EVENTS)).await {
            Ok(list) => {
                found.events = list.items.into_iter().filter(|event| concerns(event, name)).collect();
            }
            Err(error) => found.unseen.push(format!("events: {}", client::explain(&error))),
        }
        found.events.sort_by_key(last_seen);
        found
    }

    /// The first container that keeps a Pod from being ready, with the Pod's name.
    pub fn failing(&self) -> Option<(&str, &ContainerStatus)> {
        self.pods.iter().find_map(|pod| {
            let found = statuses(pod).find(|status| !status.ready && trouble(status).is_some())?;
            Some((pod.metadata.name.as_deref().unwrap_or_default(), found))
        })
    }

    /// The last lines of [`Self::failing`], of its last run if it has just been started anew.
    pub async fn last_lines(&self, session: &Session) -> Option<(String, String)> {
        let (pod, status) = self.failing()?;
        let pods: Api<Pod> = Api::namespaced(session.connection.client.clone(), &session.namespace);
        for previous in [status.restart_count > 0, false] {
            let params = LogParams {
                container: Some(status.name.clone()),
                previous,
                tail_lines: Some(LOG_LINES),
                limit_bytes: Some(LOG_BYTES),
                ..LogParams::default()
            };
            if let Ok(text) = pods.logs(pod, &params).await
                && !text.trim().is_empty()
            {
                return Some((format!("{pod}, container {}", status.name), text));
            }
        }
        None
    }
}

/// The statuses of a Pod's containers, those that prepare it first.
pub fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let prepare = status.and_then(|status| status.init_container_statuses.as_ref()).into_iter().flatten();
    let run = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    prepare.chain(run)
}

/// Why a container is not running well, in one line; `None`: it is, or it has done its work.
pub fn trouble(status: &ContainerStatus) -> Option<String> {
    let state = status.state.as_ref()?;
    let last = status.last_state.as_ref().and_then(ended);
    let reason = match (&state.waiting, ended(state)) {
        (Some(waiting), _) => {
            // kubelet repeats which Pod and container it speaks of, and everybody knows.
            let message = waiting.message.as_deref().and_then(|text| text.split(" container=").next());
            [waiting.reason.as_deref(), message].into_iter().flatten().collect::<Vec<_>>().join(": ")
        }
        (None, Some(ended)) => ended,
        (None, None) => return None,
    };
    // While a Pod is being made every container waits for this, which is no trouble.
    if ["PodInitializing", "ContainerCreating"].contains(&reason.as_str()) {
        return None;
    }
    Some(match last {
        Some(last) => format!("{}: {reason}; before that {last}", status.name),
        None => format!("{}: {reason}", status.name),
    })
}

/// How a run ended, if it ended badly.
fn ended(state: &ContainerState) -> Option<String> {
    let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
    let reason = ended.reason.as_deref().unwrap_or("Error");
    Some(format!("{reason} (exit code {})", ended.exit_code))
}

/// Whether an event is about the function, or about what carries its name: Deployment, ReplicaSet, Pod, Job.
fn concerns(event: &Event, name: &str) -> bool {
    let about = &event.involved_object;
    let found = about.name.as_deref().unwrap_or_default();
    match about.kind.as_deref().unwrap_or_default() {
        "ReplicaSet" | "Pod" => {
            found.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')).is_some_and(is_generated)
        }
        _ => found == name,
    }
}

/// Whether this is what Kubernetes appends to names: one or two groups of letters and digits. A function `a` must not
/// be told what happened to the function `a-b`.
fn is_generated(suffix: &str) -> bool {
    let groups: Vec<&str> = suffix.split('-').collect();
    let hash =
        |group: &str| group.len() >= 5 && group.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    groups.len() <= 2
        && groups.iter().all(|group| hash(group))
        && groups[0].bytes().any(|c| c.is_ascii_digit())
}

/// When an event was seen last.
pub fn last_seen(event: &Event) -> Option<jiff::Timestamp> {
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    last.or_else(|| event.event_time.as_ref().map(|time| time.0))
        .or_else(|| event.first_timestamp.as_ref().map(|time| time.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn event(kind: &str, name: &str) -> Event {
        serde_json::from_value(json!({ "metadata": {}, "involvedObject": { "kind": kind, "name": name } }))
            .unwrap()
    }

    fn container(state: &Value, last: &Value) -> ContainerStatus {
        serde_json::from_value(json!({
            "name": "hello", "ready": false, "restartCount": 1, "image": "", "imageID": "",
            "state": state, "lastState": last
        }))
        .unwrap()
    }

    #[test]
    fn events_of_a_function_are_not_those_of_its_namesakes() {
        for (kind, name, wanted) in [
            ("Function", "hello", true),
            ("Deployment", "hello", true),
            ("ReplicaSet", "hello-7d9c6c8b5f", true),
            ("Pod", "hello-7d9c6c8b5f-x2x9k", true),
            ("Pod", "hello-world-7d9c6c8b5f-x2x9k", false),
            ("Deployment", "hello-world", false),
            ("Pod", "hello", false),
        ] {
            assert_eq!(concerns(&event(kind, name), "hello"), wanted, "{kind} {name}");
        }
    }

    #[test]
    fn trouble_is_told_with_what_came_before() {
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } });
        let died = json!({ "terminated": { "exitCode": 1, "reason": "Error" } });
        let told = trouble(&container(&waiting, &died)).unwrap();
        assert_eq!(told, "hello: CrashLoopBackOff: back-off 10s; before that Error (exit code 1)");
        assert_eq!(trouble(&container(&json!({ "running": {} }), &Value::Null)), None);
        let creating = json!({ "waiting": { "reason": "ContainerCreating" } });
        assert_eq!(trouble(&container(&creating, &Value::Null)), None);
    }
}
