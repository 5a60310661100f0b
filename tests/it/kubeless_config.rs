//! `kubeless-config` and its runtime catalogue: what is read, what is refused and with which words.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use kubeless::api::{
    kubeless_config::{KEYS, KubelessConfig},
    runtimes::{BUILT_IN, Catalogue, Phase, split},
};
use std::collections::BTreeMap;

fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn told(text: &str) -> Vec<String> {
    let faults = Catalogue::parse(text).err().unwrap_or_default();
    faults.iter().map(ToString::to_string).collect()
}

/// A catalogue of one runtime and version, whose parts can be replaced.
fn one(id: &str, version: &str, images: &str) -> String {
    format!(
        r#"[{{"ID": "{id}", "versions": [{{"name": "x", "version": "{version}", "images": {images}}}], "depName": "", "fileNameSuffix": ".x"}}]"#
    )
}

const RUNS: &str = r#"[{"phase": "runtime", "image": "i"}]"#;

#[test]
fn the_built_in_catalogue_lists_all_that_kubeless_published() {
    let catalogue = Catalogue::built_in();
    assert_eq!(
        catalogue.names().join(" "),
        "python3.11 python3.6 python3.7 python3.8 nodejs18 nodejs10 nodejs12 nodejs14 go1.13 go1.14 java1.8 java11 ruby2.3 \
         ruby2.4 ruby2.5 ruby2.6 php7.2 php7.3 php7.4 dotnetcore2.0 dotnetcore2.1 dotnetcore2.2 dotnetcore3.1 ballerina0.981.0 \
         jvm1.8 vertx1.8 nodejs_distroless8 nodejsCE8"
    );
    let script = include_str!("../../scripts/images.sh");
    for (own, tag) in [("python3.11", "3.11"), ("nodejs18", "18")] {
        let image = &catalogue.find(own).unwrap().1.image(Phase::Runtime).unwrap().image;
        assert!(
            image.ends_with(&format!(":{tag}-{}", env!("CARGO_PKG_VERSION"))),
            "{image}: follow the version"
        );
        let built = image.replace(env!("CARGO_PKG_VERSION"), "$version");
        assert!(script.contains(&built), "scripts/images.sh builds no {built}");
    }
    let written: serde_json::Value = serde_json::to_value(catalogue).unwrap();
    assert_eq!(written, serde_json::from_str::<serde_json::Value>(BUILT_IN).unwrap(), "nothing is lost");
    assert_eq!(
        Catalogue::parse(&serde_saphyr::to_string(&written).unwrap()).unwrap(),
        *catalogue,
        "YAML, too"
    );
}

#[test]
fn a_runtime_is_found_by_id_and_version() {
    let catalogue = Catalogue::built_in();
    let (runtime, version) = catalogue.find("python3.8").unwrap();
    assert_eq!((runtime.dep_name.as_str(), runtime.file_name_suffix.as_str()), ("requirements.txt", ".py"));
    let run = version.image(Phase::Runtime).unwrap();
    assert_eq!(
        run.env["PYTHONPATH"],
        "$(KUBELESS_INSTALL_VOLUME)/lib/python3.8/site-packages:$(KUBELESS_INSTALL_VOLUME)"
    );
    assert!(version.image(Phase::Compilation).is_none());
    assert_eq!(catalogue.find("nodejs_distroless8").unwrap().1.version, "8");
    assert_eq!(split("ballerina0.981.0"), ("ballerina", "0.981.0"));
    for (wanted, fix) in [
        (
            "python2.7",
            "unknown runtime \"python2.7\"; use one of: python3.11, python3.6, python3.7, python3.8",
        ),
        ("pyton3.8", "unknown runtime \"pyton3.8\"; did you mean python3.8?"),
    ] {
        assert_eq!(catalogue.find(wanted).unwrap_err().to_string(), fix);
    }
    assert!(Catalogue::default().find("").is_err());
}

#[test]
fn the_environment_overrides_a_runtime_image() {
    let named = |name: &str| (name == "PYTHON3.8_RUNTIME").then(|| "registry.example/p:1".to_owned());
    let catalogue = Catalogue::built_in().clone().overridden(named);
    let image = |name: &str| catalogue.find(name).unwrap().1.image(Phase::Runtime).unwrap().image.clone();
    assert_eq!(image("python3.8"), "registry.example/p:1");
    assert!(image("python3.7").starts_with("kubeless/python@sha256:"));
}

#[test]
fn faults_of_the_catalogue_name_the_element_and_the_fix() {
    for (text, wanted) in [
        (one("python", "3.8", "[]"), "runtime-images.0.versions.0.images: python3.8 has no image for the phase runtime; add {\"phase\": \"runtime\", \"image\": \"...\"}"),
        (one("python", "3.x", RUNS), "runtime-images.0.versions.0.version: version \"3.x\" of python3.x is not made of digits and dots; write for example \"3.11\""),
        (one("py thon", "3.8", RUNS), "runtime-images.0.ID: ID \"py thon\" cannot be told from the version behind it; use letters, '_' and '-', and no digit at the end"),
        (one("python3", "8", RUNS), "runtime-images.0.ID: ID \"python3\" cannot be told from the version behind it; use letters, '_' and '-', and no digit at the end"),
        (one("a", "1", r#"[{"phase": "runtime", "image": "i"}, {"phase": "runtime", "image": "j"}]"#), "runtime-images.0.versions.0.images: a1 has two images for the phase runtime; keep one of them"),
        (one("a", "1", r#"[{"phase": "runtme", "image": "i"}]"#), "runtime-images.0.versions.0.images.0.phase: \"runtme\" is not allowed here; did you mean runtime?"),
        (one("a", "1", r#"[{"phase": "runtime", "image": "i", "enw": {}}]"#), "runtime-images.0.versions.0.images.0.enw: unknown field \"enw\"; did you mean env?"),
        (one("a", "1", r#"[{"phase": "runtime", "image": "i", "env": {"A": 1}}]"#), "runtime-images.0.versions.0.images.0.env.A: expected a string, found the number 1; write it in quotes: \"1\""),
        (one("a", "1", r#"[{"phase": "runtime"}]"#), "runtime-images.0.versions.0.images.0: field \"image\" is missing; add image"),
        ("{}".to_owned(), "runtime-images: expected a list, found a mapping; write a list: one item a line, each after \"- \""),
        (
            r#"[{"ID": "ruby", "compiled": false, "versions": [{"name": "ruby24", "version": "2.4", "runtimeImage": "kubeless/ruby:2.4", "initImage": "bitnami/ruby:2.4"}]}]"#.to_owned(),
            "runtime-images.0.versions.0: ruby2.4 names its images as Kubeless did before 1.0; write images: [{phase: runtime, image: \"kubeless/ruby:2.4\"}], with a phase installation or compilation for the initImage",
        ),
        (
            r#"[{"ID": "a", "versions": [], "livenessProbeInfo": {"httpGet": {"path": "/", "port": 80}, "initialDelaySecond": 3}}]"#.to_owned(),
            "runtime-images.0.livenessProbeInfo.initialDelaySecond: unknown field \"initialDelaySecond\"; correct its name or its place, or remove it",
        ),
    ] {
        assert_eq!(told(&text), [wanted], "for\n{text}");
    }
    let both = format!(
        "{},{}",
        one("a", "1", RUNS).trim_end_matches(']'),
        one("a", "1", RUNS).trim_start_matches('[')
    );
    assert_eq!(
        told(&both),
        [
            "runtime-images.1.versions.0: a1 stands in the catalogue twice, first at runtime-images.0.versions.0; remove one of the two"
        ]
    );
    assert!(told("[{").len() == 1 && told(r#"[{"ID": "a", "ID": "b", "versions": []}]"#).len() == 1);
    assert!(Catalogue::parse("").unwrap().names().is_empty());
}

#[test]
fn private_images_and_phase_secrets_are_read() {
    let text = r#"[{"ID": "a", "versions": [{"name": "a1", "version": "1", "imagePullSecrets": [{"imageSecret": "p1"}],
        "images": [{"phase": "installation", "image": "i", "secrets": [{"name": "s1"}], "command": "c"},
                   {"phase": "runtime", "image": "r"}]}], "depName": "d", "fileNameSuffix": ".a"}]"#;
    let catalogue = Catalogue::parse(text).unwrap();
    let version = catalogue.find("a1").unwrap().1;
    assert_eq!(version.image_pull_secrets[0].image_secret, "p1");
    assert_eq!(version.image(Phase::Installation).unwrap().secrets[0].name, "s1");
}

#[test]
fn the_config_map_of_kubeless_1_0_8_is_read() {
    let config = KubelessConfig::parse(&data(&[
        ("builder-image", "kubeless/function-image-builder:v1.0.8"),
        ("builder-image-secret", ""),
        ("deployment", "{}"),
        ("enable-build-step", "false"),
        ("function-registry-tls-verify", "true"),
        ("ingress-enabled", "false"),
        (
            "provision-image",
            "kubeless/unzip@sha256:e867f9b366ffb1a25f14baf83438db426ced4f7add56137b7300d32507229b5a",
        ),
        ("provision-image-secret", ""),
        ("runtime-images", BUILT_IN),
        ("service-type", "ClusterIP"),
    ]))
    .unwrap();
    assert_eq!(config.builder_image.as_deref(), Some("kubeless/function-image-builder:v1.0.8"));
    assert_eq!(config.runtimes, *Catalogue::built_in());
    assert!(config.registry_tls_verify && !config.enable_build_step && config.functions_namespace.is_none());
    assert!(config.unread.is_empty() && config.deployment.is_empty() && config.pull_secrets().is_empty());
    assert_eq!(KubelessConfig::parse(&BTreeMap::new()).unwrap(), KubelessConfig::default());
}

#[test]
fn faults_of_the_config_map_name_the_key() {
    let faults = KubelessConfig::parse(&data(&[
        ("deployment", r#"{"spec": {"templat": {"spec": {}}, "replicas": 1}}"#),
        ("enable-build-step", "yes"),
        ("functions-namespace", "a b"),
        ("runtime-images", "[1]"),
        ("service-type", "clusterip"),
    ]))
    .unwrap_err();
    let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "runtime-images.0: expected a mapping, found the number 1; write a mapping",
            "deployment.spec.templat: unknown field \"templat\"; correct its name or its place, or remove it",
            "functions-namespace: \"a b\" is not a name; write a name of a-z, 0-9, '-', starting and ending with a letter or digit, or leave it empty",
            "enable-build-step: \"yes\" is neither \"true\" nor \"false\"; write \"true\" or \"false\", in quotes",
            "service-type: \"clusterip\" is not a type of Service; did you mean ClusterIP?",
        ]
    );
    let config =
        KubelessConfig::parse(&data(&[("runtime-image", "[]"), ("provision-image-secret", "a")])).unwrap();
    assert_eq!(
        config.unread[0].to_string(),
        "runtime-image: unknown field \"runtime-image\"; did you mean runtime-images?"
    );
    assert_eq!(config.pull_secrets(), ["a"]);
    assert_eq!(KEYS.len(), 11);
}
