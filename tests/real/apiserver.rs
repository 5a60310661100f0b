//! The API server that other tests stand on: what it must do for them. Must never test Kubernetes itself.

use super::support::{
    apiserver::{self, ApiServer, Part},
    kubectl::client_of,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, api::PostParams};
use std::{collections::BTreeSet, path::Path};

fn configmap(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.into());
    map
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(work)
}

#[test]
fn our_resources_are_served() {
    let api = apiserver::shared();
    api.install_crds();
    let namespace = api.namespace("served");
    api.apply(
        &namespace,
        "{apiVersion: kubeless.io/v1beta1, kind: Function, metadata: {name: hello}, \
         spec: {runtime: python3.11, handler: hello.handler, function: \"def handler(e, c): return 1\"}}",
    );
    assert_eq!(api.get(&namespace, "functions.kubeless.io/hello")["spec"]["handler"], "hello.handler");
}

#[test]
fn an_account_may_do_what_its_role_grants_and_the_audit_log_tells_what_it_did() {
    let api = apiserver::shared();
    let namespace = api.namespace("rights");
    api.kubectl(&["create", "serviceaccount", "worker", "-n", &namespace]);
    api.kubectl(&["create", "role", "maps", "--verb=create", "--resource=configmaps", "-n", &namespace]);
    let account = format!("--serviceaccount={namespace}:worker");
    api.kubectl(&["create", "rolebinding", "maps", "--role=maps", &account, "-n", &namespace]);
    let config = api.service_account(&namespace, "worker");
    let refused = block_on(async {
        let maps = Api::<ConfigMap>::default_namespaced(client_of(&config).await);
        maps.create(&PostParams::default(), &configmap("a")).await.expect("the role grants it");
        maps.get("a").await.expect_err("the role does not grant it").to_string()
    });
    assert!(refused.contains("forbidden"), "{refused}");
    let used = api.used_by(&format!("system:serviceaccount:{namespace}:worker"));
    assert_eq!(used, BTreeSet::from(["create /configmaps".to_owned()]));
}

#[test]
fn both_parts_come_back_with_what_was_written() {
    let mut api = ApiServer::start();
    let namespace = api.namespace("kept");
    api.kubectl(&["create", "configmap", "a", "-n", &namespace]);
    api.kill9(Part::ApiServer);
    assert!(api.try_kubectl(&["get", "namespaces", "--request-timeout=5s"], "").is_err());
    api.kill9(Part::Etcd);
    api.start_again(Part::Etcd);
    api.start_again(Part::ApiServer);
    assert_eq!(api.get(&namespace, "configmap/a")["metadata"]["name"], "a");
    let pids = api.pids();
    drop(api);
    let left: Vec<u32> = pids.into_iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
    assert!(left.is_empty(), "still running: {left:?}");
}
