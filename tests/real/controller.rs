//! The controller against a real API server, in process through the library: what it makes, keeps, takes over and lets
//! go. No other controller runs there, so nothing is collected and no Pod starts: owner references are what is judged.
//! Must never wait for time to pass.

use super::support::{
    apiserver::{self, ApiServer},
    wait,
};
use clap::Parser;
use kubeless::{
    admin::Readiness, cluster::client::Connect, controller::args::ControllerArgs, shutdown::Shutdown,
    sources::TRIGGERS, telemetry::Registry,
};
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// A busy machine takes its time.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    controller: ControllerArgs,
}

/// A running controller; stopped when dropped.
pub struct Controller {
    shutdown: Shutdown,
    registry: Registry,
    readiness: Readiness,
    runtime: Option<tokio::runtime::Runtime>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Controller {
    /// Starts one whose functions and configuration are in `namespace`.
    fn start(kubeconfig: &Path, namespace: &str, more: &[&str]) -> Self {
        Self::start_in(kubeconfig, namespace, namespace, more)
    }

    /// Starts one whose configuration is in `own` and whose functions are in `namespace`.
    pub fn start_in(kubeconfig: &Path, own: &str, namespace: &str, more: &[&str]) -> Self {
        let fixed = ["controller", "--namespace", own, "--config-map", "kubeless-config"];
        let scope = ["--functions-namespace", namespace, "--lease-seconds", "3"];
        Self::start_with(kubeconfig, &[&fixed[..], &scope, more].concat())
    }

    /// Starts one with these arguments, the program's name first.
    pub fn start_with(kubeconfig: &Path, arguments: &[&str]) -> Self {
        let flags = Flags::parse_from(arguments);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let connect = Connect { kubeconfig: Some(kubeconfig.to_owned()), ..Connect::default() };
        let connection = runtime.block_on(connect.open("kubeless-controller")).expect("a connection");
        let (shutdown, readiness, registry) = (Shutdown::new(), Readiness::new(), Registry::new());
        let (stop, ready) = (shutdown.clone(), readiness.clone());
        let task = runtime.spawn(async move {
            kubeless::controller::run(&flags.controller, TRIGGERS, connection, &ready, stop).await;
        });
        Self { shutdown, registry, readiness, runtime: Some(runtime), task: Some(task) }
    }

    fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shutdown.request();
        let (Some(runtime), Some(task)) = (self.runtime.take(), self.task.take()) else { return };
        let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(90), task).await });
        if !std::thread::panicking() {
            ended.expect("it stops").expect("no panic");
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.end();
    }
}

fn server() -> &'static ApiServer {
    static CRDS: std::sync::Once = std::sync::Once::new();
    let api = apiserver::shared();
    CRDS.call_once(|| api.install_crds());
    api
}

pub fn try_get(api: &ApiServer, namespace: &str, what: &str) -> Option<Value> {
    let text = api.try_kubectl(&["get", "-n", namespace, what, "-o", "json"], "").ok()?;
    serde_json::from_str(&text).ok()
}

pub fn items(api: &ApiServer, namespace: &str, kind: &str) -> Vec<Value> {
    let list: Value =
        serde_json::from_str(&api.kubectl(&["get", "-n", namespace, kind, "-o", "json"])).expect("JSON");
    list["items"].as_array().cloned().unwrap_or_default()
}

/// The condition of an object: its status and reason.
fn condition(object: &Value, kind: &str) -> Option<(String, String)> {
    let all = object["status"]["conditions"].as_array()?;
    let found = all.iter().find(|condition| condition["type"] == kind)?;
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason")))
}

#[track_caller]
pub fn until_condition(
    api: &ApiServer,
    namespace: &str,
    what: &str,
    kind: &str,
    status: &str,
    reason: &str,
) -> Value {
    let mut last = Value::Null;
    let found = wait::try_until(PATIENCE, || {
        last = try_get(api, namespace, what)?;
        let as_wanted = condition(&last, kind) == Some((status.to_owned(), reason.to_owned()))
            && last["status"]["observedGeneration"] == last["metadata"]["generation"];
        as_wanted.then_some(())
    });
    assert!(found.is_some(), "{what}: {kind} is not {status} {reason}: {:#}", last["status"]);
    last
}

pub fn function(name: &str, spec: &Value) -> String {
    let object = json!({"apiVersion": "kubeless.io/v1beta1", "kind": "Function", "metadata": {"name": name}, "spec": spec});
    object.to_string()
}

pub fn hello() -> Value {
    json!({"runtime": "python3.8", "handler": "hello.fn", "function": "def fn(e, c): return 1", "deps": "bottle"})
}

const IMAGES: &str = r#"[{"ID": "python", "depName": "requirements.txt", "fileNameSuffix": ".py", "versions":
 [{"version": "3.8", "images": [{"phase": "installation", "image": "i", "command": "pip"}, {"phase": "runtime", "image": "IMAGE"}]}]}]"#;

pub fn configure(api: &ApiServer, namespace: &str, data: &Value) {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kubeless-config"}, "data": data});
    api.apply(namespace, &map.to_string());
}

pub fn images(image: &str) -> Value {
    json!({ "runtime-images": IMAGES.replace("IMAGE", image) })
}

/// Owners that resolve: kind, name, uid, and that it is the controller.
#[track_caller]
fn assert_owned(object: &Value, owner: &Value) {
    let owners = object["metadata"]["ownerReferences"].as_array().expect("owners");
    let found = owners.iter().find(|found| found["controller"] == true).expect("a controlling owner");
    for (name, wanted) in
        [("kind", &owner["kind"]), ("name", &owner["metadata"]["name"]), ("uid", &owner["metadata"]["uid"])]
    {
        assert_eq!(&found[name], wanted, "{}", object["metadata"]["name"]);
    }
    assert_eq!(found["apiVersion"], "kubeless.io/v1beta1");
}

/// Names and versions of everything that the controller may write.
fn versions(api: &ApiServer, namespace: &str) -> Vec<(String, String)> {
    let kinds = "functions.kubeless.io,httptriggers.kubeless.io,cronjobtriggers.kubeless.io,configmaps,services,deployments,\
                 horizontalpodautoscalers,ingresses,cronjobs";
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = items(api, namespace, kinds);
    all.iter()
        .map(|object| {
            let name = format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]));
            (name, text(&object["metadata"]["resourceVersion"]))
        })
        .collect()
}

/// What the controller asked to be written in a namespace so far, Leases left out.
fn writes(api: &ApiServer, namespace: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ours = |event: &&Value| {
        event["userAgent"].as_str().is_some_and(|agent| agent.starts_with("kubeless-controller"))
            && event["objectRef"]["namespace"] == namespace
            && event["objectRef"]["resource"] != "leases"
            && !matches!(event["verb"].as_str(), Some("get" | "list" | "watch"))
    };
    let shown = |event: &Value| {
        let object = &event["objectRef"];
        format!(
            "{} {}/{}/{}",
            text(&event["verb"]),
            text(&object["resource"]),
            text(&object["name"]),
            text(&object["subresource"])
        )
    };
    api.audit().iter().filter(ours).map(shown).collect()
}

/// Returns once no pass has ended for two seconds; how many passes there were.
fn until_quiet(controller: &Controller) -> f64 {
    let passes = || {
        let page = controller.registry.render();
        let lines = page.lines().filter(|line| line.starts_with("kubeless_controller_reconciles_total"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    let mut last = (passes(), Instant::now());
    wait::until("no more passes", PATIENCE, || {
        let now = passes();
        if now.total_cmp(&last.0).is_ne() {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(2)).then_some(now)
    })
}

#[test]
fn a_function_becomes_its_objects_and_says_so() {
    let api = server();
    let namespace = api.namespace("made");
    configure(api, &namespace, &images("run:1"));
    let mut spec = hello();
    spec["horizontalPodAutoscaler"] = json!({"metadata": {"name": "hello"}, "spec": {"maxReplicas": 3, "minReplicas": 1,
        "scaleTargetRef": {"apiVersion": "apps/v1beta1", "kind": "Deployment", "name": "hello"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "targetAverageUtilization": 50}}]}});
    api.apply(&namespace, &function("hello", &spec));
    let _controller = Controller::start(&api.kubeconfig(), &namespace, &[]);
    let owner =
        until_condition(api, &namespace, "functions.kubeless.io/hello", "Autoscaled", "True", "Applied");
    assert_eq!(condition(&owner, "Accepted"), Some(("True".into(), "Valid".into())));
    assert_eq!(
        condition(&owner, "Available"),
        Some(("Unknown".into(), "Pending".into())),
        "nobody runs Pods here"
    );
    assert_eq!(condition(&owner, "Ready").map(|(status, _)| status), Some("Unknown".to_owned()));
    assert_eq!(owner["status"]["url"], format!("http://hello.{namespace}.svc.cluster.local:8080"));
    assert_eq!(owner["status"]["image"], "run:1");
    let deployment = api.get(&namespace, "deployments/hello");
    assert_owned(&deployment, &owner);
    let main = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(main["image"], "run:1");
    for what in ["services/hello", "horizontalpodautoscalers/hello"] {
        assert_owned(&api.get(&namespace, what), &owner);
    }
    let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array().expect("volumes");
    let map = volumes.iter().find_map(|volume| volume["configMap"]["name"].as_str()).expect("the code");
    let map = api.get(&namespace, &format!("configmaps/{map}"));
    assert_owned(&map, &owner);
    assert_eq!((&map["data"]["hello.py"], &map["immutable"]), (&spec["function"], &json!(true)));
    let events = wait::until("an Event", PATIENCE, || {
        let found = items(api, &namespace, "events.events.k8s.io");
        let about = |event: &&Value| event["regarding"]["name"] == "hello" && event["reason"] == "Deployed";
        found.iter().find(about).cloned()
    });
    assert_eq!(events["reportingController"], "kubeless-controller");
}

#[test]
fn what_is_as_it_should_be_is_not_written_again_and_drift_is_repaired() {
    let api = server();
    let namespace = api.namespace("drift");
    configure(api, &namespace, &images("run:1"));
    api.apply(&namespace, &function("hello", &hello()));
    let controller = Controller::start(&api.kubeconfig(), &namespace, &[]);
    until_condition(api, &namespace, "functions.kubeless.io/hello", "Deployed", "True", "Applied");
    until_quiet(&controller);
    let before = versions(api, &namespace);
    controller.stop();
    // A second life passes over everything and writes nothing.
    let writes = |api: &ApiServer| writes(api, &namespace);
    let written = writes(api);
    let controller = Controller::start(&api.kubeconfig(), &namespace, &[]);
    wait::until("the configuration is read", PATIENCE, || controller.readiness.is_ready().then_some(()));
    wait::until("a first pass", PATIENCE, || {
        let asked = api.audit();
        let watched = asked.iter().filter(|event| {
            event["verb"] == "watch" && event["objectRef"]["namespace"] == namespace.as_str()
        });
        (watched.count() >= 2).then_some(())
    });
    until_quiet(&controller);
    assert_eq!((versions(api, &namespace), writes(api)), (before, written));
    // Whoever changes or deletes what is made finds it repaired.
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "hello", "image": "evil"}]}}}})
        .to_string();
    api.kubectl(&["patch", "-n", &namespace, "deployment", "hello", "-p", &image]);
    api.kubectl(&["delete", "-n", &namespace, "service", "hello"]);
    let port = wait::until("the Service is back", PATIENCE, || {
        try_get(api, &namespace, "services/hello").map(|service| service["spec"]["ports"][0]["port"].clone())
    });
    assert_eq!(port, 8080);
    wait::until("the image is back", PATIENCE, || {
        let found = api.get(&namespace, "deployments/hello");
        (found["spec"]["template"]["spec"]["containers"][0]["image"] == "run:1").then_some(())
    });
    let maps = items(api, &namespace, "configmaps");
    let code = maps
        .iter()
        .find_map(|map| map["metadata"]["name"].as_str().filter(|name| name.starts_with("hello-")));
    let code = code.expect("the code").to_owned();
    api.kubectl(&["delete", "-n", &namespace, "configmap", &code]);
    wait::until("the code is back", PATIENCE, || try_get(api, &namespace, &format!("configmaps/{code}")));
}

#[test]
fn foreign_objects_are_left_alone_and_bad_ones_do_not_stop_others() {
    let api = server();
    let namespace = api.namespace("guard");
    configure(api, &namespace, &images("run:1"));
    api.kubectl(&["create", "-n", &namespace, "service", "clusterip", "taken", "--tcp=80"]);
    let foreign = api.get(&namespace, "services/taken");
    let controller = Controller::start(&api.kubeconfig(), &namespace, &[]);
    api.apply(&namespace, &function("taken", &hello()));
    let mut bad = hello();
    // The definition takes any object here; it is no Deployment.
    bad["deployment"] = json!({"spec": {"replicas": "many"}});
    api.apply(&namespace, &function("bad", &bad));
    let mut unknown = hello();
    unknown["runtime"] = json!("python9.9");
    api.apply(&namespace, &function("unknown", &unknown));
    let mut nodes = hello();
    nodes["deployment"] = json!({"spec": {"template": {"spec": {"hostNetwork": true}}}});
    api.apply(&namespace, &function("nodes", &nodes));
    api.apply(&namespace, &function("good", &hello()));
    let refused =
        until_condition(api, &namespace, "functions.kubeless.io/taken", "Deployed", "False", "Conflict");
    assert_eq!(condition(&refused, "Ready"), Some(("False".into(), "Conflict".into())));
    for name in ["bad", "unknown", "nodes"] {
        let what = format!("functions.kubeless.io/{name}");
        let refused = until_condition(api, &namespace, &what, "Accepted", "False", "Invalid");
        assert!(
            refused["status"]["conditions"][0]["message"]
                .as_str()
                .is_some_and(|text| text.starts_with("spec."))
        );
        assert!(try_get(api, &namespace, &format!("deployments/{name}")).is_none());
    }
    until_condition(api, &namespace, "functions.kubeless.io/good", "Deployed", "True", "Applied");
    assert_eq!(api.get(&namespace, "services/taken"), foreign, "untouched");
    assert!(try_get(api, &namespace, "deployments/taken").is_none());
    // Errors are tried again for ever: once the way is free, it is gone.
    api.kubectl(&["delete", "-n", &namespace, "service", "taken"]);
    until_condition(api, &namespace, "functions.kubeless.io/taken", "Deployed", "True", "Applied");
    api.apply(&namespace, &function("bad", &hello()));
    until_condition(api, &namespace, "functions.kubeless.io/bad", "Deployed", "True", "Applied");
    drop(controller);
}

#[test]
fn malformed_triggers_are_told_by_whoever_acts_on_them() {
    let api = server();
    let namespace = api.namespace("faults");
    configure(api, &namespace, &images("run:1"));
    let controller = Controller::start(&api.kubeconfig(), &namespace, &[]);
    api.apply(&namespace, &function("good", &hello()));
    let apply = |kind: &str, name: &str, spec: Value| {
        let object = json!({"apiVersion": "kubeless.io/v1beta1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        api.apply(&namespace, &object.to_string());
    };
    let late = json!({"timeout": "999h"});
    // The dispatcher's, which does not run here: nobody else may speak of it.
    let schedule = |executor: &str, delivery: &Value| json!({"function-name": "good", "schedule": "0 0 1 1 *", "executor": executor, "delivery": delivery});
    apply("CronJobTrigger", "others", schedule("Dispatcher", &late));
    apply("CronJobTrigger", "bad", schedule("CronJob", &late));
    let http = json!({"function-name": "good", "host-name": "shop.example.com", "delivery": late});
    apply("HTTPTrigger", "bad", http);
    apply("CronJobTrigger", "sound", schedule("CronJob", &json!({})));
    for what in ["httptriggers.kubeless.io/bad", "cronjobtriggers.kubeless.io/bad"] {
        let refused = until_condition(api, &namespace, what, "Accepted", "False", "Invalid");
        assert_eq!(condition(&refused, "Ready"), Some(("False".into(), "Invalid".into())), "{what}");
        let message = refused["status"]["conditions"][0]["message"].as_str().expect("words");
        assert!(message.contains("spec.delivery.timeout"), "{message}");
    }
    let sound = "cronjobtriggers.kubeless.io/sound";
    until_condition(api, &namespace, sound, "Deployed", "True", "Applied");
    assert!(api.get(&namespace, "cronjobtriggers.kubeless.io/others").get("status").is_none());
    // Handed to the dispatcher: what was said of it does not stand beside the dispatcher's words.
    apply("CronJobTrigger", "sound", schedule("Dispatcher", &json!({})));
    let words = || api.get(&namespace, sound).pointer("/status/conditions").cloned();
    wait::until("the controller's words to go", PATIENCE, || words().is_none().then_some(()));
    apply("CronJobTrigger", "first", schedule("Dispatcher", &json!({})));
    wait::until("a trigger that goes with its function, whoever acts on it", PATIENCE, || {
        let owner = api.get(&namespace, "cronjobtriggers.kubeless.io/first")["metadata"]["ownerReferences"]
            [0]
        .clone();
        (owner["kind"] == "Function" && owner["name"] == "good").then_some(())
    });
    drop(controller);
}

#[test]
fn a_way_to_the_dispatcher_goes_with_its_trigger_across_namespaces() {
    let api = server();
    let (own, namespace) = (api.namespace("home"), api.namespace("tenant"));
    configure(api, &own, &images("run:1"));
    let controller = Controller::start_in(&api.kubeconfig(), &own, &namespace, &[]);
    let apply = |name: &str, through: &str| {
        let spec = json!({"function-name": "f", "path": name, "delivery": {"through": through}});
        let object = json!({"apiVersion": "kubeless.io/v1beta1", "kind": "HTTPTrigger", "metadata": {"name": name}, "spec": spec});
        api.apply(&namespace, &object.to_string());
    };
    let way = |name: &str| format!("ingresses/{namespace}.{name}");
    let made = |name: &str| wait::until("the way", PATIENCE, || try_get(api, &own, &way(name)));
    let gone = |name: &str| {
        wait::until("the way to go", PATIENCE, || try_get(api, &own, &way(name)).is_none().then_some(()));
    };
    // Somebody else's of the same kind beside them.
    let foreign = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "foreign",
        "labels": {"created-by": "kubeless", "kubeless.io/trigger-namespace": "elsewhere"}},
        "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 1}}}}});
    api.apply(&own, &foreign.to_string());
    for name in ["edited", "deleted", "late"] {
        apply(name, "Dispatcher");
    }
    let path = made("edited")["spec"]["rules"][0]["http"]["paths"][0]["path"].clone();
    assert_eq!(path, "/edited");
    made("deleted");
    made("late");
    apply("edited", "Ingress");
    gone("edited");
    api.kubectl(&["delete", "-n", &namespace, "httptriggers.kubeless.io/deleted"]);
    gone("deleted");
    // One that goes while no controller runs.
    controller.stop();
    api.kubectl(&["delete", "-n", &namespace, "httptriggers.kubeless.io/late"]);
    let controller = Controller::start_in(&api.kubeconfig(), &own, &namespace, &[]);
    gone("late");
    assert!(try_get(api, &own, "ingresses/foreign").is_some(), "not this controller's to look after");
    controller.stop();
}
