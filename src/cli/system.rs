//! Where the product itself runs in a cluster: its namespace, its configuration, its programs. Must never need more
//! permissions than it can do without: what may not be seen is an answer, too.

use super::session::{Session, objects::FUNCTIONS};
use crate::{
    api::{Violation, kubeless_config::KubelessConfig, runtimes::Catalogue, selector::is_dns_label},
    cluster::client,
};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::ConfigMap},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, api::ListParams};

/// Namespace, unless somebody says another one.
const NAMESPACE: &str = "kubeless";
/// ConfigMap, unless somebody says another one.
const CONFIG: &str = "kubeless-config";
/// Programs of one namespace that are looked at.
const MAX_PROGRAMS: u32 = 50;

/// Namespace and ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Where the programs run.
    pub namespace: String,
    /// Name of the ConfigMap.
    pub config: String,
}

/// Which runtimes are in force.
#[derive(Clone, Debug, PartialEq)]
pub enum Runtimes {
    /// Those of the configuration.
    Configured(Catalogue),
    /// There is no configuration.
    BuiltIn,
    /// It cannot be told, and why.
    Unknown(String),
}

impl Runtimes {
    /// The catalogue, if it is known.
    pub fn catalogue(&self) -> Option<&Catalogue> {
        match self {
            Self::Configured(catalogue) => Some(catalogue),
            Self::BuiltIn => Some(Catalogue::built_in()),
            Self::Unknown(_) => None,
        }
    }
}

impl System {
    /// As Kubeless finds it: environment (`KUBELESS_NAMESPACE`, `KUBELESS_CONFIG`), annotations of the Function
    /// definition, defaults. Who may not read definitions gets the defaults.
    pub async fn find(session: &Session) -> Self {
        let crds: Api<CustomResourceDefinition> = Api::all(session.connection.client.clone());
        let annotations = match crds.get(&FUNCTIONS.permission()).await {
            Ok(crd) => crd.metadata.annotations.unwrap_or_default(),
            Err(_) => Default::default(),
        };
        let said = |variable: &str, annotation: &str, default: &str| {
            // The same variable names the dispatcher's configuration file, which is no name of an object.
            let variable = std::env::var(variable).ok().filter(|text| is_dns_label(text));
            variable.or_else(|| annotations.get(annotation).cloned()).unwrap_or_else(|| default.to_owned())
        };
        Self {
            namespace: said("KUBELESS_NAMESPACE", "kubeless.io/namespace", NAMESPACE),
            config: said("KUBELESS_CONFIG", "kubeless.io/config", CONFIG),
        }
    }

    /// The ConfigMap; `None` if there is none.
    pub async fn config(&self, session: &Session) -> kube::Result<Option<ConfigMap>> {
        let maps: Api<ConfigMap> = Api::namespaced(session.connection.client.clone(), &self.namespace);
        maps.get_opt(&self.config).await
    }

    /// What the ConfigMap says, read as the controller reads it.
    pub async fn settings(
        &self,
        session: &Session,
    ) -> kube::Result<Option<Result<KubelessConfig, Vec<Violation>>>> {
        let found = self.config(session).await?;
        Ok(found.map(|map| KubelessConfig::parse(&map.data.unwrap_or_default())))
    }

    /// Which runtimes are in force.
    pub async fn runtimes(&self, session: &Session) -> Runtimes {
        match self.settings(session).await {
            Ok(Some(Ok(config))) => Runtimes::Configured(config.runtimes),
            Ok(Some(Err(violations))) => Runtimes::Unknown(sentences(&violations)),
            Ok(None) => Runtimes::BuiltIn,
            Err(error) => Runtimes::Unknown(client::explain(&error)),
        }
    }

    /// The programs: Deployments of the namespace that are ours by label (the second is Kubeless's own).
    pub async fn programs(&self, session: &Session) -> kube::Result<Vec<Deployment>> {
        let api: Api<Deployment> = Api::namespaced(session.connection.client.clone(), &self.namespace);
        let all = api.list(&ListParams::default().limit(MAX_PROGRAMS)).await?.items;
        Ok(all.into_iter().filter(is_ours).collect())
    }
}

/// Violations one after another.
pub fn sentences(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn is_ours(deployment: &Deployment) -> bool {
    let own = deployment.metadata.labels.iter().flatten();
    let template = deployment.spec.iter().filter_map(|spec| spec.template.metadata.as_ref());
    let pods = template.filter_map(|metadata| metadata.labels.as_ref()).flatten();
    own.chain(pods)
        .any(|(key, value)| key == "kubeless" || (key == "app.kubernetes.io/part-of" && value == "kubeless"))
}

/// The version a program says it is: its label, else the tag of its image.
pub fn version(deployment: &Deployment) -> Option<String> {
    let label =
        deployment.metadata.labels.as_ref().and_then(|labels| labels.get("app.kubernetes.io/version"));
    let image = || {
        let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
        let image = pod.containers.first()?.image.as_deref()?;
        // A registry's port is no tag.
        let name = image.rsplit('/').next()?;
        name.split('@').next()?.split_once(':').map(|(_, tag)| tag.to_owned())
    };
    label.cloned().or_else(image)
}

/// `(ready, wanted)` Pods.
pub fn replicas(deployment: &Deployment) -> (i32, i32) {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    (ready, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_come_from_label_or_tag() {
        let deployment = |labels: serde_json::Value, image: &str| -> Deployment {
            serde_json::from_value(json!({ "metadata": { "labels": labels }, "spec": { "selector": {},
                "template": { "metadata": { "labels": { "kubeless": "controller" } },
                              "spec": { "containers": [{ "name": "c", "image": image }] } } } }))
            .unwrap()
        };
        let version = |labels, image| super::version(&deployment(labels, image));
        assert_eq!(version(json!({ "app.kubernetes.io/version": "1.2" }), "a:b").as_deref(), Some("1.2"));
        assert_eq!(version(json!({}), "r:5000/kubeless/x:v1.0.8").as_deref(), Some("v1.0.8"));
        assert_eq!(version(json!({}), "r:5000/kubeless/x").as_deref(), None);
        assert!(is_ours(&deployment(json!({}), "x")));
    }
}
