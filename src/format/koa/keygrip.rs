//! The signatures of Keygrip. The `cookie` crate has others. This module doesn't know
//! cookies.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use zeroize::Zeroizing;

/// The digest that Keygrip signs with.
///
/// ```
/// use axum_pg_session::{KeygripDigest, Koa, PgSessionLayer, PgSessionStore};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
/// // As `app.keys = new Keygrip(['key'], 'sha256')` in Koa.
/// let koa = Koa::new(["key"]).digest(KeygripDigest::Sha256);
/// assert!(PgSessionLayer::new(store.koa(koa)).check().is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeygripDigest {
    /// HMAC-SHA-1, Keygrip's default.
    Sha1,
    /// HMAC-SHA-256.
    Sha256,
    /// HMAC-SHA-512.
    Sha512,
}

/// Several keys: the first one signs, and all verify.
#[derive(Clone)]
pub(super) struct Keygrip {
    /// Wiped from memory when the last layer that uses them is dropped.
    keys: Vec<Zeroizing<Vec<u8>>>,
    digest: KeygripDigest,
}

impl Keygrip {
    pub(super) fn new(keys: Vec<Vec<u8>>) -> Self {
        Self {
            keys: keys.into_iter().map(Zeroizing::new).collect(),
            digest: KeygripDigest::Sha1,
        }
    }

    pub(super) fn with(self, digest: KeygripDigest) -> Self {
        Self { digest, ..self }
    }

    pub(super) fn has_keys(&self) -> bool {
        !self.keys.is_empty() && self.keys.iter().all(|key| !key.is_empty())
    }

    /// Returns the signature as unpadded base64url.
    pub(super) fn sign(&self, data: &[u8]) -> String {
        let key = self
            .keys
            .first()
            .map(|key| key.as_slice())
            .unwrap_or_default();
        let signature = match self.digest {
            KeygripDigest::Sha1 => bytes(mac::<Hmac<Sha1>>(key, data)),
            KeygripDigest::Sha256 => bytes(mac::<Hmac<Sha256>>(key, data)),
            KeygripDigest::Sha512 => bytes(mac::<Hmac<Sha512>>(key, data)),
        };
        URL_SAFE_NO_PAD.encode(signature)
    }

    /// Returns the position of the key that signed. All keys are tried, each in constant
    /// time, so that the duration reveals nothing about them.
    pub(super) fn verify(&self, data: &[u8], signature: &[u8]) -> Option<usize> {
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let signed: Vec<_> = self
            .keys
            .iter()
            .map(|key| self.is_signed_with(key, data, &signature))
            .collect();
        signed.iter().position(|is_signed| *is_signed)
    }

    fn is_signed_with(&self, key: &[u8], data: &[u8], signature: &[u8]) -> bool {
        match self.digest {
            KeygripDigest::Sha1 => fits(mac::<Hmac<Sha1>>(key, data), signature),
            KeygripDigest::Sha256 => fits(mac::<Hmac<Sha256>>(key, data), signature),
            KeygripDigest::Sha512 => fits(mac::<Hmac<Sha512>>(key, data), signature),
        }
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], data: &[u8]) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac
}

fn bytes(mac: impl Mac) -> Vec<u8> {
    mac.finalize().into_bytes().to_vec()
}

fn fits(mac: impl Mac, signature: &[u8]) -> bool {
    mac.verify_slice(signature).is_ok()
}

impl fmt::Debug for Keygrip {
    /// Omits the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keygrip")
            .field("keys", &self.keys.len())
            .field("digest", &self.digest)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &[u8] = b"koa.sid=_KYE9W_e2dVrVIXyzCkc51UEsyguoON-";
    const BY_KEYS: &[u8] = b"Sl6TkLIYrjsXr0gID8WmG2uCFMg";
    const BY_KEYKEYS: &[u8] = b"_XIp6MPd5io63mglwrmCFPGBNtI";

    fn keygrip() -> Keygrip {
        Keygrip::new(vec![b"keys".to_vec(), b"keykeys".to_vec()])
    }

    #[test]
    fn signatures_are_those_of_keygrip() {
        assert_eq!(keygrip().sign(DATA).as_bytes(), BY_KEYS);
        assert_eq!(
            keygrip().with(KeygripDigest::Sha256).sign(DATA),
            "OUIyFVFt_5meCBb6jOXdbLx4scWTZ708HuY_PK_l_YM"
        );
        assert_eq!(keygrip().sign(b"koa.sid="), "4Q4t-o__7Oasf7VtZqUFKLy4m7A");
        assert_eq!(keygrip().with(KeygripDigest::Sha512).sign(DATA).len(), 86);
    }

    #[test]
    fn every_key_verifies_and_tells_its_place() {
        assert_eq!(keygrip().verify(DATA, BY_KEYS), Some(0));
        assert_eq!(keygrip().verify(DATA, BY_KEYKEYS), Some(1));
        let sha512 = keygrip().with(KeygripDigest::Sha512);
        let signature = sha512.sign(DATA);
        assert_eq!(sha512.verify(DATA, signature.as_bytes()), Some(0));
    }

    #[test]
    fn anything_else_is_no_signature() {
        let truncated = &BY_KEYS[..BY_KEYS.len() - 1];
        let padded = [BY_KEYS, b"="].concat();
        for signature in [b"".as_slice(), truncated, &padded, b"\xff\xff", DATA] {
            assert_eq!(keygrip().verify(DATA, signature), None);
        }
        assert_eq!(keygrip().verify(b"koa.sid=another", BY_KEYS), None);
        let other = Keygrip::new(vec![b"other".to_vec()]);
        assert_eq!(other.verify(DATA, BY_KEYS), None);
        let sha256 = keygrip().with(KeygripDigest::Sha256);
        assert_eq!(sha256.verify(DATA, BY_KEYS), None);
    }

    #[test]
    fn keys_are_never_printed() {
        assert!(!format!("{:?}", keygrip()).contains("keykeys"));
    }
}
