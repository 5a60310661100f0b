//! Where the configuration is: environment, then the annotations of the CRD, then Kubeless's defaults. Must never read
//! anything of the cluster's when the environment says it all.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};

/// Namespace of the installation when nobody says.
pub const DEFAULT_NAMESPACE: &str = "kubeless";
/// Name of the ConfigMap when nobody says.
pub const DEFAULT_CONFIG: &str = "kubeless-config";
/// The definition that may say.
const CRD: &str = "functions.kubeless.io";
const NAMESPACE_ANNOTATION: &str = "kubeless.io/namespace";
const CONFIG_ANNOTATION: &str = "kubeless.io/config";

/// Where the configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Namespace of the installation.
    pub namespace: String,
    /// Name of the ConfigMap.
    pub config: String,
}

/// Finds it. What is given wins; only what is left open is looked up.
pub async fn locate(client: &Client, namespace: Option<String>, config: Option<String>) -> Location {
    if let (Some(namespace), Some(config)) = (namespace.clone(), config.clone()) {
        return Location { namespace, config };
    }
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let annotations = match definitions.get_opt(CRD).await {
        Ok(found) => found.and_then(|found| found.metadata.annotations).unwrap_or_default(),
        Err(error) => {
            tracing::info!(%error, "The definition of Functions says nothing about the configuration; taking the defaults");
            Default::default()
        }
    };
    let say = |given: Option<String>, annotation: &str, default: &str| {
        let annotated = annotations.get(annotation).filter(|text| !text.is_empty()).cloned();
        given.or(annotated).unwrap_or_else(|| default.to_owned())
    };
    Location {
        namespace: say(namespace, NAMESPACE_ANNOTATION, DEFAULT_NAMESPACE),
        config: say(config, CONFIG_ANNOTATION, DEFAULT_CONFIG),
    }
}
