//! Many objects at once: how long controller and dispatcher take for all of them, in what memory and with how many requests. The
//! numbers are small unless `KUBELESS_CAMPAIGN` is set (500 Functions, 1,000 triggers: benches/README.md). Must never fail because
//! a machine is slow.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use super::support::{
    apiserver::ApiServer,
    kafka, metrics,
    process::{Dispatcher, Launch},
    wait,
};
use futures_util::StreamExt;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Longest wait for all of it.
const LIMIT: Duration = Duration::from_secs(600);
/// Requests of the creator that are under way at once.
const AT_ONCE: usize = 32;

#[test]
fn many_objects_at_once_are_all_acted_on() {
    let campaign = std::env::var_os("KUBELESS_CAMPAIGN").is_some();
    let (functions, triggers) = if campaign { (500, 1000) } else { (25, 50) };
    let api = ApiServer::start();
    api.install_crds();
    let namespace = api.namespace("scale");
    let kafka = kafka::shared();
    let topic = format!("topic-{namespace}");
    kafka.client().create_topic(&topic, 1, 1);
    let dir = tempfile::tempdir().unwrap();
    let mut controller = start(dir.path(), "kubeless-controller", &api.kubeconfig(), &namespace);
    let mut dispatcher = start(dir.path(), "kubeless-dispatcher", &api.kubeconfig(), &namespace);
    let idle = [&controller, &dispatcher].map(|process| resident(process.pid()));
    let before = requests(&api);

    let begun = Instant::now();
    create(&api, &namespace, &objects(functions, triggers, &topic, kafka.bootstrap()));
    let created = begun.elapsed();
    let admin = dispatcher.admin();
    wait::until("every subscription in the dispatcher's table", LIMIT, || {
        let (_, page) = metrics::get(admin, "/debug/subscriptions").ok()?;
        let list: Vec<Value> = serde_json::from_str(&page).ok()?;
        (list.len() == triggers).then_some(())
    });
    let routed = begun.elapsed();
    wait::until("every Function made into its objects", LIMIT, || {
        let told = api.kubectl(&[
            "get",
            "functions.kubeless.io",
            "-n",
            &namespace,
            "-o",
            "jsonpath={range .items[*]}{.status.conditions[?(@.type==\"Deployed\")].status}{\"\\n\"}{end}",
        ]);
        (told.lines().filter(|line| *line == "True").count() == functions).then_some(())
    });
    let reconciled = begun.elapsed();
    let made = api.kubectl(&[
        "get",
        "deployments,services,configmaps",
        "-n",
        &namespace,
        "-l",
        "created-by=kubeless",
        "-o",
        "name",
    ]);
    assert_eq!(made.lines().count(), 3 * functions);
    let after = requests(&api);
    println!(
        "{functions} Functions, {triggers} KafkaTriggers: created {created:.1?}, in the table {routed:.1?}, reconciled {reconciled:.1?}"
    );
    for (process, name, idle) in
        [(&mut controller, "kubeless-controller", idle[0]), (&mut dispatcher, "kubeless-dispatcher", idle[1])]
    {
        let now = resident(process.pid());
        let calls: BTreeMap<&str, usize> = after
            .iter()
            .filter(|((agent, _), _)| agent.starts_with(name))
            .map(|((agent, verb), count)| {
                (verb.as_str(), count - before.get(&(agent.clone(), verb.clone())).unwrap_or(&0))
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        println!("{name}: {idle} MiB before, {now} MiB after, requests {calls:?}");
        process.sigterm();
    }
    for mut process in [controller, dispatcher] {
        process.wait_exit(LIMIT);
    }
}

fn start(dir: &Path, program: &str, kubeconfig: &Path, namespace: &str) -> Dispatcher {
    let mut launch = Launch::dispatcher(dir, program)
        .arg("--kubeconfig")
        .arg(kubeconfig.display().to_string())
        .arg("--admin-listen=127.0.0.1:0")
        .arg("--log-format=json");
    if program == "kubeless-controller" {
        launch.program = env!("CARGO_BIN_EXE_kubeless-controller").into();
        for flag in ["--namespace", "--functions-namespace"] {
            launch = launch.arg(flag).arg(namespace);
        }
    } else {
        let state = dir.join("state").display().to_string();
        let scope = format!("kubernetes.functions_namespaces={namespace}");
        launch = launch.arg("--state-dir").arg(state).arg("--set").arg(scope);
    }
    let mut process = launch.start();
    process.wait_ready(LIMIT);
    process
}

fn objects(functions: usize, triggers: usize, topic: &str, servers: &str) -> Vec<Value> {
    let head = |kind: &str, name: String, labels: Value| json!({"apiVersion": "kubeless.io/v1beta1", "kind": kind, "metadata": {"name": name, "labels": labels}});
    let mut all = Vec::with_capacity(functions + triggers);
    for n in 0..functions {
        let mut function = head("Function", format!("f{n}"), json!({"n": format!("f{n}")}));
        function["spec"] = json!({"runtime": "python3.11", "handler": "hello.main",
            "function": "def main(event, context):\n    return 1\n"});
        all.push(function);
    }
    for n in 0..triggers {
        let mut trigger = head("KafkaTrigger", format!("t{n}"), json!({}));
        let selector = json!({"matchLabels": {"n": format!("f{}", n % functions)}});
        trigger["spec"] = json!({"topic": topic, "bootstrapServers": servers, "functionSelector": selector});
        all.push(trigger);
    }
    all
}

/// Creates all of them, many at once.
fn create(api: &ApiServer, namespace: &str, objects: &[Value]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = api.client().await;
        let made = objects.iter().map(|object| {
            let kind = object["kind"].as_str().unwrap();
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("kubeless.io", "v1beta1", kind));
            let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
            let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
            async move { api.create(&PostParams::default(), &object).await.map(|_| ()) }
        });
        let mut made = futures_util::stream::iter(made).buffer_unordered(AT_ONCE);
        while let Some(one) = made.next().await {
            one.expect("the server takes it");
        }
    });
}

/// Finished requests so far, by who asked and how.
fn requests(api: &ApiServer) -> BTreeMap<(String, String), usize> {
    let mut found = BTreeMap::new();
    for event in api.audit() {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        *found.entry((text("userAgent"), text("verb"))).or_default() += 1;
    }
    found
}

/// Resident memory in MiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}
