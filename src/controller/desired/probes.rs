//! How the cluster asks a function whether it is well. Must never let a probe of ours stand beside one of the user's that
//! means the same.

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// Page that every runtime serves.
const PATH: &str = "/healthz";
/// As in Kubeless.
const LIVENESS_DELAY: i32 = 3;
const LIVENESS_PERIOD: i32 = 30;
/// Ready pods are looked at often: a function that cannot answer must soon get no more calls.
const READINESS_PERIOD: i32 = 5;
/// A start may take 60 times 2 seconds (compiled and virtual-machine runtimes); until then liveness is not asked.
const STARTUP_PERIOD: i32 = 2;
const STARTUP_FAILURES: i32 = 60;
const TIMEOUT: i32 = 3;

/// Fills in the probes that the container does not have: liveness from the runtime or the usual one, the others by
/// asking the same question.
pub fn fill_in(container: &mut Container, runtime: Option<&Probe>, port: u16) {
    let usual = || Probe {
        http_get: Some(HTTPGetAction {
            path: Some(PATH.to_owned()),
            port: IntOrString::Int(i32::from(port)),
            ..HTTPGetAction::default()
        }),
        initial_delay_seconds: Some(LIVENESS_DELAY),
        period_seconds: Some(LIVENESS_PERIOD),
        timeout_seconds: Some(TIMEOUT),
        ..Probe::default()
    };
    let liveness = container.liveness_probe.get_or_insert_with(|| runtime.cloned().unwrap_or_else(usual));
    let question = Probe {
        exec: liveness.exec.clone(),
        grpc: liveness.grpc.clone(),
        http_get: liveness.http_get.clone(),
        tcp_socket: liveness.tcp_socket.clone(),
        timeout_seconds: liveness.timeout_seconds,
        ..Probe::default()
    };
    container
        .readiness_probe
        .get_or_insert_with(|| Probe { period_seconds: Some(READINESS_PERIOD), ..question.clone() });
    container.startup_probe.get_or_insert(Probe {
        period_seconds: Some(STARTUP_PERIOD),
        failure_threshold: Some(STARTUP_FAILURES),
        ..question
    });
}
