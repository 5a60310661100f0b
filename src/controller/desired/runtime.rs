//! What the renderer needs to know of a runtime and of the configuration. Must never hold a default of its own.

use serde_json::{Map, Value};

use super::{code::FileNames, security::Floor};
use crate::api::{
    kubeless_config::KubelessConfig,
    runtimes::{Phase, PhaseImage, Runtime, RuntimeVersion},
};

/// Images that Kubeless provisioned functions with: they hold a shell and no program of ours.
const OLD_PROVISIONER: &str = "kubeless/unzip";

/// A runtime and version of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    /// What all versions share.
    pub runtime: &'a Runtime,
    /// The version.
    pub version: &'a RuntimeVersion,
}

impl Chosen<'_> {
    /// The file names that it asks for.
    pub fn files(&self) -> FileNames<'_> {
        FileNames { suffix: &self.runtime.file_name_suffix, deps: &self.runtime.dep_name }
    }

    /// The image of a phase.
    pub fn image(&self, phase: Phase) -> Option<&PhaseImage> {
        self.version.image(phase)
    }

    /// Secrets that its images are pulled with.
    pub fn pull_secrets(&self) -> impl Iterator<Item = &str> {
        self.version.image_pull_secrets.iter().map(|secret| secret.image_secret.as_str())
    }
}

/// What the operator says about all functions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defaults {
    /// apps/v1 Deployment that lies under each function's own.
    pub deployment: Map<String, Value>,
    /// Image with our programs, for `prepare` and `tick`.
    pub image: String,
    /// Secrets that all images are pulled with.
    pub pull_secrets: Vec<String>,
    /// How far a function's template may go.
    pub floor: Floor,
}

impl Defaults {
    /// From the configuration; `own_image` is the image that this program runs from, as far as is known.
    pub fn of(config: &KubelessConfig, own_image: &str, floor: Floor) -> Self {
        let named = config.provision_image.clone().filter(|image| !image.contains(OLD_PROVISIONER));
        Self {
            deployment: config.deployment.clone(),
            image: named.unwrap_or_else(|| own_image.to_owned()),
            pull_secrets: config.pull_secrets().into_iter().map(str::to_owned).collect(),
            floor,
        }
    }
}
