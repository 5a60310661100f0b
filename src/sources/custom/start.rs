//! From a trigger and a route to an open way and a running thread. Must never serve a trigger without a token to more than the
//! machine itself.

use super::{
    desk::{Desk, Way},
    options::Options,
    spec::CustomTrigger,
};
use crate::{
    api::{conditions::Fact, kind::TriggerObject},
    cluster::secrets::SecretData,
    dispatch::Route,
    sources::{
        Environment, Error, Running, Source,
        push::{
            front::Front,
            guard::Guard,
            offer::Numbers,
            start::{INBOX, Opening},
            stores::Stores,
        },
    },
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::mpsc;

/// The emitter that functions see.
const EMITTER: &str = "customtriggers.kubeless.io";

/// The source with its configuration.
pub struct CustomSource {
    options: Options,
    desk: Arc<Desk>,
    /// Opened with the first trigger, closed with the process.
    front: Mutex<Option<Front>>,
    stores: Stores,
}

impl CustomSource {
    /// A source that takes no events yet. `dir`: where logs of claims are; `replicated`: whether other dispatchers may serve
    /// the same triggers.
    pub fn new(options: Options, dir: PathBuf, replicated: bool) -> Self {
        Self {
            desk: Arc::new(Desk::new(&options)),
            front: Mutex::default(),
            stores: Stores::new(options.store.clone(), "custom", dir, replicated)
                .with_credentials(options.store_credentials.clone()),
            options,
        }
    }

    fn listen(&self) -> Result<(), Error> {
        let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
        if front.is_some() {
            return Ok(());
        }
        let listen = self.options.listen;
        let open = Front::open(self.options.limits(), Arc::clone(&self.desk) as _);
        let open =
            open.map_err(|error| format!("cannot listen on {listen} (sources.custom.listen): {error}"))?;
        tracing::info!(address = %open.address(), "Events of plug-ins are taken");
        *front = Some(open);
        Ok(())
    }

    /// Who may push: holders of the trigger's tokens, or, where it names none, programs of this machine.
    fn guard(&self, trigger: &CustomTrigger, secret: Option<&SecretData>) -> Result<Guard, Error> {
        if let Some(name) = &trigger.spec.secret {
            return Guard::tokens(name, secret, &self.options.credentials_dir);
        }
        if self.options.listen.ip().is_loopback() {
            return Ok(Guard::Open);
        }
        let fix = "name a Secret with the key \"token\", or let sources.custom.listen be on the loopback";
        Err(format!("spec.secret is missing, and others than this machine could push: {fix}").into())
    }
}

impl Source for CustomSource {
    fn restart_key(&self, trigger: &TriggerObject) -> String {
        let Some(typed) = trigger.downcast::<CustomTrigger>() else { return String::new() };
        let core = &trigger.core;
        format!("{:?}", (&typed.spec.secret, &core.dedup, &core.uid))
    }

    fn credentials(&self, trigger: &TriggerObject) -> Option<String> {
        trigger.downcast::<CustomTrigger>()?.spec.secret.clone()
    }

    fn promise(&self, _trigger: &TriggerObject) -> Fact {
        self.stores.promise()
    }

    fn start(
        &self,
        trigger: &TriggerObject,
        route: &Route,
        environment: &Environment,
    ) -> Result<Running, Error> {
        let typed = trigger.downcast::<CustomTrigger>().ok_or("not a CustomTrigger")?;
        let guard = self.guard(&typed, environment.secret.as_deref())?;
        let store = self.stores.of(trigger, route)?;
        self.listen()?;
        let numbers = Arc::new(Numbers::new(Arc::clone(&trigger.core.uid), fastrand::u64(1..)));
        let (sender, inbox) = mpsc::channel(INBOX);
        let way = Arc::new(Way {
            function: route.key.function.clone(),
            numbers: Arc::clone(&numbers),
            inbox: sender,
        });
        let (desk, name) = (Arc::clone(&self.desk), trigger.core.reference.clone());
        let leaving = Arc::clone(&way);
        let close = Box::new(move || desk.leave(&name, &leaving));
        let (source, emitter, holding) = ("custom", EMITTER, self.options.holding());
        let opening = Opening { source, emitter, trigger, route, holding, store, numbers, inbox, close };
        let running = opening.run(environment)?;
        self.desk.enter(trigger.core.key(), way, guard, environment.router.clone());
        Ok(running)
    }
}
