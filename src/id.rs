//! The three names of a session: the token in the browser, the id of the row, and the public
//! handle. They do no I/O. The format decides how the id of the row follows from the token.

use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

use crate::{Error, ErrorKind};

mod generator;

/// Characters of a handle: a SHA-256 as base64url without padding.
const HANDLE_CHARS: usize = 43;

/// The secret in a browser's cookie, as text. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(Arc<str>);

impl Token {
    pub(crate) fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A header value with a token, signed or not. It is marked as sensitive, so it is not
/// printed.
pub(crate) fn sensitive(token: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(token).expect("tokens are visible ASCII");
    value.set_sensitive(true);
    value
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(REDACTED)")
    }
}

/// Random bytes of the system's generator, without any fallback (CVE-2026-41838).
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    generator::fill(&mut bytes).map_err(|source| {
        Error::caused(ErrorKind::Random, "the system gave no random bits", source)
    })?;
    Ok(bytes)
}

/// Eight hexadecimal digits that distinguish this text from others.
pub(crate) fn short_digest(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The `id` of a row. In the formats of Koa and Express it contains the token, so it is never printed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RowId(Arc<str>);

impl RowId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for RowId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl fmt::Debug for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowId(REDACTED)")
    }
}

/// The public handle of a session: safe to show, to log and to store.
///
/// It is a digest of the secret in the cookie, so it can't be used as a cookie. It
/// changes with [`Session::cycle_id`](crate::Session::cycle_id).
///
/// [`PgSessionStore::load`](crate::PgSessionStore::load) and
/// [`PgSessionStore::destroy`](crate::PgSessionStore::destroy) take it.
///
/// ```
/// use axum_pg_session::SessionId;
///
/// let stored = "yo3kjqNtsxUxpQFnyVPVYF3pKT1yfnW1GnyDmtdW4qA";
/// let id: SessionId = stored.parse().expect("43 characters of base64url");
/// assert_eq!(id.to_string(), stored);
/// assert!("no handle".parse::<SessionId>().is_err());
///
/// // In a form or a response of an API it is text, too.
/// let json = serde_json::to_string(&id)?;
/// assert_eq!(serde_json::from_str::<SessionId>(&json)?, id);
/// assert!(serde_json::from_str::<SessionId>(r#""no handle""#).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone)]
pub struct SessionId {
    handle: Arc<str>,
    /// The row's id, if it is a secret and the handle is a digest of it.
    row: Option<RowId>,
}

impl SessionId {
    pub(crate) fn new(handle: impl Into<Arc<str>>) -> Self {
        Self {
            handle: handle.into(),
            row: None,
        }
    }

    /// For a row whose id contains a digest.
    pub(crate) fn of_digest(row: &RowId, digest: &str) -> Self {
        match digest.len() == row.as_str().len() {
            true => Self::new(Arc::clone(&row.0)),
            false => Self::new(digest),
        }
    }

    /// For a row whose id opens the session.
    pub(crate) fn digest_of(row: &RowId) -> Self {
        Self {
            row: Some(row.clone()),
            ..Self::new(URL_SAFE_NO_PAD.encode(Sha256::digest(row.as_str())))
        }
    }

    pub(crate) fn row(&self) -> Option<&RowId> {
        self.row.as_ref()
    }

    /// # Errors
    ///
    /// If the text is not a handle.
    pub(crate) fn digest(&self) -> Result<[u8; 32], Error> {
        let mut bytes = [0; 32];
        let is_decoded = self.handle.len() == HANDLE_CHARS
            && URL_SAFE_NO_PAD
                .decode_slice(self.as_str(), &mut bytes)
                .is_ok();
        match is_decoded {
            true => Ok(bytes),
            false => Err(Error::new(
                ErrorKind::Deserialize,
                "this is not the handle of a session",
            )),
        }
    }

    /// Returns the handle as text: 43 characters of base64url.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.handle
    }
}

/// Parses the text of [`as_str`](SessionId::as_str).
impl FromStr for SessionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let id = Self::new(text);
        id.digest().map(|_| id)
    }
}

impl AsRef<str> for SessionId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// Serializes the text, for example for a list of devices in JSON.
impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl PartialEq for SessionId {
    fn eq(&self, other: &Self) -> bool {
        self.handle == other.handle
    }
}

impl Eq for SessionId {}

impl PartialOrd for SessionId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SessionId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.handle.cmp(&other.handle)
    }
}

impl Hash for SessionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.handle.hash(state);
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionId").field(&self.as_str()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_print_as_redacted() {
        assert_eq!(format!("{:?}", Token::new("secret")), "Token(REDACTED)");
        let row = RowId::from("koa:sess:secret".to_owned());
        assert_eq!(format!("{row:?}"), "RowId(REDACTED)");
        let handle = SessionId::digest_of(&row);
        assert!(!format!("{handle:?} {handle}").contains("secret"));
    }

    #[test]
    fn a_handle_from_text_is_the_one_of_the_row() {
        let handle = SessionId::digest_of(&RowId::from("koa:sess:secret".to_owned()));
        let again: SessionId = handle.as_str().parse().expect("its own text");
        assert_eq!(again, handle);
        assert_eq!(again.cmp(&handle), std::cmp::Ordering::Equal);
    }
}
