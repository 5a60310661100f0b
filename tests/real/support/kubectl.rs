//! What a test does with a Kubernetes API server, whoever runs it: kubectl, clients, namespaces, tokens, the audit
//! log. Must never read the machine's own kubeconfig or write to its kubectl cache.

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Access as cluster-admin, and the way to lesser identities.
pub struct Access {
    dir: PathBuf,
    kube: PathBuf,
}

impl Access {
    /// For a server whose `admin.kubeconfig` and `audit.log` are in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), kube: kubernetes_dir().join("kube") }
    }

    /// Of a cluster-admin; for `KUBECONFIG` of child processes.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// A client as cluster-admin, bound to the runtime it is made in.
    pub async fn client(&self) -> kube::Client {
        client_of(&self.kubeconfig()).await
    }

    /// Runs kubectl; panics with its messages if it fails.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args, "").unwrap_or_else(|e| panic!("kubectl {}: {e}", args.join(" ")))
    }

    /// Runs kubectl with `input` as its standard input: what it printed, or what it complained about.
    pub fn try_kubectl(&self, args: &[&str], input: &str) -> Result<String, String> {
        let mut command = Command::new(&self.kube);
        command.arg("kubectl").args(args).env("KUBECONFIG", self.kubeconfig());
        command.env("KUBECACHEDIR", self.dir.join("kubectl-cache"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|e| format!("{}: {e}; run 'make setup'", self.kube.display()))?;
        // A command that fails early does not read all of it.
        let _ = child.stdin.take().expect("piped above").write_all(input.as_bytes());
        let run = child.wait_with_output().map_err(|e| e.to_string())?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if run.status.success() { Ok(text(&run.stdout)) } else { Err(text(&run.stderr)) }
    }

    /// Applies YAML documents, server-side; objects without a namespace of their own go to `namespace`.
    #[track_caller]
    pub fn apply(&self, namespace: &str, documents: &str) {
        let args = ["apply", "--server-side", "--force-conflicts", "-n", namespace, "-f", "-"];
        self.try_kubectl(&args, documents).unwrap_or_else(|e| panic!("kubectl apply: {e}\n{documents}"));
    }

    /// Applies `deploy/crds` and returns when the server serves them.
    #[track_caller]
    pub fn install_crds(&self) {
        let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/crds");
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", crds]);
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", crds]);
    }

    /// One object as the server has it.
    #[track_caller]
    pub fn get(&self, namespace: &str, what: &str) -> Value {
        let text = self.kubectl(&["get", "-n", namespace, what, "-o", "json"]);
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// Creates a namespace whose name begins with `prefix`: one for each test.
    #[track_caller]
    pub fn namespace(&self, prefix: &str) -> String {
        let name = format!("{prefix}-{:06x}", fastrand::u32(..1 << 24));
        self.kubectl(&["create", "namespace", &name]);
        name
    }

    /// A kubeconfig with a token of the service account, whose default namespace is the account's: with exactly
    /// the permissions that its roles grant.
    #[track_caller]
    pub fn service_account(&self, namespace: &str, name: &str) -> PathBuf {
        let token = self.kubectl(&["create", "token", name, "-n", namespace, "--duration=10h"]);
        let path = self.dir.join(format!("{namespace}.{name}.kubeconfig"));
        let mut config: Value = read(&self.kubeconfig());
        config["users"][0]["user"] = serde_json::json!({ "token": token.trim() });
        config["contexts"][0]["context"]["namespace"] = namespace.into();
        fs::write(&path, config.to_string()).expect("a file in our own folder");
        path
    }

    /// Every finished request so far (audit level Metadata), oldest first.
    pub fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.join("audit.log")).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What `user` (a service account: `system:serviceaccount:NAMESPACE:NAME`) asked for and was not refused, as
    /// `verb group/resource` or `verb group/resource/subresource`, the core group being empty. An apply that made an object used
    /// `create` too: the server asks for both.
    pub fn used_by(&self, user: &str) -> BTreeSet<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let allowed = |event: &&Value| {
            event["user"]["username"] == user
                && event["annotations"]["authorization.k8s.io/decision"] == "allow"
        };
        let shown = |event: &Value| {
            let object = &event["objectRef"];
            let sub = object.get("subresource").map_or(String::new(), |sub| format!("/{}", text(sub)));
            let what = format!("{}/{}{sub}", text(&object["apiGroup"]), text(&object["resource"]));
            let made = event["verb"] == "patch" && event["responseStatus"]["code"] == 201;
            let verbs = [Some(text(&event["verb"])), made.then(|| "create".to_owned())];
            verbs.into_iter().flatten().map(move |verb| format!("{verb} {what}")).collect::<Vec<_>>()
        };
        let asked = |event: &&Value| event.get("objectRef").is_some();
        self.audit().iter().filter(allowed).filter(asked).flat_map(shown).collect()
    }
}

/// A client for any kubeconfig, bound to the runtime it is made in.
pub async fn client_of(kubeconfig: &Path) -> kube::Client {
    let file = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    kube::Client::try_from(config.expect("a complete kubeconfig")).expect("a client for it")
}

/// The programs that `scripts/parts.sh` built.
pub fn kubernetes_dir() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/parts.sh");
    let run = Command::new("bash").args([script, "kubernetes"]).output().expect("bash runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    PathBuf::from(String::from_utf8_lossy(&run.stdout).trim())
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("written at the start")).expect("JSON, written by us")
}
