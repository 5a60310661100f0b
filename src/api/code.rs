//! How a function's code is given: content type, handler and checksum, read once and strictly. Must never fetch or
//! decode the code itself.

use super::Violation;

/// Where the text of `spec.function` stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Given {
    /// It is the code.
    #[default]
    Text,
    /// It is the code, base64.
    Base64,
    /// It is where the code is downloaded from.
    Url,
}

/// How several files are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    /// A zip file.
    Zip,
    /// A tar file, compressed with gzip, bzip2 or xz.
    CompressedTar,
}

/// `spec.function-content-type`, taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentType {
    /// What the text is.
    pub given: Given,
    /// Set if the code is an archive, not one file.
    pub archive: Option<Archive>,
    /// Whether the archive brings its own dependency file, so that `spec.deps` is not copied over it.
    pub bundled_deps: bool,
}

/// A content type that says neither text, base64 nor url.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} says neither text, base64 nor url")]
pub struct NotAContentType(pub String);

impl ContentType {
    /// Reads by substring, as Kubeless does; empty is text.
    ///
    /// # Errors
    /// [`NotAContentType`] when the text names no way in which code is given.
    pub fn parse(text: &str) -> Result<Self, NotAContentType> {
        let given = match text {
            "" => Given::Text,
            _ if text.contains("base64") => Given::Base64,
            _ if text.contains("url") => Given::Url,
            _ if text.contains("text") => Given::Text,
            _ => return Err(NotAContentType(text.to_owned())),
        };
        let archive = match text {
            _ if text.contains("zip") => Some(Archive::Zip),
            _ if text.contains("compressedtar") => Some(Archive::CompressedTar),
            _ => None,
        };
        Ok(Self { given, archive, bundled_deps: text.contains("deps") })
    }
}

/// `spec.handler`, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handler<'a> {
    /// File name without its suffix.
    pub module: &'a str,
    /// Function in it.
    pub function: &'a str,
}

impl<'a> Handler<'a> {
    /// Reads `<module>.<function>`: exactly two parts, none empty.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (module, function) = text.split_once('.')?;
        let fits = !module.is_empty() && !function.is_empty() && !function.contains('.');
        fits.then_some(Self { module, function })
    }
}

/// The hex digits of `sha256:<hex>`; `None` for every other form.
pub fn sha256(checksum: &str) -> Option<&str> {
    let hex = checksum.strip_prefix("sha256:")?;
    (hex.len() == 64 && hex.bytes().all(|c| c.is_ascii_hexdigit())).then_some(hex)
}

/// Adds what is wrong with the three fields of a Function's spec.
pub(super) fn check(spec: &super::function::FunctionSpec, violations: &mut Vec<Violation>) {
    if (!spec.handler.is_empty() || !spec.function.is_empty()) && Handler::parse(&spec.handler).is_none() {
        let what = format!("handler {:?} is not <module>.<function>", spec.handler);
        violations.push(Violation::new("/spec/handler", what, "write for example handler.hello"));
    }
    if let Err(error) = ContentType::parse(&spec.function_content_type) {
        let fix = "write text, base64 or url, optionally with +zip or +compressedtar and +deps";
        violations.push(Violation::new("/spec/function-content-type", error.to_string(), fix));
    }
    let checksum = spec.checksum.as_str();
    if !checksum.is_empty() && !checksum.starts_with("sha256:") {
        let what = format!("checksum {checksum:?} has an unknown method");
        violations.push(Violation::new("/spec/checksum", what, "write sha256:<hex>"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_read_by_substring() {
        let read = |text: &str| {
            let found = ContentType::parse(text).unwrap();
            (found.given, found.archive, found.bundled_deps)
        };
        assert_eq!(read(""), (Given::Text, None, false));
        assert_eq!(read("text"), (Given::Text, None, false));
        assert_eq!(read("text+deps"), (Given::Text, None, true));
        assert_eq!(read("base64+zip"), (Given::Base64, Some(Archive::Zip), false));
        assert_eq!(read("url+compressedtar+deps"), (Given::Url, Some(Archive::CompressedTar), true));
        assert_eq!(ContentType::parse("zip"), Err(NotAContentType("zip".to_owned())));
    }

    #[test]
    fn handlers_have_two_halves() {
        assert_eq!(Handler::parse("a.b"), Some(Handler { module: "a", function: "b" }));
        for text in ["", "a", "a.", ".b", "a.b.c"] {
            assert_eq!(Handler::parse(text), None, "{text}");
        }
    }

    #[test]
    fn checksums_are_64_hex_digits() {
        let hex = "0f".repeat(32);
        assert_eq!(sha256(&format!("sha256:{hex}")), Some(hex.as_str()));
        assert_eq!(sha256(&hex), None);
        assert_eq!(sha256("sha256:abc"), None);
    }
}
