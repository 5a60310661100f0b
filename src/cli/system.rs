//! Where the product itself runs in a cluster: its namespace, its configuration, its programs. Must never need more
//! permissions than it can do without: what may not be seen is an answer, too.

use super::session::{Session, objects::FUNCTIONS};
use crate::{
    api::{Violation, kubeless_config::KubelessConfig, runtimes::Catalogue, selector::is_dns_label},
    cluster::client,
};
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment},
        core::v1::{ConfigMap, PodTemplateSpec},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
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

    /// The programs: Deployments and DaemonSets of the namespace that are ours by label.
    pub async fn programs(&self, session: &Session) -> kube::Result<Vec<Program>> {
        let client = &session.connection.client;
        let some = ListParams::default().limit(MAX_PROGRAMS);
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), &self.namespace);
        let sets: Api<DaemonSet> = Api::namespaced(client.clone(), &self.namespace);
        let deployments = deployments.list(&some).await?.items;
        let sets = sets.list(&some).await?.items;
        let found = deployments.iter().map(Program::of_deployment).chain(sets.iter().map(Program::of_set));
        Ok(found.filter(|program| program.is_ours).collect())
    }
}

/// Violations one after another.
pub fn sentences(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A program of the product, or of Kubeless itself, and how it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// What kubectl calls its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What it says it is: its label, else the tag of its image.
    pub version: Option<String>,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that are asked for.
    pub wanted: i32,
    /// Whether it is Kubeless's own, by the label that Kubeless gave.
    pub is_old: bool,
    is_ours: bool,
}

impl Program {
    fn of_deployment(found: &Deployment) -> Self {
        let spec = found.spec.as_ref();
        let ready = found.status.as_ref().and_then(|status| status.ready_replicas);
        Self {
            kind: "deployment",
            ready: ready.unwrap_or(0),
            wanted: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            ..Self::read(&found.metadata, spec.map(|spec| &spec.template))
        }
    }

    fn of_set(found: &DaemonSet) -> Self {
        let status = found.status.clone().unwrap_or_default();
        Self {
            kind: "daemonset",
            ready: status.number_ready,
            wanted: status.desired_number_scheduled,
            ..Self::read(&found.metadata, found.spec.as_ref().map(|spec| &spec.template))
        }
    }

    fn read(metadata: &ObjectMeta, template: Option<&PodTemplateSpec>) -> Self {
        let own = || metadata.labels.iter().flatten();
        let pods = template.and_then(|template| template.metadata.as_ref()?.labels.as_ref());
        let of_product =
            |(key, value): (&String, &String)| key == "app.kubernetes.io/part-of" && value == "kubeless";
        let label =
            own().find(|(key, _)| *key == "app.kubernetes.io/version").map(|(_, value)| value.clone());
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            version: label.or_else(|| tag(template?)),
            is_old: own().any(|(key, _)| key == "kubeless"),
            is_ours: own()
                .chain(pods.into_iter().flatten())
                .any(|label| label.0 == "kubeless" || of_product(label)),
            ..Self::default()
        }
    }
}

fn tag(template: &PodTemplateSpec) -> Option<String> {
    let image = template.spec.as_ref()?.containers.first()?.image.as_deref()?;
    // A registry's port is no tag.
    let name = image.rsplit('/').next()?;
    name.split('@').next()?.split_once(':').map(|(_, tag)| tag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(labels: &Value, image: &str) -> Value {
        json!({ "metadata": { "name": "p", "labels": labels },
            "spec": { "selector": {}, "template": { "metadata": { "labels": { "kubeless": "controller" } },
                "spec": { "containers": [{ "name": "c", "image": image }] } } },
            "status": { "readyReplicas": 1, "currentNumberScheduled": 3, "desiredNumberScheduled": 3,
                "numberMisscheduled": 0, "numberReady": 2 } })
    }

    #[test]
    fn versions_come_from_label_or_tag() {
        let read =
            |labels, image| Program::of_deployment(&serde_json::from_value(object(&labels, image)).unwrap());
        let version = |labels, image| read(labels, image).version;
        assert_eq!(version(json!({ "app.kubernetes.io/version": "1.2" }), "a:b").as_deref(), Some("1.2"));
        assert_eq!(version(json!({}), "r:5000/kubeless/x:v1.0.8").as_deref(), Some("v1.0.8"));
        assert_eq!(version(json!({}), "r:5000/kubeless/x").as_deref(), None);
        let found = read(json!({}), "x");
        assert!(found.is_ours && !found.is_old, "{found:?}");
    }

    #[test]
    fn a_program_on_each_node_counts_the_nodes() {
        let set = object(&json!({ "app.kubernetes.io/part-of": "kubeless" }), "x:2");
        let found = Program::of_set(&serde_json::from_value(set).unwrap());
        assert_eq!((found.kind, found.ready, found.wanted, found.is_ours), ("daemonset", 2, 3, true));
    }
}
