//! CustomTriggers: what a program that pushes is told, by real processes. Must never hold the product to a time.

use crate::support::{
    manifests::Manifests,
    metrics,
    process::{Dispatcher, Launch},
    wait,
    witness::{Behaviour, Witness},
};
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);
const TRIGGER: &str = "apiVersion: kubeless.io/v1beta1\nkind: CustomTrigger\nmetadata:\n  name: door\n  namespace: default\nspec:\n";

/// Two functions, `one` and `two`, and one trigger for both.
struct Rig {
    dir: tempfile::TempDir,
    manifests: Manifests,
    one: Witness,
    two: Witness,
}

/// What a program was told.
#[derive(Debug)]
struct Told {
    status: u16,
    retry: bool,
    body: Value,
}

impl Told {
    /// A field of the event at this place, for a function.
    fn part(&self, event: usize, function: &str) -> Value {
        let parts = self.body["events"][event]["functions"].as_array().cloned().unwrap_or_default();
        parts.into_iter().find(|part| part["function"] == function).unwrap_or(Value::Null)
    }
}

impl Rig {
    fn new(spec: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (one, two, manifests) = (Witness::start(), Witness::start(), Manifests::new(dir.path()));
        for (name, witness) in [("one", &one), ("two", &two)] {
            manifests.function(name, &[("app", "both")], &[witness.address()]);
        }
        let rig = Self { dir, manifests, one, two };
        rig.edit(spec);
        let folder = rig.dir.path().join("credentials/push");
        std::fs::create_dir_all(&folder).expect("a folder in our own folder");
        std::fs::write(folder.join("token"), "old\nnew\n").expect("a file in our own folder");
        rig
    }

    fn edit(&self, spec: &str) {
        let all = "  functionSelector:\n    matchLabels:\n      app: both\n";
        self.manifests.write("trigger-door", &format!("{TRIGGER}{all}{spec}"));
    }

    fn start(&self) -> (Dispatcher, SocketAddr) {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let credentials = format!("sources.custom.credentials_dir=\"{}\"", path("credentials"));
        let mut dispatcher = Launch::dispatcher(self.dir.path(), "one")
            .args(["--manifests", &self.manifests.dir().display().to_string(), "--state-dir", &path("state")])
            .args(["--admin-listen", "127.0.0.1:0", "--log-format", "json"])
            .args(["--set", "sources.custom.listen=\"127.0.0.1:0\"", "--set", &credentials])
            .args(["--set", "sources.custom.max_batch=3", "--set", "sources.custom.max_body_bytes=2KiB"])
            .start();
        dispatcher.wait_ready(LIMIT);
        let address = wait::until("the listener's address in the log", LIMIT, || {
            dispatcher.output().lines().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                let is_it = line["message"] == "Events of plug-ins are taken";
                is_it.then(|| line["address"].as_str()?.parse().ok())?
            })
        });
        wait::until("both functions are connected", LIMIT, || {
            let page = metrics::scrape(dispatcher.admin());
            (page.get("kubeless_source_connected", &[]) == Some(2.0)).then_some(())
        });
        (dispatcher, address)
    }
}

fn push(to: SocketAddr, headers: &[(&str, &str)], body: &str) -> Told {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(LIMIT)).http_status_as_error(false).build().into();
    let request = agent.post(format!("http://{to}/events/default/door"));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let mut answer = request.send(body).expect("an answer");
    let text = answer.body_mut().read_to_string().expect("a text");
    let retry = answer.headers().contains_key("retry-after");
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Told { status: answer.status().as_u16(), retry, body }
}

fn event(id: &str) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t", "data": {"n": 1}})
}

const ONE: (&str, &str) = ("content-type", "application/cloudevents+json");
const BATCH: (&str, &str) = ("content-type", "application/cloudevents-batch+json");
const TOKEN: (&str, &str) = ("authorization", "Bearer new");

#[test]
fn a_program_is_told_what_became_of_each_event_for_each_function() {
    let rig = Rig::new("  secret: push\n");
    let (mut dispatcher, to) = rig.start();
    for wrong in [&[ONE][..], &[ONE, ("authorization", "Bearer other")]] {
        assert_eq!(push(to, wrong, &event("e-1").to_string()).status, 401);
    }
    let first = push(to, &[ONE, TOKEN], &event("e-1").to_string());
    assert_eq!((first.status, first.retry), (200, false), "{first:?}");
    for function in ["one", "two"] {
        let part = first.part(0, function);
        assert_eq!((&part["claim"], &part["outcome"]), (&json!("granted"), &json!("delivered")), "{first:?}");
    }
    // Binary mode, with the other token.
    let binary = [("ce-specversion", "1.0"), ("ce-id", "e-2"), ("ce-source", "/s"), ("ce-type", "t")];
    let mut headers = binary.to_vec();
    headers.push(("authorization", "bearer old"));
    assert_eq!(push(to, &headers, "x").status, 200);
    // A repeat, one that is none, and a new one.
    let batch = json!([event("e-1"), {"id": "e-9"}, event("e-3")]).to_string();
    let told = push(to, &[BATCH, TOKEN], &batch);
    assert_eq!(told.status, 200, "{told:?}");
    let part = told.part(0, "two");
    let said = (&part["claim"], &part["outcome"], &part["earlier"], &part["again"]);
    assert_eq!(said, (&json!("refused"), &json!("duplicate"), &json!("delivered"), &json!(false)));
    assert_eq!(told.part(1, "one")["outcome"], "rejected", "{told:?}");
    assert_eq!(told.part(2, "one")["outcome"], "delivered", "{told:?}");
    assert_eq!(told.body["events"][2]["id"], "e-3");
    assert_eq!(push(to, &[ONE, TOKEN], "no JSON").status, 400);
    let long = json!([event("a"), event("b"), event("c"), event("d")]).to_string();
    assert_eq!(push(to, &[BATCH, TOKEN], &long).status, 413, "a batch has three events here");
    assert_eq!(push(to, &[ONE, TOKEN], &"x".repeat(3000)).status, 413);
    assert_eq!((rig.one.len(), rig.two.len()), (3, 3));
    assert_eq!((rig.one.distinct(), rig.two.distinct()), (3, 3));
    wait::until("the books balance", LIMIT, || {
        let page = metrics::scrape(dispatcher.admin());
        (page.get("kubeless_conservation_residual", &[]) == Some(0.0)).then_some(())
    });
    dispatcher.sigterm();
    assert!(dispatcher.wait_exit(LIMIT).success());
}

#[test]
fn an_event_is_done_when_every_function_has_it_and_may_be_left_once_it_is_claimed() {
    let rig = Rig::new("");
    rig.two.refuse();
    let (mut dispatcher, to) = rig.start();
    // One function has it, the other could not be reached: it comes again, and only the other is called.
    let told = push(to, &[ONE], &event("e-1").to_string());
    assert_eq!((told.status, told.retry), (503, true), "{told:?}");
    assert_eq!(told.part(0, "one")["again"], false, "{told:?}");
    assert_eq!(told.part(0, "two")["outcome"], "unreachable", "{told:?}");
    rig.two.reopen();
    let told = push(to, &[ONE], &event("e-1").to_string());
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!((rig.one.len(), rig.two.len()), (1, 1));
    // Claimed is enough for those who ask for it: the functions have not answered.
    rig.one.always(Behaviour::Hang);
    rig.two.always(Behaviour::Hang);
    let early = push(to, &[ONE, ("prefer", "respond-async")], &event("e-2").to_string());
    assert_eq!((early.status, early.retry), (202, false), "{early:?}");
    assert_eq!(early.part(0, "one"), json!({"function": "one", "claim": "granted", "again": false}));
    let running = push(to, &[ONE, ("prefer", "respond-async")], &event("e-2").to_string());
    assert_eq!((running.status, running.part(0, "one")["claim"].clone()), (503, json!("refused")));
    rig.edit("  paused: true\n");
    wait::until("it is paused", LIMIT, || {
        let told = push(to, &[ONE], &event("e-3").to_string());
        (told.status == 503 && told.part(0, "one")["claim"].is_null()).then_some(())
    });
    dispatcher.kill9();
    assert_eq!((rig.one.invoked_twice().len(), rig.two.invoked_twice().len()), (0, 0));
}
