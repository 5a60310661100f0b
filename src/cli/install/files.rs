//! `deploy/kustomize` and `deploy/crds`, carried inside the binary so that installing needs no source tree. Must never differ
//! from the folders: a test compares them.

/// Path below `deploy/`, and content.
pub type File = (&'static str, &'static str);

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// Every file, in the order of their names.
        pub const FILES: &[File] = &[$(($name, include_str!(concat!("../../../deploy/", $name)))),*];
    };
}

files![
    "crds/Kustomization",
    "crds/cronjobtriggers.kubeless.io.yaml",
    "crds/customtriggers.kubeless.io.yaml",
    "crds/functions.kubeless.io.yaml",
    "crds/httptriggers.kubeless.io.yaml",
    "crds/kafkatriggers.kubeless.io.yaml",
    "crds/kinesistriggers.kubeless.io.yaml",
    "crds/natstriggers.kubeless.io.yaml",
    "kustomize/base/definitions.yaml",
    "kustomize/base/kustomization.yaml",
    "kustomize/base/namespace.yaml",
    "kustomize/base/roles.yaml",
    "kustomize/base/users.yaml",
    "kustomize/overlays/daemonset/dispatcher.yaml",
    "kustomize/overlays/daemonset/disruption.yaml",
    "kustomize/overlays/daemonset/kustomization.yaml",
    "kustomize/programs/accounts.yaml",
    "kustomize/programs/controller.yaml",
    "kustomize/programs/dispatcher-config.yaml",
    "kustomize/programs/dispatcher.yaml",
    "kustomize/programs/kubeless-config.yaml",
    "kustomize/programs/kustomization.yaml",
    "kustomize/programs/network.yaml",
];

/// The content of a file.
pub fn content(path: &str) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
}
