//! A whole Kubernetes with Pods, in namespaces of its own (`scripts/cluster.sh`): for tests that need controllers, a
//! node, Services or DNS. Needs root. Must never touch the machine's network settings, and leaves nothing behind.
//!
//! ```ignore
//! let cluster = cluster::shared();                      // about 10 s, once a test binary
//! cluster.load(&test_image(&["python"]));               // built once, then from the cache (scripts/test-images.sh)
//! let namespace = cluster.namespace("install");         // one for each test; what Access offers is here too
//! cluster.apply(&namespace, "kind: Deployment\n…");     // imagePullPolicy: Never
//! cluster.rolled_out(&namespace, "deployment/hello");
//! http_get((cluster.cluster_ip(&namespace, "hello"), 8080));   // this machine reaches Services and Pods
//! Options { address: cluster.machine(), ..Options::default() };   // for a Kafka that Pods reach
//! let mut mine = Cluster::start();                      // for tests that do harm
//! mine.kill9("kube-apiserver"); mine.start_again("kube-apiserver");
//! ```
//!
//! `make cluster` and `export KUBELESS_CLUSTER=…` keep one cluster over many runs of the tests.

use super::{kubectl::Access, spawn, wait};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

/// Longest wait for anything in the cluster. Usually 1 to 10 s; a busy machine takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Goes away on drop, and with the test process, however that ends.
pub struct Cluster {
    access: Access,
    dir: PathBuf,
    // Nothing to remove for a cluster that was there before.
    own: Option<tempfile::TempDir>,
}

/// One for all tests of the binary that do not harm it: the one in `KUBELESS_CLUSTER`, or a new one.
pub fn shared() -> &'static Cluster {
    static SHARED: LazyLock<Cluster> = LazyLock::new(|| match std::env::var_os("KUBELESS_CLUSTER") {
        Some(dir) => Cluster::attach(Path::new(&dir)),
        None => Cluster::start(),
    });
    &SHARED
}

impl std::ops::Deref for Cluster {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.access
    }
}

impl Cluster {
    /// Starts a cluster and returns when its node is Ready and its DNS answers.
    pub fn start() -> Self {
        let begun = Instant::now();
        let home =
            tempfile::Builder::new().prefix("kubeless-cluster-").tempdir().expect("a temporary folder");
        let dir = home.path().join("cluster");
        let (script, remove) =
            (script("cluster.sh"), r#"KUBELESS_CLUSTER=$2/cluster bash "$1" down; rm -rf -- "$2""#);
        spawn::run_after_exit(remove, &[script.as_os_str(), home.path().as_os_str()]);
        let cluster = Self { access: Access::new(&dir), dir, own: Some(home) };
        cluster.run(&["up"]);
        println!("Kubernetes: a cluster is ready after {:.1?}", begun.elapsed());
        cluster
    }

    /// A cluster that somebody else started and ends.
    pub fn attach(dir: &Path) -> Self {
        let cluster = Self { access: Access::new(dir), dir: dir.to_path_buf(), own: None };
        cluster.run(&["status"]);
        cluster
    }

    /// Its folder, with the logs of all parts.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Name of its network interface on this machine and of its cgroups.
    pub fn name(&self) -> String {
        self.read("name")
    }

    /// This machine as Pods reach it; listen here for them.
    pub fn machine(&self) -> Ipv4Addr {
        format!("{}.0.1", self.read("net")).parse().expect("written by the script")
    }

    /// Imports an image archive; Pods name it with `imagePullPolicy: Never`.
    pub fn load(&self, archive: &Path) {
        self.run(&["load-image", &archive.display().to_string()]);
    }

    /// Returns when every replica of `what` (`deployment/NAME`) is updated and available; panics with its Pods'
    /// states and events.
    #[track_caller]
    pub fn rolled_out(&self, namespace: &str, what: &str) {
        let limit = format!("--timeout={}s", PATIENCE.as_secs());
        if let Err(error) = self.try_kubectl(&["rollout", "status", what, "-n", namespace, &limit], "") {
            let tell = |args: &[&str]| self.try_kubectl(args, "").unwrap_or_else(|error| error);
            let pods = tell(&["describe", "pods", "-n", namespace]);
            let logs = tell(&["logs", "-n", namespace, what, "--all-containers", "--tail=40"]);
            panic!("{what}: {error}\n{pods}\n{logs}");
        }
    }

    /// The address of a Service, which this machine reaches too.
    #[track_caller]
    pub fn cluster_ip(&self, namespace: &str, service: &str) -> Ipv4Addr {
        let found = self.get(namespace, &format!("service/{service}"));
        let text = found["spec"]["clusterIP"].as_str().unwrap_or_default();
        text.parse().unwrap_or_else(|_| panic!("service {service} has no address: {found}"))
    }

    /// Runs a shell line in a Pod (`pod/NAME`, `deployment/NAME`): its output.
    #[track_caller]
    pub fn sh(&self, namespace: &str, target: &str, line: &str) -> String {
        self.kubectl(&["exec", "-n", namespace, target, "--", "sh", "-c", line])
    }

    /// SIGKILL to one part (`scripts/cluster.sh` lists them); returns when it is gone.
    pub fn kill9(&mut self, part: &str) {
        self.run(&["kill", part]);
    }

    /// Starts what was killed on the same data; returns when it runs and the API server is ready, or at once if
    /// that is down.
    pub fn start_again(&mut self, part: &str) {
        self.run(&["start", part]);
        // The part itself may be on its way into the namespaces still, without a pid there.
        let runs = |name: &str| name == part || self.pid(name).is_some();
        if runs("kube-apiserver") && runs("etcd") {
            let ready = || self.try_kubectl(&["get", "--raw=/readyz"], "").ok();
            wait::until("the API server to be ready again", PATIENCE, ready);
        }
    }

    /// Sends any other signal to one part (STOP and CONT, say).
    pub fn signal(&mut self, part: &str, signal: Signal) {
        let pid = self.pid(part).unwrap_or_else(|| panic!("{part} does not run"));
        kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("it runs");
    }

    /// The process of one part; its parent is the program that brought it into the namespaces.
    pub fn pid(&self, part: &str) -> Option<i32> {
        let outer = fs::read_to_string(self.dir.join(format!("{part}.pid"))).ok()?;
        let outer = outer.trim();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    fn read(&self, file: &str) -> String {
        let text = fs::read_to_string(self.dir.join(file));
        text.unwrap_or_else(|error| panic!("the cluster is not up: {file}: {error}")).trim().to_owned()
    }

    #[track_caller]
    fn run(&self, args: &[&str]) {
        let mut command = spawn::bound_command("bash");
        command.arg(script("cluster.sh")).args(args).env("KUBELESS_CLUSTER", &self.dir);
        let (status, _, said) = output(command);
        assert!(status, "scripts/cluster.sh {}:\n{said}", args.join(" "));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.own.is_some() {
            self.run(&["down"]);
        }
    }
}

/// The archive of an image, built if its contents changed; `args` as `scripts/test-images.sh` takes them.
#[track_caller]
pub fn test_image(args: &[&str]) -> PathBuf {
    let mut command = spawn::bound_command("bash");
    command.arg(script("test-images.sh")).args(args);
    let (status, archive, said) = output(command);
    assert!(status, "scripts/test-images.sh {}:\n{said}", args.join(" "));
    PathBuf::from(archive.trim())
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

/// Success, standard output, standard error. Servers that a script leaves running write to files of their own.
fn output(mut command: Command) -> (bool, String, String) {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = spawn::spawn(command).wait_with_output().expect("our own child");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (run.status.success(), text(&run.stdout), text(&run.stderr))
}
