//! One controller at work: watches, queue, passes. Must never end by itself: what fails is tried again, and only whoever
//! started it stops it.

use futures_util::{Stream, StreamExt, stream};
use kube::{
    Client,
    api::DynamicObject,
    runtime::{
        controller::{self, Controller},
        reflector::{ObjectRef, Store},
    },
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    apply::Applier,
    cache::{self, Keep},
    context::{Choices, Context, Failures},
    desired::{CREATED_BY, Kind},
    events::Announcer,
    reconcile::{self, Functions, Subject, resource},
    served::Served,
    settings::Settings,
};
use crate::telemetry::ControllerMetrics;

/// Changes of one object within this time are one pass: an object that is made sends several at once.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// What every controller of the process is given.
#[derive(Clone)]
pub struct Parts {
    /// For requests.
    pub client: Client,
    /// For watches.
    pub watches: Client,
    /// The one namespace that is watched; `None`: all.
    pub scope: Option<String>,
    /// Configuration.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// The operator's choices.
    pub choices: Choices,
    /// Events.
    pub announcer: Announcer,
    /// Objects that are worked on at once.
    pub workers: u16,
}

/// Runs the controller of one kind until `stop`, then ends what is under way.
pub async fn drive<S: Subject>(parts: Parts, stop: CancellationToken) {
    let main = parts.watch(resource::<S>(), None, Keep::All, true);
    let mut stores = BTreeMap::new();
    let mut children = Vec::new();
    for kind in S::CHILDREN {
        let ours = format!("{}={}", CREATED_BY.0, CREATED_BY.1);
        let keep = if *kind == Kind::ConfigMap { Keep::Metadata } else { Keep::All };
        let child = parts.watch(kind.resource(), Some(ours), keep, false);
        stores.insert(*kind, child.store);
        children.push((kind.resource(), child.touched));
    }
    let functions = S::FUNCTIONS.then(|| parts.watch(resource::<Functions>(), None, Keep::Summary, true));
    let kinds: Vec<&'static str> = Kind::ALL.iter().map(|kind| kind.names().2).collect();
    let metrics = ControllerMetrics::new(S::NAME, &kinds);
    let context = Arc::new(Context {
        client: parts.client.clone(),
        resource: resource::<S>(),
        applier: Applier::new(parts.client.clone(), stores, metrics.clone()),
        functions: functions.as_ref().map(|watch| watch.store.clone()),
        served: Served::new(parts.client.clone()),
        announcer: parts.announcer.clone(),
        settings: parts.settings.clone(),
        choices: parts.choices.clone(),
        metrics,
        failures: Failures::default(),
        scope: parts.scope.clone(),
        leftovers: tokio::sync::Notify::new(),
    });
    let config = controller::Config::default().concurrency(parts.workers).debounce(DEBOUNCE);
    let mut running = Controller::for_stream_with(main.touched, main.store.clone(), resource::<S>())
        .with_config(config)
        .reconcile_all_on(changes(parts.settings.clone()))
        .graceful_shutdown_on(stop.cancelled_owned());
    for (resource, touched) in children {
        running = running.owns_stream_with(touched, resource);
    }
    if let Some(functions) = functions {
        let triggers = main.store.clone();
        let concerned = move |function: DynamicObject| of_function::<S>(&triggers, &function);
        running = running.watches_stream_with(functions.touched, concerned, resource::<Functions>());
    }
    tracing::info!(
        controller = S::NAME,
        namespace = parts.scope.as_deref().unwrap_or("*"),
        "Controller started"
    );
    let forget = Arc::clone(&context);
    let passes = running.run(reconcile::reconcile::<S>, reconcile::after_error, Arc::clone(&context));
    let passes = passes.for_each(move |pass| {
        if let Err(controller::Error::ObjectNotFound(gone)) = pass {
            forget.failures.forget(&format!("{}/{}", gone.namespace.unwrap_or_default(), gone.name));
            forget.leftovers.notify_one();
        }
        std::future::ready(())
    });
    let begun = S::begin(&context, &main.store);
    // `begin` ends early or waits for what only the passes' side reads; the passes end with `stop`.
    tokio::pin!(passes, begun);
    tokio::select! {
        () = &mut passes => {}
        () = &mut begun => passes.await,
    }
    tracing::info!(controller = S::NAME, "Controller stopped");
}

impl Parts {
    fn watch(
        &self,
        resource: kube::api::ApiResource,
        labels: Option<String>,
        keep: Keep,
        wishes_only: bool,
    ) -> cache::Watch {
        let namespace = self.scope.clone();
        cache::watch(&self.watches, &cache::Subject { resource, namespace, labels, keep, wishes_only })
    }
}

/// An item for every change of the configuration.
fn changes(settings: watch::Receiver<Arc<Settings>>) -> impl Stream<Item = ()> {
    stream::unfold(settings, |mut settings| async move {
        settings.changed().await.ok()?;
        Some(((), settings))
    })
}

/// The triggers that name a function.
fn of_function<S: Subject>(
    triggers: &Store<DynamicObject>,
    function: &DynamicObject,
) -> Vec<ObjectRef<DynamicObject>> {
    let names = |trigger: &DynamicObject| {
        trigger.metadata.namespace == function.metadata.namespace
            && trigger.data.pointer("/spec/function-name").and_then(|name| name.as_str())
                == function.metadata.name.as_deref()
    };
    let concerned = triggers.state_filter(names);
    concerned.iter().map(|trigger| ObjectRef::from_obj_with(&**trigger, resource::<S>())).collect()
}
