//! The CronJob of a trigger whose `executor` is the cluster. Must never let one due time call the function twice by our
//! doing: a Job has one Pod, its Pod makes one attempt, and no failure makes another.

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec},
        core::v1::{
            Container, EnvVar, EnvVarSource, LocalObjectReference, ObjectFieldSelector, PodSpec,
            PodTemplateSpec, ResourceRequirements, SecurityContext,
        },
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use std::collections::BTreeMap;

use super::{
    CREATED_BY, FUNCTION_LABEL, annotations, env::var, literal, owner, runtime::Defaults, security, sha256,
};
use crate::{
    api::{Violation, cronjob_trigger::CronJobTrigger, function::Function},
    pod::tick,
};

/// Time that a Pod may take to be scheduled, pulled and started, beside the function's own.
const START_MARGIN_SECONDS: u64 = 60;
/// The operating system takes no longer variable; Kubeless, which used arguments, had the same end.
const LONGEST_PAYLOAD: usize = 100 * 1024;
/// Longest name of a CronJob: its Jobs need eleven characters more.
const LONGEST_NAME: usize = 52;
/// As in Kubeless.
const KEPT_SUCCESSES: i32 = 3;
const KEPT_FAILURES: i32 = 1;

/// The CronJob of a trigger for a function that exists.
///
/// # Errors
/// One violation if the payload does not fit or the function's timeout is wrong.
pub fn cron_job(
    trigger: &CronJobTrigger,
    function: &Function,
    defaults: &Defaults,
) -> Result<CronJob, Violation> {
    let spec = &trigger.spec;
    let timeout = function.timeout().map_err(|error| {
        Violation::new("/spec/function-name", format!("the function's {error}"), "correct the function")
    })?;
    let mut all_labels = function.metadata.labels.clone().unwrap_or_default();
    all_labels.extend(trigger.metadata.labels.clone().unwrap_or_default());
    let mut all_annotations = annotations(&function.metadata);
    all_annotations.extend(annotations(&trigger.metadata));
    // With these two on it, the Pod would be one of the function's own and be called by others.
    let mut pod_labels = all_labels.clone();
    pod_labels.retain(|name, _| name != FUNCTION_LABEL && name != CREATED_BY.0);
    all_labels.insert(CREATED_BY.0.to_owned(), CREATED_BY.1.to_owned());
    all_labels.insert(FUNCTION_LABEL.to_owned(), spec.function_name.clone());
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            annotations: Some(all_annotations.clone()),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(trigger, function, defaults, timeout.as_secs())?),
    };
    let deadline = i64::try_from(timeout.as_secs() + START_MARGIN_SECONDS).unwrap_or(i64::MAX);
    Ok(CronJob {
        metadata: ObjectMeta {
            name: Some(name(trigger)),
            namespace: trigger.metadata.namespace.clone(),
            labels: Some(all_labels),
            annotations: Some(all_annotations),
            owner_references: Some(vec![owner("CronJobTrigger", &trigger.metadata)]),
            ..ObjectMeta::default()
        },
        spec: Some(CronJobSpec {
            schedule: spec.schedule.clone(),
            time_zone: Some(spec.time_zone.clone().unwrap_or_else(|| "Etc/UTC".to_owned())),
            suspend: Some(spec.suspend || spec.groups.paused),
            concurrency_policy: Some(spec.concurrency_policy.as_str().to_owned()),
            starting_deadline_seconds: spec.starting_deadline_seconds,
            successful_jobs_history_limit: Some(KEPT_SUCCESSES),
            failed_jobs_history_limit: Some(KEPT_FAILURES),
            job_template: JobTemplateSpec {
                metadata: None,
                spec: Some(JobSpec {
                    backoff_limit: Some(0),
                    active_deadline_seconds: Some(deadline),
                    template,
                    ..JobSpec::default()
                }),
            },
        }),
        status: None,
    })
}

/// Name of a trigger's CronJob: the trigger's, unless that is too long.
pub fn name(trigger: &CronJobTrigger) -> String {
    const DIGEST: usize = 10;
    let name = trigger.metadata.name.as_deref().unwrap_or_default();
    if name.len() <= LONGEST_NAME {
        return name.to_owned();
    }
    let head: String = name.chars().take(LONGEST_NAME - DIGEST - 1).collect();
    format!("{}-{}", head.trim_end_matches(['-', '.']), &sha256(&[name.as_bytes()])[..DIGEST])
}

/// Name of the CronJob that Kubeless made for a function, whichever of its triggers came last.
pub fn old_name(function: &str) -> String {
    format!("trigger-{function}")
}

fn pod(
    trigger: &CronJobTrigger,
    function: &Function,
    defaults: &Defaults,
    timeout: u64,
) -> Result<PodSpec, Violation> {
    let port = function.service_port();
    let (namespace, name) = (trigger.metadata.namespace.as_deref(), trigger.metadata.name.as_deref());
    let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
    let arguments = [
        // Without the cluster's domain, which only the cluster knows: resolvers of Pods add it.
        ("--host", format!("{}.{namespace}.svc", trigger.spec.function_name)),
        ("--port", port.port.to_string()),
        ("--timeout", timeout.to_string()),
        ("--source", format!("/apis/kubeless.io/v1beta1/namespaces/{namespace}/cronjobtriggers/{name}")),
        ("--trigger-uid", trigger.metadata.uid.clone().unwrap_or_default()),
    ];
    let mut env = vec![EnvVar {
        name: tick::JOB_NAME.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "metadata.labels['job-name']".to_owned(),
                api_version: None,
            }),
            ..EnvVarSource::default()
        }),
    }];
    if !trigger.spec.payload.is_null() {
        let payload = trigger.spec.payload.to_string();
        if payload.len() > LONGEST_PAYLOAD {
            let what = format!(
                "{} bytes are more than the {LONGEST_PAYLOAD} that a Pod can be given",
                payload.len()
            );
            return Err(Violation::new(
                "/spec/payload",
                what,
                "make it smaller, or write executor: Dispatcher",
            ));
        }
        env.push(var(tick::PAYLOAD, literal(&payload)));
    }
    let quantities = |cpu: &str, memory: &str| {
        let pair = |name: &str, amount: &str| (name.to_owned(), Quantity(amount.to_owned()));
        Some(BTreeMap::from([pair("cpu", cpu), pair("memory", memory)]))
    };
    let container = Container {
        name: "trigger".to_owned(),
        image: Some(defaults.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(["kubeless-controller", "tick"].map(str::to_owned).to_vec()),
        args: Some(arguments.iter().flat_map(|(flag, value)| [(*flag).to_owned(), literal(value)]).collect()),
        env: Some(env),
        resources: Some(ResourceRequirements {
            requests: quantities("10m", "16Mi"),
            limits: quantities("100m", "64Mi"),
            claims: None,
        }),
        security_context: Some(SecurityContext {
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        ..Container::default()
    };
    let secrets: Vec<_> =
        defaults.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect();
    let mut pod = PodSpec {
        containers: vec![container],
        restart_policy: Some("Never".to_owned()),
        image_pull_secrets: Some(secrets).filter(|list| !list.is_empty()),
        ..PodSpec::default()
    };
    security::fill_in(&mut pod);
    Ok(pod)
}
