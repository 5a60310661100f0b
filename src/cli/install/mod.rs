//! What `kubeless install` installs: the objects of `deploy/kustomize`, placed and named as asked. Must never know a
//! manifest that is not in that folder.

pub mod apply;
pub mod files;
pub mod kustomize;

use serde_json::Value;

/// The image of the programs, as the manifests name it.
pub const IMAGE: &str = "docker.io/kubeless/kubeless";
/// Kinds that others need, in the order in which they must be made; all other kinds follow.
const FIRST: [&str; 7] = [
    "Namespace",
    "CustomResourceDefinition",
    "ServiceAccount",
    "ClusterRole",
    "Role",
    "ClusterRoleBinding",
    "RoleBinding",
];
/// Says to command line and controller where the installation is.
const NAMESPACE_ANNOTATION: &str = "/metadata/annotations/kubeless.io~1namespace";

/// What to install.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Namespace; `None`: that of the manifests.
    pub namespace: Option<String>,
    /// Image of the programs; `None`: that of the manifests.
    pub image: Option<String>,
    /// Whether each node gets a dispatcher.
    pub daemonset: bool,
    /// Only the definitions of the custom resources.
    pub crds_only: bool,
}

/// The objects, in the order in which they can be made.
///
/// # Errors
/// The manifests inside this program are wrong.
pub fn render(request: &Request) -> anyhow::Result<Vec<Value>> {
    let folder = if request.daemonset { "kustomize/overlays/daemonset" } else { "kustomize/base" };
    let mut objects = kustomize::build(folder)?;
    for object in &mut objects {
        if let Some(namespace) = &request.namespace {
            kustomize::place(object, namespace);
            if let Some(said) = object.pointer_mut(NAMESPACE_ANNOTATION) {
                *said = namespace.as_str().into();
            }
        }
        if let Some(image) = &request.image {
            kustomize::replace_image(object, IMAGE, image);
        }
    }
    objects.retain(|object| !request.crds_only || object["kind"] == "CustomResourceDefinition");
    sort(&mut objects);
    Ok(objects)
}

/// Puts objects into the order in which they can be made.
pub fn sort(objects: &mut [Value]) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    objects.sort_by_cached_key(|object| {
        let kind = text(&object["kind"]);
        let rank = FIRST.iter().position(|first| *first == kind).unwrap_or(FIRST.len());
        (rank, kind, text(&object["metadata"]["name"]))
    });
}

/// The objects as YAML documents.
///
/// # Errors
/// An object cannot be written as YAML.
pub fn to_yaml(objects: &[Value]) -> anyhow::Result<String> {
    let documents: Result<Vec<String>, _> = objects.iter().map(serde_saphyr::to_string).collect();
    Ok(documents?.join("---\n"))
}
