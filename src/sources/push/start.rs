//! From a trigger and a route to a running thread. Must never open the way to it: that is for the source that knows it.

use super::{
    super::{Environment, Error, Running},
    Holding,
    offer::{Arrival, Numbers},
    thread::{PushThread, ThreadParts},
};
use crate::{
    api::kind::TriggerObject,
    dispatch::{Flow, FlowParts, Route, store::ClaimStore},
    event::headers::HeaderTemplate,
};
use std::sync::{Arc, Mutex, mpsc};
use tokio::sync::{Notify, mpsc as tokio_mpsc};

/// Events on the way to a thread, beside those that wait there.
pub const INBOX: usize = 64;

/// What a thread is started with.
pub struct Opening<'a> {
    /// Name of the source.
    pub source: &'static str,
    /// The emitter that functions see.
    pub emitter: &'static str,
    /// Whose events come.
    pub trigger: &'a TriggerObject,
    /// Where they go.
    pub route: &'a Route,
    /// How much may wait, and for how long.
    pub holding: Holding,
    /// Who may call.
    pub store: Arc<dyn ClaimStore>,
    /// Owner token and places of events.
    pub numbers: Arc<Numbers>,
    /// What comes in.
    pub inbox: tokio_mpsc::Receiver<Arrival>,
    /// Has nothing more sent there.
    pub close: Box<dyn FnOnce() + Send>,
}

impl Opening<'_> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The process has no room for it.
    pub fn run(self, environment: &Environment) -> Result<Running, Error> {
        let (source, emitter) = (self.source, self.emitter);
        let template = |agent| HeaderTemplate::new(emitter, None, agent);
        let subscription = Arc::new(environment.subscription(source, self.trigger, self.route, template));
        let wake = Arc::new(Notify::new());
        let flow = Flow::new(FlowParts {
            subscription: Arc::clone(&subscription),
            owner: format!("{:016x}", self.numbers.owner),
            dead_letters: None,
            memory: Arc::clone(&environment.memory),
        });
        let (orders, received) = mpsc::channel();
        let status = Arc::new(Mutex::new(String::new()));
        let reference = &self.trigger.core.reference;
        let parts = ThreadParts {
            trigger: reference.to_string(),
            holding: self.holding,
            flow: flow.waking(Arc::clone(&wake)),
            store: self.store,
            numbers: self.numbers,
            inbox: self.inbox,
            close: self.close,
            wake,
            orders: received,
            status: Arc::clone(&status),
        };
        let name = format!("{source}-{}", reference.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || PushThread::new(parts).run())?;
        Ok(Running { subscription, orders, thread, status })
    }
}
