//! Brokers that want TLS, a client certificate, or a user and a password: with the right ones everything arrives, with
//! wrong ones nothing does, the status says why, and no secret is told to anybody.

use crate::support::{
    certificates::{Authority, Pair},
    kafka::{KafkaCluster, Options},
    kafka_client::Record,
    metrics,
    ports::free_port,
    process::Dispatcher,
    scenario::{Plan, Scenario},
    spawn, wait,
};
use std::{fs, path::Path, sync::LazyLock, time::Duration};

const LIMIT: Duration = Duration::from_secs(40);
pub const USER: &str = "shop";
/// With characters that a careless configuration or property line would break.
pub const PASSWORD: &str = "canary=Right #1 ok";
/// Nobody's.
const WRONG: &str = "canary-Wrong-7f3a91";

pub struct Secure {
    pub cluster: KafkaCluster,
    /// SASL over TLS.
    pub sasl: String,
    /// TLS with a client certificate.
    mutual: String,
    pub authority: Authority,
    client: Pair,
    stranger: Authority,
}

/// One broker for the tests of this file.
pub static SECURE: LazyLock<Secure> = LazyLock::new(|| {
    let dir = tempfile::Builder::new().prefix("kubeless-certificates-").tempdir().expect("a folder").keep();
    spawn::remove_after_exit(&dir);
    let authority = Authority::new(&dir, "authority");
    let (broker, client) = (authority.issue("broker"), authority.issue("client"));
    let store = dir.join("broker.pem");
    let read = |path: &Path| fs::read_to_string(path).expect("openssl wrote it");
    fs::write(&store, read(&broker.key) + &read(&broker.certificate)).expect("our own folder");
    let (sasl, mutual) = (free_port(), free_port());
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
    let plain = format!("{plain} user_{USER}=\"{PASSWORD}\";");
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PASSWORDS:SASL_SSL,MUTUAL:SSL";
    let lines = [
        ("listener.security.protocol.map", protocols),
        ("ssl.keystore.type", "PEM"),
        ("ssl.keystore.location", &store.to_string_lossy()),
        ("ssl.truststore.type", "PEM"),
        ("ssl.truststore.location", &authority.certificate.to_string_lossy()),
        ("listener.name.mutual.ssl.client.auth", "required"),
        ("listener.name.passwords.sasl.enabled.mechanisms", "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN"),
        ("listener.name.passwords.scram-sha-256.sasl.jaas.config", scram),
        ("listener.name.passwords.scram-sha-512.sasl.jaas.config", scram),
        ("listener.name.passwords.plain.sasl.jaas.config", &plain),
    ];
    let user = |bits| format!("SCRAM-SHA-{bits}=[name={USER},password=\"{PASSWORD}\"]");
    let options = Options {
        listeners: vec![("PASSWORDS".into(), sasl), ("MUTUAL".into(), mutual)],
        scram: vec![user(256), user(512)],
        extra: lines.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..Options::short_sessions()
    };
    let cluster = KafkaCluster::start(1, &options).for_a_static();
    let stranger = Authority::new(&dir, "stranger");
    let at = |port| format!("127.0.0.1:{port}");
    Secure { cluster, sasl: at(sasl), mutual: at(mutual), authority, client, stranger }
});

/// The scenario with its trigger at `servers` (`None`: where the environment says) and further lines.
fn scenario(servers: Option<&str>, lines: &str) -> Scenario {
    let scenario = Scenario::new(&SECURE.cluster, 2, 1, "");
    point(&scenario, "trigger", &scenario.topic, servers, lines);
    scenario
}

fn point(scenario: &Scenario, trigger: &str, topic: &str, servers: Option<&str>, lines: &str) {
    let servers = servers.map(|s| format!("  bootstrapServers: \"{s}\"\n")).unwrap_or_default();
    let spec = format!("{servers}  startingPosition: earliest\n{lines}");
    scenario.manifests.kafka_trigger(trigger, topic, ("app", "witness"), &spec);
}

/// Writes the credentials folder `name`.
fn credentials(scenario: &Scenario, name: &str, files: &[(&str, &str)]) {
    let dir = scenario.dir.path().join("credentials").join(name);
    fs::create_dir_all(&dir).expect("our own folder");
    for (file, text) in files {
        fs::write(dir.join(file), text).expect("our own folder");
    }
}

fn pem(path: &Path) -> String {
    fs::read_to_string(path).expect("openssl wrote it")
}

/// Starts a dispatcher that knows the credentials folders and `env`.
fn start(scenario: &Scenario, env: &[(&str, &str)]) -> Dispatcher {
    let dir = scenario.dir.path().join("credentials").display().to_string();
    let mut launch = scenario.launch("one").arg("--set").arg(format!("sources.kafka.credentials_dir={dir}"));
    // What is printed at the finest level must not tell a secret either.
    launch = launch.arg("--log-level").arg("debug");
    for (name, value) in env {
        launch = launch.env(name, *value);
    }
    let mut dispatcher = launch.start();
    dispatcher.wait_ready(LIMIT);
    dispatcher
}

/// Events of `scenario` arrive, all and once.
fn delivers(scenario: &mut Scenario, count: usize) {
    scenario.produce(&SECURE.cluster, &Plan { count, repeat_every: 0, keys: 20, back: 1 });
    let report = scenario.settle(LIMIT);
    report.assert_clean();
    assert_eq!(report.outcome("delivered"), scenario.produced.len(), "{report:?}");
    assert_eq!(scenario.witness.invoked_twice(), Vec::<String>::new());
}

fn subscriptions(dispatcher: &mut Dispatcher, trigger: &str) -> Vec<serde_json::Value> {
    let (_, page) = metrics::get(dispatcher.admin(), "/debug/subscriptions").expect("the page answers");
    let list: Vec<serde_json::Value> = serde_json::from_str(&page).expect("a list");
    list.into_iter().filter(|s| s["trigger"].as_str().is_some_and(|name| name.ends_with(trigger))).collect()
}

/// Waits until the status of `trigger` holds all `words`; panics with the last one.
#[track_caller]
fn status_says(dispatcher: &mut Dispatcher, trigger: &str, words: &[&str]) -> String {
    let mut last = String::new();
    let said = wait::try_until(LIMIT, || {
        last = subscriptions(dispatcher, trigger).first()?["status"].as_str()?.to_owned();
        words.iter().all(|word| last.contains(word)).then(|| last.clone())
    });
    said.unwrap_or_else(|| panic!("the status says {last:?}, not {words:?}\n{}", dispatcher.output()))
}

/// Waits until the page shows `trigger` once, without trouble.
#[track_caller]
fn is_well(dispatcher: &mut Dispatcher, trigger: &str) {
    wait::until("a subscription without trouble", LIMIT, || {
        let shown = subscriptions(dispatcher, trigger);
        (shown.len() == 1 && shown[0]["status"] == "").then_some(())
    });
}

/// No secret in the log, in a metric, on a page, in the journal.
fn tells_no_secret(scenario: &Scenario, dispatcher: &mut Dispatcher) {
    let admin = dispatcher.admin();
    let mut told = vec![("log".to_owned(), dispatcher.output())];
    for path in ["/metrics", "/debug/subscriptions", "/readyz?verbose"] {
        told.push((path.to_owned(), metrics::get(admin, path).expect("the page answers").1));
    }
    let mut folders = vec![scenario.state("one")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the state folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                let text = fs::read(entry.path()).unwrap_or_default();
                told.push((entry.path().display().to_string(), String::from_utf8_lossy(&text).into_owned()));
            }
        }
    }
    for (place, text) in &told {
        for secret in ["canary", "PRIVATE KEY"] {
            assert!(!text.contains(secret), "{secret} stands in {place}:\n{text}");
        }
    }
}

#[test]
fn scram_over_tls_with_a_credentials_folder_delivers_all() {
    for bits in ["256", "512"] {
        let lines = format!(
            "  credentials: shop\n  tls:\n    enabled: true\n  sasl:\n    mechanism: SCRAM-SHA-{bits}\n"
        );
        let mut scenario = scenario(Some(&SECURE.sasl), &lines);
        let authority = pem(&SECURE.authority.certificate);
        // Editors end a file with a line feed, which is no part of the password.
        let password = format!("{PASSWORD}\n");
        let files = [("username", USER), ("password", &password), ("ca.crt", &authority)];
        credentials(&scenario, "shop", &files);
        let mut dispatcher = start(&scenario, &[]);
        delivers(&mut scenario, 200);
        assert_eq!(Scenario::residual(&mut dispatcher), 0.0);
        tells_no_secret(&scenario, &mut dispatcher);
    }
}

#[test]
fn a_client_certificate_is_shown_and_without_one_the_status_says_why() {
    let mut scenario = scenario(Some(&SECURE.mutual), "  credentials: no-pair\n  tls:\n    enabled: true\n");
    let authority = pem(&SECURE.authority.certificate);
    credentials(&scenario, "no-pair", &[("ca.crt", &authority)]);
    let (certificate, key) = (pem(&SECURE.client.certificate), pem(&SECURE.client.key));
    credentials(&scenario, "half", &[("ca.crt", &authority), ("tls.crt", &certificate)]);
    credentials(&scenario, "pair", &[("ca.crt", &authority), ("tls.crt", &certificate), ("tls.key", &key)]);
    let mut dispatcher = start(&scenario, &[]);
    status_says(&mut dispatcher, "trigger", &["certificate", "alert"]);
    for (name, words) in [("half", ["tls.key", "both"]), ("nowhere", ["nowhere", "mount the Secret"])] {
        let lines = format!("  credentials: {name}\n  tls:\n    enabled: true\n");
        point(&scenario, "trigger", &scenario.topic, Some(&SECURE.mutual), &lines);
        status_says(&mut dispatcher, "trigger", &words);
    }
    let lines = "  credentials: pair\n  tls:\n    enabled: true\n";
    point(&scenario, "trigger", &scenario.topic, Some(&SECURE.mutual), lines);
    delivers(&mut scenario, 200);
    is_well(&mut dispatcher, "trigger");
    tells_no_secret(&scenario, &mut dispatcher);
}

#[test]
fn kubelesss_environment_names_reach_a_broker_with_plain_over_tls() {
    let mut scenario = scenario(None, "");
    let authority = SECURE.authority.certificate.to_string_lossy();
    let env = [
        ("KAFKA_BROKERS", SECURE.sasl.as_str()),
        ("KAFKA_ENABLE_TLS", "true"),
        ("KAFKA_CACERTS", &authority),
        ("KAFKA_ENABLE_SASL", "true"),
        ("KAFKA_USERNAME", USER),
        ("KAFKA_PASSWORD", PASSWORD),
    ];
    let mut dispatcher = start(&scenario, &env);
    delivers(&mut scenario, 200);
    assert_eq!(Scenario::residual(&mut dispatcher), 0.0);
    tells_no_secret(&scenario, &mut dispatcher);
}

#[test]
fn a_wrong_password_is_told_in_the_status_never_shown_and_stops_nobody_else() {
    let mut scenario = Scenario::new(&SECURE.cluster, 2, 1, "");
    let locked = format!("locked-{}", scenario.topic);
    SECURE.cluster.client().create_topic(&locked, 1, 1);
    SECURE.cluster.client().produce_many(&locked, (0..20).map(|_| Record::new("{}").partition(0)));
    let authority = pem(&SECURE.authority.certificate);
    credentials(&scenario, "shop", &[("username", USER), ("password", WRONG), ("ca.crt", &authority)]);
    let lines = "  credentials: shop\n  tls:\n    enabled: true\n  sasl:\n    mechanism: SCRAM-SHA-512\n";
    // The client for dead letters is refused like the consumer, and has nothing to add.
    let lines = format!("{lines}  delivery:\n    deadLetter:\n      topic: letters\n");
    point(&scenario, "locked", &locked, Some(&SECURE.sasl), &lines);
    let mut dispatcher = start(&scenario, &[]);
    delivers(&mut scenario, 100);
    let said = status_says(&mut dispatcher, "locked", &["uthentication", "SCRAM-SHA-512"]);
    println!("status: {said}");
    delivers(&mut scenario, 100);
    let calls = scenario.witness.seen();
    assert!(calls.iter().all(|call| call.topic == scenario.topic), "nothing of {locked} may be called");
    // It goes on trying: what an operator reads does not grow with that.
    wait::until("another refusal", LIMIT, || (refusals(&dispatcher) >= 2).then_some(()));
    let warned = dispatcher.output().lines().filter(|line| line.contains("Consuming is in trouble")).count();
    assert_eq!(warned, 1, "one line for one trouble:\n{}", dispatcher.output());
    assert!(!dispatcher.output().contains("\"ERROR\""), "nothing is lost yet:\n{}", dispatcher.output());
    is_well(&mut dispatcher, "trigger");
    tells_no_secret(&scenario, &mut dispatcher);
}

/// How often the broker's refusal was noted (at debug level; the client itself leaves out what it repeats at once).
fn refusals(dispatcher: &Dispatcher) -> usize {
    let output = dispatcher.output();
    output.lines().filter(|line| line.contains("\"Client error\"") && line.contains("SASL")).count()
}

#[test]
fn a_certificate_of_a_strange_authority_is_refused_unless_told_otherwise() {
    let lines = "  credentials: strange\n  tls:\n    enabled: true\n  sasl:\n    mechanism: PLAIN\n";
    let mut scenario = scenario(Some(&SECURE.sasl), lines);
    let stranger = pem(&SECURE.stranger.certificate);
    let strange = [("username", USER), ("password", PASSWORD), ("ca.crt", &stranger)];
    credentials(&scenario, "strange", &strange);
    let mut dispatcher = start(&scenario, &[]);
    let said = status_says(&mut dispatcher, "trigger", &["certificate verify failed"]);
    println!("status: {said}");
    assert_eq!(scenario.witness.len(), 0);
    // Only the authority was in the way.
    let lines = lines.replace("enabled: true", "enabled: true\n    insecureSkipVerify: true");
    point(&scenario, "trigger", &scenario.topic, Some(&SECURE.sasl), &lines);
    delivers(&mut scenario, 100);
    tells_no_secret(&scenario, &mut dispatcher);
}
