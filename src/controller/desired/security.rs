//! What the Pods of functions may do: defaults that pass Pod Security *restricted*, and the floor below which no Function
//! is deployed, whoever wrote it. Must never weaken what a user made stricter.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
};

use crate::api::Violation;

/// User and group of functions, as in Kubeless.
const USER: i64 = 1000;
/// Capabilities that *baseline* lets a container add.
const HARMLESS: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Kernel settings that *baseline* lets a Pod change.
const SAFE_SYSCTLS: [&str; 10] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
];

/// How far a function's Deployment template may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Floor {
    /// Whatever the API server takes.
    Privileged,
    /// Nothing that reaches the node: no host namespaces, paths or ports, no privileges, no strong capabilities.
    #[default]
    Baseline,
}

/// Fills in what the Pod leaves open. A security context that is there, even an empty one, is the Pod's own: platforms
/// that choose users by themselves need it empty.
pub fn fill_in(pod: &mut PodSpec) {
    pod.security_context.get_or_insert_with(|| PodSecurityContext {
        run_as_user: Some(USER),
        fs_group: Some(USER),
        run_as_non_root: Some(true),
        ..PodSecurityContext::default()
    });
    if let Some(context) = &mut pod.security_context {
        let runtime_default =
            || SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() };
        context.seccomp_profile.get_or_insert_with(runtime_default);
    }
    let as_root = pod.security_context.as_ref().is_some_and(|context| context.run_as_user == Some(0));
    for container in pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten()) {
        fill_in_container(container, as_root);
    }
    // A token that nobody asked for is a token that can be stolen.
    if pod.service_account_name.as_ref().is_none_or(String::is_empty) {
        pod.automount_service_account_token.get_or_insert(false);
    }
}

fn fill_in_container(container: &mut Container, as_root: bool) {
    let context = container.security_context.get_or_insert_with(SecurityContext::default);
    let privileged = context.privileged == Some(true);
    if !privileged {
        context.allow_privilege_escalation.get_or_insert(false);
        let capabilities = context.capabilities.get_or_insert_with(Capabilities::default);
        capabilities.drop.get_or_insert_with(|| vec!["ALL".to_owned()]);
    }
    if !as_root && context.run_as_user != Some(0) {
        context.run_as_non_root.get_or_insert(true);
    }
}

/// Everything in a finished Pod that lies below the floor. `at` is where its template stands.
pub fn below(floor: Floor, pod: &PodSpec, at: &str) -> Vec<Violation> {
    if floor == Floor::Privileged {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut say = |path: String, what: &str| {
        let fix = "remove it, or have the operator start the controller with --pod-security privileged";
        found.push(Violation::new(format!("{at}{path}"), format!("{what} would reach the node"), fix));
    };
    let host = [("hostNetwork", pod.host_network), ("hostPID", pod.host_pid), ("hostIPC", pod.host_ipc)];
    for (name, _) in host.iter().filter(|(_, value)| *value == Some(true)) {
        say(format!("/{name}"), name);
    }
    for (index, volume) in pod.volumes.iter().flatten().enumerate() {
        if volume.host_path.is_some() {
            say(format!("/volumes/{index}/hostPath"), "a hostPath volume");
        }
    }
    if let Some(context) = &pod.security_context {
        for (index, sysctl) in context.sysctls.iter().flatten().enumerate() {
            if !SAFE_SYSCTLS.contains(&sysctl.name.as_str()) {
                say(format!("/securityContext/sysctls/{index}"), "a sysctl outside the safe list");
            }
        }
        if context.seccomp_profile.as_ref().is_some_and(|profile| profile.type_ == "Unconfined") {
            say("/securityContext/seccompProfile".to_owned(), "no seccomp profile");
        }
    }
    for (list, containers) in
        [("containers", Some(&pod.containers)), ("initContainers", pod.init_containers.as_ref())]
    {
        for (index, container) in containers.into_iter().flatten().enumerate() {
            for (path, what) in below_in_container(container) {
                say(format!("/{list}/{index}{path}"), what);
            }
        }
    }
    found
}

fn below_in_container(container: &Container) -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    let ports = container.ports.iter().flatten();
    if ports.filter_map(|port| port.host_port).any(|port| port != 0) {
        found.push(("/ports", "a hostPort"));
    }
    let Some(context) = &container.security_context else { return found };
    if context.privileged == Some(true) {
        found.push(("/securityContext/privileged", "a privileged container"));
    }
    let added = context.capabilities.iter().flat_map(|sets| sets.add.iter().flatten());
    if added.into_iter().any(|name| !HARMLESS.contains(&name.trim_start_matches("CAP_"))) {
        found.push(("/securityContext/capabilities/add", "a strong capability"));
    }
    if context.proc_mount.as_deref().is_some_and(|mount| mount != "Default") {
        found.push(("/securityContext/procMount", "an unmasked /proc"));
    }
    if context.seccomp_profile.as_ref().is_some_and(|profile| profile.type_ == "Unconfined") {
        found.push(("/securityContext/seccompProfile", "no seccomp profile"));
    }
    found
}
