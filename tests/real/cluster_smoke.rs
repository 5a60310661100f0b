//! The cluster that other tests stand on: what it must do for them, and that it leaves nothing behind. Must never
//! test Kubernetes itself.

use super::support::{
    cluster::{self, Cluster, test_image},
    metrics::get,
    wait,
};
use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

const IMAGE: &str = "docker.io/kubeless/smoke:test";
const LIMIT: Duration = Duration::from_secs(60);

/// An init container makes the answer from a ConfigMap, the way a function's code becomes a running function.
const HELLO: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: hello}
data: {word: "first"}
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec: {selector: {app: hello}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
      terminationGracePeriodSeconds: 1
      volumes:
      - {name: source, configMap: {name: hello}}
      - {name: code, emptyDir: {}}
      initContainers:
      - name: install
        image: docker.io/kubeless/smoke:test
        imagePullPolicy: Never
        command: [sh, -c, 'echo "hello $(cat /source/word)" >/code/answer']
        securityContext: &restricted {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: source, mountPath: /source}, {name: code, mountPath: /code}]
      containers:
      - name: serve
        image: docker.io/kubeless/smoke:test
        imagePullPolicy: Never
        securityContext: *restricted
        readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1, timeoutSeconds: 5}
        volumeMounts: [{name: code, mountPath: /code}]
"#;

fn smoke_image() -> std::path::PathBuf {
    test_image(&["folder", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parts/images/smoke"), IMAGE])
}

fn deploy(cluster: &Cluster, prefix: &str) -> (String, SocketAddr) {
    cluster.load(&smoke_image());
    let namespace = cluster.namespace(prefix);
    cluster.kubectl(&["label", "namespace", &namespace, "pod-security.kubernetes.io/enforce=restricted"]);
    cluster.apply(&namespace, HELLO);
    cluster.rolled_out(&namespace, "deployment/hello");
    let address = SocketAddr::from((cluster.cluster_ip(&namespace, "hello"), 80));
    (namespace, address)
}

/// The answer of the Service; where there is none, panics with what the cluster says of its Pods.
#[track_caller]
fn answers(cluster: &Cluster, namespace: &str, address: SocketAddr) -> String {
    let mut last = String::new();
    let ask = || match get(address, "/") {
        Ok((200, body)) => Some(body),
        other => {
            last = format!("{other:?}");
            None
        }
    };
    wait::try_until(LIMIT, ask).unwrap_or_else(|| {
        let tell = |args: &[&str]| cluster.try_kubectl(args, "").unwrap_or_else(|error| error);
        let pods = tell(&["describe", "pods,endpointslices", "-n", namespace]);
        let logs = tell(&["logs", "-n", namespace, "deployment/hello", "--tail=20"]);
        panic!("{address} did not answer in {LIMIT:?}: {last}\n{pods}\n{logs}")
    })
}

#[test]
fn code_from_a_config_map_answers_on_a_service_that_has_a_name() {
    let cluster = cluster::shared();
    let (namespace, address) = deploy(cluster, "smoke");
    assert_eq!(answers(cluster, &namespace, address), "hello first\n");

    let found = cluster.sh(&namespace, "deployment/hello", "getent hosts hello kubernetes.default");
    let mut found = found.lines().filter_map(|line| line.split_whitespace().next());
    assert_eq!(found.next(), Some(address.ip().to_string().as_str()));
    let server = cluster.cluster_ip("default", "kubernetes").to_string();
    assert_eq!(found.next(), Some(server.as_str()), "the API server has a name");

    // The API server answers at the address that a Pod is given, and this machine at the one the harness names.
    let connect = r#"exec bash -c ': </dev/tcp/$KUBERNETES_SERVICE_HOST/$KUBERNETES_SERVICE_PORT'"#;
    cluster.sh(&namespace, "deployment/hello", connect);
    let listener = std::net::TcpListener::bind((cluster.machine(), 0)).expect("an address of this machine");
    let here = listener.local_addr().expect("it is bound");
    cluster.sh(
        &namespace,
        "deployment/hello",
        &format!("exec bash -c ': </dev/tcp/{}/{}'", here.ip(), here.port()),
    );
}

#[test]
fn a_pod_that_the_namespace_forbids_is_refused() {
    let cluster = cluster::shared();
    let namespace = cluster.namespace("forbidden");
    cluster.kubectl(&["label", "namespace", &namespace, "pod-security.kubernetes.io/enforce=restricted"]);
    let run = ["run", "bad", "-n", &namespace, "--image", IMAGE, "--privileged"];
    let refused = cluster.try_kubectl(&run, "").expect_err("it is privileged");
    assert!(refused.contains("violates PodSecurity"), "{refused}");
}

#[test]
fn a_cluster_survives_the_loss_of_its_parts_and_leaves_nothing_behind() {
    let before = rules();
    let mut cluster = Cluster::start();
    let (namespace, address) = deploy(&cluster, "loss");
    // A Deployment is available before the Service's addresses have reached the node: without the API server they
    // never would.
    assert_eq!(answers(&cluster, &namespace, address), "hello first\n");
    cluster.kill9("kube-apiserver");
    assert!(cluster.try_kubectl(&["get", "nodes", "--request-timeout=5s"], "").is_err());
    assert_eq!(
        answers(&cluster, &namespace, address),
        "hello first\n",
        "Pods and Services go on without the API server"
    );
    cluster.kill9("etcd");
    cluster.start_again("etcd");
    cluster.start_again("kube-apiserver");
    let node = cluster.get("default", "node/node");
    assert_eq!(node["metadata"]["name"], "node");

    let (dir, name) = (cluster.dir().to_path_buf(), cluster.name());
    assert!(!left(&dir, &name).is_empty(), "what is looked for is there while the cluster is");
    drop(cluster);
    assert_eq!(left(&dir, &name), Vec::<String>::new());
    assert_eq!(rules(), before, "iptables rules of this machine");
}

/// Processes, mounts, interfaces, cgroups and files of a cluster.
fn left(dir: &Path, name: &str) -> Vec<String> {
    let shown = dir.display().to_string();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").expect("this is Linux").flatten() {
        // Those of its Pods too: they are in its cgroups.
        for (file, wanted) in [("cmdline", shown.as_str()), ("cgroup", name)] {
            let text = fs::read(process.path().join(file)).unwrap_or_default();
            if String::from_utf8_lossy(&text).contains(wanted) {
                found.push(format!("process {:?}", process.file_name()));
            }
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").expect("this is Linux");
    found.extend(mounts.lines().filter(|line| line.contains(&shown)).map(|line| format!("mount {line}")));
    let cgroups = fs::read_dir("/sys/fs/cgroup").expect("this is Linux").flatten();
    let mut folders: Vec<_> = cgroups.map(|entry| entry.path().join(name)).collect();
    folders.extend([
        dir.to_path_buf(),
        Path::new("/sys/fs/cgroup").join(name),
        Path::new("/sys/class/net").join(name),
    ]);
    found.extend(folders.iter().filter(|path| path.exists()).map(|path| format!("{}", path.display())));
    found
}

/// How many rules and chains of Kubernetes this machine's own tables have.
fn rules() -> usize {
    let run = Command::new("iptables-save")
        .output()
        .unwrap_or_else(|e| panic!("iptables-save: {e}; run 'make setup'"));
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    text.lines().filter(|line| line.contains("KUBE-") || line.contains("CNI-")).count()
}
