//! `kubeless function` and `kubeless trigger` without a cluster: the real binary, what it makes of flags, files, URLs
//! and kubeconfigs.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

const CODE: &str = "def main(event, context):\n    return 'hello'\n";

struct Run {
    code: i32,
    out: String,
    err: String,
}

/// A home without a kubeconfig.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        fs::write(home.path("hello.py"), CODE).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(&[], arguments)
    }

    fn run_with(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubeless"));
        for name in ["KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBELESS_TOKEN_FILE_PATH", "http_proxy"] {
            command.env_remove(name);
        }
        let output = command
            .current_dir(self.0.path())
            .env("HOME", self.0.path())
            .env("NO_PROXY", "127.0.0.1")
            .envs(environment.iter().copied())
            .args(arguments)
            .output()
            .unwrap();
        Run {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The object that a dry run prints.
    fn object(&self, arguments: &[&str]) -> Value {
        let all = [arguments, &["--dry-run", "-o", "json"]].concat();
        let run = self.run(&all);
        assert_eq!(run.code, 0, "{}", run.err);
        serde_json::from_str(&run.out).unwrap()
    }

    fn refused(&self, arguments: &[&str], words: &str) {
        let run = self.run(&[arguments, &["--dry-run"]].concat());
        assert_ne!(run.code, 0, "{}", run.out);
        assert_eq!(run.out, "", "talk is on standard error");
        assert!(run.err.contains(words), "{words:?} is missing in {:?}", run.err);
    }
}

const DEPLOY: [&str; 9] = [
    "function",
    "deploy",
    "hello",
    "--runtime",
    "python3.11",
    "--handler",
    "hello.main",
    "--from-file",
    "hello.py",
];

fn deploy<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&DEPLOY[..], more].concat()
}

#[test]
fn deploy_makes_what_kubeless_made_of_its_flags() {
    let home = Home::new();
    fs::write(home.path("requirements.txt"), "requests\n").unwrap();
    let object = home.object(&deploy(&[
        "-l",
        "topic=orders,team:a",
        "-e",
        "A=1",
        "--env",
        "URL:http://h/?a=b,c",
        "--secrets",
        "db",
        "-d",
        "requirements.txt",
        "--memory",
        "64Mi",
        "--cpu",
        "500m",
        "--runtime-image",
        "registry.example/py:1",
        "--image-pull-policy",
        "IfNotPresent",
        "--timeout",
        "30",
        "--headless",
        "--port",
        "9000",
        "--servicePort",
        "80",
        "--node-selectors",
        "disk=ssd",
        "--service-account",
        "runner",
        "-n",
        "shop",
        "--schedule",
        "*/5 * * * *",
    ]));
    let metadata = |labels: Value| json!({ "name": "hello", "namespace": "shop", "labels": labels });
    let function = json!({
        "apiVersion": "kubeless.io/v1beta1",
        "kind": "Function",
        "metadata": metadata(json!({ "created-by": "kubeless", "function": "hello", "topic": "orders", "team": "a" })),
        "spec": {
            "runtime": "python3.11",
            "handler": "hello.main",
            "function": CODE,
            "function-content-type": "text",
            "checksum": object["items"][0]["spec"]["checksum"],
            "deps": "requests\n",
            "timeout": "30",
            "service": {
                "ports": [{ "name": "http-function-port", "port": 80, "targetPort": 9000, "protocol": "TCP" }],
                "selector": { "created-by": "kubeless", "function": "hello" },
                "clusterIP": "None",
            },
            "deployment": { "spec": { "template": { "spec": {
                "containers": [{
                    "name": "hello",
                    "image": "registry.example/py:1",
                    "imagePullPolicy": "IfNotPresent",
                    "env": [{ "name": "A", "value": "1" }, { "name": "URL", "value": "http://h/?a=b,c" }],
                    "resources": {
                        "limits": { "memory": "64Mi", "cpu": "500m" },
                        "requests": { "memory": "64Mi", "cpu": "500m" },
                    },
                    "volumeMounts": [{ "name": "db-vol", "mountPath": "/db" }],
                }],
                "volumes": [{ "name": "db-vol", "secret": { "secretName": "db" } }],
                "nodeSelector": { "disk": "ssd" },
                "serviceAccountName": "runner",
            } } } },
        },
    });
    assert_eq!(object["items"][0], function);
    let trigger = json!({
        "apiVersion": "kubeless.io/v1beta1",
        "kind": "CronJobTrigger",
        "metadata": metadata(json!({ "created-by": "kubeless", "function": "hello" })),
        "spec": { "function-name": "hello", "schedule": "*/5 * * * *" },
    });
    assert_eq!(object["items"][1], trigger);
}

#[test]
fn the_pull_policy_is_always_as_in_kubeless() {
    let object = Home::new().object(&DEPLOY);
    let containers = &object["spec"]["deployment"]["spec"]["template"]["spec"]["containers"];
    assert_eq!(*containers, json!([{ "name": "hello", "imagePullPolicy": "Always" }]));
}

#[test]
fn dryrun_is_yaml_that_reads_back() {
    let home = Home::new();
    let run = home.run(&deploy(&["--dryrun"]));
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert!(run.out.contains("  function: |\n    def main(event, context):\n"), "{}", run.out);
    let read: Value = serde_saphyr::from_str(&run.out).unwrap();
    assert_eq!(read, home.object(&DEPLOY));
    assert_eq!(home.run(&deploy(&["--dryrun", "-o", "name"])).out, "function.kubeless.io/hello\n");
    fs::write(home.path("printed.yaml"), run.out).unwrap();
    assert_eq!(home.run(&["validate", "printed.yaml"]).code, 0, "what is printed is valid");
}

#[test]
fn code_from_files_says_what_it_is() {
    let home = Home::new();
    for (name, content, wanted) in [
        ("a.py", b"x".as_slice(), "text"),
        ("a.jar", &[0xff, 0xfe], "base64"),
        ("a.zip", &[0x50, 0x4b, 0xff], "base64+zip"),
        ("a.tar.gz", &[0x1f, 0x8b], "base64+compressedtar"),
    ] {
        fs::write(home.path(name), content).unwrap();
        let spec =
            home.object(&["function", "deploy", "f", "-r", "x1", "--handler", "a.b", "-f", name])["spec"]
                .clone();
        assert_eq!(spec["function-content-type"], wanted, "{name}");
        assert!(spec["checksum"].as_str().unwrap().len() == "sha256:".len() + 64);
    }
    let bundled =
        ["function", "deploy", "f", "-r", "x1", "--handler", "a.b", "-f", "a.zip", "--bundled-dependencies"];
    assert_eq!(home.object(&bundled)["spec"]["function-content-type"], "base64+zip+deps");
    fs::write(home.path("large.py"), vec![b'x'; 1_000_001]).unwrap();
    home.refused(&["function", "deploy", "f", "-r", "x1", "--handler", "a.b", "-f", "large.py"], "URL");
    home.refused(&["function", "deploy", "f", "-r", "x1", "--handler", "a.b", "-f", "."], "zip -r");
}

/// Answers each request with what its path asks for, until the test ends.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines();
            let first = lines.next().and_then(Result::ok).unwrap_or_default();
            while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
            let answer = match first.split(' ').nth(1) {
                Some("/moved.py") => {
                    "HTTP/1.1 302 Found\r\nlocation: /hello.py\r\ncontent-length: 0\r\n\r\n".to_owned()
                }
                Some("/missing.py") => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
                _ => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{CODE}", CODE.len()),
            };
            let _ = (&stream).write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn code_from_urls_is_hashed_and_stays_a_url() {
    let (home, at) = (Home::new(), server());
    let local = home.object(&DEPLOY)["spec"]["checksum"].clone();
    for (path, wanted) in [
        ("hello.py", "url"),
        ("moved.py", "url"),
        ("code.zip?x=1", "url+zip"),
        ("code.tgz", "url+compressedtar"),
    ] {
        let url = format!("http://{at}/{path}");
        let spec =
            home.object(&["function", "deploy", "f", "-r", "x1", "--handler", "a.b", "-f", &url])["spec"]
                .clone();
        assert_eq!((&spec["function"], &spec["function-content-type"]), (&json!(url), &json!(wanted)));
        assert_eq!(spec["checksum"], local, "of what the URL holds, after redirects");
    }
    let url = format!("http://{at}/requirements.txt");
    assert_eq!(home.object(&deploy(&["-d", &url]))["spec"]["deps"], CODE);
    let url = format!("http://{at}/missing.py");
    home.refused(&["function", "deploy", "f", "-r", "x1", "--handler", "a.b", "-f", &url], "404");
}

#[test]
fn what_cannot_work_is_refused_with_a_fix() {
    let home = Home::new();
    home.refused(&["function", "deploy", "f"], "--runtime");
    home.refused(&["function", "deploy", "f", "-r", "x1"], "--handler");
    home.refused(&["function", "deploy", "f", "-r", "x1", "--handler", "a.b"], "--from-file");
    home.refused(&["function", "deploy", "F", "--runtime-image", "i"], "a-z");
    home.refused(&deploy(&["--memory", "64mb"]), "128Mi");
    home.refused(&deploy(&["--timeout", "1m"]), "whole seconds");
    home.refused(&deploy(&["--port", "0"]), "1..");
    home.refused(&deploy(&["--image-pull-policy", "sometimes"]), "IfNotPresent");
    home.refused(&deploy(&["--env", "=x"]), "KEY=VALUE");
    home.refused(
        &["function", "deploy", "f", "-r", "x1", "--handler", "main", "-f", "hello.py"],
        "handler.hello",
    );
    assert_eq!(home.run(&["function", "update", "f"]).code, 2);
    assert_eq!(home.run(&["function", "deploy"]).code, 2);
}

const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: one\nclusters:\n\
    - {name: c, cluster: {server: 'http://127.0.0.1:1'}}\nusers: [{name: u, user: {}}]\ncontexts:\n\
    - {name: one, context: {cluster: c, user: u, namespace: first}}\n";
const SECOND: &str = "apiVersion: v1\nkind: Config\ncontexts:\n\
    - {name: two, context: {cluster: c, user: u, namespace: second}}\n";

fn namespace(home: &Home, environment: &[(&str, &str)], more: &[&str]) -> String {
    let run = home.run_with(environment, &deploy(&[&["--dryrun", "-o", "json"], more].concat()));
    assert_eq!(run.code, 0, "{}", run.err);
    let object: Value = serde_json::from_str(&run.out).unwrap();
    object["metadata"]["namespace"].as_str().unwrap().to_owned()
}

#[test]
fn kubeconfig_is_found_as_kubectl_finds_it() {
    let home = Home::new();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    assert_eq!(namespace(&home, &[], &[]), "default");
    let (one, two) = (home.path("one"), home.path("two"));
    fs::write(&one, KUBECONFIG).unwrap();
    fs::write(&two, SECOND).unwrap();
    let list = format!("{}:{}", text(&two), text(&one));
    assert_eq!(namespace(&home, &[("KUBECONFIG", &list)], &[]), "first");
    assert_eq!(namespace(&home, &[("KUBECONFIG", &list)], &["--context", "two"]), "second");
    assert_eq!(namespace(&home, &[("KUBECONFIG", &list)], &["-n", "third"]), "third");
    assert_eq!(namespace(&home, &[("KUBECONFIG", "/nowhere")], &["--kubeconfig", &text(&one)]), "first");
    let missing = format!("{}:/nowhere", text(&one));
    assert_eq!(namespace(&home, &[("KUBECONFIG", &missing)], &[]), "first", "what is missing is passed over");
    fs::create_dir(home.path(".kube")).unwrap();
    fs::rename(&one, home.path(".kube/config")).unwrap();
    assert_eq!(namespace(&home, &[], &[]), "first");
    home.refused(&deploy(&["--context", "on"]), "did you mean one?");
    home.refused(&deploy(&["--kubeconfig", "/nowhere"]), "/nowhere");
}

#[test]
fn triggers_from_flags() {
    let home = Home::new();
    let create = ["trigger", "kafka", "create", "orders", "--trigger-topic", "orders", "--function-selector"];
    let object =
        home.object(&[&create[..], &["a=b,c=d", "--paused", "-n", "shop", "--label", "team=a"]].concat());
    assert_eq!(
        object,
        json!({
            "apiVersion": "kubeless.io/v1beta1",
            "kind": "KafkaTrigger",
            "metadata": { "name": "orders", "namespace": "shop", "labels": { "created-by": "kubeless", "team": "a" } },
            "spec": { "topic": "orders", "paused": true, "functionSelector": { "matchLabels": { "a": "b", "c": "d" } } },
        })
    );
    home.refused(&[&create[..], &["a in (b)"]].concat(), "k1=v1");
    home.refused(&[&create[..], &["a=b", "--ordering", "key"]].concat(), "did you mean Key?");
    home.refused(&["trigger", "kafka", "create", "orders"], "--trigger-topic");
    assert_eq!(home.run(&["trigger", "kafka", "update", "orders"]).code, 2);
    assert_eq!(home.run(&["trigger"]).code, 2);
}

#[test]
fn each_kind_of_trigger_has_the_flags_of_kubeless() {
    let home = Home::new();
    let spec = |arguments: &[&str]| home.object(&[&["trigger"], arguments].concat())["spec"].clone();
    assert_eq!(
        spec(&["nats", "create", "t", "--trigger-topic", "orders.*", "--function-selector", "a=b"]),
        json!({ "topic": "orders.*", "functionSelector": { "matchLabels": { "a": "b" } } })
    );
    let kinesis = [
        "kinesis",
        "create",
        "t",
        "--function-name",
        "f",
        "--stream",
        "s",
        "--aws-region",
        "eu-central-1",
        "--shard-id",
        "shardId-000000000000",
        "--secret",
        "aws",
        "--endpoint",
        "http://localhost:4567",
    ];
    assert_eq!(
        spec(&kinesis),
        json!({ "function-name": "f", "stream": "s", "aws-region": "eu-central-1", "shard": "shardId-000000000000",
                "secret": "aws", "endpoint": "http://localhost:4567" })
    );
    home.refused(&["trigger", "kinesis", "create", "t", "--stream", "s"], "--aws-region");
    let cron = ["cronjob", "create", "t", "--function", "f", "--schedule", "*/5 * * * *"];
    assert_eq!(
        spec(&[&cron[..], &["-p", "{\"a\":[1]}"]].concat()),
        json!({ "function-name": "f", "schedule": "*/5 * * * *", "payload": { "a": [1] } })
    );
    assert!(spec(&cron).get("payload").is_none(), "no payload is no body, not an empty object");
    fs::write(home.path("payload.yaml"), "a: [1]\n").unwrap();
    assert_eq!(spec(&[&cron[..], &["-f", "payload.yaml"]].concat())["payload"], json!({ "a": [1] }));
    let both = [&["trigger"], &cron[..], &["-p", "{}", "-f", "payload.yaml"]].concat();
    home.refused(&both, "give one of them");
    home.refused(
        &["trigger", "cronjob", "create", "t", "--function", "f", "--schedule", "* * *"],
        "spec.schedule",
    );
    home.refused(&[&["trigger"], &cron[..], &["-p", "{"]].concat(), "not JSON");
    let http = ["http", "create", "t", "--function-name", "f"];
    assert_eq!(
        spec(
            &[&http[..], &["--hostname", "a.example", "--path", "p", "--enableTLSAcme", "--cors-enable"]]
                .concat()
        ),
        json!({ "function-name": "f", "host-name": "a.example", "path": "p", "tls": true, "cors-enable": true,
                "gateway": "nginx" })
    );
    home.refused(&[&["trigger"], &http[..]].concat(), "--hostname");
    home.refused(&[&["trigger"], &http[..], &["--gateway", "kong"]].concat(), "--hostname");
    let tls = ["--hostname", "a.example", "--enableTLSAcme", "--tls-secret", "s"];
    home.refused(&[&["trigger"], &http[..], &tls].concat(), "tls");
}

#[test]
fn four_shells_complete_every_command() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let run = home.run(&["completion", shell]);
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{shell}");
        for word in ["function", "deploy", "kafka", "servicePort"] {
            assert!(run.out.contains(word), "{word} is missing for {shell}");
        }
    }
    assert_eq!(home.run(&["completion", "tcsh"]).code, 2);
}

/// The help of a command and of everything below it.
fn helps(home: &Home, path: &[String], found: &mut Vec<(String, String)>) {
    let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    let run = home.run(&arguments);
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{path:?}");
    let verbs = run.out.split("Commands:\n").nth(1).unwrap_or_default();
    let verbs = verbs.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("    "));
    let verbs: Vec<String> =
        verbs.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect();
    for verb in verbs.into_iter().filter(|verb| verb != "help") {
        helps(home, &[path, &[verb]].concat(), found);
    }
    found.push((path.join(" "), run.out));
}

#[test]
fn every_help_begins_with_an_example_and_fits_a_screen() {
    let (home, mut found) = (Home::new(), Vec::new());
    helps(&home, &[], &mut found);
    assert!(found.len() > 20, "{}", found.len());
    for (path, text) in found {
        assert!(text.starts_with("Examples:\n  kubeless "), "{path}: {text}");
        let lines = text.lines().filter(|line| !line.starts_with("Usage: "));
        let longest = lines.map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(longest <= 100, "{path}: a line of {longest}");
    }
}
