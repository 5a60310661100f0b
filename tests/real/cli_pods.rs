//! `kubeless function call`, `logs`, `top`, `describe` and `--wait` with Pods that run: one that works and one that
//! does not start. What a controller would make is made by hand, so that only the command line is tested.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use super::support::{
    cli::Cli,
    cluster::{self, test_image},
    wait,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};

const LIMIT: Duration = Duration::from_secs(120);

const CODE: &str = r#"
import bottle, time

def main(event, context):
    data = event["data"] if isinstance(event["data"], dict) else {}
    print("called as", event["event-namespace"], event["event-id"], flush=True)
    if data.get("do") == "fail":
        raise ValueError("on purpose")
    if data.get("do") == "busy":
        return bottle.HTTPResponse(status=503, body="busy")
    if data.get("do") == "sleep":
        time.sleep(60)
    return {"data": data, "type": event["event-type"]}
"#;

/// The runtime's image, from what its Dockerfile says it is called.
fn image(archive: &Path) -> String {
    let manifest =
        std::process::Command::new("tar").arg("-xOf").arg(archive).arg("manifest.json").output().unwrap();
    let manifest: Value = serde_json::from_slice(&manifest.stdout).unwrap();
    manifest[0]["RepoTags"][0].as_str().unwrap().to_owned()
}

/// What the controller makes of a function, as far as the commands look at it.
fn workload(name: &str, image: &str, command: Option<&str>) -> String {
    let labels = json!({ "function": name, "created-by": "kubeless" });
    let mut container = json!({
        "name": name, "image": image, "imagePullPolicy": "Never",
        "env": [{ "name": "MOD_NAME", "value": "hello" }, { "name": "FUNC_HANDLER", "value": "main" },
                { "name": "FUNC_TIMEOUT", "value": "2" }],
        "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 },
        "volumeMounts": [{ "name": "code", "mountPath": "/kubeless" }],
    });
    if let Some(command) = command {
        container["command"] = json!(["sh", "-c", command]);
    }
    let pod = json!({ "terminationGracePeriodSeconds": 1, "containers": [container],
                      "volumes": [{ "name": "code", "configMap": { "name": name } }] });
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "hello.py": CODE } },
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "labels": labels },
          "spec": { "selector": labels, "ports": [{ "name": "http-function-port", "port": 8080 }] } },
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "labels": labels },
          "spec": { "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": pod } } },
    ] });
    list.to_string()
}

#[test]
fn a_running_function_is_called_read_and_measured() {
    let cluster = cluster::shared();
    let archive = test_image(&["python"]);
    cluster.load(&archive);
    cluster.install_crds();
    let cli = Cli::new(&cluster.kubeconfig(), &cluster.namespace("cli"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hello.py");
    fs::write(&file, CODE).unwrap();
    let file = file.display().to_string();
    cli.ok(&[
        "function",
        "deploy",
        "hello",
        "-r",
        "python3.11",
        "--handler",
        "hello.main",
        "-f",
        &file,
        "--timeout",
        "2",
    ]);
    cli.refused(&["function", "call", "hello"], 1, &["has no Service yet"]);
    cli.refused(&["function", "logs", "hello"], 1, &["has no Pod"]);
    cluster.apply(&cli.namespace, &workload("hello", &image(&archive), None));
    cluster.rolled_out(&cli.namespace, "deployment/hello");

    // Answers are the function's bytes, whatever they are.
    let answer: Value =
        serde_json::from_str(&cli.ok(&["function", "call", "hello", "--data", r#"{"n":1}"#])).unwrap();
    assert_eq!(answer, json!({ "data": { "n": 1 }, "type": "application/json" }));
    let run = cli.run_with_input(
        &["function", "call", "hello", "--data", "@-", "-H", "event-id: from-stdin"],
        r#"{"n":2}"#,
    );
    assert!(run.code == 0 && run.out.contains("\"n\": 2"), "{}{}", run.out, run.err);
    assert_eq!(cli.run(&["function", "call", "hello"]).code, 0, "without data it is a GET");

    // Errors say what they are, and how sure one can be.
    let run = cli.run(&["function", "call", "hello", "-d", r#"{"do":"fail"}"#]);
    assert!(run.code == 3 && run.err.contains("answered 500"), "{} {}", run.code, run.err);
    let run = cli.run(&["function", "call", "hello", "-d", r#"{"do":"busy"}"#]);
    assert!(
        run.code == 3 && run.out == "busy" && run.err.contains("answered 503"),
        "{} {}",
        run.code,
        run.err
    );
    let run = cli.run(&["function", "call", "hello", "-d", r#"{"do":"sleep"}"#]);
    assert!(
        run.code == 3 && run.err.contains("408") && run.err.contains("timeout"),
        "{} {}",
        run.code,
        run.err
    );
    cli.refused(
        &["function", "call", "hello", "-d", r#"{"do":"sleep"}"#, "--timeout", "500ms"],
        4,
        &["may have run"],
    );

    // A 503 is what API clients like to repeat; this one was one call.
    let top: Value = wait::until("the last call to be counted", LIMIT, || {
        let top: Value = serde_json::from_str(&cli.ok(&["function", "top", "-o", "json"])).unwrap();
        let row = top["items"].as_array()?.iter().find(|row| row["method"] == "POST")?.clone();
        (row["total_calls"] == 6).then_some(row)
    });
    assert_eq!((&top["function"], &top["total_failures"]), (&json!("hello"), &json!(4)));
    let run = cli.run(&["function", "top", "-f", "hello"]);
    assert!(run.out.starts_with("NAME") && run.err.contains("metrics-server"), "{}{}", run.out, run.err);

    let logs = cli.ok(&["function", "logs", "hello"]);
    assert!(logs.contains("called as cli.kubeless.io from-stdin") && logs.contains("on purpose"), "{logs}");
    assert_eq!(cli.ok(&["function", "logs", "hello", "--tail", "1"]).lines().count(), 1);
    let mut following = cli.start(dir.path(), &["function", "logs", "hello", "-f", "--since", "1h"]);
    wait::until("what was written before", LIMIT, || following.output().contains("from-stdin").then_some(()));
    cluster.kubectl(&["scale", "deployment/hello", "--replicas=2", "-n", &cli.namespace]);
    cluster.rolled_out(&cli.namespace, "deployment/hello");
    let pods = cluster.kubectl(&["get", "pods", "-n", &cli.namespace, "-o", "name"]);
    for pod in pods.lines().filter_map(|line| line.strip_prefix("pod/")) {
        wait::until(&format!("lines of {pod}"), LIMIT, || following.output().contains(pod).then_some(()));
    }
    following.signal(Signal::INT);
    assert_eq!(following.wait_exit(LIMIT).code(), Some(130));

    let described = cli.ok(&["function", "describe", "hello"]);
    for part in ["2/2 READY", "Running", "replicaset/hello-", "Timeout:       2 s"] {
        assert!(described.contains(part), "{part:?} is missing in\n{described}");
    }
}

#[test]
fn a_function_that_does_not_start_is_explained() {
    let cluster = cluster::shared();
    let archive = test_image(&["python"]);
    cluster.load(&archive);
    cluster.install_crds();
    let cli = Cli::new(&cluster.kubeconfig(), &cluster.namespace("cli"));
    let dir = tempfile::tempdir().unwrap();
    cli.ok(&["function", "deploy", "broken", "--runtime-image", "x:1"]);
    let command = "echo cannot find the moon >&2; exit 7";
    cluster.apply(&cli.namespace, &workload("broken", &image(&archive), Some(command)));
    let trouble = || {
        let text = cli.ok(&["function", "describe", "broken"]);
        (text.contains("exit code 7") && text.contains("CrashLoopBackOff")).then_some(text)
    };
    let described = wait::until("the crash to be seen", LIMIT, trouble);
    assert!(described.contains("NOT READY"), "{described}");
    let mut waiting = cli.start(dir.path(), &["function", "update", "broken", "--env", "A=1", "--wait=1s"]);
    assert_eq!(waiting.wait_exit(LIMIT).code(), Some(4));
    let text = waiting.output();
    for part in
        ["is not ready after 1s", "exit code 7", "event ", "last lines of broken-", "cannot find the moon"]
    {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    cli.refused(&["function", "call", "broken"], 1, &["no Pod of broken is ready"]);
}
