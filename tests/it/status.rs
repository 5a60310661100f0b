//! What replicas say becomes conditions, and only a difference becomes a write: the rules of `src/status`, by values.

use k8s_openapi::jiff::Timestamp;
use kubeless::{
    api::{
        Violation,
        conditions::{Fact, Status, reasons, types},
        kind::ServedBy,
    },
    cluster::{
        target::{ObjectRef, TriggerRef},
        watch::{Presence, Seen},
    },
    ledger::Outcome,
    sources::TRIGGERS,
    status::{
        board::Board,
        change::{self, Change},
        facts::{self, Evidence, Replica, Verdict},
        report::{Counts, State, SubscriptionReport, TriggerView},
    },
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const UNHEARD: &str = "1 of 2 replicas did not answer: 10.0.0.7:9090";

fn presence() -> Presence {
    Presence {
        uid: "u".to_owned(),
        version: "10".to_owned(),
        generation: Some(3),
        status: Value::Null,
        status_writers: Vec::new(),
        served_by: ServedBy::Dispatcher,
        faults: Vec::new(),
        kept: false,
        was_read: true,
    }
}

fn view(functions: &[&str]) -> TriggerView {
    TriggerView {
        trigger: TriggerRef::new(TRIGGERS[0].kind, ObjectRef::new("shop", "orders")),
        served: true,
        paused: false,
        held: None,
        names: None,
        functions: functions.iter().map(|name| (*name).to_owned()).collect(),
        promise: Fact::new(types::AT_MOST_ONCE, true, reasons::CLAIMED_AT_SOURCE, ""),
    }
}

fn report(function: &str, state: State, status: &str) -> SubscriptionReport {
    let reason = if status.is_empty() { "" } else { reasons::UNREACHABLE };
    SubscriptionReport {
        function: format!("shop/{function}"),
        state,
        status: status.to_owned(),
        reason: reason.to_owned(),
        ..SubscriptionReport::default()
    }
}

fn counted(received: u64, in_flight: i64, outcomes: &[(&str, u64)]) -> SubscriptionReport {
    let outcomes = outcomes.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    let counts = Counts { received, in_flight, outcomes, ..Counts::default() };
    SubscriptionReport { counts: Some(counts), ..report("a", State::Connected, "") }
}

fn judge(
    presence: &Presence,
    view: Option<&TriggerView>,
    replicas: &[&[SubscriptionReport]],
    unheard: &str,
) -> Verdict {
    let lists: Vec<Vec<&SubscriptionReport>> = replicas.iter().map(|list| list.iter().collect()).collect();
    let names = ["", "10.0.0.7:9090"];
    let replicas: Vec<Replica<'_>> =
        lists.iter().zip(names).map(|(list, name)| Replica { name, subscriptions: list }).collect();
    facts::judge(&Evidence { presence, view, replicas: &replicas, unheard })
}

/// Status, reason and message.
fn told(verdict: &Verdict, kind: &str) -> (Status, &'static str, String) {
    let fact = verdict.facts.iter().find(|fact| fact.kind == kind);
    let fact = fact.unwrap_or_else(|| panic!("nothing is said of {kind}: {:?}", verdict.facts));
    (fact.status, fact.reason, fact.message.clone())
}

fn ready(verdict: &Verdict) -> (Status, &'static str) {
    let (status, reason, _) = told(verdict, types::READY);
    (status, reason)
}

#[test]
fn a_trigger_is_ready_once_each_subscription_is_connected_on_one_replica() {
    let view = view(&["a", "b"]);
    let (a, b) = (report("a", State::Connected, ""), report("b", State::Connected, ""));
    let idle = |name| report(name, State::Starting, "");
    let verdict = judge(&presence(), Some(&view), &[&[a.clone(), idle("b")], &[idle("a"), b.clone()]], "");
    assert_eq!(ready(&verdict), (Status::True, reasons::ALL_GOOD));
    assert_eq!(verdict.functions, 2);
    assert_eq!(told(&verdict, types::FUNCTION_RESOLVED).2, "a, b");
    assert_eq!(told(&verdict, types::AT_MOST_ONCE).1, reasons::CLAIMED_AT_SOURCE);
    let one = judge(&presence(), Some(&view), &[&[a.clone(), idle("b")]], "");
    assert_eq!(ready(&one), (Status::Unknown, reasons::CONNECTING));
    // Nothing is known of `b` on the replica that does not answer, and it is not claimed to be.
    let silent = judge(&presence(), Some(&view), &[&[a.clone(), idle("b")]], UNHEARD);
    let (status, _, message) = told(&silent, types::SOURCE_CONNECTED);
    assert_eq!((status, message), (Status::Unknown, format!("b is being connected; {UNHEARD}")));
    let both = judge(&presence(), Some(&view), &[&[a, b]], UNHEARD);
    let connected = told(&both, types::SOURCE_CONNECTED);
    assert_eq!(connected, (Status::True, reasons::CONNECTED, UNHEARD.to_owned()));
}

#[test]
fn trouble_is_told_with_its_reason_and_on_one_of_two_replicas_aside() {
    let view = view(&["a"]);
    let trouble = report("a", State::Troubled, "all brokers are down");
    let alone = judge(&presence(), Some(&view), &[std::slice::from_ref(&trouble)], UNHEARD);
    assert_eq!(ready(&alone), (Status::False, reasons::UNREACHABLE));
    let message = told(&alone, types::SOURCE_CONNECTED).2;
    assert_eq!(message, format!("a: all brokers are down; {UNHEARD}"));
    let other = report("a", State::Connected, "");
    let shared = judge(&presence(), Some(&view), &[&[other], &[trouble]], "");
    assert_eq!(ready(&shared).0, Status::True);
    let message = told(&shared, types::SOURCE_CONNECTED).2;
    assert_eq!(message, "on 10.0.0.7:9090: a: all brokers are down");
    // Another process sends words: only ours become reasons.
    let vandal = SubscriptionReport {
        reason: "AllGood and more".to_owned(),
        ..report("a", State::Troubled, "nonsense")
    };
    let verdict = judge(&presence(), Some(&view), &[&[vandal]], "");
    assert_eq!(ready(&verdict), (Status::False, reasons::SOURCE_ERROR));
}

#[test]
fn a_function_that_is_missing_is_told_by_name_or_by_selector() {
    let mut view = view(&[]);
    let selected = judge(&presence(), Some(&view), &[], "");
    assert_eq!(ready(&selected), (Status::False, reasons::NOTHING_SELECTED));
    assert_eq!(told(&selected, types::SOURCE_CONNECTED).0, Status::Unknown);
    view.names = Some("hello".to_owned());
    let named = judge(&presence(), Some(&view), &[], "");
    assert_eq!(ready(&named), (Status::False, reasons::FUNCTION_MISSING));
    assert!(told(&named, types::FUNCTION_RESOLVED).2.contains("hello"));
}

#[test]
fn paused_held_unserved_and_malformed_are_not_ready() {
    let connected = [report("a", State::Connected, "")];
    let base = view(&["a"]);
    let paused = TriggerView { paused: true, ..base.clone() };
    let verdict = judge(&presence(), Some(&paused), &[&connected], "");
    assert_eq!(ready(&verdict), (Status::False, reasons::PAUSED));
    let held = TriggerView { held: Some("the watch is refused".to_owned()), ..base.clone() };
    let verdict = judge(&presence(), Some(&held), &[&connected], "");
    assert_eq!(ready(&verdict), (Status::False, reasons::API_ERROR));
    // That nobody serves it comes before anything that could be mended.
    let unserved = TriggerView { served: false, ..view(&[]) };
    let verdict = judge(&presence(), Some(&unserved), &[], "");
    assert_eq!(ready(&verdict), (Status::False, reasons::NOT_SERVED));
    assert!(verdict.facts.iter().all(|fact| fact.kind != types::AT_MOST_ONCE), "nothing is promised");
    let faults: Vec<Violation> =
        (0..5).map(|n| Violation::new(format!("/spec/{n}"), "is wrong", "mend it")).collect();
    let malformed = Presence { faults, ..presence() };
    let verdict = judge(&malformed, None, &[], "");
    assert_eq!(ready(&verdict), (Status::False, reasons::INVALID));
    let message = told(&verdict, types::ACCEPTED).2;
    assert!(message.contains("spec.2: is wrong; mend it") && message.ends_with("and 2 more"), "{message}");
    let kept = Presence { kept: true, ..malformed };
    let verdict = judge(&kept, Some(&base), &[&connected], "");
    assert_eq!(ready(&verdict), (Status::False, reasons::INVALID));
    assert!(told(&verdict, types::ACCEPTED).2.contains("the last sound version stays in force"));
    assert_eq!(told(&verdict, types::SOURCE_CONNECTED).0, Status::True);
}

#[test]
fn counters_are_summed_over_those_that_answered_and_foreign_words_left_out() {
    let first = [counted(10, 2, &[("delivered", 7), ("failed", 1)])];
    let second = [counted(5, -1, &[("delivered", 5), ("exploded", 99)])];
    let counts = judge(&presence(), Some(&view(&["a"])), &[&first, &second], "").counts;
    assert_eq!((counts.received, counts.in_flight, counts.replicas), (15, 2, 2));
    let expected = BTreeMap::from([("delivered".to_owned(), 12), ("failed".to_owned(), 1)]);
    assert_eq!(counts.outcomes, expected);
    assert!(Outcome::ALL.iter().any(|outcome| outcome.as_str() == "delivered"));
}

fn compare(there: &Value, generation: i64, verdict: &Verdict) -> Option<Change> {
    let fields = change::fields_of(TRIGGERS[0]);
    change::compare(there, Some(generation), verdict, &fields, Timestamp::now())
}

#[test]
fn nothing_is_written_without_a_change_and_counters_have_time() {
    let view = view(&["a"]);
    let seen = |received| judge(&presence(), Some(&view), &[&[counted(received, 0, &[])]], "");
    let first = compare(&Value::Null, 3, &seen(1)).expect("everything is new");
    assert!(first.urgent);
    assert_eq!(first.status["observedGeneration"], 3);
    assert_eq!(first.status["functions"], 1);
    assert_eq!(first.status["events"]["received"], 1);
    assert_eq!(first.status["conditions"].as_array().map(Vec::len), Some(5));
    assert_eq!(compare(&first.status, 3, &seen(1)), None, "the same again");
    // What somebody else keeps in the status is no difference.
    let mut shared = first.status.clone();
    shared["claim"] = json!({"token": "x"});
    shared["conditions"].as_array_mut().expect("a list").insert(0, json!({
        "type": "Deployed", "status": "True", "reason": "Applied", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }));
    assert_eq!(compare(&shared, 3, &seen(1)), None);
    let counted = compare(&first.status, 3, &seen(2)).expect("a counter is new");
    assert!(!counted.urgent);
    assert_eq!(counted.status["conditions"], first.status["conditions"]);
    let edited = compare(&first.status, 4, &seen(1)).expect("another generation");
    assert!(edited.urgent);
    let times = |change: &Change| change.status["conditions"][0]["lastTransitionTime"].clone();
    assert_eq!(times(&edited), times(&first), "nothing turned");
}

#[test]
fn words_alone_have_time_and_a_reason_has_not() {
    let view = view(&["a"]);
    let troubled = |reason: &str, status: &str| {
        let report = SubscriptionReport { reason: reason.to_owned(), ..report("a", State::Troubled, status) };
        judge(&presence(), Some(&view), &[&[report]], "")
    };
    let there = compare(&Value::Null, 3, &troubled(reasons::UNREACHABLE, "attempt 1")).expect("new").status;
    let words = compare(&there, 3, &troubled(reasons::UNREACHABLE, "attempt 2")).expect("other words");
    assert!(!words.urgent);
    let reason = compare(&there, 3, &troubled(reasons::NOT_AUTHORIZED, "no")).expect("another reason");
    assert!(reason.urgent);
}

#[test]
fn a_kind_is_given_only_the_fields_that_its_definition_has() {
    let verdict = judge(&presence(), Some(&view(&["a"])), &[&[counted(1, 0, &[])]], "");
    for kind in TRIGGERS {
        let fields = change::fields_of(*kind);
        let change = change::compare(&Value::Null, Some(1), &verdict, &fields, Timestamp::now());
        let status = change.expect("everything is new").status;
        let unknown: Vec<_> =
            status.as_object().expect("an object").keys().filter(|name| !fields.contains(*name)).collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", kind.kind);
    }
}

#[test]
fn who_acts_on_an_object_is_read_from_it_sound_or_not() {
    let acts = |kind: &str, spec: Value| {
        let kind = TRIGGERS.iter().find(|known| known.kind == kind).expect("a known kind");
        (kind.acts)(&json!({"spec": spec}))
    };
    assert_eq!(acts("CronJobTrigger", json!({})), ServedBy::Controller);
    assert_eq!(acts("CronJobTrigger", json!({"executor": "nonsense"})), ServedBy::Controller);
    assert_eq!(acts("CronJobTrigger", json!({"executor": "Dispatcher"})), ServedBy::Dispatcher);
    assert_eq!(acts("HTTPTrigger", json!({})), ServedBy::Controller);
    assert_eq!(acts("HTTPTrigger", json!({"delivery": {"through": "Dispatcher"}})), ServedBy::Dispatcher);
    assert_eq!(acts(TRIGGERS[0].kind, json!({})), ServedBy::Dispatcher);
}

#[test]
fn nothing_is_said_before_everything_was_read_once() {
    let board = Board::default();
    let trigger = TriggerRef::new(TRIGGERS[0].kind, ObjectRef::new("shop", "orders"));
    let seen = |present| Seen { kind: trigger.kind, reference: trigger.object.clone(), present };
    let function = Seen { kind: "Function", ..seen(Some(presence())) };
    board.note(vec![seen(Some(presence())), function], TRIGGERS, false);
    assert!(board.snapshot().is_none());
    board.note(Vec::new(), TRIGGERS, true);
    assert_eq!(board.snapshot().expect("whole").len(), 1);
    board.note(vec![seen(None)], TRIGGERS, false);
    assert!(board.snapshot().expect("it stays whole").is_empty());
}
