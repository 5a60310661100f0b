//! The ConfigMap `kubeless-config`: every key of Kubeless, read strictly. Must never read the ConfigMap itself, nor decide
//! where it is.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use super::{
    Violation,
    runtimes::{self, Catalogue},
    schema, selector, strict,
};

/// Every key that means something.
pub const KEYS: [&str; 11] = [
    runtimes::KEY,
    "deployment",
    "functions-namespace",
    "provision-image",
    "provision-image-secret",
    "builder-image",
    "builder-image-secret",
    "enable-build-step",
    "function-registry-tls-verify",
    "ingress-enabled",
    "service-type",
];

const SERVICE_TYPES: [&str; 4] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];

/// What the operator says about all functions. Texts that are empty in the ConfigMap count as absent.
#[derive(Clone, Debug, PartialEq)]
pub struct KubelessConfig {
    /// `runtime-images`; the built-in catalogue where the key is absent.
    pub runtimes: Catalogue,
    /// `deployment`: apps/v1 Deployment that lies under each function's own.
    pub deployment: Map<String, Value>,
    /// `functions-namespace`: the one namespace that is watched. `None`: all.
    pub functions_namespace: Option<String>,
    /// `provision-image`: image that brings code into place.
    pub provision_image: Option<String>,
    /// `provision-image-secret`: Secret that it is pulled with.
    pub provision_image_secret: Option<String>,
    /// `builder-image`: image that builds images.
    pub builder_image: Option<String>,
    /// `builder-image-secret`: Secret that it is pulled with.
    pub builder_image_secret: Option<String>,
    /// `enable-build-step`: whether an image is built for each function. Default false.
    pub enable_build_step: bool,
    /// `function-registry-tls-verify`: whether the registry's certificate is checked. Default true.
    pub registry_tls_verify: bool,
    /// `ingress-enabled`: read by nothing since Kubeless 1.0; kept so that it can be shown.
    pub ingress_enabled: bool,
    /// `service-type`: read by nothing since Kubeless 1.0; kept so that it can be shown.
    pub service_type: String,
    /// Keys that mean nothing: passed over, as in Kubeless, but worth a warning.
    pub unread: Vec<Violation>,
}

impl Default for KubelessConfig {
    /// What holds where there is no ConfigMap.
    fn default() -> Self {
        Self {
            runtimes: Catalogue::built_in().clone(),
            deployment: Map::new(),
            functions_namespace: None,
            provision_image: None,
            provision_image_secret: None,
            builder_image: None,
            builder_image_secret: None,
            enable_build_step: false,
            registry_tls_verify: true,
            ingress_enabled: false,
            service_type: SERVICE_TYPES[0].to_owned(),
            unread: Vec::new(),
        }
    }
}

impl KubelessConfig {
    /// Reads the data of a ConfigMap.
    ///
    /// # Errors
    /// Everything that is wrong with it; the first part of each path is the key.
    pub fn parse(data: &BTreeMap<String, String>) -> Result<Self, Vec<Violation>> {
        let default = Self::default();
        let mut reader = Reader { data, violations: Vec::new() };
        let config = Self {
            runtimes: reader.catalogue().unwrap_or_else(|| default.runtimes.clone()),
            deployment: reader.deployment(),
            functions_namespace: reader.name("functions-namespace", selector::is_dns_label),
            provision_image: reader.text("provision-image"),
            provision_image_secret: reader.name("provision-image-secret", selector::is_subdomain),
            builder_image: reader.text("builder-image"),
            builder_image_secret: reader.name("builder-image-secret", selector::is_subdomain),
            enable_build_step: reader.flag("enable-build-step", default.enable_build_step),
            registry_tls_verify: reader.flag("function-registry-tls-verify", default.registry_tls_verify),
            ingress_enabled: reader.flag("ingress-enabled", default.ingress_enabled),
            service_type: reader.service_type().unwrap_or(default.service_type),
            unread: reader.unread(),
        };
        if reader.violations.is_empty() { Ok(config) } else { Err(reader.violations) }
    }

    /// Secrets that every function's Pods pull images with, without repeats, in a fixed order.
    pub fn pull_secrets(&self) -> Vec<&str> {
        let mut secrets: Vec<&str> = [&self.provision_image_secret, &self.builder_image_secret]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        secrets.dedup();
        secrets
    }
}

struct Reader<'a> {
    data: &'a BTreeMap<String, String>,
    violations: Vec<Violation>,
}

impl Reader<'_> {
    fn text(&self, key: &str) -> Option<String> {
        self.data.get(key).map(|text| text.trim()).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn fault(&mut self, key: &str, what: String, fix: impl Into<String>) {
        self.violations.push(Violation::new(format!("/{key}"), what, fix));
    }

    fn name(&mut self, key: &str, fits: fn(&str) -> bool) -> Option<String> {
        let text = self.text(key)?;
        if fits(&text) {
            return Some(text);
        }
        let fix =
            "write a name of a-z, 0-9, '-', starting and ending with a letter or digit, or leave it empty";
        self.fault(key, format!("{text:?} is not a name"), fix);
        None
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.text(key).as_deref() {
            None => default,
            Some("true") => true,
            Some("false") => false,
            Some(other) => {
                let what = format!("{other:?} is neither \"true\" nor \"false\"");
                self.fault(key, what, "write \"true\" or \"false\", in quotes");
                default
            }
        }
    }

    fn service_type(&mut self) -> Option<String> {
        let text = self.text("service-type")?;
        if !SERVICE_TYPES.contains(&text.as_str()) {
            let what = format!("{text:?} is not a type of Service");
            self.fault("service-type", what, schema::one_of(&text, &SERVICE_TYPES));
        }
        Some(text)
    }

    fn catalogue(&mut self) -> Option<Catalogue> {
        match Catalogue::parse(self.data.get(runtimes::KEY)?) {
            Ok(catalogue) => Some(catalogue),
            Err(more) => {
                self.violations.extend(more);
                None
            }
        }
    }

    fn deployment(&mut self) -> Map<String, Value> {
        let text = self.data.get("deployment").map_or("", String::as_str);
        match strict::parse(text, "/deployment") {
            Ok(Value::Null) => return Map::new(),
            Ok(value) => {
                if strict::typed::<Deployment>(&value, "/deployment", &mut self.violations).is_some()
                    && let Value::Object(map) = value
                {
                    return map;
                }
            }
            Err(violation) => self.violations.push(violation),
        }
        Map::new()
    }

    fn unread(&self) -> Vec<Violation> {
        let unknown = self.data.keys().filter(|key| !KEYS.contains(&key.as_str()));
        unknown.map(|key| schema::unknown(key, "", &KEYS)).collect()
    }
}
