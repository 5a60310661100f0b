//! `kubeless` against a real API server: what it writes, what it prints, whom it refuses and in which words. Nothing runs
//! Pods here. Must never assert how long a command took: that is printed.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use super::support::{
    apiserver::{self, ApiServer},
    cli::Cli,
    kubectl::Access,
    wait,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{fs, net::TcpListener, sync::LazyLock, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);
const CODE: &str = "def main(event, context):\n    return 'hello'\n";

/// A function as Kubeless 1.0 stored it, with parts that no flag knows.
const STORED: &str = r#"
apiVersion: kubeless.io/v1beta1
kind: Function
metadata:
  name: stored
  labels: {created-by: kubeless, function: stored, team: a}
  annotations: {kept: "yes"}
  finalizers: [kubeless.io/function]
spec:
  handler: handler.hello
  function: "def hello(event, context): return 1"
  function-content-type: text
  checksum: sha256:0000000000000000000000000000000000000000000000000000000000000000
  runtime: python3.8
  timeout: "60"
  deps: requests
  service:
    ports: [{name: http-function-port, port: 80, targetPort: 9000, nodePort: 0, protocol: TCP}]
    selector: {function: stored}
    type: ClusterIP
  deployment:
    metadata: {creationTimestamp: null}
    spec:
      strategy: {}
      template:
        metadata: {creationTimestamp: null, annotations: {mesh: "off"}}
        spec:
          nodeSelector: {disk: ssd}
          containers:
          - name: stored
            imagePullPolicy: IfNotPresent
            env: [{name: A, value: "1"}, {name: B, valueFrom: {secretKeyRef: {name: s, key: k}}}]
            resources: {limits: {memory: 64Mi}, requests: {memory: 64Mi}}
          - {name: beside, image: "side:1"}
    status: {}
"#;

static API: LazyLock<&'static ApiServer> = LazyLock::new(|| {
    let api = apiserver::shared();
    api.install_crds();
    api
});

/// A namespace of its own, with a file `hello.py`.
fn place(prefix: &str) -> (&'static ApiServer, Cli, tempfile::TempDir) {
    let api = *API;
    let mut cli = Cli::new(&api.kubeconfig(), &api.namespace(prefix));
    // Where the programs would run: nowhere, unless a test says otherwise.
    cli.environment.push(("KUBELESS_NAMESPACE".to_owned(), cli.namespace.clone()));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("hello.py"), CODE).unwrap();
    (api, cli, dir)
}

fn deploy(cli: &Cli, dir: &tempfile::TempDir, name: &str, more: &[&str]) -> String {
    let file = dir.path().join("hello.py").display().to_string();
    let base = ["function", "deploy", name, "-r", "python3.11", "--handler", "hello.main", "-f", &file];
    cli.ok(&[&base[..], more].concat())
}

fn stored(api: &Access, cli: &Cli, what: &str) -> Value {
    api.get(&cli.namespace, what)
}

fn set_status(api: &Access, cli: &Cli, name: &str, status: &Value) {
    let patch = json!({ "status": status }).to_string();
    let what = format!("function/{name}");
    api.kubectl(&[
        "patch",
        &what,
        "-n",
        &cli.namespace,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ]);
}

fn condition(kind: &str, status: &str, reason: &str, generation: i64) -> Value {
    json!({ "type": kind, "status": status, "reason": reason, "message": "because", "observedGeneration": generation,
            "lastTransitionTime": "2026-01-01T00:00:00Z" })
}

#[test]
fn deploy_stores_what_a_dry_run_shows_and_never_replaces() {
    let (api, cli, dir) = place("deploy");
    let flags = ["-l", "topic=orders", "-e", "A=1", "--memory", "64Mi", "--schedule", "*/5 * * * *"];
    let dry = |place: &str| -> Vec<Value> {
        let text = deploy(&cli, &dir, "hello", &[&flags[..], &[place, "-o", "json"]].concat());
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().unwrap().clone()
    };
    let (client, server) = (dry("--dry-run=client"), dry("--dry-run=server"));
    assert_eq!(client[0]["spec"], server[0]["spec"]);
    assert_eq!(server[1]["spec"]["concurrencyPolicy"], "Allow", "the server shows its defaults");
    cli.refused(
        &["function", "describe", "hello"],
        1,
        &["not found", "there is no function in this namespace"],
    );

    let printed = deploy(&cli, &dir, "hello", &flags);
    assert_eq!(printed, "function.kubeless.io/hello created\ncronjobtrigger.kubeless.io/hello created\n");
    assert_eq!(stored(api, &cli, "function/hello")["spec"], client[0]["spec"]);
    assert_eq!(stored(api, &cli, "function/hello")["metadata"]["labels"], client[0]["metadata"]["labels"]);
    assert_eq!(stored(api, &cli, "cronjobtrigger/hello")["spec"]["function-name"], "hello");

    let before = stored(api, &cli, "function/hello");
    cli.refused(
        &["function", "deploy", "hello", "--runtime-image", "other:1"],
        1,
        &["exists already", "update"],
    );
    assert_eq!(stored(api, &cli, "function/hello"), before);
}

#[test]
fn update_changes_what_is_named_and_nothing_else() {
    type Edit = fn(&mut Value);
    const CONTAINER: &str = "/spec/deployment/spec/template/spec/containers/0";
    let (api, cli, dir) = place("update");
    api.apply(&cli.namespace, STORED);
    let file = dir.path().join("hello.py").display().to_string();
    let cases: [(&[&str], Edit); 8] = [
        (&["--timeout", "30"], |f| f["spec"]["timeout"] = "30".into()),
        (&["--env", "A=2", "-e", "C=3"], |f| {
            let env = f.pointer_mut(&format!("{CONTAINER}/env")).unwrap();
            env[0]["value"] = "2".into();
            env.as_array_mut().unwrap().push(json!({ "name": "C", "value": "3" }));
        }),
        (&["--env", "C-"], |f| {
            f.pointer_mut(&format!("{CONTAINER}/env")).unwrap().as_array_mut().unwrap().pop();
        }),
        (&["--port", "7000"], |f| f["spec"]["service"]["ports"][0]["targetPort"] = 7000.into()),
        (&["--label", "team=b,new=1"], |f| {
            f["metadata"]["labels"]["team"] = "b".into();
            f["metadata"]["labels"]["new"] = "1".into();
        }),
        (&["--dependencies", ""], |f| drop(f["spec"].as_object_mut().unwrap().remove("deps"))),
        (&["--secrets", "db"], |f| {
            let pod = f.pointer_mut("/spec/deployment/spec/template/spec").unwrap();
            pod["volumes"] = json!([{ "name": "db-vol", "secret": { "secretName": "db" } }]);
            pod["containers"][0]["volumeMounts"] = json!([{ "name": "db-vol", "mountPath": "/db" }]);
        }),
        (&["--from-file", &file], |f| {
            f["spec"]["function"] = CODE.into();
            f["spec"]["checksum"] =
                "sha256:d98bba1dd2a6dad5f7b3dc17b3dbc3c8bd75cdd5b6bbcb4ce1f20bd6c3d8fc22".into();
        }),
    ];
    for (flags, edit) in cases {
        let mut wanted = stored(api, &cli, "function/stored");
        edit(&mut wanted);
        let text = cli.ok(&[&["function", "update", "stored"], flags].concat());
        assert_eq!(text, "function.kubeless.io/stored changed\n");
        let found = stored(api, &cli, "function/stored");
        if flags[0] == "--from-file" {
            wanted["spec"]["checksum"] = found["spec"]["checksum"].clone();
        }
        assert_eq!(found["spec"], wanted["spec"], "{flags:?}");
        for field in ["labels", "annotations", "finalizers"] {
            assert_eq!(found["metadata"][field], wanted["metadata"][field], "{flags:?}");
        }
        // Once more is no change at all.
        let text = cli.ok(&[&["function", "update", "stored"], flags].concat());
        assert_eq!(text, "function.kubeless.io/stored unchanged\n");
        assert_eq!(stored(api, &cli, "function/stored"), found);
    }
    let before = stored(api, &cli, "function/stored");
    let text = cli.ok(&["function", "update", "stored", "--timeout", "5", "--dry-run=server", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["spec"]["timeout"], "5");
    cli.refused(&["function", "update", "stored", "--timeout", "x"], 2, &["spec.timeout", "whole seconds"]);
    cli.refused(&["function", "update", "store", "--timeout", "5"], 1, &["did you mean stored?"]);
    assert_eq!(stored(api, &cli, "function/stored"), before);
    // Nothing may hang in the shared server: the finalizer's owner does not run here.
    api.kubectl(&[
        "patch",
        "function/stored",
        "-n",
        &cli.namespace,
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":[]}}"#,
    ]);
}

#[test]
fn updates_side_by_side_lose_nothing() {
    let (api, cli, dir) = place("conflict");
    deploy(&cli, &dir, "hello", &[]);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let cli = &cli;
            scope.spawn(move || {
                let variable = format!("V{writer}=1");
                let run = cli.run(&["function", "update", "hello", "--env", &variable]);
                // Five attempts are enough for four writers: each conflict means that another one got through.
                assert_eq!(run.code, 0, "{}", run.err);
            });
        }
    });
    let function = stored(api, &cli, "function/hello");
    let env = function.pointer("/spec/deployment/spec/template/spec/containers/0/env").unwrap();
    let mut names: Vec<&str> =
        env.as_array().unwrap().iter().filter_map(|entry| entry["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["V0", "V1", "V2", "V3"]);
}

#[test]
fn lists_in_every_format() {
    let (api, cli, dir) = place("list");
    assert_eq!(cli.ok(&["function", "list"]), "");
    assert!(cli.run(&["function", "list"]).err.contains("-A looks everywhere"));
    deploy(&cli, &dir, "one", &["-l", "topic=a"]);
    deploy(&cli, &dir, "two", &["--memory", "64Mi", "-e", "X=1"]);
    let ready = json!({ "replicas": 1, "readyReplicas": 1, "conditions": [condition("Ready", "True", "AllGood", 1)] });
    set_status(api, &cli, "one", &ready);
    let table = cli.ok(&["function", "list"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "NAMESPACE", "HANDLER", "RUNTIME", "DEPENDENCIES", "STATUS", "AGE"]);
    assert_eq!(lines[1][..6], ["one", &cli.namespace, "hello.main", "python3.11", "<none>", "1/1"]);
    assert_eq!(lines[1][6], "READY");
    assert_eq!(lines[2][5], "MISSING:");
    let wide = cli.ok(&["function", "ls", "--out", "wide"]);
    assert!(wide.contains("MEMORY") && wide.contains("64Mi") && wide.contains("X=1"), "{wide}");
    assert_eq!(
        cli.ok(&["function", "list", "-o", "name"]),
        "function.kubeless.io/one\nfunction.kubeless.io/two\n"
    );
    let list: Value = serde_json::from_str(&cli.ok(&["function", "list", "-o", "json"])).unwrap();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("List"), &json!("v1")));
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert!(list["items"][0]["metadata"]["managedFields"].is_null());
    let yaml: Value = serde_saphyr::from_str(&cli.ok(&["function", "list", "-o", "yaml"])).unwrap();
    assert_eq!(yaml, list);
    assert_eq!(cli.ok(&["function", "list", "-l", "topic=a", "-o", "name"]), "function.kubeless.io/one\n");
    assert_eq!(cli.ok(&["function", "list", "two", "-o", "name"]), "function.kubeless.io/two\n");
    cli.refused(&["function", "list", "twoo"], 1, &["did you mean two?"]);
    let everywhere = Cli { namespace: String::new(), ..cli.clone() };
    assert!(everywhere.ok(&["function", "list", "-A"]).contains(&cli.namespace));
    let described = cli.ok(&["function", "describe", "one"]);
    for part in ["Handler:       hello.main", "topic=a", "Status:        1/1 READY", "Ready  True    AllGood"]
    {
        assert!(described.contains(part), "{part:?} is missing in\n{described}");
    }
    let json: Value = serde_json::from_str(&cli.ok(&["function", "describe", "one", "-o", "json"])).unwrap();
    assert_eq!(json["metadata"]["name"], "one");
}

#[test]
fn a_list_goes_on_with_what_changes_until_ctrl_c() {
    let (api, cli, dir) = place("watch");
    deploy(&cli, &dir, "one", &[]);
    let mut watching = cli.start(dir.path(), &["function", "list", "-w"]);
    let mut names = cli.start(dir.path(), &["function", "list", "-w", "-o", "name"]);
    let mut documents = cli.start(dir.path(), &["function", "list", "-w", "-o", "json"]);
    let line = |process: &super::support::spawn::Running, words: &[&str]| {
        wait::until(&format!("a line with {words:?}"), LIMIT, || {
            let text = process.output();
            text.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
    };
    line(&watching, &["one", "MISSING"]);
    let ready = json!({ "replicas": 1, "readyReplicas": 1, "conditions": [condition("Ready", "True", "AllGood", 1)] });
    set_status(api, &cli, "one", &ready);
    line(&watching, &["one", "1/1 READY"]);
    deploy(&cli, &dir, "two", &[]);
    line(&watching, &["two", "MISSING"]);
    assert_eq!(cli.ok(&["function", "delete", "one"]), "function.kubeless.io/one deleted\n");
    line(&watching, &["one", "DELETED"]);
    line(&names, &["function.kubeless.io/two"]);
    line(&documents, &["\"name\":\"two\""]);
    for process in [&mut watching, &mut names, &mut documents] {
        process.signal(Signal::INT);
        assert_eq!(process.wait_exit(LIMIT).code(), Some(130));
    }
    let text = watching.output();
    assert_eq!(text.lines().filter(|line| line.starts_with("NAME")).count(), 1, "{text}");
    assert_eq!(text.lines().count(), 5, "head, one, one ready, two, one deleted: {text}");
    let objects = documents.output();
    assert!(objects.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{objects}");
}

#[test]
fn deletion_says_what_became_of_each_name() {
    let (api, cli, dir) = place("delete");
    deploy(&cli, &dir, "first", &[]);
    deploy(&cli, &dir, "second", &[]);
    assert_eq!(
        cli.ok(&["function", "delete", "first", "--dry-run"]),
        "function.kubeless.io/first deleted (dry run)\n"
    );
    let text = cli.ok(&["function", "delete", "first", "--dry-run=server"]);
    assert_eq!(text, "function.kubeless.io/first deleted (server dry run)\n");
    let run = cli.run(&["function", "delete", "fisrt", "second"]);
    assert_eq!((run.code, run.out.as_str()), (1, "function.kubeless.io/second deleted\n"));
    assert!(run.err.contains("did you mean first?"), "{}", run.err);
    assert_eq!(cli.ok(&["function", "delete", "second", "--ignore-not-found"]), "");
    api.kubectl(&[
        "patch",
        "function/first",
        "-n",
        &cli.namespace,
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":["kubeless.io/function"]}}"#,
    ]);
    let run = cli.run(&["function", "delete", "first"]);
    assert_eq!((run.code, run.out.as_str()), (0, "function.kubeless.io/first deleted\n"));
    assert!(run.err.contains("kubeless.io/function"), "{}", run.err);
    assert!(cli.ok(&["function", "list"]).contains("DELETING"));
    api.kubectl(&[
        "patch",
        "function/first",
        "-n",
        &cli.namespace,
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":[]}}"#,
    ]);
}

#[test]
fn triggers_live_and_die() {
    let (api, cli, _dir) = place("triggers");
    let create = [
        "trigger",
        "kafka",
        "create",
        "orders",
        "--trigger-topic",
        "orders",
        "--function-selector",
        "topic=orders",
    ];
    assert_eq!(cli.ok(&create), "kafkatrigger.kubeless.io/orders created\n");
    cli.refused(&create, 1, &["exists already"]);
    let before = stored(api, &cli, "kafkatrigger/orders")["spec"].clone();
    assert_eq!(before["topic"], "orders");
    assert_eq!(
        cli.ok(&["trigger", "kafka", "update", "orders", "--paused"]),
        "kafkatrigger.kubeless.io/orders changed\n"
    );
    let mut wanted = before;
    wanted["paused"] = true.into();
    assert_eq!(stored(api, &cli, "kafkatrigger/orders")["spec"], wanted);
    let table = cli.ok(&["trigger", "kafka", "list"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1][..4], ["orders", &cli.namespace, "orders", "topic=orders"]);
    cli.refused(&["trigger", "kafka", "update", "order", "--paused"], 1, &["did you mean orders?"]);
    let events =
        json!({"received": 7, "inFlight": 1, "outcomes": {"delivered": 4, "failed": 2}, "replicas": 2});
    let said = json!({"status": {"functions": 3, "events": events,
        "conditions": [condition("Ready", "False", "Paused", 2)]}});
    let object =
        ["patch", "kafkatrigger/orders", "-n", &cli.namespace, "--subresource=status", "--type=merge", "-p"];
    api.kubectl(&[&object[..], &[&said.to_string()]].concat());
    let described = cli.ok(&["trigger", "kafka", "describe", "orders"]);
    let words: Vec<Vec<&str>> = described.lines().map(|line| line.split_whitespace().collect()).collect();
    for line in [
        &["Topic:", "orders"][..],
        &["Functions:", "3"],
        &["received", "7"],
        &["failed", "2"],
        &["in", "flight", "1"],
    ] {
        assert!(words.iter().any(|words| words == line), "{line:?} is missing in\n{described}");
    }
    assert!(words.iter().any(|words| words.starts_with(&["Ready", "False", "Paused"])), "{described}");
    cli.refused(&["trigger", "kafka", "describe", "order"], 1, &["did you mean orders?"]);
    assert_eq!(
        cli.ok(&["trigger", "kafka", "delete", "orders"]),
        "kafkatrigger.kubeless.io/orders deleted\n"
    );
    assert_eq!(cli.ok(&["trigger", "kafka", "list", "-o", "name"]), "");
}

#[test]
fn triggers_name_what_is_there() {
    let (api, cli, dir) = place("named");
    let cron = ["trigger", "cronjob", "create", "tick", "--function", "hello", "--schedule", "@hourly"];
    cli.refused(&cron, 1, &["function \"hello\" not found"]);
    deploy(&cli, &dir, "hello", &[]);
    assert_eq!(cli.ok(&cron), "cronjobtrigger.kubeless.io/tick created\n");
    let stream = [
        "trigger",
        "kinesis",
        "create",
        "clicks",
        "--function-name",
        "hello",
        "--stream",
        "s",
        "--aws-region",
        "eu-central-1",
        "--shard-id",
        "shardId-000000000000",
        "--secret",
        "aws",
    ];
    cli.refused(&stream, 1, &["no Secret \"aws\"", "create secret generic aws"]);
    api.kubectl(&[
        "create",
        "secret",
        "generic",
        "aws",
        "-n",
        &cli.namespace,
        "--from-literal=aws_access_key_id=a",
    ]);
    cli.ok(&stream);
    let update = ["trigger", "kinesis", "update", "clicks", "--shard-id", "shardId-000000000001"];
    assert_eq!(cli.ok(&update), "kinesistrigger.kubeless.io/clicks changed\n");
    assert!(
        cli.ok(&["trigger", "kinesis", "list"]).contains("eu-central-1  s       shardId-000000000001  hello")
    );
    // The server is at 127.0.0.1, of which nginx's default host name is made.
    cli.ok(&["trigger", "http", "create", "web", "--function-name", "hello"]);
    assert_eq!(stored(api, &cli, "httptrigger/web")["spec"]["host-name"], "hello.127.0.0.1.nip.io");
    cli.ok(&["trigger", "http", "update", "web", "--path", "greet"]);
    let table = cli.ok(&["trigger", "http", "list"]);
    assert!(table.contains("hello.127.0.0.1.nip.io  greet"), "{table}");
    let described = cli.ok(&["function", "describe", "hello"]);
    for part in ["CronJobTrigger  tick", "KinesisTrigger  clicks", "HTTPTrigger     web"] {
        assert!(described.contains(part), "{part:?} is missing in\n{described}");
    }
    assert_eq!(cli.ok(&["trigger", "http", "delete", "web"]), "httptrigger.kubeless.io/web deleted\n");
}

#[test]
fn autoscalers_are_part_of_their_functions() {
    let (api, cli, dir) = place("autoscale");
    deploy(&cli, &dir, "hello", &["-l", "team=a"]);
    let before = stored(api, &cli, "function/hello");
    let create =
        ["autoscale", "create", "hello", "--min", "2", "--max", "5", "--metric", "cpu", "--value", "70"];
    assert_eq!(cli.ok(&create), "function.kubeless.io/hello autoscaled\n");
    let mut wanted = before["spec"].clone();
    wanted["horizontalPodAutoscaler"] = json!({
        "metadata": { "name": "hello", "namespace": cli.namespace, "labels": before["metadata"]["labels"] },
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "hello" },
            "minReplicas": 2,
            "maxReplicas": 5,
            "metrics": [{ "type": "Resource", "resource": {
                "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 70 } } }],
        },
    });
    assert_eq!(stored(api, &cli, "function/hello")["spec"], wanted);
    assert_eq!(cli.ok(&create), "function.kubeless.io/hello unchanged\n");
    // What the controller makes of it is what is listed.
    let body = &wanted["horizontalPodAutoscaler"];
    let made = json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": body["spec"],
                       "metadata": { "name": "hello", "labels": { "created-by": "kubeless" } } });
    api.apply(&cli.namespace, &made.to_string());
    let table = cli.ok(&["autoscale", "list"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1][..7], ["hello", &cli.namespace, "hello", "2", "5", "cpu", "70%"]);
    assert_eq!(cli.ok(&["autoscale", "list", "-o", "name"]), "horizontalpodautoscaler.autoscaling/hello\n");
    cli.refused(&["autoscale", "create", "hello", "--max", "0", "--value", "1"], 2, &["--max"]);
    cli.refused(&["autoscale", "create", "helo", "--max", "3", "--value", "50"], 1, &["did you mean hello?"]);
    assert_eq!(
        cli.ok(&["autoscale", "delete", "hello"]),
        "function.kubeless.io/hello no longer autoscaled\n"
    );
    assert_eq!(stored(api, &cli, "function/hello")["spec"], before["spec"]);
    assert_eq!(cli.ok(&["autoscale", "delete", "hello"]), "function.kubeless.io/hello not autoscaled\n");
}

#[test]
fn who_may_not_is_told_what_to_ask_for() {
    let (api, cli, dir) = place("forbidden");
    let namespace = cli.namespace.as_str();
    deploy(&cli, &dir, "hello", &[]);
    api.kubectl(&["create", "serviceaccount", "dev", "-n", namespace]);
    api.kubectl(&[
        "create",
        "role",
        "see",
        "-n",
        namespace,
        "--verb=get,list",
        "--resource=functions.kubeless.io",
    ]);
    let account = format!("--serviceaccount={namespace}:dev");
    api.kubectl(&["create", "rolebinding", "see", "-n", namespace, "--role=see", &account]);
    let dev = Cli { kubeconfig: api.service_account(namespace, "dev"), ..cli.clone() };
    wait::until("the role to hold", LIMIT, || (dev.run(&["function", "list"]).code == 0).then_some(()));
    assert!(dev.ok(&["function", "describe", "hello"]).contains("hello.main"));

    let who = format!("system:serviceaccount:{namespace}:dev");
    let update = ["function", "update", "hello", "--timeout", "5"];
    dev.refused(&update, 1, &[&who, "may not patch functions.kubeless.io", "--verb=patch"]);
    dev.refused(&["function", "delete", "hello"], 1, &["may not delete functions.kubeless.io"]);
    dev.refused(&["trigger", "kafka", "list"], 1, &["may not list kafkatriggers.kubeless.io"]);
    dev.refused(&["function", "list", "-A"], 1, &["in all namespaces", "clusterrole"]);
    dev.refused(&["function", "call", "hello"], 1, &["services/proxy"]);
    // What it says to ask for is what it takes.
    let error = dev.run(&update).err;
    for line in error.lines().map(str::trim).filter_map(|line| line.strip_prefix("kubectl ")) {
        api.kubectl(&line.split(' ').collect::<Vec<_>>());
    }
    wait::until("the permission", LIMIT, || (dev.run(&update).code == 0).then_some(()));

    // A check shows what is missing for each command.
    let run = dev.run(&["check"]);
    assert!(
        run.out.contains("permission functions") && run.out.contains("not watch, create, delete"),
        "{}",
        run.out
    );
}

#[test]
fn what_is_missing_is_named_and_its_fix_works() {
    let api = ApiServer::start();
    let mut cli = Cli::new(&api.kubeconfig(), "default");
    let crds = "kubeless install --crds-only";
    cli.refused(&["function", "list"], 1, &["functions.kubeless.io", "kubeless install"]);
    assert_eq!(cli.run(&["check", "--pre"]).code, 0);
    let run = cli.run(&["check"]);
    assert_eq!(run.code, 5);
    assert!(
        run.out.contains(crds) && run.out.contains("nothing of Kubeless runs in namespace kubeless"),
        "{}",
        run.out
    );
    // The definitions say where the programs are: in a namespace of their own.
    Cli { namespace: "kubeless".to_owned(), ..cli.clone() }.ok(&["install", "--crds-only"]);
    wait::until("the definitions", LIMIT, || (cli.run(&["function", "list"]).code == 0).then_some(()));
    let run = cli.run(&["check", "-o", "json"]);
    let findings: Value = serde_json::from_str(&run.out).unwrap();
    for finding in findings["items"].as_array().unwrap() {
        let check = finding["check"].as_str().unwrap();
        if check.starts_with("definition ") {
            assert_eq!(finding["detail"], "v1beta1, as this program makes it", "{check}");
        }
    }
    // A program, a configuration: what they say is what version and get-server-config show.
    api.kubectl(&["create", "namespace", "kubeless"]);
    api.apply(
        "kubeless",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: kubeless-controller-manager, labels: {kubeless: controller}}\n\
         spec: {selector: {matchLabels: {kubeless: controller}}, template: {metadata: {labels: {kubeless: controller}}, \
         spec: {containers: [{name: c, image: 'kubeless/function-controller:v1.0.8'}]}}}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kubeless-config}\ndata:\n  runtime-images: |\n    - ID: lua\n      \
         versions: [{version: '5.4', images: [{phase: runtime, image: 'lua:5.4'}]}]\n",
    );
    api.apply(
        "kubeless",
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: kubeless-dispatcher, labels: {app.kubernetes.io/part-of: kubeless}}\n\
         spec: {selector: {matchLabels: {app: d}}, template: {metadata: {labels: {app: d}}, \
         spec: {containers: [{name: c, image: 'kubeless/kubeless:0.1.0'}]}}}\n",
    );
    let run = cli.run(&["check"]);
    assert!(
        run.out.contains("program kubeless-dispatcher") && run.out.contains("no node takes it"),
        "{}",
        run.out
    );
    let version = cli.ok(&["version"]);
    assert!(version.contains("v1.0.8 (kubeless/kubeless-controller-manager)"), "{version}");
    assert_eq!(cli.ok(&["get-server-config"]), "Supported Runtimes are: lua5.4\n");
    assert!(cli.ok(&["get-server-config", "-o", "wide"]).contains("lua:5.4"));
    let run = cli.run(&["check", "--pre"]);
    assert!(run.out.contains("scale deployment kubeless-controller-manager --replicas 0"), "{}", run.out);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("hello.py"), CODE).unwrap();
    let file = dir.path().join("hello.py").display().to_string();
    let lua = ["function", "deploy", "hello", "--handler", "hello.main", "-f", &file, "-r"];
    cli.refused(&[&lua[..], &["lua5.3"]].concat(), 2, &["unknown runtime \"lua5.3\"", "lua5.4"]);
    assert_eq!(cli.run(&[&lua[..], &["lua5.4"]].concat()).code, 0);
    api.kubectl(&[
        "patch",
        "configmap/kubeless-config",
        "-n",
        "kubeless",
        "--type=merge",
        "-p",
        r#"{"data":{"runtime-images":"[{"}}"#,
    ]);
    cli.refused(&["get-server-config"], 1, &["kubeless/kubeless-config"]);
    assert!(
        cli.run(&["function", "update", "hello", "-r", "lua5.4"])
            .err
            .contains("warning: runtime lua5.4 is not checked")
    );

    // Nobody there, and no such context.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config =
        fs::read_to_string(api.kubeconfig()).unwrap().replace(&api.url(), &format!("https://{closed}"));
    cli.kubeconfig = dir.path().join("closed.kubeconfig");
    fs::write(&cli.kubeconfig, config).unwrap();
    cli.refused(&["function", "list"], 1, &["no answer from", "refused", "--context"]);
    assert_eq!(cli.run(&["check"]).code, 5);
    assert_eq!(cli.run(&["version"]).code, 0, "the client's version needs no cluster");
    cli.refused(&["function", "list", "--context", "tset"], 1, &["did you mean test?"]);
}

#[test]
fn waiting_ends_with_the_condition_or_says_why_not() {
    let (api, cli, dir) = place("wait");
    let file = dir.path().join("hello.py").display().to_string();
    let deploy = |name, limit| {
        let base =
            ["function", "deploy", name, "-r", "python3.11", "--handler", "hello.main", "-f", &file, limit];
        cli.start(dir.path(), &base)
    };
    let mut ready = deploy("ready", "--wait=60s");
    let mut refused = deploy("refused", "--wait=60s");
    let is_there = |name: &str| {
        let what = format!("function/{name}");
        wait::until(&what, LIMIT, || api.try_kubectl(&["get", &what, "-n", &cli.namespace], "").ok())
    };
    is_there("ready");
    let stale = json!({ "conditions": [condition("Ready", "True", "AllGood", 0)] });
    set_status(api, &cli, "ready", &stale);
    let good = json!({ "replicas": 1, "readyReplicas": 1, "conditions": [condition("Ready", "True", "AllGood", 1)] });
    set_status(api, &cli, "ready", &good);
    assert_eq!(ready.wait_exit(LIMIT).code(), Some(0));
    assert!(ready.output().contains("function ready is ready (1/1)"), "{}", ready.output());
    is_there("refused");
    let bad = json!({ "conditions": [condition("Accepted", "False", "Invalid", 1), condition("Ready", "False", "Invalid", 1)] });
    set_status(api, &cli, "refused", &bad);
    assert_eq!(refused.wait_exit(LIMIT).code(), Some(1));
    assert!(refused.output().contains("cannot become ready: Invalid: because"), "{}", refused.output());
    let mut silent = deploy("silent", "--wait=1s");
    assert_eq!(silent.wait_exit(LIMIT).code(), Some(4));
    assert!(silent.output().contains("nothing has reported on it yet"), "{}", silent.output());
    let mut stopped = deploy("stopped", "--wait=60s");
    is_there("stopped");
    wait::until("it to wait", LIMIT, || stopped.output().contains("waiting for stopped").then_some(()));
    stopped.signal(Signal::INT);
    assert_eq!(stopped.wait_exit(LIMIT).code(), Some(130));
}
