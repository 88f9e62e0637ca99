//! The optional signature of a token in this crate's own format: `token.signature`. It
//! does no I/O. The formats of Koa and Express have other signatures.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::{
    Error, ErrorKind,
    id::Token,
    request_tokens::{Reading, Signature},
};

/// The minimum length of a key, in bytes: that of the digest (RFC 2104, section 3).
const MIN_KEY: usize = 32;
/// Part of the signed text, so that no other use of the same key has the same
/// signatures.
const PURPOSE: &[u8] = b"axum-pg-session cookie\0";
const SEPARATOR: char = '.';
/// An HMAC-SHA-256 as base64url without padding.
const SIGNATURE_CHARS: usize = 43;
/// The characters that a signature adds to a token.
pub(crate) const SIGNED_CHARS: usize = 1 + SIGNATURE_CHARS;

/// Keys that sign the token, for
/// [`PgSessionLayer::signing_keys`](crate::PgSessionLayer::signing_keys): the
/// first one signs, and all of them verify.
///
/// The signature is an HMAC-SHA-256 of the cookie's name and the token, so it is
/// invalid under another name. The keys themselves are not stored, only the state of
/// HMAC, which is wiped from memory when the last layer that uses it is dropped.
///
/// To rotate the keys, add the new key at the end on all processes, then move it to the
/// front. Remove the old key when the longest
/// [idle timeout](crate::PgSessionLayer::idle_timeout) has passed. By then, each session
/// in use is signed with the new key, so no user is signed out.
///
/// ```
/// use axum_pg_session::{PgSessionLayer, PgSessionStore, SigningKeys};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
/// // Use `std::env::var("SESSION_KEYS")?`, which has the key that signs and then the older ones,
/// // separated by commas. `openssl rand -base64 32` makes one.
/// let keys = ["n".repeat(44), "o".repeat(44)].join(",");
/// let layer = PgSessionLayer::new(store.clone()).signing_keys(SigningKeys::new(keys.split(',').map(str::trim)));
/// assert!(layer.check().is_ok());
///
/// let layer = PgSessionLayer::new(store).signing_keys(SigningKeys::new(["too short"]));
/// assert!(layer.check().is_err());
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "keys sign nothing until a layer has them"]
pub struct SigningKeys {
    keys: Vec<Hmac<Sha256>>,
    /// The position, from 1, and the length of the first key that is too short.
    too_short: Option<(usize, usize)>,
    unsigned: UnsignedTokens,
}

/// How a layer with [keys](SigningKeys) handles tokens without a signature.
///
/// To enable signing on a running site, deploy three steps:
///
/// 1. `Issue` on all processes, so that each can read the signed cookies of the others.
/// 2. `Accept` on all processes, which signs the cookie of each active visitor.
/// 3. `Reject`, after the longest idle timeout.
///
/// A new site, or one that may sign all users out, can start with `Reject`.
///
/// ```
/// use axum_pg_session::{PgSessionLayer, PgSessionStore, SigningKeys, UnsignedTokens};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
/// let keys = SigningKeys::new([[7; 32]]).unsigned(UnsignedTokens::Accept);
/// assert!(PgSessionLayer::new(store).signing_keys(keys).check().is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnsignedTokens {
    /// They open no session and cost no statement. The default.
    Reject,
    /// They open their sessions, and are replaced with signed ones when the session is
    /// extended. A forged token costs a statement, as without keys.
    Accept,
    /// They open their sessions, and new cookies have no signature. Signed tokens open
    /// their sessions, too.
    Issue,
}

impl SigningKeys {
    /// Creates keys of at least 32 bytes each. Use random bytes, or the text of
    /// `openssl rand -base64 32`, not a password.
    ///
    /// Without a key, or with a shorter one,
    /// [`PgSessionLayer::check`](crate::PgSessionLayer::check) is an error.
    pub fn new<K: AsRef<[u8]>>(keys: impl IntoIterator<Item = K>) -> Self {
        let mut signing = Self {
            keys: Vec::new(),
            too_short: None,
            unsigned: UnsignedTokens::Reject,
        };
        for key in keys {
            signing.add(key.as_ref());
        }
        signing
    }

    fn add(&mut self, key: &[u8]) {
        let mut mac = Hmac::new_from_slice(key).expect("HMAC takes keys of any length");
        mac.update(PURPOSE);
        self.keys.push(mac);
        if key.len() < MIN_KEY && self.too_short.is_none() {
            self.too_short = Some((self.keys.len(), key.len()));
        }
    }

    /// Sets how tokens without a signature are handled. Default:
    /// [`UnsignedTokens::Reject`].
    pub fn unsigned(self, unsigned: UnsignedTokens) -> Self {
        Self { unsigned, ..self }
    }

    /// # Errors
    ///
    /// If there is no key, or a key is too short.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.too_short {
            _ if self.keys.is_empty() => Err(refused("there is no signing key")),
            Some((position, bytes)) => Err(refused(format!(
                "signing key {position} has {bytes} bytes, and needs at least {MIN_KEY}; use the \
                 text of `openssl rand -base64 32`"
            ))),
            None => Ok(()),
        }
    }

    /// The value of a cookie with this name and token.
    pub(crate) fn encode(&self, name: &str, token: &Token) -> String {
        let token = token.as_str();
        match (self.unsigned, self.keys.first()) {
            (UnsignedTokens::Issue, _) | (_, None) => token.to_owned(),
            (UnsignedTokens::Reject | UnsignedTokens::Accept, Some(key)) => {
                let mac = over(key, name, token.as_bytes()).finalize().into_bytes();
                format!("{token}{SEPARATOR}{}", URL_SAFE_NO_PAD.encode(mac))
            }
        }
    }

    pub(crate) fn read(
        &self,
        name: &str,
        value: &[u8],
        token: impl Fn(&[u8]) -> Option<Token>,
    ) -> Reading {
        match Signed::parse(value) {
            Some(signed) => match token(signed.token) {
                Some(token) => self.verified(name, token, &signed.signature),
                None => Reading::Malformed,
            },
            None => token(value).map_or(Reading::Malformed, |token| self.bare(token)),
        }
    }

    fn bare(&self, token: Token) -> Reading {
        match self.unsigned {
            UnsignedTokens::Reject => Reading::Forged,
            UnsignedTokens::Accept => Reading::Token(token, Signature::Outdated),
            UnsignedTokens::Issue => Reading::Token(token, Signature::UpToDate),
        }
    }

    /// All keys are tried, each in constant time, so that the duration reveals nothing
    /// about them.
    fn verified(&self, name: &str, token: Token, signature: &[u8]) -> Reading {
        let signed: Vec<_> = self
            .keys
            .iter()
            .map(|key| {
                let mac = over(key, name, token.as_str().as_bytes());
                mac.verify_slice(signature).is_ok()
            })
            .collect();
        match signed.iter().position(|is_signed| *is_signed) {
            Some(key) => Reading::Token(token, Signature::by_key(key)),
            None => Reading::Forged,
        }
    }
}

/// A name can't contain `=`, so no two cookies have the same signed text.
fn over(key: &Hmac<Sha256>, name: &str, token: &[u8]) -> Hmac<Sha256> {
    let mut mac = key.clone();
    mac.update(name.as_bytes());
    mac.update(b"=");
    mac.update(token);
    mac
}

struct Signed<'v> {
    token: &'v [u8],
    signature: [u8; 32],
}

impl<'v> Signed<'v> {
    fn parse(value: &'v [u8]) -> Option<Self> {
        let (token, rest) = value.split_at_checked(value.len().checked_sub(SIGNED_CHARS)?)?;
        let (separator, signature) = rest.split_first()?;
        let mut bytes = [0; 32];
        let is_decoded = *separator == SEPARATOR as u8
            && URL_SAFE_NO_PAD.decode_slice(signature, &mut bytes) == Ok(bytes.len());
        is_decoded.then_some(Self {
            token,
            signature: bytes,
        })
    }
}

fn refused(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Setup, message)
}

impl fmt::Debug for SigningKeys {
    /// Omits the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeys")
            .field("keys", &self.keys.len())
            .field("unsigned", &self.unsigned)
            .finish()
    }
}

#[cfg(test)]
mod tests;
