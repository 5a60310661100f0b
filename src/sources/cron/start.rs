//! From a trigger and a route to a running thread. Must never ask anybody: an API server that is away is the thread's
//! business.

use super::{
    clocks::Clocks,
    facts::Facts,
    options::Options,
    protocol::Protocol,
    register::Token,
    store::{
        Store,
        cluster::{ClusterStore, Server},
        file::FileStore,
    },
    thread::{CronThread, ThreadParts},
};
use crate::{
    api::{cronjob_trigger::CronJobTrigger, kind::TriggerObject},
    dispatch::{Flow, FlowParts, Route},
    event::{headers::HeaderTemplate, tick::EMITTER},
    sources::{Environment, Error, Running, Source},
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
};

/// The source with its configuration.
pub struct CronSource {
    options: Options,
    clocks: Clocks,
    dir: PathBuf,
}

impl CronSource {
    /// A source that calls by `clocks`. `dir`: where registers are kept when there is no cluster.
    pub fn new(options: Options, clocks: Clocks, dir: PathBuf) -> Self {
        Self { options, clocks, dir }
    }

    fn store(&self, trigger: &TriggerObject, environment: &Environment) -> Result<Box<dyn Store>, Error> {
        let (reference, uid) = (&trigger.core.reference, &*trigger.core.uid);
        if let Some((client, _)) = &environment.cluster {
            let server = Server { client: client.clone(), runtime: tokio::runtime::Handle::try_current()? };
            let (timeout, clocks) = (self.options.request_timeout, self.clocks.clone());
            return Ok(Box::new(ClusterStore::new(&server, reference, uid, timeout, clocks)));
        }
        let store = FileStore::open(&self.dir, &reference.to_string(), uid);
        let shown = self.dir.display();
        Ok(Box::new(store.map_err(|error| format!("{shown} cannot be made: {error}"))?))
    }
}

impl Source for CronSource {
    fn restart_key(&self, trigger: &TriggerObject) -> String {
        let Some(typed) = trigger.downcast::<CronJobTrigger>() else { return String::new() };
        let spec = &typed.spec;
        // What the thread was made with; limits, filter, timeout and suspension change in place.
        format!(
            "{:?}",
            (
                (&spec.schedule, &spec.time_zone, &spec.payload),
                (spec.concurrency_policy, spec.starting_deadline_seconds),
                (spec.catch_up, spec.catch_up_limit),
                &trigger.core.uid,
            )
        )
    }

    fn start(
        &self,
        trigger: &TriggerObject,
        route: &Route,
        environment: &Environment,
    ) -> Result<Running, Error> {
        let typed = trigger.downcast::<CronJobTrigger>().ok_or("not a CronJobTrigger")?;
        let facts = Facts::of(trigger, &typed)?;
        let subscription = Arc::new(environment.subscription("cron", trigger, route, |agent| {
            let template = HeaderTemplate::new(EMITTER, None, agent);
            if facts.has_payload() { template } else { template.without_body() }
        }));
        // New for every start: what this memory does not know of its own was never sent (N3).
        let token = Token(fastrand::u64(1..));
        let (orders, received) = mpsc::channel();
        let status = Arc::new(Mutex::new(String::new()));
        let parts = ThreadParts {
            facts,
            options: self.options.clone(),
            flow: Flow::new(FlowParts {
                subscription: Arc::clone(&subscription),
                owner: token.to_string(),
                dead_letters: None,
                memory: Arc::clone(&environment.memory),
            }),
            protocol: Protocol::new(token, rustix::system::uname().nodename().to_string_lossy().into_owned()),
            store: self.store(trigger, environment)?,
            clocks: self.clocks.clone(),
            orders: received,
            status: Arc::clone(&status),
        };
        let name = format!("cron-{}", route.key.trigger.object.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || CronThread::new(parts).run())?;
        Ok(Running { subscription, orders, thread, status })
    }
}
