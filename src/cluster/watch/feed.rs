//! [`Feed`]: what one watch has told, turned into changes. Pure: no network, no clock. Must never let one bad object
//! hide another, nor half a list take effect.
//!
//! A list that begins anew (the server forgot where we were) is compared with what is known, so that only differences
//! reach the readers. An object that fails its checks is skipped; while the same object (by uid) was sound before, its
//! last sound version stays in force.

use serde_json::Value;
use std::collections::HashMap;

use super::subject::{Object, Subject};
use crate::{
    api::{DEFAULT_NAMESPACE, Violation, kind::ServedBy},
    cluster::{changes::Changes, target::ObjectRef},
};

/// What a watch says.
#[derive(Clone, Debug)]
pub enum Heard {
    /// A whole list follows.
    ListBegins,
    /// One object of the list.
    Listed(Value),
    /// The list is complete.
    ListEnds,
    /// One object is new or changed.
    Applied(Value),
    /// One object is gone.
    Deleted(Value),
}

/// How one object stands with its checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub reference: ObjectRef,
    /// How it stands; `None`: it is gone.
    pub present: Option<Presence>,
}

/// An object that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// `status` as the API server holds it.
    pub status: Value,
    /// Field managers that own parts of it.
    pub status_writers: Vec<String>,
    /// Who acts on it and speaks of it in its status, by what it says itself.
    pub served_by: ServedBy,
    /// What is wrong with it; empty: nothing.
    pub faults: Vec<Violation>,
    /// Whether an earlier, sound version of it is in force because this one is not sound.
    pub kept: bool,
    /// Whether it was read for this; else only its status or the like is new.
    pub was_read: bool,
}

/// What readers must do and know.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Objects to apply and to delete.
    pub changes: Changes,
    /// Everything that was looked at, sound or not.
    pub seen: Vec<Seen>,
}

impl Batch {
    /// Whether there is nothing to do or to know.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.seen.is_empty()
    }
}

#[derive(Clone, Debug)]
struct Known {
    uid: String,
    version: String,
    /// Of triggers, which have a status of their own; `None`: unknown, or another kind.
    generation: Option<i64>,
    /// A sound version was handed on.
    in_force: bool,
    faults: Vec<Violation>,
}

impl Known {
    fn is_at(&self, uid: &str, version: &str) -> bool {
        !version.is_empty() && self.version == version && self.uid == uid
    }

    fn is_faulty(&self) -> bool {
        !self.faults.is_empty()
    }
}

#[derive(Debug)]
struct List {
    known: HashMap<ObjectRef, Known>,
    batch: Batch,
}

/// The memory of one watch.
#[derive(Debug)]
pub struct Feed {
    subject: Subject,
    known: HashMap<ObjectRef, Known>,
    faulty: usize,
    list: Option<List>,
}

impl Feed {
    /// Knows nothing yet.
    pub fn new(subject: Subject) -> Self {
        Self { subject, known: HashMap::new(), faulty: 0, list: None }
    }

    /// What is watched.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Objects that are there.
    pub fn objects(&self) -> usize {
        self.known.len()
    }

    /// Objects that are there and fail their checks.
    pub fn faulty(&self) -> usize {
        self.faulty
    }

    /// The server's history is another one (a restored backup): a version that is known may now mean something else.
    pub fn distrust(&mut self) {
        for known in self.known.values_mut() {
            known.version.clear();
            known.generation = None;
        }
    }

    /// Takes one message in. What a list says comes out at its end, as one batch.
    pub fn hear(&mut self, heard: Heard) -> Batch {
        let mut batch = Batch::default();
        match heard {
            Heard::ListBegins => self.list = Some(List { known: HashMap::new(), batch: Batch::default() }),
            Heard::Listed(object) => {
                if let Some(mut list) = self.list.take() {
                    self.listed(object, &mut list);
                    self.list = Some(list);
                }
            }
            Heard::ListEnds => {
                if let Some(list) = self.list.take() {
                    batch = self.ended(list);
                }
            }
            Heard::Applied(object) => self.applied(object, &mut batch),
            Heard::Deleted(object) => {
                let (reference, ..) = identity(&object);
                if let Some(old) = self.known.remove(&reference) {
                    self.faulty -= usize::from(old.is_faulty());
                    self.gone(reference, &old, &mut batch);
                }
            }
        }
        batch
    }

    fn applied(&mut self, object: Value, batch: &mut Batch) {
        let (reference, uid, version) = identity(&object);
        let old = self.known.get(&reference).cloned();
        if old.as_ref().is_some_and(|old| old.is_at(&uid, &version)) {
            return;
        }
        self.faulty -= usize::from(old.as_ref().is_some_and(Known::is_faulty));
        let known = self.judge(object, &reference, (uid, version), old, batch);
        self.faulty += usize::from(known.is_faulty());
        self.known.insert(reference, known);
    }

    fn listed(&self, object: Value, list: &mut List) {
        let (reference, uid, version) = identity(&object);
        let old = self.known.get(&reference).cloned();
        let known = match old {
            // Nothing happened to it while we were away.
            Some(old) if old.is_at(&uid, &version) => old,
            old => self.judge(object, &reference, (uid, version), old, &mut list.batch),
        };
        list.known.insert(reference, known);
    }

    fn ended(&mut self, list: List) -> Batch {
        let mut batch = list.batch;
        let before = std::mem::replace(&mut self.known, list.known);
        self.faulty = self.known.values().filter(|known| known.is_faulty()).count();
        for (reference, old) in before {
            if !self.known.contains_key(&reference) {
                self.gone(reference, &old, &mut batch);
            }
        }
        batch
    }

    /// Reads one object that is new or changed.
    fn judge(
        &self,
        object: Value,
        reference: &ObjectRef,
        (uid, version): (String, String),
        old: Option<Known>,
        batch: &mut Batch,
    ) -> Known {
        let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
        let mut present = Presence {
            uid: uid.clone(),
            version: version.clone(),
            generation,
            status: object.get("status").cloned().unwrap_or(Value::Null),
            status_writers: status_writers(&object),
            served_by: match &self.subject {
                Subject::Triggers(kind) => (kind.acts)(&object),
                _ => ServedBy::Dispatcher,
            },
            faults: Vec::new(),
            kept: false,
            was_read: true,
        };
        let mut in_force = old.as_ref().is_some_and(|old| old.in_force && old.uid == uid);
        match old {
            // Its status was written, by ourselves as a rule: what it asks for is what it asked for.
            Some(old) if old.uid == uid && old.generation.is_some() && old.generation == generation => {
                (present.faults, present.was_read) = (old.faults, false);
            }
            old => match self.subject.read(object) {
                Ok(object) => {
                    apply(object, &mut batch.changes);
                    in_force = true;
                }
                Err(faults) => {
                    // The same name and another uid: the old one was deleted while nobody looked.
                    if let Some(old) = old.filter(|_| !in_force) {
                        self.delete(reference, &old, batch);
                    }
                    present.faults = faults;
                }
            },
        }
        present.kept = in_force && !present.faults.is_empty();
        // Others' labels and annotations mean something too and do not count as a generation.
        let generation = generation.filter(|_| matches!(self.subject, Subject::Triggers(_)));
        let known = Known { uid, version, generation, in_force, faults: present.faults.clone() };
        batch.seen.push(Seen {
            kind: self.subject.kind(),
            reference: reference.clone(),
            present: Some(present),
        });
        known
    }

    fn gone(&self, reference: ObjectRef, old: &Known, batch: &mut Batch) {
        self.delete(&reference, old, batch);
        batch.seen.push(Seen { kind: self.subject.kind(), reference, present: None });
    }

    fn delete(&self, reference: &ObjectRef, old: &Known, batch: &mut Batch) {
        if !old.in_force {
            return;
        }
        let (changes, reference) = (&mut batch.changes, reference.clone());
        match &self.subject {
            Subject::Functions => changes.functions.delete.push(reference),
            Subject::Services(_) => changes.services.delete.push(reference),
            Subject::Slices(_) => changes.slices.delete.push(reference),
            Subject::Triggers(kind) => changes.triggers.delete.push((kind.kind, reference)),
        }
    }
}

fn apply(object: Object, changes: &mut Changes) {
    match object {
        Object::Function(object) => changes.functions.apply.push(object),
        Object::Service(object) => changes.services.apply.push(object),
        Object::Slice(object) => changes.slices.apply.push(object),
        Object::Trigger(object) => changes.triggers.apply.push(object),
    }
}

fn status_writers(object: &Value) -> Vec<String> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let of_status = entries.into_iter().flatten().filter(|entry| entry["subresource"] == "status");
    of_status.filter_map(|entry| entry["manager"].as_str().map(str::to_owned)).collect()
}

/// Name, uid and version; what is missing is empty.
fn identity(object: &Value) -> (ObjectRef, String, String) {
    let text = |key: &str| {
        let value = object.get("metadata").and_then(|metadata| metadata.get(key));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let namespace = text("namespace");
    let namespace = if namespace.is_empty() { DEFAULT_NAMESPACE.to_owned() } else { namespace };
    (ObjectRef::new(namespace, text("name")), text("uid"), text("resourceVersion"))
}
