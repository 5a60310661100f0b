//! etcd and kube-apiserver as child processes in a folder of the test's own, on free ports: enough for resources,
//! watches, admission, RBAC and reconcilers. No controller acts and nothing runs Pods (`cluster.rs` does), so a
//! namespace gets no service account and a deleted one stays. Must never use a fixed port or leave a process behind.
//!
//! ```ignore
//! let mut api = ApiServer::start();           // about 5 s; `apiserver::shared()` for tests that do not harm it
//! api.install_crds();                         // deploy/crds, served when this returns
//! let namespace = api.namespace("watch");     // one for each test
//! api.apply(&namespace, "kind: ConfigMap\n…");
//! let client = api.client().await;            // kube::Client, cluster-admin
//! command.env("KUBECONFIG", api.kubeconfig());
//! api.kill9(Part::ApiServer);                 // connections break; Part::Etcd: requests fail, watches hang
//! api.start_again(Part::ApiServer);           // same port, same data
//! ```

use super::{kubectl::Access, kubectl::kubernetes_dir, ports::free_port, spawn, spawn::Running, wait};
use base64::{Engine, prelude::BASE64_STANDARD};
use rustix::process::Signal;
use serde_json::json;
use std::{
    fs,
    path::Path,
    process::Command,
    sync::LazyLock,
    time::{Duration, Instant},
};

/// Longest wait for an answer after a start. Usually 5 s; a busy machine takes longer.
const PATIENCE: Duration = Duration::from_secs(90);

const AUDIT: &str = include_str!("../../parts/kubernetes/cluster/audit.yaml");

/// What can be killed, frozen and started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Etcd,
    ApiServer,
}

/// Both processes end on drop, and with the test process, however it ends.
pub struct ApiServer {
    // Before etcd: what depends on the other ends first.
    api: Running,
    etcd: Running,
    ports: Ports,
    plugins: &'static str,
    access: Access,
    // Last: removed after the processes are gone.
    dir: tempfile::TempDir,
}

#[derive(Clone, Copy)]
struct Ports {
    etcd: u16,
    etcd_peer: u16,
    api: u16,
}

/// One for all tests of the binary that do not harm it. Use a namespace of your own.
pub fn shared() -> &'static ApiServer {
    static SHARED: LazyLock<ApiServer> = LazyLock::new(ApiServer::start);
    &SHARED
}

impl std::ops::Deref for ApiServer {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.access
    }
}

impl ApiServer {
    /// Starts both and returns when the server says that it is ready.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// One that lets only those set an owner reference who may delete the object, as OpenShift does.
    pub fn start_guarding_owners() -> Self {
        Self::start_with("OwnerReferencesPermissionEnforcement")
    }

    fn start_with(plugins: &'static str) -> Self {
        let begun = Instant::now();
        let dir =
            tempfile::Builder::new().prefix("kubeless-apiserver-").tempdir().expect("a temporary folder");
        let ports = Ports { etcd: free_port(), etcd_peer: free_port(), api: free_port() };
        // The kernel ends the processes if this one is killed; a janitor removes the folder.
        spawn::remove_after_exit(dir.path());
        prepare(dir.path());
        let etcd = start_etcd(dir.path(), ports);
        let api = start_api(dir.path(), ports, plugins);
        let mut server = Self { api, etcd, ports, plugins, access: Access::new(dir.path()), dir };
        server.write_kubeconfig();
        server.wait_ready();
        println!("Kubernetes API server: ready after {:.1?}", begun.elapsed());
        server
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.api)
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill9(&mut self, part: Part) {
        self.process(part).kill9();
    }

    /// SIGSTOP: connections stay open and nothing is answered.
    pub fn suspend(&mut self, part: Part) {
        self.process(part).signal(Signal::STOP);
    }

    /// SIGCONT after [`Self::suspend`].
    pub fn resume(&mut self, part: Part) {
        self.process(part).signal(Signal::CONT);
    }

    /// Starts what was killed on its old port and data; returns when the server is ready, or at once while the
    /// other part is down.
    pub fn start_again(&mut self, part: Part) {
        assert!(self.process(part).exited().is_some(), "{part:?} still runs");
        match part {
            Part::Etcd => self.etcd = start_etcd(self.dir.path(), self.ports),
            Part::ApiServer => self.api = start_api(self.dir.path(), self.ports, self.plugins),
        }
        if self.etcd.exited().is_none() && self.api.exited().is_none() {
            self.wait_ready();
        }
    }

    /// Makes etcd forget its history up to now, as it does by itself every few minutes.
    pub fn compact(&self) {
        let ask = |path: &str, body: &str| {
            let url = format!("http://127.0.0.1:{}/v3/kv/{path}", self.ports.etcd);
            let run = Command::new("curl").args(["-sSf", "-d", body, &url]).output().expect("curl runs");
            assert!(run.status.success(), "{path}: {}", String::from_utf8_lossy(&run.stderr));
            serde_json::from_slice::<serde_json::Value>(&run.stdout).expect("etcd answers in JSON")
        };
        let read = ask("range", &json!({ "key": BASE64_STANDARD.encode("x") }).to_string());
        let revision = &read["header"]["revision"];
        ask("compaction", &json!({ "revision": revision, "physical": true }).to_string());
    }

    /// Of etcd and of the API server.
    pub fn pids(&self) -> [u32; 2] {
        [self.etcd.pid(), self.api.pid()]
    }

    fn process(&mut self, part: Part) -> &mut Running {
        match part {
            Part::Etcd => &mut self.etcd,
            Part::ApiServer => &mut self.api,
        }
    }

    fn wait_ready(&mut self) {
        let ready = wait::try_until(PATIENCE, || {
            for process in [&mut self.etcd, &mut self.api] {
                assert!(process.exited().is_none(), "it ended:\n{}", process.tail(40));
            }
            self.access.try_kubectl(&["get", "--raw=/readyz"], "").ok()
        });
        assert!(ready.is_some(), "the API server is not ready after {PATIENCE:?}:\n{}", self.api.tail(40));
    }

    /// The server signs its own certificate at its first start; the file holds the authority too.
    fn write_kubeconfig(&mut self) {
        let (path, api) = (self.dir.path().join("certs/apiserver.crt"), &mut self.api);
        let certificate = wait::until("the API server's certificate", PATIENCE, || {
            assert!(api.exited().is_none(), "the API server ended:\n{}", api.tail(40));
            fs::read(&path).ok().filter(|text| text.ends_with(b"-----END CERTIFICATE-----\n"))
        });
        let cluster = json!({
            "server": self.url(),
            "certificate-authority-data": BASE64_STANDARD.encode(certificate),
        });
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": cluster }],
            "users": [{ "name": "test", "user": { "token": "admin" } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "current-context": "test",
        });
        fs::write(self.kubeconfig(), config.to_string()).expect("a file in our own folder");
    }
}

/// The files that the server reads at its start.
fn prepare(dir: &Path) {
    let write = |name, text| fs::write(dir.join(name), text).expect("a file in our own folder");
    write("tokens.csv", "admin,admin,admin,system:masters\n");
    write("audit.yaml", AUDIT);
    let mut openssl = Command::new("openssl");
    // The form (SEC 1) of which the server can read the public half too.
    openssl.args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"]);
    let run = openssl.arg(dir.join("accounts.key")).output();
    let run = run.unwrap_or_else(|e| panic!("cannot start openssl: {e}; run 'make setup'"));
    assert!(run.status.success(), "openssl failed:\n{}", String::from_utf8_lossy(&run.stderr));
}

fn start_etcd(dir: &Path, ports: Ports) -> Running {
    let url = |port| format!("http://127.0.0.1:{port}");
    let mut command = spawn::bound_command(kubernetes_dir().join("kube"));
    command.args(["etcd", "--unsafe-no-fsync", "--log-level=warn", "--name=etcd"]);
    command.arg("--data-dir").arg(dir.join("etcd"));
    for flag in ["--listen-client-urls", "--advertise-client-urls"] {
        command.args([flag, &url(ports.etcd)]);
    }
    for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
        command.args([flag, &url(ports.etcd_peer)]);
    }
    command.arg(format!("--initial-cluster=etcd={}", url(ports.etcd_peer)));
    Running::start("etcd", command, dir.join("etcd.log"))
}

fn start_api(dir: &Path, ports: Ports, plugins: &str) -> Running {
    let inside = |name| dir.join(name).display().to_string();
    let mut command = spawn::bound_command(kubernetes_dir().join("kube"));
    command.arg("kube-apiserver").args([
        format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={}", ports.api),
        format!("--cert-dir={}", inside("certs")),
        format!("--token-auth-file={}", inside("tokens.csv")),
        "--authorization-mode=Node,RBAC".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", inside("accounts.key")),
        format!("--service-account-signing-key-file={}", inside("accounts.key")),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        // Loopback cannot be an endpoint of the `kubernetes` Service.
        "--endpoint-reconciler-type=none".into(),
        // Nothing makes a default account for a Pod here.
        "--disable-admission-plugins=ServiceAccount".into(),
        format!("--enable-admission-plugins={plugins}"),
        format!("--audit-policy-file={}", inside("audit.yaml")),
        format!("--audit-log-path={}", inside("audit.log")),
    ]);
    Running::start("kube-apiserver", command, dir.join("kube-apiserver.log"))
}
