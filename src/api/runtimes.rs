//! The runtime catalogue: which images serve which runtime and version, in the very JSON that Kubeless keeps under
//! `runtime-images`. Must never guess: what it cannot read it names, element by element, with the fix.

use k8s_openapi::api::core::v1::Probe;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::OnceLock};

use super::{Violation, schema, strict};

/// Key of the ConfigMap, and root of the paths in violations.
pub const KEY: &str = "runtime-images";
/// The catalogue of this version: what this product builds, and everything Kubeless published.
pub const BUILT_IN: &str = include_str!("../../deploy/runtimes/runtime-images.json");
/// Versions of all runtimes together: a catalogue is read by people.
const MAX_VERSIONS: usize = 1000;

/// One step of making or running a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Fetches dependencies.
    Installation,
    /// Builds the code.
    Compilation,
    /// Runs the function.
    Runtime,
}

impl Phase {
    /// The word of the catalogue.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Installation => "installation",
            Self::Compilation => "compilation",
            Self::Runtime => "runtime",
        }
    }
}

/// The image of one phase and how it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseImage {
    /// The phase.
    pub phase: Phase,
    /// Image.
    pub image: String,
    /// Text for `sh -c`; empty: the image's own command.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// Variables, in the order of their names; values may refer to others as `$(NAME)`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets of the function's namespace, mounted below `/var/run/secrets/kubeless.io`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretName>,
}

/// A Secret by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretName {
    /// Its name.
    pub name: String,
}

/// A Secret that images are pulled with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImagePullSecret {
    /// Its name.
    pub image_secret: String,
}

/// One version of a runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeVersion {
    /// Free label.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Digits and dots.
    pub version: String,
    /// At most one image for each phase; that of [`Phase::Runtime`] is there.
    pub images: Vec<PhaseImage>,
    /// Secrets that the images are pulled with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<ImagePullSecret>,
}

impl RuntimeVersion {
    /// The image of a phase.
    pub fn image(&self, phase: Phase) -> Option<&PhaseImage> {
        self.images.iter().find(|image| image.phase == phase)
    }
}

/// One runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Runtime {
    /// Letters, digits before the last letter, `_` and `-`; followed by a version it is what a Function names.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its versions.
    pub versions: Vec<RuntimeVersion>,
    /// Name of the dependency file; empty: it has none.
    #[serde(default)]
    pub dep_name: String,
    /// What follows the module's name, e.g. `.py`.
    #[serde(default)]
    pub file_name_suffix: String,
    /// Liveness probe in place of the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness_probe_info: Option<Probe>,
}

/// All runtimes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Catalogue {
    runtimes: Vec<Runtime>,
}

/// A runtime text that the catalogue cannot serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown runtime {wanted:?}; {fix}")]
pub struct UnknownRuntime {
    /// What was asked for.
    pub wanted: String,
    /// What to write instead.
    pub fix: String,
}

impl Catalogue {
    /// The catalogue that is compiled in: [`BUILT_IN`].
    pub fn built_in() -> &'static Self {
        static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
        CATALOGUE.get_or_init(|| Self::parse(BUILT_IN).expect("the catalogue of this version is tested"))
    }

    /// Reads the value of [`KEY`]: a JSON (or YAML) list. Empty text is an empty catalogue.
    ///
    /// # Errors
    /// Everything that is wrong with it; paths begin with `/runtime-images`.
    pub fn parse(text: &str) -> Result<Self, Vec<Violation>> {
        let at = format!("/{KEY}");
        let value = match strict::parse(text, &at).map_err(|violation| vec![violation])? {
            Value::Null => Value::Array(Vec::new()),
            value => value,
        };
        let mut violations = Vec::new();
        old_form(&value, &mut violations);
        if violations.is_empty() {
            schema::check(&value, catalogue_schema(), &at, &mut violations);
        }
        if violations.is_empty() {
            check_sense(&value, &mut violations);
        }
        if !violations.is_empty() {
            return Err(violations);
        }
        serde_json::from_value(value).map(|runtimes| Self { runtimes }).map_err(|error| {
            vec![Violation::new(at, error.to_string(), "compare with the built-in catalogue")]
        })
    }

    /// Replaces runtime images by what the environment names: `PYTHON3.8_RUNTIME` for python 3.8.
    #[must_use]
    pub fn overridden(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        for runtime in &mut self.runtimes {
            for version in &mut runtime.versions {
                let name = format!("{}{}_RUNTIME", runtime.id.to_uppercase(), version.version);
                let image = variable(&name).filter(|image| !image.is_empty());
                let run = version.images.iter_mut().find(|image| image.phase == Phase::Runtime);
                if let (Some(image), Some(run)) = (image, run) {
                    run.image = image;
                }
            }
        }
        self
    }

    /// All runtimes, in the order of the text.
    pub fn runtimes(&self) -> &[Runtime] {
        &self.runtimes
    }

    /// What a Function may write under `runtime`, in the order of the text.
    pub fn names(&self) -> Vec<String> {
        let names = |runtime: &Runtime| {
            let id = runtime.id.clone();
            runtime.versions.iter().map(move |version| format!("{id}{}", version.version)).collect::<Vec<_>>()
        };
        self.runtimes.iter().flat_map(names).collect()
    }

    /// The runtime and version that a Function names, e.g. `python3.8`.
    ///
    /// # Errors
    /// [`UnknownRuntime`] with the nearest names.
    pub fn find(&self, wanted: &str) -> Result<(&Runtime, &RuntimeVersion), UnknownRuntime> {
        let (id, version) = split(wanted);
        let runtimes = self.runtimes.iter().filter(|runtime| runtime.id == id);
        let found = runtimes
            .filter_map(|runtime| Some((runtime, runtime.versions.iter().find(|v| v.version == version)?)));
        found.into_iter().next().ok_or_else(|| self.unknown(wanted, id))
    }

    fn unknown(&self, wanted: &str, id: &str) -> UnknownRuntime {
        let names = self.names();
        let of_id: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| split(name).0 == id && !id.is_empty()).collect();
        let fix = match (of_id.is_empty(), names.is_empty()) {
            (_, true) => "the catalogue (runtime-images of kubeless-config) is empty".to_owned(),
            (false, _) => format!("use one of: {}", of_id.join(", ")),
            (true, false) => schema::one_of(wanted, &names.iter().map(String::as_str).collect::<Vec<_>>()),
        };
        UnknownRuntime { wanted: wanted.to_owned(), fix }
    }
}

/// `python3.8` in its two parts: the version is the trailing run of digits and dots.
pub fn split(runtime: &str) -> (&str, &str) {
    let end = runtime.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    runtime.split_at(end)
}

fn catalogue_schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    let text = json!({"type": "string"});
    let name = json!({"type": "string", "minLength": 1, "maxLength": 253});
    SCHEMA.get_or_init(|| {
        let image = json!({
            "type": "object", "required": ["phase", "image"], "properties": {
                "phase": {"type": "string", "enum": ["installation", "compilation", "runtime"]},
                "image": {"type": "string", "minLength": 1}, "command": text,
                "env": {"type": "object", "additionalProperties": text},
                "secrets": {"type": "array", "items":
                    {"type": "object", "required": ["name"], "properties": {"name": name}}}
            }
        });
        let version = json!({
            "type": "object", "required": ["version", "images"], "properties": {
                "name": text, "version": {"type": "string", "minLength": 1},
                "images": {"type": "array", "items": image},
                "imagePullSecrets": {"type": "array", "items":
                    {"type": "object", "required": ["imageSecret"], "properties": {"imageSecret": name}}},
                // Kubeless before 1.0; passed over where `images` stands beside them.
                "runtimeImage": text, "initImage": text
            }
        });
        let runtime = json!({
            "type": "object", "required": ["ID", "versions"], "properties": {
                "ID": {"type": "string", "minLength": 1, "maxLength": 63},
                "versions": {"type": "array", "items": version},
                "depName": text, "fileNameSuffix": text,
                "livenessProbeInfo": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                // Kubeless before 1.0; the phases say it now.
                "compiled": {"type": "boolean"}
            }
        });
        json!({"type": "array", "items": runtime})
    })
}

fn entries<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value.get(key).and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A catalogue of Kubeless before 1.0 is told how to become one of today, before anything else is said about it.
fn old_form(value: &Value, violations: &mut Vec<Violation>) {
    for (at, runtime) in value.as_array().into_iter().flatten().enumerate() {
        for (nth, version) in entries(runtime, "versions") {
            if version.get("images").is_none() && version.get("runtimeImage").is_some() {
                let name = format!("{}{}", text(runtime, "ID"), text(version, "version"));
                let what = format!("{name} names its images as Kubeless did before 1.0");
                let fix = format!(
                    "write images: [{{phase: runtime, image: {:?}}}], with a phase installation or compilation for the initImage",
                    text(version, "runtimeImage")
                );
                violations.push(Violation::new(format!("/{KEY}/{at}/versions/{nth}"), what, fix));
            }
        }
    }
}

/// What the schema cannot say: names that can be found again, one image a phase, a runtime phase, readable probes.
fn check_sense(value: &Value, violations: &mut Vec<Violation>) {
    let mut seen = BTreeMap::new();
    for (at, runtime) in value.as_array().into_iter().flatten().enumerate() {
        let path = format!("/{KEY}/{at}");
        check_id(text(runtime, "ID"), &path, violations);
        if let Some(probe) = runtime.get("livenessProbeInfo") {
            strict::typed::<Probe>(probe, &format!("{path}/livenessProbeInfo"), violations);
        }
        for (nth, version) in entries(runtime, "versions") {
            let path = format!("{path}/versions/{nth}");
            let name = format!("{}{}", text(runtime, "ID"), text(version, "version"));
            check_version(version, &name, &path, violations);
            if let Some(first) = seen.insert(name.clone(), path.clone()) {
                let what =
                    format!("{name} stands in the catalogue twice, first at {}", super::dotted(&first));
                violations.push(Violation::new(path, what, "remove one of the two"));
            }
        }
    }
    if seen.len() > MAX_VERSIONS {
        let what = format!("{} versions, more than {MAX_VERSIONS}", seen.len());
        violations.push(Violation::new(format!("/{KEY}"), what, "remove what no function uses"));
    }
}

fn check_id(id: &str, path: &str, violations: &mut Vec<Violation>) {
    let fits = id.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'));
    if !fits || !split(id).1.is_empty() {
        let what = format!("ID {id:?} cannot be told from the version behind it");
        let fix = "use letters, '_' and '-', and no digit at the end";
        violations.push(Violation::new(format!("{path}/ID"), what, fix));
    }
}

fn check_version(version: &Value, name: &str, path: &str, violations: &mut Vec<Violation>) {
    let number = text(version, "version");
    if !number.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
        let what = format!("version {number:?} of {name} is not made of digits and dots");
        violations.push(Violation::new(format!("{path}/version"), what, "write for example \"3.11\""));
    }
    let mut phases: Vec<&str> = entries(version, "images").map(|(_, image)| text(image, "phase")).collect();
    if !phases.contains(&Phase::Runtime.as_str()) {
        let what = format!("{name} has no image for the phase runtime");
        let fix = "add {\"phase\": \"runtime\", \"image\": \"...\"}";
        violations.push(Violation::new(format!("{path}/images"), what, fix));
    }
    phases.sort_unstable();
    if let Some(twice) = phases.windows(2).find(|pair| pair[0] == pair[1]) {
        let what = format!("{name} has two images for the phase {}", twice[0]);
        violations.push(Violation::new(format!("{path}/images"), what, "keep one of them"));
    }
}
