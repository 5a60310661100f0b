//! NATS servers that want to know who we are: with the right credentials everything arrives, with wrong ones nothing does, the
//! status says why, and no secret is told to anybody.

use crate::{
    conformance::{Run, Source, nats::message, run::LIMIT},
    support::{
        certificates::Authority,
        metrics,
        nats::{Client, NatsCluster},
        wait,
    },
};
use async_nats::ConnectOptions;
use std::{fs, ops::Range, path::Path};

const USER: &str = "shop";
const PASSWORD: &str = "canary=Right #1 ok";
const TOKEN: &str = "canary-token-51ab";
/// The pair of the NATS documentation: a seed and its public key.
const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

/// A server that wants credentials, and a folder that holds some.
struct Secured {
    server: NatsCluster,
    options: ConnectOptions,
    folder: tempfile::TempDir,
    tls: bool,
}

impl Secured {
    fn new(configuration: &str, options: ConnectOptions, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let own = folder.path().join("mine");
        fs::create_dir(&own).expect("our own folder");
        for (name, text) in files {
            fs::write(own.join(name), text).expect("our own folder");
        }
        Self { server: NatsCluster::start_with(1, configuration), options, folder, tls: false }
    }
}

impl Source for Secured {
    const KEEPS: bool = false;
    const KIND: &'static str = "NATSTrigger";

    fn shared() -> Self {
        unreachable!("made by its test")
    }
    fn alone() -> Self {
        unreachable!("made by its test")
    }
    fn spec(&self) -> String {
        let tls = format!("  tls:\n    enabled: {}\n", self.tls);
        format!("  topic: safe\n  url: \"{}\"\n  credentials: mine\n{tls}", self.server.url())
    }
    fn arguments(&self) -> Vec<String> {
        vec!["--set".into(), format!("sources.nats.credentials_dir={}", self.folder.path().display())]
    }
    fn publish(&mut self, numbers: Range<usize>, padding: usize) {
        let client = Client::connect(&self.server.url(), &self.options);
        client.publish(numbers.map(|n| message("safe", n, padding)));
    }
    fn poison(&mut self) {}
    fn kill_server(&mut self) {}
    fn restart_server(&mut self) {}
}

#[track_caller]
fn arrives(source: Secured) {
    let mut run = Run::new(source, "");
    let mut dispatcher = run.start("one");
    run.publish(20);
    let books = run.settle();
    run.assert_sound(&books, &mut dispatcher);
    assert_eq!(books.count("delivered"), 20);
    told_to_nobody(&dispatcher.output());
}

#[track_caller]
fn is_refused(source: Secured, why: &str) {
    let run = Run::new(source, "");
    let mut dispatcher = run.launch("one");
    let admin = dispatcher.admin();
    let status = wait::until("the status says why", LIMIT, || {
        let (_, page) = metrics::get(admin, "/debug/subscriptions").ok()?;
        let page: serde_json::Value = serde_json::from_str(&page).ok()?;
        page[0]["status"].as_str().filter(|status| !status.is_empty()).map(str::to_owned)
    });
    assert!(status.to_ascii_lowercase().contains(why), "{status}");
    told_to_nobody(&status);
    told_to_nobody(&dispatcher.output());
}

fn told_to_nobody(text: &str) {
    for secret in [PASSWORD, TOKEN, SEED] {
        assert!(!text.contains(secret), "a secret was told: {text}");
    }
}

fn users() -> String {
    format!("authorization {{ users: [ {{ user: {USER}, password: \"{PASSWORD}\" }} ] }}\n")
}

#[test]
fn user_and_password() {
    let options = ConnectOptions::with_user_and_password(USER.into(), PASSWORD.into());
    let files = [("username", USER), ("password", PASSWORD)];
    arrives(Secured::new(&users(), options.clone(), &files));
    let wrong = [("username", USER), ("password", "canary-wrong")];
    is_refused(Secured::new(&users(), options, &wrong), "authorization");
}

#[test]
fn token_and_nkey() {
    let token = format!("authorization {{ token: \"{TOKEN}\" }}\n");
    arrives(Secured::new(&token, ConnectOptions::with_token(TOKEN.into()), &[("token", TOKEN)]));
    let nkey = format!("authorization {{ users: [ {{ nkey: {PUBLIC} }} ] }}\n");
    arrives(Secured::new(&nkey, ConnectOptions::with_nkey(SEED.into()), &[("nkey", SEED)]));
    let both = [("token", TOKEN), ("nkey", SEED)];
    is_refused(Secured::new(&token, ConnectOptions::with_token(TOKEN.into()), &both), "keep one");
    is_refused(Secured::new(&token, ConnectOptions::with_token(TOKEN.into()), &[]), "holds none");
}

#[test]
fn certificates_of_both_sides() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (authority, stranger) =
        (Authority::new(dir.path(), "authority"), Authority::new(dir.path(), "stranger"));
    let (server, client) = (authority.issue("server"), authority.issue("client"));
    let read = |path: &Path| fs::read_to_string(path).expect("openssl wrote it");
    let configuration = format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}\n",
        server.certificate, server.key, authority.certificate
    );
    let options = ConnectOptions::new()
        .require_tls(true)
        .add_root_certificates(authority.certificate.clone())
        .add_client_certificate(client.certificate.clone(), client.key.clone());
    let (ca, certificate, key) = (read(&authority.certificate), read(&client.certificate), read(&client.key));
    let files = [("ca.crt", ca.as_str()), ("tls.crt", &certificate), ("tls.key", &key)];
    arrives(Secured { tls: true, ..Secured::new(&configuration, options.clone(), &files) });
    let other = read(&stranger.certificate);
    let files = [("ca.crt", other.as_str()), ("tls.crt", &certificate), ("tls.key", &key)];
    is_refused(Secured::new(&configuration, options.clone(), &files), "no connection");
    is_refused(Secured::new(&configuration, options, &[("ca.crt", &ca)]), "no connection");
}
