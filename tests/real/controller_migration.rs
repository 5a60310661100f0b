//! Coming from Kubeless: the controller, with exactly the rights that a kustomization grants its service account, frees and takes
//! over what an old cluster holds. No other controller runs there. Must never hold more rights than users get.

use super::{
    controller::{Controller, PATIENCE, configure, function, hello, images, items, try_get, until_condition},
    status::{SPECS, plural, trigger},
    support::{apiserver::ApiServer, wait},
};
use kubeless::{api::function::FINALIZER, sources::TRIGGERS};
use serde_json::{Value, json};

const OWN: &str = "kubeless";
const FOREIGN: &str = "example.com/audited";

/// An old cluster: definitions and rights of a kustomization, one namespace full of what Kubeless left.
struct Old {
    api: ApiServer,
    namespace: String,
}

impl Old {
    fn cluster(api: ApiServer, kustomization: &str) -> Self {
        let folder = format!("{}/deploy/kustomize/{kustomization}", env!("CARGO_MANIFEST_DIR"));
        // Its namespace and definitions must be there for the rest.
        let apply = ["apply", "--server-side", "-k", &folder];
        wait::until("everything applied", PATIENCE, || api.try_kubectl(&apply, "").ok());
        api.install_crds();
        configure(&api, OWN, &images("run:1"));
        let namespace = api.namespace("old");
        Self { api, namespace }
    }

    fn controller(&self) -> Controller {
        let account = self.api.service_account(OWN, "kubeless-controller");
        Controller::start_in(&account, OWN, &self.namespace, &[])
    }

    fn create(&self, object: &Value) {
        let made = self.api.try_kubectl(&["create", "-n", &self.namespace, "-f", "-"], &object.to_string());
        made.unwrap_or_else(|error| panic!("{error}: {object}"));
    }

    fn get(&self, what: &str) -> Value {
        self.api.get(&self.namespace, what)
    }

    fn delete(&self, what: &str) {
        self.api.kubectl(&["delete", what, "-n", &self.namespace, "--wait=false"]);
    }

    /// As Kubeless made it: no field manager, an owner that blocks nothing.
    fn child(&self, kind: (&str, &str), name: &str, owner: &Value, spec: &Value) {
        let reference = json!({"apiVersion": "kubeless.io/v1beta1", "kind": owner["kind"],
            "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]});
        let labels = json!({"created-by": "kubeless", "function": "hello", "stale": "1"});
        let meta = json!({"name": name, "labels": labels, "annotations": {"stale": "1"}, "ownerReferences": [reference]});
        self.create(&json!({"apiVersion": kind.0, "kind": kind.1, "metadata": meta, "spec": spec}));
    }

    /// Function, triggers, and what Kubeless made of them.
    fn fill(&self) {
        let mut spec = hello();
        // Scaled by another one, which finds as many Pods as there were.
        spec["horizontalPodAutoscaler"] = json!({"metadata": {"name": "hello"}, "spec": {"maxReplicas": 9,
            "scaleTargetRef": {"kind": "Deployment", "name": "hello"}, "targetCPUUtilizationPercentage": 50}});
        self.create(&serde_json::from_str(&function("hello", &spec)).expect("JSON"));
        let http = json!({"function-name": "hello", "host-name": "old.example.com", "gateway": "nginx"});
        self.create(&trigger("HTTPTrigger", "web", &http));
        let cron = json!({"function-name": "hello", "schedule": "0 0 1 1 *"});
        self.create(&trigger("CronJobTrigger", "nightly", &cron));
        let owner = self.get("functions.kubeless.io/hello");
        let selector = json!({"created-by": "kubeless", "function": "hello"});
        let ports = json!([{"name": "http-function-port", "port": 8080, "targetPort": 8080}]);
        self.child(
            ("v1", "Service"),
            "hello",
            &owner,
            &json!({"selector": {"function": "hello"}, "ports": ports}),
        );
        let stale = json!([{"name": "STALE", "value": "1"}]);
        let container = json!({"name": "hello", "image": "old:1", "env": stale});
        let template = json!({"metadata": {"labels": selector}, "spec": {"containers": [container]}});
        let spec = json!({"replicas": 4, "selector": {"matchLabels": selector}, "template": template});
        self.child(("apps/v1", "Deployment"), "hello", &owner, &spec);
        let owner = self.get("httptriggers.kubeless.io/web");
        let backend = json!({"service": {"name": "hello", "port": {"number": 1234}}});
        let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
        let rules = json!([{"host": "stale.example.com", "http": {"paths": paths}}]);
        self.child(("networking.k8s.io/v1", "Ingress"), "web", &owner, &json!({"rules": rules}));
        let mut owner = self.get("cronjobtriggers.kubeless.io/nightly");
        // A kind that does not exist, so that the cluster never collects it.
        owner["kind"] = json!("Trigger");
        let container = json!({"name": "trigger", "image": "old:1"});
        let pod = json!({"restartPolicy": "Never", "containers": [container]});
        let spec = json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": pod}}}});
        self.child(("batch/v1", "CronJob"), "trigger-hello", &owner, &spec);
    }
}

/// Nothing is left of what Kubeless wrote, the objects are the same ones, and every trigger is tied to its function.
fn takes_over(old: &Old) {
    old.fill();
    let kinds = ["services/hello", "deployments/hello", "ingresses/web"];
    let before = kinds.map(|what| old.get(what));
    let controller = old.controller();
    until_condition(&old.api, &old.namespace, "functions.kubeless.io/hello", "Deployed", "True", "Applied");
    for what in ["httptriggers.kubeless.io/web", "cronjobtriggers.kubeless.io/nightly"] {
        until_condition(&old.api, &old.namespace, what, "Deployed", "True", "Applied");
        let owners = old.get(what)["metadata"]["ownerReferences"].clone();
        assert_eq!((&owners[0]["kind"], &owners[0]["name"]), (&json!("Function"), &json!("hello")), "{what}");
    }
    for (what, before) in kinds.iter().zip(before) {
        let after = old.get(what);
        assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "{what} is the same object");
        let labels = &after["metadata"]["labels"];
        assert!(!after.to_string().to_lowercase().contains("stale"), "{what}: {after:#}");
        assert_eq!((&labels["created-by"], &labels["function"]), (&json!("kubeless"), &json!("hello")));
        let managers = "-o=jsonpath={.metadata.managedFields[*].manager}";
        let managers =
            old.api.kubectl(&["get", "-n", &old.namespace, what, "--show-managed-fields", managers]);
        assert_eq!(managers, "kubeless-controller", "{what}");
        assert_eq!(after["metadata"]["ownerReferences"][0]["controller"], true);
    }
    assert_eq!(old.get("deployments/hello")["spec"]["replicas"], 4, "not fewer Pods meanwhile");
    let jobs = items(&old.api, &old.namespace, "cronjobs");
    let names: Vec<&Value> = jobs.iter().map(|job| &job["metadata"]["name"]).collect();
    assert_eq!(names, ["nightly"], "the old one is gone");
    drop(controller);
}

#[test]
fn what_kubeless_made_is_taken_over_with_the_rights_of_the_base() {
    takes_over(&Old::cluster(ApiServer::start(), "base"));
}

#[test]
fn where_owner_references_are_guarded_the_overlay_grants_what_that_takes() {
    takes_over(&Old::cluster(ApiServer::start_guarding_owners(), "overlays/openshift"));
}

#[test]
fn finalizers_of_kubeless_are_taken_away_from_every_kind_and_nobody_elses() {
    let old = Old::cluster(ApiServer::start(), "base");
    let mut all = vec![(plural("Function"), "Function", hello(), FINALIZER)];
    for (kind, spec) in SPECS {
        let known = TRIGGERS.iter().find(|known| known.kind == *kind).expect("registered");
        // Kubeless had no such kind.
        let Some(finalizer) = known.finalizer else { continue };
        all.push((plural(kind), *kind, serde_json::from_str(spec).expect("JSON"), finalizer));
    }
    let had = TRIGGERS.iter().filter(|known| known.finalizer.is_some()).count();
    assert_eq!(all.len(), had + 1, "one of each kind");
    for (plural, kind, spec, finalizer) in &all {
        for (name, held) in [("kept", json!([finalizer, FOREIGN])), ("leaves", json!([finalizer]))] {
            let mut object = trigger(kind, name, spec);
            object["metadata"]["finalizers"] = held;
            old.create(&object);
        }
        old.delete(&format!("{plural}/leaves"));
        assert!(try_get(&old.api, &old.namespace, &format!("{plural}/leaves")).is_some(), "it hangs");
    }
    let controller = old.controller();
    for (plural, ..) in &all {
        wait::until(&format!("{plural} without Kubeless's finalizer"), PATIENCE, || {
            let gone = try_get(&old.api, &old.namespace, &format!("{plural}/leaves")).is_none();
            let held = old.get(&format!("{plural}/kept"))["metadata"]["finalizers"].clone();
            (gone && held == json!([FOREIGN])).then_some(())
        });
    }
    drop(controller);
}

#[test]
fn the_definition_says_where_the_configuration_is() {
    let api = ApiServer::start();
    api.install_crds();
    let (own, namespace) = (api.namespace("elsewhere"), api.namespace("functions"));
    let annotations = [format!("kubeless.io/namespace={own}"), "kubeless.io/config=words".to_owned()];
    let annotate = ["annotate", "--overwrite", "crd/functions.kubeless.io", &annotations[0], &annotations[1]];
    api.kubectl(&annotate);
    let mut data = images("annotated:1");
    data["functions-namespace"] = json!(namespace);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "words"}, "data": data});
    api.apply(&own, &map.to_string());
    api.apply(&namespace, &function("hello", &hello()));
    let controller = Controller::start_with(&api.kubeconfig(), &["controller"]);
    let found =
        until_condition(&api, &namespace, "functions.kubeless.io/hello", "Deployed", "True", "Applied");
    assert_eq!(found["status"]["image"], "annotated:1");
    assert_eq!(items(&api, &own, "leases").len(), 1, "the election, too, is there");
    drop(controller);
}
