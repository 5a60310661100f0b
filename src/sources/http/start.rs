//! From a trigger and a route to an open way and a running thread. Must never open a way that another trigger has.

use super::{
    arrival::{Decoder, limits},
    front::Front,
    options::{Options, size},
    thread::{HttpThread, ThreadParts},
    ways::{Way, tidy},
};
use crate::{
    api::{
        conditions::{Fact, reasons, types},
        http_trigger::HTTPTrigger,
        kind::TriggerObject,
    },
    dispatch::{
        Flow, FlowParts, Route,
        store::{Bounds, ClaimStore, Durability, memory::MemoryStore},
    },
    event::headers::HeaderTemplate,
    sources::{Environment, Error, Running, Source},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicI64, mpsc},
};
use tokio::sync::{Notify, mpsc as tokio_mpsc};

/// The emitter that functions see.
const EMITTER: &str = "httptriggers.kubeless.io";
/// Requests on the way to a thread, beside those that wait there.
const INBOX: usize = 64;

/// The source with its configuration.
pub struct HttpSource {
    options: Options,
    /// Opened with the first trigger, closed with the process: an edit must not close the door.
    front: Mutex<Option<Arc<Front>>>,
    /// Outlive a trigger's thread, by trigger and function.
    memory: Mutex<HashMap<String, Arc<MemoryStore>>>,
}

impl HttpSource {
    /// A source that takes no requests yet.
    pub fn new(options: Options) -> Self {
        Self { options, front: Mutex::default(), memory: Mutex::default() }
    }

    /// Where requests are taken, once a trigger is served.
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|front| front.address())
    }

    fn front(&self) -> Result<Arc<Front>, Error> {
        let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*front {
            return Ok(Arc::clone(open));
        }
        let listen = self.options.listen;
        let open = Front::open(&self.options);
        let open =
            open.map_err(|error| format!("cannot listen on {listen} (sources.http.listen): {error}"))?;
        Ok(Arc::clone(front.insert(Arc::new(open))))
    }

    fn store(&self, trigger: &TriggerObject, route: &Route) -> Arc<dyn ClaimStore> {
        let dedup = &trigger.core.dedup;
        let bounds = Bounds { window: dedup.window, max_entries: dedup.max_entries };
        let name = format!("{} {}", trigger.core.uid, route.key.function);
        let mut stores = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        // What no thread uses and nobody could repeat any more goes.
        stores.retain(|held, store| {
            *held == name || Arc::strong_count(store) > 1 || store.is_empty() != Some(true)
        });
        let store = stores.entry(name).or_insert_with(|| Arc::new(MemoryStore::new(bounds)));
        store.bound(bounds);
        Arc::clone(store) as Arc<dyn ClaimStore>
    }

    /// How far claims reach.
    const fn durability(&self) -> Durability {
        Durability::Process
    }
}

impl Source for HttpSource {
    fn restart_key(&self, trigger: &TriggerObject) -> String {
        let Some(typed) = trigger.downcast::<HTTPTrigger>() else { return String::new() };
        let core = &trigger.core;
        format!("{:?}", ((&typed.spec.host_name, &typed.spec.path), (&core.dedup, &core.uid)))
    }

    fn promise(&self, _trigger: &TriggerObject) -> Fact {
        match self.durability() {
            Durability::Process => {
                let message = "claims are in the memory of one dispatcher: a restart, or another replica, does not \
                    know them; set sources.http.store";
                Fact::new(types::AT_MOST_ONCE, true, reasons::DEGRADED, message)
            }
            Durability::Machine | Durability::Shared => {
                Fact::new(types::AT_MOST_ONCE, true, reasons::CLAIMED_AT_SOURCE, "")
            }
        }
    }

    fn start(
        &self,
        trigger: &TriggerObject,
        route: &Route,
        environment: &Environment,
    ) -> Result<Running, Error> {
        let typed = trigger.downcast::<HTTPTrigger>().ok_or("not an HTTPTrigger")?;
        let store = self.store(trigger, route);
        let front = self.front()?;
        let owner = fastrand::u64(1..);
        let subscription = Arc::new(
            environment
                .subscription("http", trigger, route, |agent| HeaderTemplate::new(EMITTER, None, agent)),
        );
        let reference = &trigger.core.reference;
        let (inbox, arrivals) = tokio_mpsc::channel(INBOX);
        let way = Arc::new(Way {
            host: typed.spec.host_name.clone(),
            path: tidy(&typed.path()),
            trigger: reference.to_string(),
            decoder: Decoder {
                uid: Arc::clone(&trigger.core.uid),
                function: Arc::clone(&route.key.function.name),
                source: format!(
                    "/apis/kubeless.io/v1beta1/namespaces/{}/httptriggers/{}",
                    reference.namespace, reference.name
                )
                .into(),
                dedup: trigger.core.dedup.enabled,
                dedup_key: trigger.core.dedup.key.clone(),
                owner,
                limits: limits(&self.options),
                max_answer_bytes: size(self.options.max_answer_bytes),
                numbers: AtomicI64::new(1),
            },
            inbox,
        });
        let shown = format!("{}{}", typed.spec.host_name, way.path);
        front
            .enter(Arc::clone(&way))
            .map_err(|other| format!("{shown} is served for HTTPTrigger {other}"))?;
        let wake = Arc::new(Notify::new());
        let flow = Flow::new(FlowParts {
            subscription: Arc::clone(&subscription),
            owner: format!("{owner:016x}"),
            dead_letters: None,
            memory: Arc::clone(&environment.memory),
        });
        let (orders, received) = mpsc::channel();
        let status = Arc::new(Mutex::new(String::new()));
        let parts = ThreadParts {
            trigger: reference.to_string(),
            options: self.options.clone(),
            flow: flow.waking(Arc::clone(&wake)),
            store,
            owner,
            way,
            inbox: arrivals,
            front,
            wake,
            orders: received,
            status: Arc::clone(&status),
        };
        let name = format!("http-{}", reference.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || HttpThread::new(parts).run())?;
        Ok(Running { subscription, orders, thread, status })
    }
}
