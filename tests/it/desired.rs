//! What the controller wants to exist, by values: resources, catalogue and configuration in, Kubernetes objects out. Must
//! never need a cluster.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]
#![allow(clippy::needless_pass_by_value, reason = "json! makes values")]

use clap::Parser;
use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kubeless::{
    api::{
        Violation, cronjob_trigger,
        function::{self, Function},
        http_trigger,
        kubeless_config::KubelessConfig,
        runtimes::Catalogue,
    },
    controller::desired::{
        self, Kind, Object,
        code::{self, Code},
        cron_job,
        deployment::{self, Input},
        exposure::{self, Gateways},
        passage,
        runtime::{Chosen, Defaults},
        security::Floor,
        service,
    },
    pod::{prepare::PrepareArgs, tick::TickArgs},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const CATALOGUE: &str = r#"
- ID: python
  depName: requirements.txt
  fileNameSuffix: .py
  versions:
  - version: "3.8"
    imagePullSecrets: [{imageSecret: private}]
    images:
    - {phase: installation, image: "python:3.8", command: "pip install -r $KUBELESS_DEPS_FILE", secrets: [{name: pypi}]}
    - {phase: runtime, image: "kubeless/python:3.8", env: {PYTHONPATH: "$(KUBELESS_INSTALL_VOLUME)/lib", B: "2"}}
- ID: go
  depName: go.mod
  fileNameSuffix: .go
  livenessProbeInfo: {exec: {command: [alive]}, periodSeconds: 7}
  versions:
  - version: "1.14"
    images:
    - {phase: compilation, image: "go:1.14", command: "compile $KUBELESS_FUNC_NAME"}
    - {phase: runtime, image: "kubeless/go:1.14"}
"#;

fn catalogue() -> Catalogue {
    Catalogue::parse(CATALOGUE).expect("a catalogue")
}

fn read(spec: Value) -> Function {
    let object = json!({
        "apiVersion": "kubeless.io/v1beta1", "kind": "Function",
        "metadata": {"name": "hello", "namespace": "shop", "uid": "u-1", "labels": {"team": "a"},
            "annotations": {"note": "n", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": spec,
    });
    function::decode(object).expect("a function")
}

fn plain() -> Value {
    json!({"runtime": "python3.8", "handler": "mod.fn", "function": "def fn(): pass", "deps": "bottle"})
}

/// `base` with the members of `more` over it.
fn with(base: &Value, more: Value) -> Function {
    let mut spec = base.clone();
    for (name, value) in more.as_object().expect("an object") {
        spec[name] = value.clone();
    }
    read(spec)
}

fn defaults() -> Defaults {
    Defaults::of(&KubelessConfig::default(), "kubeless/kubeless:test", Floor::Baseline)
}

fn try_render(function: &Function, defaults: &Defaults) -> Result<Value, Vec<Violation>> {
    let catalogue = catalogue();
    let found = catalogue.find(&function.spec.runtime).ok();
    let runtime = found.map(|(runtime, version)| Chosen { runtime, version });
    let names =
        runtime.as_ref().map(|chosen| (chosen.files().suffix.to_owned(), chosen.files().deps.to_owned()));
    let (suffix, deps) = names.unwrap_or_default();
    let code =
        Code::of(function, code::FileNames { suffix: &suffix, deps: &deps }).map_err(|wrong| vec![wrong])?;
    let map = code.as_ref().map(|code| code::config_map(function, code));
    let made = deployment::deployment(&Input {
        function,
        runtime,
        defaults,
        config_map: map.as_ref().and_then(|map| map.metadata.name.as_deref()),
        selector: None,
        autoscaled: false,
    })?;
    Ok(serde_json::to_value(made).expect("JSON"))
}

fn render(function: &Function) -> Value {
    try_render(function, &defaults()).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

fn pod(deployment: &Value) -> PodSpec {
    serde_json::from_value(deployment["spec"]["template"]["spec"].clone()).expect("a Pod")
}

fn env(container: &Container) -> BTreeMap<String, String> {
    let env = container.env.iter().flatten();
    env.map(|var| (var.name.clone(), var.value.clone().unwrap_or_default())).collect()
}

fn init<'a>(pod: &'a PodSpec, name: &str) -> &'a Container {
    let found = pod.init_containers.iter().flatten().find(|container| container.name == name);
    found.unwrap_or_else(|| panic!("no init container {name}"))
}

/// The arguments of an init container as the program in it reads them.
#[derive(Parser)]
struct Prepared {
    #[command(flatten)]
    arguments: PrepareArgs,
}

fn prepared(pod: &PodSpec) -> PrepareArgs {
    let args = init(pod, "prepare").args.clone().expect("arguments");
    let args = args.into_iter().map(|word| word.replace("$$", "$"));
    Prepared::try_parse_from(["prepare".to_owned()].into_iter().chain(args)).expect("they parse").arguments
}

#[test]
fn names_labels_owners_and_annotations_are_kubeless() {
    let made = render(&read(plain()));
    let ours = json!({"team": "a", "created-by": "kubeless", "function": "hello"});
    assert_eq!(
        (&made["metadata"]["name"], &made["metadata"]["namespace"]),
        (&json!("hello"), &json!("shop"))
    );
    assert_eq!(made["metadata"]["labels"], ours);
    assert_eq!(made["spec"]["template"]["metadata"]["labels"], ours);
    assert_eq!(
        made["spec"]["selector"]["matchLabels"],
        json!({"created-by": "kubeless", "function": "hello"})
    );
    assert_eq!(made["metadata"]["annotations"], json!({"note": "n"}), "kubectl's own stays where it is");
    let owner = &made["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"], &owner["controller"]),
        (&json!("Function"), &json!("u-1"), &json!(true))
    );
    let pod = &made["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(pod["prometheus.io/scrape"], "true");
    assert_eq!(
        (&pod["prometheus.io/path"], &pod["prometheus.io/port"]),
        (&json!("/metrics"), &json!("8080"))
    );
    assert_eq!(
        made["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}})
    );
    assert!(made["spec"].get("replicas").is_none(), "who scales by hand keeps the number");
}

#[test]
fn the_container_is_told_what_kubeless_told_it() {
    let function = with(
        &plain(),
        json!({"timeout": "7", "deployment": {"spec": {"template": {"spec": {"containers": [
        {"env": [{"name": "MINE", "value": "$(x)"}, {"name": "FUNC_PORT", "value": "1"}, {"name": "MINE", "value": "2"}],
         "resources": {"limits": {"memory": "128Mi"}}}]}}}}}),
    );
    let pod = pod(&render(&function));
    let main = &pod.containers[0];
    assert_eq!((main.name.as_str(), main.image.as_deref()), ("hello", Some("kubeless/python:3.8")));
    let wanted: BTreeMap<String, String> = [
        ("MINE", "2"),
        ("FUNC_HANDLER", "fn"),
        ("MOD_NAME", "mod"),
        ("FUNC_TIMEOUT", "7"),
        ("FUNC_RUNTIME", "python3.8"),
        ("FUNC_MEMORY_LIMIT", "128Mi"),
        ("FUNC_PORT", "8080"),
        ("KUBELESS_INSTALL_VOLUME", "/kubeless"),
        ("PYTHONPATH", "$(KUBELESS_INSTALL_VOLUME)/lib"),
        ("B", "2"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    assert_eq!(env(main), wanted);
    assert_eq!(main.env.as_ref().map(Vec::len), Some(wanted.len()), "no name twice");
    assert_eq!(main.ports.as_ref().unwrap()[0].container_port, 8080);
    let mounts: Vec<_> =
        main.volume_mounts.iter().flatten().map(|m| (m.name.as_str(), m.mount_path.as_str())).collect();
    assert_eq!(mounts, [("hello", "/kubeless")]);
    let secrets: Vec<_> =
        pod.image_pull_secrets.iter().flatten().map(|secret| secret.name.as_str()).collect();
    assert_eq!(secrets, ["private"]);
    let plain = pod_of(&plain());
    assert_eq!(env(&plain.containers[0])["FUNC_MEMORY_LIMIT"], "0");
    assert_eq!(env(&plain.containers[0])["FUNC_TIMEOUT"], "180");
}

fn pod_of(spec: &Value) -> PodSpec {
    pod(&render(&read(spec.clone())))
}

#[test]
fn every_content_type_becomes_arguments_that_prepare_reads() {
    let cases = [
        ("", "text", "no", "mod.py", true),
        ("text", "text", "no", "mod.py", true),
        ("base64", "base64", "no", "mod.py", true),
        ("url", "url", "no", "mod.py", true),
        ("base64+zip", "base64", "zip", "mod", true),
        ("url+zip+deps", "url", "zip", "mod", false),
        ("url+compressedtar", "url", "tar", "mod", true),
        ("base64+compressedtar+deps", "base64", "tar", "mod", false),
    ];
    for (content, given, packed, file, deps) in cases {
        let hex = "0f".repeat(32);
        let function =
            with(&plain(), json!({"function-content-type": content, "checksum": format!("sha256:{hex}")}));
        let arguments = prepared(&pod(&render(&function)));
        let word = |value: String| value.to_lowercase();
        assert_eq!(word(format!("{:?}", arguments.given)), given, "{content}");
        assert_eq!(word(format!("{:?}", arguments.packed)), packed, "{content}");
        assert_eq!(arguments.code.to_str(), Some(format!("/src/{file}").as_str()), "{content}");
        assert_eq!(arguments.sha256, Some(hex), "{content}");
        let copied = arguments.deps.map(|path| path.display().to_string());
        assert_eq!(copied.as_deref(), deps.then_some("/src/requirements.txt"), "{content}");
    }
}

#[test]
fn install_and_compile_are_the_operators_words_with_the_users_as_variables() {
    let python = pod_of(&plain());
    let names: Vec<_> = python.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["prepare", "install"]);
    let install = init(&python, "install");
    assert_eq!(install.args, Some(vec!["pip install -r $KUBELESS_DEPS_FILE".to_owned()]));
    assert_eq!(env(install)["KUBELESS_DEPS_FILE"], "/kubeless/requirements.txt");
    assert_eq!(install.working_dir.as_deref(), Some("/kubeless"));
    let mount = &install.volume_mounts.as_ref().unwrap()[1];
    assert_eq!(
        (mount.mount_path.as_str(), mount.read_only),
        ("/var/run/secrets/kubeless.io/pypi", Some(true))
    );
    let no_deps = pod_of(&json!({"runtime": "python3.8", "handler": "mod.fn", "function": "x"}));
    assert_eq!(no_deps.init_containers.unwrap().len(), 1, "nothing to install");
    let go = pod(&render(&with(&plain(), json!({"runtime": "go1.14", "handler": "mod.$(rm -rf /); `id`"}))));
    let compile = init(&go, "compile");
    assert_eq!(
        env(compile)["KUBELESS_FUNC_NAME"],
        "$$(rm -rf /); `id`",
        "a variable, and not one that expands"
    );
    assert_eq!(compile.args, Some(vec!["compile $KUBELESS_FUNC_NAME".to_owned()]));
    for container in go.init_containers.iter().flatten() {
        let words =
            container.command.iter().chain(&container.args).flatten().cloned().collect::<Vec<_>>().join(" ");
        assert!(!words.contains("rm -rf"), "{words}");
    }
}

#[test]
fn resources_of_the_first_init_container_are_for_all_of_ours() {
    let function = with(
        &plain(),
        json!({"deployment": {"spec": {"template": {"spec": {"initContainers": [
        {"resources": {"limits": {"cpu": "1"}}}, {"name": "mine", "image": "busybox"}]}}}}}),
    );
    let pod = pod(&render(&function));
    let names: Vec<_> = pod.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["prepare", "install", "mine"]);
    let limit = |name| init(&pod, name).resources.as_ref().and_then(|r| r.limits.clone());
    assert!(limit("prepare").is_some() && limit("install").is_some() && limit("mine").is_none());
}

#[test]
fn probes_are_filled_in_and_the_users_and_the_runtimes_win() {
    let main = |spec: &Value| pod_of(spec).containers.remove(0);
    let usual = main(&plain());
    let liveness = usual.liveness_probe.unwrap();
    assert_eq!((liveness.initial_delay_seconds, liveness.period_seconds), (Some(3), Some(30)));
    assert_eq!(liveness.http_get.unwrap().path.as_deref(), Some("/healthz"));
    assert!(
        usual.readiness_probe.unwrap().http_get.is_some() && usual.startup_probe.unwrap().http_get.is_some()
    );
    let go = pod(&render(&with(&plain(), json!({"runtime": "go1.14"})))).containers.remove(0);
    assert_eq!(go.liveness_probe.unwrap().period_seconds, Some(7));
    assert_eq!(go.readiness_probe.unwrap().exec.unwrap().command, Some(vec!["alive".to_owned()]));
    let own = with(
        &plain(),
        json!({"deployment": {"spec": {"template": {"spec": {"containers": [
        {"livenessProbe": {"tcpSocket": {"port": 1}}, "readinessProbe": {"exec": {"command": ["r"]}}}]}}}}}),
    );
    let own = pod(&render(&own)).containers.remove(0);
    assert!(
        own.liveness_probe.unwrap().tcp_socket.is_some() && own.startup_probe.unwrap().tcp_socket.is_some()
    );
    assert!(own.readiness_probe.unwrap().exec.is_some());
}

#[test]
fn the_pod_passes_restricted_and_a_platform_may_choose_the_user() {
    let pod_spec = pod_of(&plain());
    let context = pod_spec.security_context.clone().unwrap();
    assert_eq!(
        (context.run_as_user, context.fs_group, context.run_as_non_root),
        (Some(1000), Some(1000), Some(true))
    );
    assert_eq!(context.seccomp_profile.unwrap().type_, "RuntimeDefault");
    assert_eq!(pod_spec.automount_service_account_token, Some(false));
    for container in pod_spec.containers.iter().chain(pod_spec.init_containers.iter().flatten()) {
        let context = container.security_context.as_ref().unwrap();
        assert_eq!(context.allow_privilege_escalation, Some(false), "{}", container.name);
        assert_eq!(context.capabilities.as_ref().unwrap().drop, Some(vec!["ALL".to_owned()]));
    }
    let affinity = pod_spec.affinity.unwrap().pod_anti_affinity.unwrap();
    assert_eq!(affinity.preferred_during_scheduling_ignored_during_execution.unwrap()[0].weight, 100);
    let openshift = Defaults {
        deployment: json!({"spec": {"template": {"spec": {"securityContext": {}}}}})
            .as_object()
            .unwrap()
            .clone(),
        ..defaults()
    };
    let chosen = pod(&try_render(&read(plain()), &openshift).unwrap()).security_context.unwrap();
    assert_eq!((chosen.run_as_user, chosen.fs_group), (None, None));
    let account = with(
        &plain(),
        json!({"deployment": {"spec": {"template": {"spec": {
        "serviceAccountName": "me", "nodeSelector": {"disk": "ssd"}, "affinity": {}}}}}}),
    );
    let account = pod(&render(&account));
    assert_eq!(account.automount_service_account_token, None, "who names an account wants its token");
    assert_eq!(account.node_selector.unwrap()["disk"], "ssd");
}

#[test]
fn what_reaches_the_node_is_refused_unless_the_operator_allows_it() {
    let attacks = [
        json!({"hostNetwork": true}),
        json!({"hostPID": true}),
        json!({"hostIPC": true}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
        json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
        json!({"containers": [{"securityContext": {"privileged": true}}]}),
        json!({"containers": [{"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]}),
        json!({"containers": [{"securityContext": {"procMount": "Unmasked"}}]}),
        json!({"containers": [{"ports": [{"containerPort": 1, "hostPort": 80}]}]}),
        json!({"initContainers": [{}, {"image": "x", "name": "x", "securityContext": {"privileged": true}}]}),
    ];
    for attack in attacks {
        let function = with(&plain(), json!({"deployment": {"spec": {"template": {"spec": attack}}}}));
        let refused = try_render(&function, &defaults()).expect_err(&attack.to_string());
        assert!(refused[0].path.starts_with("/spec/deployment/spec/template/spec/"), "{refused:?}");
        let allowed = Defaults { floor: Floor::Privileged, ..defaults() };
        try_render(&function, &allowed).unwrap_or_else(|wrong| panic!("{attack}: {wrong:?}"));
        let by_operator = Defaults {
            deployment: json!({"spec": {"template": {"spec": attack}}}).as_object().unwrap().clone(),
            ..defaults()
        };
        try_render(&read(plain()), &by_operator)
            .expect_err("the floor holds for the operator's template too");
    }
}

#[test]
fn an_own_image_brings_its_own_code() {
    let own = json!({"deployment": {"spec": {"template": {"spec": {"containers": [{"image": "mine", "imagePullPolicy": "Never"}]}}}}});
    let pod_spec = pod(&render(&with(&plain(), own.clone())));
    assert!(pod_spec.init_containers.is_none() && pod_spec.volumes.is_none());
    assert!(pod_spec.containers[0].volume_mounts.is_none());
    assert_eq!(pod_spec.containers[0].image_pull_policy.as_deref(), Some("Never"));
    assert_eq!(env(&pod_spec.containers[0])["MOD_NAME"], "mod");
    let bare = pod(&render(&read(own)));
    let wanted = BTreeMap::from([("FUNC_PORT".to_owned(), "8080".to_owned())]);
    assert_eq!(env(&bare.containers[0]), wanted, "no handler, no runtime");
    let unknown = try_render(&with(&plain(), json!({"runtime": "cobol1"})), &defaults()).unwrap_err();
    assert!(unknown[0].to_string().contains("cobol1"), "{unknown:?}");
}

#[test]
fn whatever_makes_a_pods_content_rolls_it_and_nothing_else_does() {
    let template = |spec: &Value| render(&read(spec.clone()))["spec"]["template"].clone();
    let base = template(&plain());
    assert_eq!(base, template(&plain()), "the same bytes every time");
    for change in [
        json!({"function": "def fn(): return 1"}),
        json!({"deps": "flask"}),
        json!({"runtime": "go1.14"}),
        json!({"handler": "mod.other"}),
        json!({"timeout": "5"}),
        json!({"function-content-type": "base64"}),
        json!({"checksum": format!("sha256:{}", "00".repeat(32))}),
    ] {
        let function = with(&plain(), change.clone());
        assert_ne!(base, render(&function)["spec"]["template"], "{change}");
    }
    let scaled = with(&plain(), json!({"replicas": 5}));
    assert_eq!(base, render(&scaled)["spec"]["template"]);
    assert_eq!(render(&scaled)["spec"]["replicas"], 5);
    let mount = |spec: &Function| {
        pod(&render(spec)).volumes.unwrap().into_iter().find_map(|volume| volume.config_map).unwrap().name
    };
    let (one, other) = (mount(&read(plain())), mount(&with(&plain(), json!({"function": "x"}))));
    assert!(one != other && one.starts_with("hello-") && one.len() == "hello-".len() + 10, "{one} {other}");
}

#[test]
fn the_config_map_has_kubeless_keys_and_never_changes() {
    let function = read(plain());
    let code =
        Code::of(&function, code::FileNames { suffix: ".py", deps: "requirements.txt" }).unwrap().unwrap();
    let map = code::config_map(&function, &code);
    let data = map.data.unwrap();
    assert_eq!(data["handler"], "mod.fn");
    assert_eq!((data["mod.py"].as_str(), data["requirements.txt"].as_str()), ("def fn(): pass", "bottle"));
    assert_eq!((data.len(), map.immutable), (3, Some(true)));
    assert!(Code::of(&with(&plain(), json!({"handler": "a/b.fn"})), code::FileNames::default()).is_err());
    assert_eq!(Code::of(&read(json!({"runtime": "python3.8"})), code::FileNames::default()).unwrap(), None);
}

#[test]
fn the_service_is_the_usual_one_or_the_functions_own() {
    let usual = serde_json::to_value(service::service(&read(plain())).unwrap()).unwrap();
    let port = json!({"name": "http-function-port", "port": 8080, "protocol": "TCP", "targetPort": 8080});
    assert_eq!(usual["spec"]["ports"], json!([port]));
    assert_eq!(usual["spec"]["selector"], json!({"created-by": "kubeless", "function": "hello"}));
    assert_eq!(usual["spec"]["type"], "ClusterIP");
    let own = with(
        &plain(),
        json!({"service": {"clusterIP": "None", "selector": {"app": "x"},
        "ports": [{"name": "http", "port": 80, "targetPort": 9000}]}}),
    );
    let made = serde_json::to_value(service::service(&own).unwrap()).unwrap();
    assert_eq!(
        (&made["spec"]["clusterIP"], &made["spec"]["selector"]),
        (&json!("None"), &json!({"app": "x"}))
    );
    assert_eq!(service::container_port(&own).unwrap(), 9000);
    assert_eq!(env(&pod(&render(&own)).containers[0])["FUNC_PORT"], "9000");
    let named = with(&plain(), json!({"service": {"ports": [{"port": 80, "targetPort": "web"}]}}));
    assert!(service::container_port(&named).is_err());
}

#[test]
fn a_deployment_of_an_old_kubeless_keeps_its_selector() {
    let function = read(plain());
    let old = LabelSelector {
        match_labels: Some([("team".to_owned(), "old".to_owned())].into()),
        ..LabelSelector::default()
    };
    let defaults = defaults();
    let catalogue = catalogue();
    let (runtime, version) = catalogue.find("python3.8").unwrap();
    let input = Input {
        function: &function,
        runtime: Some(Chosen { runtime, version }),
        defaults: &defaults,
        config_map: Some("hello-1"),
        selector: Some(&old),
        autoscaled: true,
    };
    let made = deployment::deployment(&input).unwrap().spec.unwrap();
    assert_eq!(made.selector, old);
    assert_eq!(made.template.metadata.unwrap().labels.unwrap()["team"], "old");
    let scaled = with(&plain(), json!({"replicas": 4}));
    let made = deployment::deployment(&Input { function: &scaled, ..input }).unwrap().spec.unwrap();
    assert_eq!(made.replicas, None, "the autoscaler's number");
}

fn http(spec: Value, annotations: Value) -> http_trigger::HTTPTrigger {
    let object = json!({"apiVersion": "kubeless.io/v1beta1", "kind": "HTTPTrigger", "spec": spec, "metadata":
        {"name": "web", "namespace": "shop", "uid": "t-1", "labels": {"l": "1"}, "annotations": annotations}});
    let read = http_trigger::decode(object).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    let typed = read.downcast::<http_trigger::HTTPTrigger>().expect("its own type");
    (*typed).clone()
}

fn gateways() -> Gateways {
    Gateways { ingress_class: None, parent: Some("infra/main".to_owned()), home: "kubeless".to_owned() }
}

fn ways(spec: Value, annotations: Value) -> Result<Vec<Value>, Violation> {
    let gateways = gateways();
    let port = read(plain()).service_port();
    let made = exposure::exposure(&http(spec, annotations), &port, &gateways)?;
    Ok(made.into_iter().map(|object| object.value).collect())
}

#[test]
fn an_ingress_says_what_kubeless_said_in_todays_words() {
    let spec = json!({"function-name": "hello", "host-name": "a.example", "path": "x/y", "gateway": "nginx",
        "tls": true, "cors-enable": true, "basic-auth-secret": "auth"});
    let made = ways(spec, json!({"nginx.ingress.kubernetes.io/rewrite-target": "/$1", "mine": "m"})).unwrap();
    let ingress = &made[0];
    let backend = json!({"service": {"name": "hello", "port": {"number": 8080}}});
    let path = json!({"path": "/x/y", "pathType": "Prefix", "backend": backend});
    assert_eq!(ingress["spec"]["rules"], json!([{"host": "a.example", "http": {"paths": [path]}}]));
    assert_eq!(ingress["spec"]["ingressClassName"], "nginx");
    assert_eq!(ingress["spec"]["tls"], json!([{"hosts": ["a.example"], "secretName": "web-tls"}]));
    let annotations = &ingress["metadata"]["annotations"];
    for (name, value) in [
        ("nginx.ingress.kubernetes.io/rewrite-target", "/$1"),
        ("nginx.ingress.kubernetes.io/enable-cors", "true"),
        ("nginx.ingress.kubernetes.io/auth-type", "basic"),
        ("nginx.ingress.kubernetes.io/auth-secret", "auth"),
        ("nginx.ingress.kubernetes.io/ssl-redirect", "true"),
        ("kubernetes.io/tls-acme", "true"),
        ("mine", "m"),
    ] {
        assert_eq!(annotations[name], value, "{name}");
    }
    assert_eq!(
        ingress["metadata"]["labels"],
        json!({"l": "1", "created-by": "kubeless", "function": "hello"})
    );
    assert_eq!(ingress["metadata"]["ownerReferences"][0]["kind"], "HTTPTrigger");
    let bare =
        ways(json!({"function-name": "hello", "path": "v[0-9]+", "tls-secret": "s"}), json!({})).unwrap();
    assert_eq!(bare[0]["spec"]["rules"][0]["http"]["paths"][0]["pathType"], "ImplementationSpecific");
    assert_eq!(bare[0]["spec"]["tls"], json!([{"secretName": "s"}]));
    assert!(
        bare[0]["spec"].get("ingressClassName").is_none()
            && bare[0]["spec"]["rules"][0].get("host").is_none()
    );
    let old_class = json!({"kubernetes.io/ingress.class": "internal"});
    let old = ways(json!({"function-name": "hello", "gateway": "nginx"}), old_class).unwrap();
    assert!(old[0]["spec"].get("ingressClassName").is_none(), "the API server takes one of the two");
}

#[test]
fn protection_that_a_gateway_does_not_know_is_refused_not_dropped() {
    let spec = json!({"function-name": "hello", "gateway": "traefik", "basic-auth-secret": "s", "cors-enable": true});
    let traefik = ways(spec, json!({})).unwrap();
    let kinds: Vec<_> = traefik.iter().map(|made| made["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Middleware", "Middleware", "Ingress"], "protection first");
    assert_eq!(traefik[1]["spec"], json!({"basicAuth": {"secret": "s"}}));
    let name = &traefik[2]["metadata"]["annotations"]["traefik.ingress.kubernetes.io/router.middlewares"];
    assert_eq!(name, "shop-web-cors@kubernetescrd,shop-web-auth@kubernetescrd");
    for gateway in ["", "haproxy", "gateway-api"] {
        let spec = json!({"function-name": "hello", "gateway": gateway, "basic-auth-secret": "s"});
        let refused = ways(spec, json!({})).expect_err(gateway);
        assert_eq!(refused.path, "/spec/basic-auth-secret");
    }
    let refused = ways(json!({"function-name": "hello", "gateway": "gateway-api", "tls": true}), json!({}));
    assert_eq!(refused.expect_err("the listener's business").path, "/spec/tls");
}

#[test]
fn an_http_route_hangs_on_the_gateway_that_is_named() {
    let spec = json!({"function-name": "hello", "host-name": "a.example", "gateway": "gateway-api", "cors-enable": true});
    let made = ways(spec.clone(), json!({})).unwrap();
    assert_eq!(
        (&made[0]["kind"], &made[0]["apiVersion"]),
        (&json!("HTTPRoute"), &json!("gateway.networking.k8s.io/v1"))
    );
    assert_eq!(made[0]["spec"]["parentRefs"], json!([{"name": "main", "namespace": "infra"}]));
    assert_eq!(made[0]["spec"]["hostnames"], json!(["a.example"]));
    assert_eq!(made[0]["spec"]["rules"][0]["backendRefs"], json!([{"name": "hello", "port": 8080}]));
    let own = ways(spec, json!({"kubeless.io/gateway": "edge/public"})).unwrap();
    assert_eq!(own[0]["spec"]["parentRefs"][0]["name"], "public");
}

#[derive(Parser)]
struct Ticked {
    #[command(flatten)]
    arguments: TickArgs,
}

fn cron(spec: Value) -> Result<Value, Violation> {
    let object = json!({"apiVersion": "kubeless.io/v1beta1", "kind": "CronJobTrigger", "spec": spec, "metadata":
        {"name": "nightly", "namespace": "shop", "uid": "c-1", "labels": {"function": "hello", "x": "y"}}});
    let read_trigger = cronjob_trigger::decode(object).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    let trigger = read_trigger.downcast::<cronjob_trigger::CronJobTrigger>().expect("its own type");
    let function =
        with(&plain(), json!({"timeout": "9", "service": {"ports": [{"port": 81, "targetPort": 8080}]}}));
    cron_job::cron_job(&trigger, &function, &defaults()).map(|job| serde_json::to_value(job).expect("JSON"))
}

#[test]
fn a_cron_job_calls_once_with_the_payload_as_it_is() {
    let payload = json!({"text": "it's $(HOME) `id` \"q\""});
    let job = cron(json!({"schedule": "*/5 * * * *", "function-name": "hello", "payload": payload,
        "timeZone": "Europe/Berlin", "concurrencyPolicy": "Forbid", "startingDeadlineSeconds": 30}))
    .unwrap();
    let spec = &job["spec"];
    assert_eq!((&spec["schedule"], &spec["timeZone"]), (&json!("*/5 * * * *"), &json!("Europe/Berlin")));
    assert_eq!(
        (&spec["concurrencyPolicy"], &spec["startingDeadlineSeconds"]),
        (&json!("Forbid"), &json!(30))
    );
    assert_eq!(
        (&spec["successfulJobsHistoryLimit"], &spec["failedJobsHistoryLimit"]),
        (&json!(3), &json!(1))
    );
    let inner = &spec["jobTemplate"]["spec"];
    assert_eq!((&inner["backoffLimit"], &inner["activeDeadlineSeconds"]), (&json!(0), &json!(69)));
    let template = &inner["template"];
    assert_eq!(
        template["metadata"]["labels"],
        json!({"team": "a", "x": "y"}),
        "not one of the function's own Pods"
    );
    assert_eq!(template["spec"]["restartPolicy"], "Never");
    assert_eq!(job["metadata"]["ownerReferences"][0]["kind"], "CronJobTrigger");
    let container = &template["spec"]["containers"][0];
    let sent = container["env"][1]["value"].as_str().unwrap().replace("$$", "$");
    assert_eq!(serde_json::from_str::<Value>(&sent).unwrap(), payload);
    assert!(
        !container["env"][1]["value"].as_str().unwrap().replace("$$", "").contains('$'),
        "nothing expands"
    );
    let args: Vec<String> = serde_json::from_value(container["args"].clone()).unwrap();
    let arguments = ["tick".to_owned()].into_iter().chain(args).chain(["--job".to_owned(), "j".to_owned()]);
    let read = Ticked::try_parse_from(arguments).unwrap_or_else(|wrong| panic!("{wrong}")).arguments;
    assert_eq!((read.host.as_str(), read.port, read.timeout), ("hello.shop.svc", 81, 9));
    let quiet = cron(json!({"schedule": "@hourly", "function-name": "hello", "paused": true})).unwrap();
    assert_eq!((&quiet["spec"]["suspend"], &quiet["spec"]["timeZone"]), (&json!(true), &json!("Etc/UTC")));
    let bare = &quiet["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(bare.as_array().unwrap().len(), 1, "no payload: a GET");
    let long = cron(json!({"schedule": "@hourly", "function-name": "hello", "payload": "x".repeat(200_000)}));
    assert_eq!(long.unwrap_err().path, "/spec/payload");
}

#[test]
fn names_stay_within_what_kubernetes_takes() {
    let long = "n".repeat(80);
    assert_eq!(desired::short_name("hello-deps"), "hello-deps");
    let (one, other) = (desired::short_name(&long), desired::short_name(&format!("{long}x")));
    assert!(one.len() <= 63 && other.len() <= 63 && one != other);
    let object = Object::new(Kind::Service, &json!({"metadata": {"name": "a"}, "status": {"x": 1}})).unwrap();
    assert!(object.value.get("status").is_none());
    assert_eq!(object.value["metadata"]["annotations"][desired::APPLIED].as_str().map(str::len), Some(32));
}

#[test]
fn a_way_to_the_dispatcher_stands_beside_it_and_says_nothing_of_its_own() {
    let trigger = |spec: Value| {
        let mut trigger = http(spec, json!({"nginx.ingress.kubernetes.io/server-snippet": "x", "mine": "m"}));
        trigger.metadata.namespace = Some("shop".to_owned());
        trigger
    };
    let made = |spec: Value| passage::passage(&trigger(spec), &gateways()).map(|object| object.value);
    let spec = json!({"function-name": "hello", "host-name": "a.example", "path": "x", "gateway": "nginx", "tls": true});
    let ingress = made(spec).unwrap();
    let meta = &ingress["metadata"];
    assert_eq!((&meta["namespace"], &meta["name"]), (&json!("kubeless"), &json!("shop.web")));
    assert!(
        meta.get("ownerReferences").is_none(),
        "an owner of another namespace would have it collected: {meta}"
    );
    assert_eq!(meta["labels"]["kubeless.io/trigger-namespace"], "shop");
    let said = meta["annotations"].as_object().unwrap();
    assert!(!said.contains_key("mine") && !said.keys().any(|name| name.ends_with("snippet")), "{said:?}");
    assert!(
        !said.keys().any(|name| name.ends_with("rewrite-target")),
        "the dispatcher knows triggers by path: {said:?}"
    );
    assert_eq!(said["nginx.ingress.kubernetes.io/proxy-next-upstream"], "off");
    let service = json!({"service": {"name": "kubeless-dispatcher", "port": {"number": 80}}});
    assert_eq!(ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"], service);
    assert_eq!(ingress["spec"]["tls"][0]["secretName"], "shop.web-tls");

    let route = made(json!({"function-name": "hello", "gateway": "gateway-api"})).unwrap();
    let backend = json!([{"name": "kubeless-dispatcher", "port": 80}]);
    assert_eq!(route["spec"]["rules"][0]["backendRefs"], backend);
    for field in ["tls-secret", "basic-auth-secret"] {
        let refused = made(json!({"function-name": "hello", "gateway": "nginx", field: "mine"})).unwrap_err();
        assert_eq!(refused.path, format!("/spec/{field}"));
    }
    // At home the cluster collects it.
    let mut home = trigger(json!({"function-name": "hello"}));
    home.metadata.namespace = Some("kubeless".to_owned());
    let home = passage::passage(&home, &gateways()).unwrap().value;
    assert_eq!(home["metadata"]["ownerReferences"][0]["kind"], "HTTPTrigger");
}
