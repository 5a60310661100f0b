//! The init containers that lay a function out: `prepare` (ours), then the runtime's `install` and `compile`. Must never
//! put a word of a user into a shell command: the runtime's commands are the operator's, users' words come as variables
//! and files.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvVar, ResourceRequirements, SecretVolumeSource, SecurityContext, Volume,
    VolumeMount,
};

use super::{
    code::Code,
    env::{self, var},
    literal,
    runtime::{Chosen, Defaults},
};
use crate::api::{
    Violation, code,
    function::Function,
    runtimes::{Phase, PhaseImage},
};

/// Where code and dependencies are laid out.
pub const INSTALL_VOLUME: &str = "/kubeless";
/// Where the ConfigMap is mounted, for `prepare` only.
pub const SOURCE_VOLUME: &str = "/src";
/// Where the secrets of a phase are mounted.
const PHASE_SECRETS: &str = "/var/run/secrets/kubeless.io";

/// What the init containers of one function share.
pub struct Layout<'a> {
    /// The function.
    pub function: &'a Function,
    /// Its code.
    pub code: &'a Code<'a>,
    /// Its runtime; `None`: nothing is known about it.
    pub runtime: Option<Chosen<'a>>,
    /// The operator's settings.
    pub defaults: &'a Defaults,
    /// The user's own variables.
    pub env: &'a [EnvVar],
    /// What each init container gets.
    pub resources: Option<ResourceRequirements>,
    /// Name of the volume for [`INSTALL_VOLUME`].
    pub install_volume: String,
    /// Name of the volume for [`SOURCE_VOLUME`].
    pub source_volume: String,
}

/// The init containers, in order, and the volumes of their secrets.
pub fn containers(layout: &Layout<'_>) -> Result<(Vec<Container>, Vec<Volume>), Violation> {
    let mut containers = vec![prepare(layout)];
    let mut volumes = Vec::new();
    let spec = &layout.function.spec;
    let has_deps = !spec.deps.is_empty() || layout.code.content.bundled_deps;
    let Some(runtime) = layout.runtime else {
        if !spec.deps.is_empty() {
            let what =
                format!("runtime {:?} is not in the catalogue, so nothing can install them", spec.runtime);
            return Err(Violation::new(
                "/spec/deps",
                what,
                "name a runtime of the catalogue, or remove deps",
            ));
        }
        return Ok((containers, volumes));
    };
    if let (Some(phase), true) = (runtime.image(Phase::Installation), has_deps) {
        let deps = format!("{INSTALL_VOLUME}/{}", runtime.files().deps);
        containers.push(step(layout, "install", phase, var("KUBELESS_DEPS_FILE", deps)));
        add_secrets(phase, &mut volumes);
    }
    if let Some(phase) = runtime.image(Phase::Compilation) {
        let name = literal(layout.code.handler.function);
        containers.push(step(layout, "compile", phase, var("KUBELESS_FUNC_NAME", name)));
        add_secrets(phase, &mut volumes);
    }
    Ok((containers, volumes))
}

fn prepare(layout: &Layout<'_>) -> Container {
    let spec = &layout.function.spec;
    let mut arguments = vec!["--code".to_owned(), format!("{SOURCE_VOLUME}/{}", layout.code.file)];
    arguments.extend(layout.code.form().map(str::to_owned));
    arguments.extend([
        "--into".to_owned(),
        INSTALL_VOLUME.to_owned(),
        "--name".to_owned(),
        layout.code.file.clone(),
    ]);
    if let Some(hex) = code::sha256(&spec.checksum) {
        arguments.extend(["--sha256".to_owned(), hex.to_owned()]);
    }
    if let Some(deps) = layout.code.deps.filter(|_| !layout.code.content.bundled_deps) {
        arguments.extend(["--deps".to_owned(), format!("{SOURCE_VOLUME}/{deps}")]);
    }
    Container {
        name: "prepare".to_owned(),
        image: Some(layout.defaults.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(["kubeless-controller", "prepare"].map(str::to_owned).to_vec()),
        args: Some(arguments.iter().map(|word| literal(word)).collect()),
        resources: layout.resources.clone(),
        volume_mounts: Some(vec![
            mount(&layout.install_volume, INSTALL_VOLUME),
            VolumeMount { read_only: Some(true), ..mount(&layout.source_volume, SOURCE_VOLUME) },
        ]),
        security_context: Some(SecurityContext {
            read_only_root_filesystem: Some(true),
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn step(layout: &Layout<'_>, name: &str, phase: &PhaseImage, own: EnvVar) -> Container {
    let mut variables = layout.env.to_vec();
    env::set(&mut variables, var("KUBELESS_INSTALL_VOLUME", INSTALL_VOLUME));
    env::set(&mut variables, own);
    env::set_all(&mut variables, &phase.env);
    let mut mounts = vec![mount(&layout.install_volume, INSTALL_VOLUME)];
    for secret in names(phase) {
        let path = format!("{PHASE_SECRETS}/{secret}");
        mounts.push(VolumeMount { read_only: Some(true), ..mount(&secret_volume(secret), &path) });
    }
    let shell = (!phase.command.is_empty()).then(|| ["sh", "-c"].map(str::to_owned).to_vec());
    Container {
        name: name.to_owned(),
        image: Some(phase.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: shell.is_some().then(|| vec![phase.command.clone()]),
        command: shell,
        env: Some(variables),
        working_dir: Some(INSTALL_VOLUME.to_owned()),
        resources: layout.resources.clone(),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// A mount of a volume.
pub fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

fn names(phase: &PhaseImage) -> impl Iterator<Item = &str> {
    phase.secrets.iter().map(|secret| secret.name.as_str())
}

fn secret_volume(secret: &str) -> String {
    super::short_name(&format!("{}-phase", secret.replace('.', "-")))
}

fn add_secrets(phase: &PhaseImage, volumes: &mut Vec<Volume>) {
    for secret in names(phase) {
        let name = secret_volume(secret);
        if volumes.iter().any(|volume| volume.name == name) {
            continue;
        }
        let source =
            SecretVolumeSource { secret_name: Some(secret.to_owned()), ..SecretVolumeSource::default() };
        volumes.push(Volume { name, secret: Some(source), ..Volume::default() });
    }
}
