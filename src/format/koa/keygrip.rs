//! The signatures of Keygrip. The `cookie` crate has others. This module doesn't know
//! cookies.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::Hmac;
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use crate::format::hmac_keys::HmacKeys;

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

/// The keys of an application on Koa, and the digest that they sign with.
#[derive(Clone, Debug)]
pub(super) struct Keygrip {
    keys: HmacKeys,
    digest: KeygripDigest,
}

impl Keygrip {
    pub(super) fn new(keys: HmacKeys) -> Self {
        Self {
            keys,
            digest: KeygripDigest::Sha1,
        }
    }

    pub(super) fn with(self, digest: KeygripDigest) -> Self {
        Self { digest, ..self }
    }

    pub(super) fn has_keys(&self) -> bool {
        self.keys.are_usable()
    }

    /// Returns the signature as unpadded base64url.
    pub(super) fn sign(&self, data: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(match self.digest {
            KeygripDigest::Sha1 => self.keys.sign::<Hmac<Sha1>>(data),
            KeygripDigest::Sha256 => self.keys.sign::<Hmac<Sha256>>(data),
            KeygripDigest::Sha512 => self.keys.sign::<Hmac<Sha512>>(data),
        })
    }

    /// Returns the position of the key that signed.
    pub(super) fn verify(&self, data: &[u8], signature: &[u8]) -> Option<usize> {
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        match self.digest {
            KeygripDigest::Sha1 => self.keys.verify::<Hmac<Sha1>>(data, &signature),
            KeygripDigest::Sha256 => self.keys.verify::<Hmac<Sha256>>(data, &signature),
            KeygripDigest::Sha512 => self.keys.verify::<Hmac<Sha512>>(data, &signature),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &[u8] = b"koa.sid=_KYE9W_e2dVrVIXyzCkc51UEsyguoON-";
    const BY_KEYS: &[u8] = b"Sl6TkLIYrjsXr0gID8WmG2uCFMg";
    const BY_KEYKEYS: &[u8] = b"_XIp6MPd5io63mglwrmCFPGBNtI";

    fn keygrip() -> Keygrip {
        Keygrip::new(HmacKeys::new(["keys", "keykeys"]))
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
        let other = Keygrip::new(HmacKeys::new(["other"]));
        assert_eq!(other.verify(DATA, BY_KEYS), None);
        let sha256 = keygrip().with(KeygripDigest::Sha256);
        assert_eq!(sha256.verify(DATA, BY_KEYS), None);
    }

    #[test]
    fn keys_are_never_printed() {
        assert!(!format!("{:?}", keygrip()).contains("keykeys"));
    }
}
