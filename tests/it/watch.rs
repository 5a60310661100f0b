//! What a watch has told becomes changes: the rules of `cluster::watch::feed`, by values.

use kubeless::{
    cluster::{
        changes::Changes,
        target::ObjectRef,
        watch::{
            Batch, Subject,
            feed::{Feed, Heard},
        },
    },
    sources::KINDS,
};
use serde_json::{Value, json};

fn trigger(name: &str, uid: &str, version: u32, topic: &str) -> Value {
    json!({
        "metadata": {
            "namespace": "shop", "name": name, "uid": uid, "resourceVersion": version.to_string(), "generation": version,
            "managedFields": [{"manager": "x"}],
        },
        "spec": {"topic": topic, "functionSelector": {"matchLabels": {"app": "a"}}},
    })
}

fn triggers() -> Feed {
    Feed::new(Subject::Triggers(KINDS[0].trigger()))
}

fn applied(changes: &Changes) -> Vec<String> {
    let mut names: Vec<_> =
        changes.triggers.apply.iter().map(|trigger| trigger.core.reference.name.to_string()).collect();
    names.sort();
    names
}

fn deleted(changes: &Changes) -> Vec<String> {
    let mut names: Vec<_> = changes.triggers.delete.iter().map(|(_, name)| name.name.to_string()).collect();
    names.sort();
    names
}

fn list(feed: &mut Feed, objects: &[Value]) -> Batch {
    feed.hear(Heard::ListBegins);
    for object in objects {
        assert!(feed.hear(Heard::Listed(object.clone())).is_empty(), "half a list takes no effect");
    }
    feed.hear(Heard::ListEnds)
}

#[test]
fn a_list_takes_effect_at_its_end_and_the_next_one_only_by_its_differences() {
    let mut feed = triggers();
    let first = list(
        &mut feed,
        &[trigger("a", "1", 10, "t"), trigger("b", "2", 11, "t"), trigger("c", "3", 12, "t")],
    );
    assert_eq!(applied(&first.changes), ["a", "b", "c"]);
    assert_eq!(feed.objects(), 3);
    // A list that breaks off is forgotten.
    feed.hear(Heard::ListBegins);
    feed.hear(Heard::Listed(trigger("z", "9", 13, "t")));
    let second = list(
        &mut feed,
        &[trigger("a", "1", 10, "t"), trigger("b", "2", 14, "u"), trigger("d", "4", 15, "t")],
    );
    assert_eq!(
        (applied(&second.changes), deleted(&second.changes)),
        (vec!["b".into(), "d".into()], vec!["c".into()])
    );
    let seen: Vec<_> =
        second.seen.iter().map(|seen| (&*seen.reference.name, seen.present.is_some())).collect();
    assert_eq!(seen.iter().filter(|(_, present)| !present).count(), 1, "{seen:?}");
    assert!(
        list(
            &mut feed,
            &[trigger("a", "1", 10, "t"), trigger("b", "2", 14, "u"), trigger("d", "4", 15, "t")]
        )
        .is_empty()
    );
}

#[test]
fn events_apply_once_and_delete_once() {
    let mut feed = triggers();
    list(&mut feed, &[]);
    assert_eq!(applied(&feed.hear(Heard::Applied(trigger("a", "1", 10, "t"))).changes), ["a"]);
    assert!(feed.hear(Heard::Applied(trigger("a", "1", 10, "t"))).is_empty(), "a replay changes nothing");
    assert_eq!(applied(&feed.hear(Heard::Applied(trigger("a", "1", 11, "u"))).changes), ["a"]);
    assert_eq!(deleted(&feed.hear(Heard::Deleted(trigger("a", "1", 12, "u"))).changes), ["a"]);
    assert!(feed.hear(Heard::Deleted(trigger("a", "1", 12, "u"))).is_empty());
    assert_eq!(feed.objects(), 0);
}

#[test]
fn a_malformed_object_is_told_and_skipped_and_hides_nothing() {
    let mut feed = triggers();
    let bad = trigger("bad", "2", 11, "no topic!");
    let batch = list(&mut feed, &[trigger("a", "1", 10, "t"), bad, trigger("c", "3", 12, "t")]);
    assert_eq!(applied(&batch.changes), ["a", "c"]);
    let bad = batch.seen.iter().find(|seen| &*seen.reference.name == "bad").expect("it is told");
    let present = bad.present.as_ref().expect("it is there");
    assert!(present.faults.iter().any(|fault| fault.path == "/spec/topic"), "{present:?}");
    assert_eq!((present.generation, present.uid.as_str(), present.kept), (Some(11), "2", false));
    assert_eq!((feed.objects(), feed.faulty()), (3, 1));
    assert_eq!(applied(&feed.hear(Heard::Applied(trigger("bad", "2", 13, "t"))).changes), ["bad"]);
    assert_eq!(feed.faulty(), 0);
}

#[test]
fn the_last_sound_version_stays_in_force_for_the_same_object_only() {
    let mut feed = triggers();
    list(&mut feed, &[trigger("a", "1", 10, "t")]);
    let batch = feed.hear(Heard::Applied(trigger("a", "1", 11, "no topic!")));
    assert!(batch.changes.is_empty() && batch.seen[0].present.as_ref().expect("there").kept);
    // The object was deleted and made anew while nobody looked, and the new one is no good.
    let batch = list(&mut feed, &[trigger("a", "2", 20, "no topic!")]);
    assert_eq!(deleted(&batch.changes), ["a"]);
    assert!(!batch.seen[0].present.as_ref().expect("there").kept);
    // A sound one that was made anew replaces the old one; nothing may delete it afterwards.
    let batch = feed.hear(Heard::Applied(trigger("a", "3", 21, "t")));
    let batch_again = feed.hear(Heard::Applied(trigger("a", "4", 22, "t")));
    for batch in [batch, batch_again] {
        assert_eq!((applied(&batch.changes).len(), deleted(&batch.changes).len()), (1, 0));
    }
    // What never was in force is not deleted.
    feed.hear(Heard::Applied(trigger("b", "9", 30, "no topic!")));
    let gone = feed.hear(Heard::Deleted(trigger("b", "9", 31, "no topic!")));
    assert!(gone.changes.is_empty() && gone.seen[0].present.is_none() && feed.faulty() == 0);
}

#[test]
fn a_status_that_was_written_is_seen_and_nothing_is_read_again() {
    let mut feed = triggers();
    let written = |name: &str, topic: &str, version: &str| {
        let mut object = trigger(name, "1", 10, topic);
        object["metadata"]["resourceVersion"] = json!(version);
        object["status"] = json!({"functions": 1});
        object["metadata"]["managedFields"] = json!([
            {"manager": "kubectl", "operation": "Apply"},
            {"manager": "kubeless-dispatcher", "operation": "Apply", "subresource": "status"},
        ]);
        object
    };
    list(&mut feed, &[trigger("a", "1", 10, "t"), trigger("bad", "1", 10, "no topic!")]);
    for (name, topic, faulty) in [("a", "t", false), ("bad", "no topic!", true)] {
        let batch = feed.hear(Heard::Applied(written(name, topic, "20")));
        assert!(batch.changes.is_empty(), "{name}");
        let present = batch.seen[0].present.as_ref().expect("it is there");
        assert_eq!((present.version.as_str(), &present.status["functions"]), ("20", &json!(1)));
        assert_eq!(present.status_writers, ["kubeless-dispatcher"]);
        assert_eq!((present.was_read, !present.faults.is_empty()), (false, faulty));
        assert_eq!(feed.faulty(), 1);
    }
    // Another history: the same number may stand for another text.
    feed.distrust();
    let batch = list(&mut feed, &[written("a", "u", "20"), written("bad", "u", "20")]);
    assert_eq!(applied(&batch.changes), ["a", "bad"]);
}

#[test]
fn another_history_is_believed_over_equal_versions() {
    let mut feed = triggers();
    list(&mut feed, &[trigger("a", "1", 10, "t")]);
    feed.distrust();
    assert_eq!(applied(&list(&mut feed, &[trigger("a", "1", 10, "u")]).changes), ["a"]);
}

#[test]
fn of_a_function_only_what_calls_it_is_kept() {
    let mut feed = Feed::new(Subject::Functions);
    let code = "x".repeat(1000);
    let function = json!({
        "metadata": {"namespace": "shop", "name": "f", "uid": "1", "resourceVersion": "5", "labels": {"app": "a"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": code, "kept": "yes"}},
        "spec": {"runtime": "python3.11", "handler": "h.h", "function": code, "deps": "requests", "timeout": "7",
            "service": {"ports": [{"name": "web", "port": 9000}]}, "deployment": {"metadata": {}}},
        "status": {"replicas": 1},
    });
    let batch = feed.hear(Heard::Applied(function));
    let kept = serde_json::to_string(&*batch.changes.functions.apply[0]).expect("JSON");
    assert!(
        !kept.contains("xxxx") && kept.contains("\"7\"") && kept.contains("9000") && kept.contains("yes"),
        "{kept}"
    );
    assert_eq!(batch.changes.functions.apply[0].service_port().port, 9000);
    let gone = json!({"metadata": {"namespace": "shop", "name": "f", "uid": "1", "resourceVersion": "6"}});
    assert_eq!(feed.hear(Heard::Deleted(gone)).changes.functions.delete, [ObjectRef::new("shop", "f")]);
}

#[test]
fn every_subject_knows_where_its_objects_are() {
    let selector = "created-by=kubeless".to_owned();
    let all = [Subject::Functions, Subject::Services(selector.clone()), Subject::Slices(selector)];
    let mut paths: Vec<String> =
        all.iter().map(|s| format!("{}/{}", s.resource().api_version, s.resource().plural)).collect();
    paths.extend(kubeless::sources::TRIGGERS.iter().map(|kind| Subject::Triggers(*kind).resource().plural));
    assert_eq!(
        &paths[..3],
        ["kubeless.io/v1beta1/functions", "v1/services", "discovery.k8s.io/v1/endpointslices"]
    );
    assert!(paths[3..].iter().all(|plural| plural.ends_with("triggers")), "{paths:?}");
    assert_eq!(all[0].selector(), None);
    assert_eq!(all[1].selector(), Some("created-by=kubeless"));
}
