//! [`Index`]: triggers, Functions, Services and EndpointSlices in, [`super::table::RouteTable`] out. Pure state, one owner.
//! Must never look at every object because one changed.
//!
//! Two inverted indices make that so: a trigger whose selector requires a label pair is filed under that pair,
//! a function under each of its labels. A change then meets only the objects that share a pair with it.

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use super::{
    EndpointChoice, RouterOptions, Shared, endpoints,
    table::{Route, SubscriptionKey},
};
use crate::{
    api::{
        self,
        function::Function,
        selector::{self, Labels},
        trigger::TriggerCore,
    },
    cluster::{
        self,
        target::{ObjectRef, Target, TargetCell, TriggerRef},
    },
};

/// Namespace and one label pair; `None`: objects that require (or have) no pair.
type Bucket = (Arc<str>, Option<(String, String)>);

#[derive(Debug)]
struct FunctionEntry {
    function: Function,
    labels: Labels,
    cell: TargetCell,
    triggers: BTreeSet<TriggerRef>,
}

#[derive(Debug)]
struct TriggerEntry {
    core: Arc<TriggerCore>,
    functions: BTreeSet<ObjectRef>,
}

/// The writing side of a [`super::Router`].
#[derive(Debug)]
pub struct Index {
    options: RouterOptions,
    shared: Arc<Shared>,
    functions: HashMap<ObjectRef, FunctionEntry>,
    triggers: HashMap<TriggerRef, TriggerEntry>,
    services: HashMap<ObjectRef, Service>,
    slices: HashMap<ObjectRef, EndpointSlice>,
    slices_of: HashMap<ObjectRef, BTreeSet<ObjectRef>>,
    functions_in: HashMap<Bucket, HashSet<ObjectRef>>,
    triggers_in: HashMap<Bucket, HashSet<TriggerRef>>,
    dirty: BTreeSet<TriggerRef>,
    retargeted: bool,
}

impl Index {
    pub(super) fn new(options: RouterOptions, shared: Arc<Shared>) -> Self {
        Self {
            options,
            shared,
            functions: HashMap::new(),
            triggers: HashMap::new(),
            services: HashMap::new(),
            slices: HashMap::new(),
            slices_of: HashMap::new(),
            functions_in: HashMap::new(),
            triggers_in: HashMap::new(),
            dirty: BTreeSet::new(),
            retargeted: false,
        }
    }

    /// Chooses addresses in another way from now on.
    pub fn choose_endpoints(&mut self, choice: EndpointChoice) {
        if self.options.endpoints == choice {
            return;
        }
        self.options.endpoints = choice;
        let all: Vec<ObjectRef> = self.functions.keys().cloned().collect();
        all.iter().for_each(|function| self.retarget(function));
        self.publish();
    }

    /// Publishes what changed since the last time; wakes readers only if something did.
    fn publish(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        let changes: Vec<_> = dirty
            .into_iter()
            .map(|trigger| {
                let routes = self.routes(&trigger);
                (trigger, routes)
            })
            .collect();
        let changed = !changes.is_empty() || std::mem::take(&mut self.retargeted);
        if !changes.is_empty() {
            let next = self.shared.table.load().with(changes);
            self.shared.table.store(Arc::new(next));
        }
        if changed {
            self.shared.version.send_modify(|version| *version += 1);
        }
    }

    fn routes(&self, trigger: &TriggerRef) -> Vec<Arc<Route>> {
        let Some(entry) = self.triggers.get(trigger) else {
            return Vec::new();
        };
        let found = entry.functions.iter().filter_map(|name| self.functions.get_key_value(name));
        found
            .map(|(function, target)| {
                let key = SubscriptionKey { trigger: trigger.clone(), function: function.clone() };
                Arc::new(Route { key, trigger: Arc::clone(&entry.core), target: Arc::clone(&target.cell) })
            })
            .collect()
    }

    fn put_trigger(&mut self, core: Arc<TriggerCore>) {
        let reference = core.key();
        if self.triggers.get(&reference).is_some_and(|old| old.core == core) {
            return;
        }
        self.remove_trigger(&reference);
        let bucket = trigger_bucket(&core);
        // A selector without a required pair meets every function of the namespace, filed under `None`.
        let candidates = self.functions_in.get(&bucket).into_iter().flatten();
        let functions: BTreeSet<ObjectRef> = candidates
            .filter(|name| {
                self.functions.get(*name).is_some_and(|f| core.selector.matches(&name.name, &f.labels))
            })
            .cloned()
            .collect();
        for name in &functions {
            if let Some(function) = self.functions.get_mut(name) {
                function.triggers.insert(reference.clone());
            }
        }
        self.triggers_in.entry(bucket).or_default().insert(reference.clone());
        self.triggers.insert(reference.clone(), TriggerEntry { core, functions });
        self.dirty.insert(reference);
    }

    fn remove_trigger(&mut self, reference: &TriggerRef) {
        let Some(old) = self.triggers.remove(reference) else {
            return;
        };
        for name in &old.functions {
            if let Some(function) = self.functions.get_mut(name) {
                function.triggers.remove(reference);
            }
        }
        unfile(&mut self.triggers_in, &trigger_bucket(&old.core), reference);
        self.dirty.insert(reference.clone());
    }

    fn put_function(&mut self, function: Function) {
        let reference = api::reference(&function.metadata);
        let labels = function.metadata.labels.clone().unwrap_or_default();
        if let Some(entry) = self.functions.get_mut(&reference).filter(|entry| entry.labels == labels) {
            entry.function = function;
            self.retarget(&reference);
            return;
        }
        // The cell outlives a change of labels: subscriptions that stay keep the one they took.
        let old = self.take_function(&reference);
        let cell = match old {
            Some(entry) => entry.cell,
            None => TargetCell::new(arc_swap::ArcSwap::from_pointee(self.compute(&reference, &function))),
        };
        let mut triggers = BTreeSet::new();
        for bucket in function_buckets(&reference, &labels) {
            for name in self.triggers_in.get(&bucket).into_iter().flatten() {
                if self
                    .triggers
                    .get(name)
                    .is_some_and(|trigger| trigger.core.selector.matches(&reference.name, &labels))
                {
                    triggers.insert(name.clone());
                }
            }
            self.functions_in.entry(bucket).or_default().insert(reference.clone());
        }
        for name in &triggers {
            if let Some(trigger) = self.triggers.get_mut(name) {
                trigger.functions.insert(reference.clone());
            }
        }
        self.dirty.extend(triggers.iter().cloned());
        self.functions.insert(reference.clone(), FunctionEntry { function, labels, cell, triggers });
        self.retarget(&reference);
    }

    fn remove_function(&mut self, reference: &ObjectRef) {
        if let Some(old) = self.take_function(reference) {
            // Whoever still holds the cell must see that nothing can be called any more.
            let mut gone = Target::clone(&old.cell.load());
            gone.endpoints = Arc::new([]);
            old.cell.store(Arc::new(gone));
            self.retargeted = true;
        }
    }

    fn take_function(&mut self, reference: &ObjectRef) -> Option<FunctionEntry> {
        let old = self.functions.remove(reference)?;
        for bucket in function_buckets(reference, &old.labels) {
            unfile(&mut self.functions_in, &bucket, reference);
        }
        for name in &old.triggers {
            if let Some(trigger) = self.triggers.get_mut(name) {
                trigger.functions.remove(reference);
            }
        }
        self.dirty.extend(old.triggers.iter().cloned());
        Some(old)
    }

    fn put_slice(&mut self, slice: EndpointSlice) {
        let reference = api::reference(&slice.metadata);
        let service = endpoints::service_of(&slice);
        self.remove_slice(&reference, service.as_ref());
        if let Some(service) = service {
            self.slices_of.entry(service.clone()).or_default().insert(reference.clone());
            self.slices.insert(reference, slice);
            self.retarget(&service);
        }
    }

    /// Removes a slice; the function of `next` is about to be brought up to date anyway, so it is not emptied here.
    fn remove_slice(&mut self, reference: &ObjectRef, next: Option<&ObjectRef>) {
        let Some(service) = self.slices.remove(reference).as_ref().and_then(endpoints::service_of) else {
            return;
        };
        if let Some(slices) = self.slices_of.get_mut(&service) {
            slices.remove(reference);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        if next != Some(&service) {
            self.retarget(&service);
        }
    }

    fn compute(&self, reference: &ObjectRef, function: &Function) -> Target {
        let slices = self.slices_of.get(reference).into_iter().flatten();
        let slices = slices.filter_map(|name| self.slices.get(name));
        endpoints::target(function, self.services.get(reference), slices, &self.options)
    }

    fn retarget(&mut self, reference: &ObjectRef) {
        let Some(entry) = self.functions.get(reference) else {
            return;
        };
        let next = self.compute(reference, &entry.function);
        if **entry.cell.load() != next {
            entry.cell.store(Arc::new(next));
            self.retargeted = true;
        }
    }
}

fn trigger_bucket(core: &TriggerCore) -> Bucket {
    let pair = core.selector.required_pair().map(|(key, value)| (key.to_owned(), value.to_owned()));
    (Arc::clone(&core.reference.namespace), pair)
}

fn function_buckets<'a>(reference: &'a ObjectRef, labels: &'a Labels) -> impl Iterator<Item = Bucket> + 'a {
    let pairs = labels.iter().map(|(key, value)| Some((key.clone(), value.clone())));
    let named = Some((selector::NAME_KEY.to_owned(), reference.name.to_string()));
    [None, named].into_iter().chain(pairs).map(|pair| (Arc::clone(&reference.namespace), pair))
}

fn unfile<K: Eq + Hash>(buckets: &mut HashMap<Bucket, HashSet<K>>, bucket: &Bucket, key: &K) {
    if let Some(members) = buckets.get_mut(bucket) {
        members.remove(key);
        if members.is_empty() {
            buckets.remove(bucket);
        }
    }
}

/// Names in `known` that `kept` does not have.
fn missing<K: Eq + Hash + Clone, V>(known: &HashMap<K, V>, kept: &HashSet<K>) -> Vec<K> {
    known.keys().filter(|name| !kept.contains(*name)).cloned().collect()
}

impl cluster::index::Index<Arc<TriggerCore>> for Index {
    type Key = TriggerRef;

    fn apply(&mut self, object: Arc<TriggerCore>) {
        self.put_trigger(object);
        self.publish();
    }

    fn delete(&mut self, reference: &TriggerRef) {
        self.remove_trigger(reference);
        self.publish();
    }

    fn reset(&mut self, objects: Vec<Arc<TriggerCore>>) {
        let kept = objects.iter().map(|core| core.key()).collect();
        missing(&self.triggers, &kept).iter().for_each(|name| self.remove_trigger(name));
        objects.into_iter().for_each(|core| self.put_trigger(core));
        self.publish();
    }
}

impl cluster::index::Index<Function> for Index {
    type Key = ObjectRef;

    fn apply(&mut self, object: Function) {
        self.put_function(object);
        self.publish();
    }

    fn delete(&mut self, reference: &ObjectRef) {
        self.remove_function(reference);
        self.publish();
    }

    fn reset(&mut self, objects: Vec<Function>) {
        let kept = objects.iter().map(|function| api::reference(&function.metadata)).collect();
        missing(&self.functions, &kept).iter().for_each(|name| self.remove_function(name));
        objects.into_iter().for_each(|function| self.put_function(function));
        self.publish();
    }
}

impl cluster::index::Index<Service> for Index {
    type Key = ObjectRef;

    fn apply(&mut self, object: Service) {
        let reference = api::reference(&object.metadata);
        self.services.insert(reference.clone(), object);
        self.retarget(&reference);
        self.publish();
    }

    fn delete(&mut self, reference: &ObjectRef) {
        self.services.remove(reference);
        self.retarget(reference);
        self.publish();
    }

    fn reset(&mut self, objects: Vec<Service>) {
        let mut touched: BTreeSet<ObjectRef> = self.services.drain().map(|(name, _)| name).collect();
        for service in objects {
            let reference = api::reference(&service.metadata);
            touched.insert(reference.clone());
            self.services.insert(reference, service);
        }
        touched.iter().for_each(|name| self.retarget(name));
        self.publish();
    }
}

impl cluster::index::Index<EndpointSlice> for Index {
    type Key = ObjectRef;

    fn apply(&mut self, object: EndpointSlice) {
        self.put_slice(object);
        self.publish();
    }

    fn delete(&mut self, reference: &ObjectRef) {
        self.remove_slice(reference, None);
        self.publish();
    }

    fn reset(&mut self, objects: Vec<EndpointSlice>) {
        let kept = objects.iter().map(|slice| api::reference(&slice.metadata)).collect();
        objects.into_iter().for_each(|slice| self.put_slice(slice));
        missing(&self.slices, &kept).iter().for_each(|name| self.remove_slice(name, None));
        self.publish();
    }
}
