//! `K=V`, `K:V`, and `K-` of the command line: what is to be set and what is to go. Must never look into values.

use crate::cli::UsageError;

/// One change of a map or of a list whose entries have names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pair {
    /// Set the key to the value.
    Set(String, String),
    /// Remove the key.
    Remove(String),
}

impl Pair {
    /// Reads `K=V` or `K:V`, whichever separator comes first; `K-` removes and a bare `K` is the empty value.
    pub fn parse(flag: &str, text: &str) -> Result<Self, UsageError> {
        let pair = match (text.find(['=', ':']), text.strip_suffix('-')) {
            (Some(at), _) => Self::Set(text[..at].to_owned(), text[at + 1..].to_owned()),
            (None, Some(key)) => Self::Remove(key.to_owned()),
            (None, None) => Self::Set(text.to_owned(), String::new()),
        };
        match pair.key() {
            "" => Err(UsageError(format!("--{flag} {text:?} has no key; write --{flag} KEY=VALUE"))),
            _ => Ok(pair),
        }
    }

    /// Reads a name to add, or `NAME-` to remove; the value stays empty.
    pub fn name(flag: &str, text: &str) -> Result<Self, UsageError> {
        match text.strip_suffix('-').unwrap_or(text) {
            "" => Err(UsageError(format!("--{flag} needs a name"))),
            name if name.len() < text.len() => Ok(Self::Remove(name.to_owned())),
            name => Ok(Self::Set(name.to_owned(), String::new())),
        }
    }

    /// Reads all values of a flag.
    pub fn all(
        flag: &str,
        texts: &[String],
        parse: fn(&str, &str) -> Result<Self, UsageError>,
    ) -> Result<Vec<Self>, UsageError> {
        texts.iter().map(|text| parse(flag, text)).collect()
    }

    /// The key.
    pub fn key(&self) -> &str {
        match self {
            Self::Set(key, _) | Self::Remove(key) => key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_removal_and_empty_values() {
        let set = |key: &str, value: &str| Pair::Set(key.to_owned(), value.to_owned());
        for (text, wanted) in [
            ("A=1", set("A", "1")),
            ("A:1", set("A", "1")),
            ("URL=http://h:1/?a=b", set("URL", "http://h:1/?a=b")),
            ("A=-", set("A", "-")),
            ("A", set("A", "")),
            ("A-", Pair::Remove("A".to_owned())),
        ] {
            assert_eq!(Pair::parse("env", text).ok(), Some(wanted), "{text}");
        }
        for text in ["", "=1", "-"] {
            assert!(Pair::parse("env", text).is_err(), "{text}");
        }
        assert_eq!(Pair::name("secrets", "db-").ok(), Some(Pair::Remove("db".to_owned())));
    }
}
