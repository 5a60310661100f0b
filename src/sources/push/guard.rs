//! Who may push events or send requests: holders of a token (RFC 6750), or of a key that signs the body (HMAC-SHA256). Must never
//! show or log either, nor let the time it takes tell how much of one was right.

use super::problem::{Told, problem};
use crate::{cluster::secrets::SecretData, dispatch::store::Digest, sources::Error};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{AUTHORIZATION, HeaderName, WWW_AUTHENTICATE},
};
use sha2::Sha256;
use std::{path::Path, sync::Arc};

/// Key of the Secret, or file in the folder, with tokens.
const TOKEN: &str = "token";
/// The same with keys that sign.
const KEY: &str = "key";
/// What may stand before a signature.
const PREFIX: &[u8] = b"sha256=";

/// See the module.
#[derive(Clone)]
pub enum Guard {
    /// Everybody.
    Open,
    /// Holders of one of these tokens, of which digests are kept.
    Tokens(Arc<[Digest]>),
    /// Who signs with one of these keys, in this header.
    Signed(HeaderName, Arc<[Vec<u8>]>),
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Tokens(_) => "Tokens",
            Self::Signed(..) => "Signed",
        })
    }
}

impl Guard {
    /// Lets holders of a token in. `name`: the Secret, or the folder inside `dir` where there are no Secrets.
    ///
    /// # Errors
    /// There is none.
    pub fn tokens(name: &str, secret: Option<&SecretData>, dir: &Path) -> Result<Self, Error> {
        Ok(Self::Tokens(lines(name, TOKEN, secret, dir)?.iter().map(|token| digest(token)).collect()))
    }

    /// Lets those in who sign in `header`.
    ///
    /// # Errors
    /// There is no key.
    pub fn signed(
        header: HeaderName,
        name: &str,
        secret: Option<&SecretData>,
        dir: &Path,
    ) -> Result<Self, Error> {
        Ok(Self::Signed(header, lines(name, KEY, secret, dir)?.into()))
    }

    /// Whether the head may be let in, before the body is read.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Open => true,
            Self::Tokens(tokens) => {
                bearer(headers).is_some_and(|token| tokens.contains(&digest(token.trim_ascii())))
            }
            Self::Signed(header, _) => signature(headers, header).is_some(),
        }
    }

    /// Whether a head that was let in proves who sent it, whatever the body is.
    pub fn knows_by_head(&self) -> bool {
        !matches!(self, Self::Signed(..))
    }

    /// Whether the body is what was signed. Of a head that was let in.
    pub fn admits_body(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let Self::Signed(header, keys) = self else { return true };
        let Some(signature) = signature(headers, header) else { return false };
        keys.iter().any(|key| {
            // A key of any length will do.
            Hmac::<Sha256>::new_from_slice(key).is_ok_and(|mut mac| {
                mac.update(body);
                mac.verify_slice(&signature).is_ok()
            })
        })
    }

    /// Takes what was for this guard alone from what goes on to a function.
    pub fn strip(&self, headers: &mut HeaderMap) {
        if matches!(self, Self::Tokens(_)) {
            headers.remove(AUTHORIZATION);
        }
    }

    /// What somebody is told who is not let in.
    pub fn refusal(&self) -> Told {
        if let Self::Signed(header, _) = self {
            let why =
                format!("sign the body: {header} is its HMAC-SHA256 in hexadecimal, with the trigger's key");
            return problem(StatusCode::UNAUTHORIZED, &why);
        }
        let mut told = problem(StatusCode::UNAUTHORIZED, "show the trigger's token: authorization: Bearer …");
        told.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        told
    }
}

/// What a token is compared by: its digest, so that the time it takes tells nothing.
fn digest(token: &[u8]) -> Digest {
    Digest::of(&[b"token", token])
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let shown = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = shown.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// The signature that a head shows, if it could be one.
fn signature(headers: &HeaderMap, header: &HeaderName) -> Option<[u8; 32]> {
    let shown = headers.get(header)?.as_bytes().trim_ascii();
    let hex = shown.strip_prefix(PREFIX).unwrap_or(shown);
    if hex.len() != 64 || !hex.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// What stands under `key`, one a line.
fn lines(name: &str, key: &str, secret: Option<&SecretData>, dir: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let text = match secret {
        Some(data) => data.get(key).map(<[u8]>::to_vec),
        None => {
            let path = dir.join(name).join(key);
            let read = std::fs::read(&path);
            Some(read.map_err(|error| format!("{}: {error}; it holds the {key}", path.display()))?)
        }
    };
    let text = text.unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let lines: Vec<Vec<u8>> = lines.map(<[u8]>::to_vec).collect();
    if lines.is_empty() {
        let why =
            format!("Secret {name}: the key {key:?} is missing or empty; put a {key} there, one a line");
        return Err(why.into());
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, case 2.
    const SIGNED: &str = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

    fn head(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            HeaderName::from_static(name),
            HeaderValue::from_str(value).expect("a value"),
        )])
    }

    #[test]
    fn a_token_is_shown_by_its_scheme_and_any_of_several_counts() {
        let guard = Guard::Tokens([digest(b"one"), digest(b"two")].into());
        for right in ["Bearer one", "bearer two "] {
            assert!(guard.admits(&head("authorization", right)), "{right}");
        }
        for wrong in ["Bearer on", "Bearer", "Basic one", "one", "Bearer "] {
            assert!(!guard.admits(&head("authorization", wrong)), "{wrong}");
        }
        assert!(!guard.admits(&HeaderMap::new()));
        let mut headers = head("authorization", "Bearer one");
        guard.strip(&mut headers);
        assert!(headers.is_empty(), "a function is not shown the token");
    }

    #[test]
    fn a_body_is_let_in_with_its_own_signature_alone() {
        let header = HeaderName::from_static("x-signature");
        let guard = Guard::Signed(header, [b"old".to_vec(), b"Jefe".to_vec()].into());
        let body = b"what do ya want for nothing?";
        for right in [SIGNED.to_owned(), format!("sha256={SIGNED}"), SIGNED.to_uppercase()] {
            let headers = head("x-signature", &right);
            assert!(guard.admits(&headers) && guard.admits_body(&headers, body), "{right}");
            assert!(!guard.admits_body(&headers, b"what do ya want?"));
        }
        for wrong in
            ["", "sha256=", &SIGNED[1..], &format!("sha1={SIGNED}"), &"g".repeat(64), &"+1".repeat(32)]
        {
            assert!(!guard.admits_body(&head("x-signature", wrong), body), "{wrong}");
        }
        assert!(!guard.admits(&HeaderMap::new()));
    }

    #[test]
    fn nothing_of_a_guard_is_shown_and_an_empty_secret_is_none() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("callers")).expect("a folder in it");
        let write = |text| std::fs::write(dir.path().join("callers/token"), text).expect("written");
        write("hidden-1\n\nhidden-2\n");
        let guard = Guard::tokens("callers", None, dir.path()).expect("two tokens");
        assert!(guard.admits(&head("authorization", "Bearer hidden-2")));
        assert_eq!(format!("{guard:?}"), "Tokens");
        write(" \n");
        assert!(
            Guard::tokens("callers", None, dir.path()).expect_err("none").to_string().contains("one a line")
        );
    }
}
