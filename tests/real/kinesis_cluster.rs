//! Kinesis with a real API server: credentials from a Secret, the register in Leases, two dispatchers with the rights that the
//! list grants and no more.

use crate::support::{
    apiserver,
    kinesis::{self, Scene},
    ports, wait,
    witness::{Behaviour, Witness},
};
use kubeless::{cluster::access, sources::TRIGGERS};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn kinesis_registers_in_leases_are_shared_and_survive_a_dead_dispatcher() {
    let (api, kinesis) = (apiserver::shared(), kinesis::shared());
    api.install_crds();
    let mut scene = Scene::with(kinesis, 4, "", Witness::start_on(ports::own_address()));
    scene.witness.always(Behaviour::Answer { status: 200, delay: Duration::from_millis(5) });
    let namespace = api.namespace("kinesis");
    for object in objects(&scene, &namespace) {
        api.apply(&namespace, &object.to_string());
    }
    let kubeconfig = api.service_account(&namespace, "dispatcher");
    let launch = |scene: &Scene, name: &str| {
        let own = format!("kubernetes.functions_namespaces={namespace}");
        let lease = format!("status.lease={namespace}");
        let launch = scene.launch_bare(name).arg("--kubeconfig").arg(kubeconfig.display().to_string());
        launch.arg("--set").arg(own).arg("--set").arg(lease).start()
    };
    let holders = || {
        let list =
            api.kubectl(&["get", "leases", "-n", &namespace, "-l", "kubeless.io/register", "-o", "json"]);
        let list: Value = serde_json::from_str(&list).expect("JSON");
        let mut holders: BTreeMap<String, usize> = BTreeMap::new();
        for lease in list["items"].as_array().expect("a list") {
            if let Some(holder) = lease["spec"]["holderIdentity"].as_str() {
                *holders.entry(holder.to_owned()).or_default() += 1;
            }
        }
        holders.into_values().collect::<Vec<_>>()
    };
    scene.produce(kinesis, 200, 30);
    let mut one = launch(&scene, "one");
    one.wait_ready(LONG);
    scene.settle(LONG).assert_clean();
    let mut two = launch(&scene, "two");
    two.wait_ready(LONG);
    wait::until("two shards each", LONG, || (holders() == [2, 2]).then_some(()));
    scene.produce(kinesis, 300, 30);
    scene.witness.wait_for(300, LONG);
    one.kill9();
    scene.produce(kinesis, 200, 30);
    let report = scene.settle(LONG);
    report.assert_clean();
    println!("{:?}, {} of them lost", report.outcomes, report.lost.len());
    two.sigterm();
    assert!(two.wait_exit(Duration::from_secs(40)).success());
    assert_eq!(holders(), Vec::<usize>::new(), "all is given back");
}

fn objects(scene: &Scene, namespace: &str) -> Vec<Value> {
    let address = scene.witness.address();
    let rules = access::dispatcher(TRIGGERS);
    let rules: Vec<Value> = rules
        .iter()
        .map(|rule| {
            json!({"apiGroups": [rule.group], "resources": rule.resources, "verbs": rule.verbs, "resourceNames": rule.names})
        })
        .collect();
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "dispatcher"}}),
        json!({
            "apiVersion": "kubeless.io/v1beta1", "kind": "Function",
            "metadata": {"name": "witness"},
            "spec": {"runtime": "python3.11", "handler": "witness.handler", "timeout": "5"},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "witness", "labels": {"created-by": "kubeless"}},
            "spec": {"ports": [{"name": "http-function-port", "port": 8080}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "witness-1",
                "labels": {"created-by": "kubeless", "kubernetes.io/service-name": "witness"}},
            "ports": [{"name": "http-function-port", "port": address.port(), "protocol": "TCP"}],
            "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
        }),
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "aws"},
            "stringData": {"aws_access_key_id": "test", "aws_secret_access_key": "test"},
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "dispatcher"},
            "rules": rules,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "dispatcher"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "dispatcher"},
            "subjects": [{"kind": "ServiceAccount", "name": "dispatcher", "namespace": namespace}],
        }),
        json!({
            "apiVersion": "kubeless.io/v1beta1", "kind": "KinesisTrigger", "metadata": {"name": "trigger"},
            "spec": {
                "stream": scene.stream, "aws-region": "us-east-1", "secret": "aws", "function-name": "witness",
                "endpoint": scene.endpoint, "startingPosition": "TRIM_HORIZON",
                "delivery": {"maxInFlight": 16, "claimWindow": 64},
            },
        }),
    ]
}
