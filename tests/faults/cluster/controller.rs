//! The controller dies at every step of a Function's reconcile, when it makes one and when it changes one. Whatever was half done,
//! the installed controller ends it. Must never let a controller that survives help the one that dies.

use super::stage::{LIMIT, installation};
use crate::support::{
    cli::Cli,
    installed::{self, Installation},
    spawn::{self, Running},
    wait,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt;

/// Points and passages at which a controller dies that makes a Function with an autoscaler: before each of its four objects, after
/// the last, before the status.
const MAKING: [(&str, u32); 6] = [
    ("controller_before_apply", 1),
    ("controller_before_apply", 2),
    ("controller_before_apply", 3),
    ("controller_before_apply", 4),
    ("controller_after_apply", 4),
    ("controller_before_status", 1),
];
/// The same for one that brings new code: code, Deployment, status, status again, and the removal of the old code.
const CHANGING: [(&str, u32); 6] = [
    ("controller_before_apply", 1),
    ("controller_before_apply", 2),
    ("controller_after_apply", 2),
    ("controller_before_status", 1),
    ("controller_before_status", 2),
    ("controller_before_delete", 1),
];
/// What is made of a Function, by way of a Deployment or not.
const KINDS: &str = "configmaps,services,deployments,horizontalpodautoscalers,replicasets,pods";

struct Cases<'a> {
    installed: &'a Installation,
    /// One for each case, so that a controller meets its own Function only.
    namespaces: Vec<String>,
    dir: tempfile::TempDir,
}

#[test]
fn a_controller_killed_at_any_step_leaves_nothing_half_done_doubled_or_orphaned() {
    let installed = &*installation();
    let namespaces = MAKING.iter().map(|_| installed.strict_namespace("killed-controller")).collect();
    let cases = Cases { installed, namespaces, dir: tempfile::tempdir().unwrap() };
    for (round, points) in [("made", MAKING), ("changed", CHANGING)] {
        cases.controllers(0);
        for (namespace, point) in cases.namespaces.iter().zip(points) {
            cases.write(namespace, round);
            cases.kill_at(namespace, point);
        }
        cases.controllers(2);
        for (namespace, point) in cases.namespaces.iter().zip(points) {
            cases.whole(namespace, round, point);
        }
    }
    for namespace in &cases.namespaces {
        let cluster = &installed.cluster;
        cluster.kubectl(&["delete", "functions.kubeless.io/f", "-n", namespace]);
        wait::until("everything to go with its function", LIMIT, || {
            cases.made(namespace).is_empty().then_some(())
        });
        cluster.kubectl(&["delete", "namespace", namespace, "--wait=false"]);
    }
}

impl Cases<'_> {
    /// So many installed controllers, no more and no less.
    fn controllers(&self, count: usize) {
        let replicas = format!("--replicas={count}");
        let (cluster, controller) = (&self.installed.cluster, installed::DEPLOYMENTS[0]);
        cluster.kubectl(&["scale", controller, &replicas, "-n", installed::NAMESPACE]);
        cluster.rolled_out(installed::NAMESPACE, controller);
        let label = "-l=app.kubernetes.io/name=kubeless-controller";
        wait::until("the controllers that are asked for", LIMIT, || {
            let pods = cluster.kubectl(&["get", "pods", "-n", installed::NAMESPACE, label, "-o", "name"]);
            (pods.lines().count() == count).then_some(())
        });
    }

    /// A Function whose answer is `word`.
    fn write(&self, namespace: &str, word: &str) {
        let code = format!("def main(event, context):\n    return '{word}'\n");
        let scaler = json!({"metadata": {"name": "f"}, "spec": {"minReplicas": 1, "maxReplicas": 2,
            "scaleTargetRef": {"kind": "Deployment", "name": "f"}, "targetCPUUtilizationPercentage": 80}});
        let spec = json!({"runtime": "python3.11", "handler": "f.main", "function": code, "timeout": "20",
            "horizontalPodAutoscaler": scaler});
        let object = json!({"apiVersion": "kubeless.io/v1beta1", "kind": "Function", "metadata": {"name": "f"}, "spec": spec});
        self.installed.cluster.apply(namespace, &object.to_string());
    }

    /// Runs a controller for one namespace, with the rights of the installed one, until it dies.
    fn kill_at(&self, namespace: &str, (point, passage): (&str, u32)) {
        let account = self.installed.cluster.service_account(installed::NAMESPACE, "kubeless-controller");
        let mut command = spawn::bound_command(env!("CARGO_BIN_EXE_kubeless-controller"));
        command.args(["--namespace", installed::NAMESPACE, "--config-map", "kubeless-config"]);
        command.args(["--functions-namespace", namespace, "--leader-elect", "false"]);
        command.args(["--admin-listen", "127.0.0.1:0", "--image", &self.image()]);
        command.env("KUBECONFIG", account).env("KUBELESS_POINT", format!("{point}:{passage}"));
        let log = self.dir.path().join(format!("{namespace}.log"));
        let ended = Running::start("controller", command, log).wait_exit(LIMIT);
        assert_eq!(ended.signal(), Some(Signal::KILL.as_raw()), "{point}:{passage}");
        let made = self.made(namespace);
        println!("{point}:{passage}: {:?}", made.iter().map(|object| &object["kind"]).collect::<Vec<_>>());
    }

    /// The image that the installed controller lets functions prepare themselves with: another one would roll their Pods.
    fn image(&self) -> String {
        let found = self.installed.cluster.get(installed::NAMESPACE, installed::DEPLOYMENTS[0]);
        let container = &found["spec"]["template"]["spec"]["containers"][0];
        container["image"].as_str().expect("an image").to_owned()
    }

    /// Everything that a Function has, in a namespace that holds one.
    fn made(&self, namespace: &str) -> Vec<Value> {
        let text = self.installed.cluster.kubectl(&[
            "get",
            KINDS,
            "-l=created-by=kubeless",
            "-n",
            namespace,
            "-o=json",
        ]);
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Ready, answers with its code, and has one of each.
    fn whole(&self, namespace: &str, word: &str, point: (&str, u32)) {
        let cluster = &self.installed.cluster;
        let function = wait::try_until(LIMIT, || {
            let found = cluster.get(namespace, "functions.kubeless.io/f");
            let conditions = found["status"]["conditions"].as_array()?;
            let all = conditions.iter().all(|one| one["status"] == "True" && one["reason"] != "RollingOut");
            let seen = found["status"]["observedGeneration"] == found["metadata"]["generation"];
            (all && seen && conditions.iter().any(|one| one["type"] == "Ready")).then_some(found)
        });
        let function = function.unwrap_or_else(|| {
            let told = cluster.kubectl(&["describe", "functions.kubeless.io,pods", "-n", namespace]);
            panic!("{point:?}: not Ready\n{told}")
        });
        let cli = Cli::new(&cluster.kubeconfig(), namespace);
        assert_eq!(cli.ok(&["function", "call", "f"]).trim(), word, "{point:?}");
        let mut last = Vec::new();
        let single = wait::try_until(LIMIT, || {
            last = self.made(namespace);
            // Those of the code before are kept, without Pods.
            last.retain(|object| object["kind"] != "ReplicaSet" || object["spec"]["replicas"] != 0);
            (last.len() == KINDS.split(',').count()).then_some(())
        });
        let names: Vec<_> = last.iter().map(|one| (&one["kind"], &one["metadata"]["name"])).collect();
        assert!(single.is_some(), "{point:?}: not one of each: {names:?}");
        for object in last.iter().filter(|object| object["kind"] != "ReplicaSet" && object["kind"] != "Pod") {
            let owners = &object["metadata"]["ownerReferences"];
            assert_eq!(owners[0]["uid"], function["metadata"]["uid"], "{point:?}: {}", object["kind"]);
        }
        let sets = cluster.get(namespace, "replicasets");
        let wanted = if word == "made" { 1 } else { 2 };
        assert_eq!(sets["items"].as_array().map(Vec::len), Some(wanted), "{point:?}: a rollout too many");
    }
}
