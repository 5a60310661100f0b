//! The configuration in force: read from the ConfigMap, watched, checked. Must never let a mistake take effect: while the
//! ConfigMap cannot be read, what it said last stays in force, and before it was ever read nothing is made.

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

use super::{events::Announcer, location::Location};
use crate::{
    api::{Violation, conditions::reasons, kubeless_config::KubelessConfig},
    telemetry::Gauge,
};

/// What is known of the configuration. Compare the whole to see whether anything changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What is in force; `None`: nothing was readable yet.
    pub config: Option<Arc<KubelessConfig>>,
    /// What is wrong with the ConfigMap as it is now, in one line.
    pub trouble: Option<String>,
}

impl Settings {
    /// What to think after the ConfigMap said `data` (`None`: it is not there).
    #[must_use]
    pub fn after(
        &self,
        data: Option<&BTreeMap<String, String>>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let parsed = data.map_or_else(|| Ok(KubelessConfig::default()), KubelessConfig::parse);
        match parsed {
            Ok(mut config) => {
                config.runtimes = config.runtimes.overridden(variable);
                Self { config: Some(Arc::new(config)), trouble: None }
            }
            Err(violations) => Self { config: self.config.clone(), trouble: Some(one_line(&violations)) },
        }
    }
}

fn one_line(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Keeps [`Settings`] in step with the ConfigMap.
pub struct Follower {
    /// For watches.
    pub watches: Client,
    /// Where it is.
    pub location: Location,
    /// Tells the cluster's users.
    pub announcer: Announcer,
    /// 1 while the ConfigMap cannot be read.
    pub trouble: Gauge,
}

impl Follower {
    /// Follows for ever. The caller owns the task and drops it.
    pub async fn run(self, settings: watch::Sender<Arc<Settings>>) {
        let api = Api::<ConfigMap>::namespaced(self.watches.clone(), &self.location.namespace);
        // By name: that is all an account of ours may read.
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.location.config));
        let mut events = watcher::watcher(api, config).default_backoff().boxed();
        let mut listed: Option<ConfigMap> = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed = None,
                Ok(watcher::Event::InitApply(map)) => listed = Some(map),
                Ok(watcher::Event::InitDone) => self.take(listed.take().as_ref(), &settings).await,
                Ok(watcher::Event::Apply(map)) => self.take(Some(&map), &settings).await,
                Ok(watcher::Event::Delete(_)) => self.take(None, &settings).await,
                Err(error) => {
                    let config = format!("{}/{}", self.location.namespace, self.location.config);
                    tracing::warn!(%config, %error, "Configuration not watched; trying again");
                }
            }
        }
    }

    async fn take(&self, map: Option<&ConfigMap>, settings: &watch::Sender<Arc<Settings>>) {
        let empty = BTreeMap::new();
        let data = map.map(|map| map.data.as_ref().unwrap_or(&empty));
        let before = settings.borrow().clone();
        let now = before.after(data, |name| std::env::var(name).ok());
        self.trouble.set(if now.trouble.is_some() { 1.0 } else { 0.0 });
        if *before == now {
            return;
        }
        let reference = map.map(|map| map.object_ref(&()));
        match &now.trouble {
            Some(trouble) => {
                tracing::error!(%trouble, "Configuration refused; what was in force stays");
                let note = format!("{trouble}; what was in force stays");
                self.announcer.warn(reference.as_ref(), reasons::CONFIG_INVALID, &note).await;
            }
            None => {
                for unread in now.config.iter().flat_map(|config| &config.unread) {
                    tracing::warn!(key = %unread, "Configuration has a key that means nothing");
                }
                tracing::info!(present = map.is_some(), "Configuration in force");
            }
        }
        settings.send_replace(Arc::new(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_keeps_what_was_in_force_and_the_environment_wins() {
        let data = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let nothing = |_: &str| None;
        let wrong = Settings::default().after(Some(&data("deployment", "{spec: {replica: 1}}")), nothing);
        assert!(
            wrong.config.is_none() && wrong.trouble.as_ref().is_some_and(|text| text.contains("replica"))
        );
        let good = wrong.after(Some(&data("functions-namespace", "shop")), nothing);
        assert_eq!(good.config.as_ref().unwrap().functions_namespace.as_deref(), Some("shop"));
        let broken = good.after(Some(&data("enable-build-step", "maybe")), nothing);
        assert_eq!(broken.config, good.config);
        assert!(broken.trouble.is_some());
        let images = r#"[{"ID": "python", "versions": [{"version": "3.8", "images": [{"phase": "runtime", "image": "a"}]}]}]"#;
        let overridden = good.after(Some(&data("runtime-images", images)), |name| {
            (name == "PYTHON3.8_RUNTIME").then(|| "b".to_owned())
        });
        let runtimes = &overridden.config.as_ref().unwrap().runtimes;
        assert_eq!(runtimes.find("python3.8").unwrap().1.images[0].image, "b");
        assert!(good.after(None, nothing).config.is_some(), "no ConfigMap: the defaults");
    }
}
