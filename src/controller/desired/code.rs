//! A function's code as it reaches its Pods: an immutable ConfigMap that is named after its content, so that a Pod finds
//! exactly the code that its template was made for, however late the node learns of a change and however often the
//! code changes meanwhile. Must never change a ConfigMap that Pods may still mount.

use k8s_openapi::api::core::v1::ConfigMap;
use std::collections::BTreeMap;

use super::{metadata, sha256};
use crate::api::{
    Violation,
    code::{Archive, ContentType, Given, Handler},
    function::Function,
};

/// Key of the handler's name.
pub const HANDLER_KEY: &str = "handler";
/// Characters of the digest in a ConfigMap's name.
const DIGEST: usize = 10;

/// The file names that a runtime asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileNames<'a> {
    /// What follows the module's name, for example `.py`.
    pub suffix: &'a str,
    /// Name of the dependency file; empty if the runtime has none.
    pub deps: &'a str,
}

/// What is in the ConfigMap, and how it is called there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code<'a> {
    /// How it is given.
    pub content: ContentType,
    /// What is called.
    pub handler: Handler<'a>,
    /// Key of the code.
    pub file: String,
    /// Key of the dependency file, if the runtime has one.
    pub deps: Option<&'a str>,
}

impl<'a> Code<'a> {
    /// Reads what the function says. `None`: it brings no code.
    ///
    /// # Errors
    /// One violation if the module cannot be a file name.
    pub fn of(function: &'a Function, names: FileNames<'a>) -> Result<Option<Self>, Violation> {
        let Some(handler) = function.handler().filter(|_| !function.spec.function.is_empty()) else {
            return Ok(None);
        };
        let content = function.content_type();
        let suffix = if content.archive.is_some() { "" } else { names.suffix };
        let file = format!("{}{suffix}", handler.module);
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !handler.module.chars().all(fits) {
            let what = format!("module {:?} cannot be a file name", handler.module);
            let fix = "use letters, digits, - and _ in front of the dot";
            return Err(Violation::new("/spec/handler", what, fix));
        }
        Ok(Some(Self { content, handler, file, deps: Some(names.deps).filter(|name| !name.is_empty()) }))
    }

    /// Arguments of `prepare` that say how the code is given.
    pub fn form(&self) -> [&'static str; 4] {
        let given = match self.content.given {
            Given::Text => "text",
            Given::Base64 => "base64",
            Given::Url => "url",
        };
        let packed = match self.content.archive {
            None => "no",
            Some(Archive::Zip) => "zip",
            Some(Archive::CompressedTar) => "tar",
        };
        ["--given", given, "--packed", packed]
    }
}

/// The ConfigMap of a function with code.
pub fn config_map(function: &Function, code: &Code<'_>) -> ConfigMap {
    let mut data = BTreeMap::from([
        (HANDLER_KEY.to_owned(), function.spec.handler.clone()),
        (code.file.clone(), function.spec.function.clone()),
    ]);
    if let Some(deps) = code.deps {
        data.insert(deps.to_owned(), function.spec.deps.clone());
    }
    let mut metadata = metadata(&function.metadata);
    metadata.name = Some(config_map_name(function, &data));
    ConfigMap { metadata, data: Some(data), immutable: Some(true), ..ConfigMap::default() }
}

fn config_map_name(function: &Function, data: &BTreeMap<String, String>) -> String {
    let parts: Vec<&[u8]> = data.iter().flat_map(|(key, text)| [key.as_bytes(), text.as_bytes()]).collect();
    let name = function.metadata.name.as_deref().unwrap_or_default();
    format!("{name}-{}", &sha256(&parts)[..DIGEST])
}

/// Digest of everything that makes a Pod's content: what changes it must roll the Pods, even where nothing else in the
/// template says so.
pub fn digest(function: &Function) -> String {
    let spec = &function.spec;
    let parts = [
        &spec.handler,
        &spec.function,
        &spec.function_content_type,
        &spec.checksum,
        &spec.deps,
        &spec.runtime,
    ];
    sha256(&parts.map(String::as_bytes))
}
