//! Several keys for HMAC: the first one signs, and all verify. This module doesn't know what is
//! signed, or how a signature is encoded.

use std::fmt;

use hmac::{KeyInit, Mac};
use zeroize::Zeroizing;

/// The keys of another system's signatures.
#[derive(Clone)]
pub(super) struct HmacKeys {
    /// Wiped from memory when the last layer that uses them is dropped.
    keys: Vec<Zeroizing<Vec<u8>>>,
}

impl HmacKeys {
    pub(super) fn new<K: Into<Vec<u8>>>(keys: impl IntoIterator<Item = K>) -> Self {
        let keys = keys.into_iter().map(|key| Zeroizing::new(key.into()));
        Self {
            keys: keys.collect(),
        }
    }

    /// Whether there are keys, and none is empty.
    pub(super) fn are_usable(&self) -> bool {
        !self.keys.is_empty() && self.keys.iter().all(|key| !key.is_empty())
    }

    /// Signs with the first key.
    pub(super) fn sign<M: Mac + KeyInit>(&self, data: &[u8]) -> Vec<u8> {
        let key = self.keys.first().map(|key| key.as_slice());
        let mac = mac::<M>(key.unwrap_or_default(), data);
        mac.finalize().into_bytes().to_vec()
    }

    /// Returns the position of the key that signed. All keys are tried, each in constant
    /// time, so that the duration reveals nothing about them.
    pub(super) fn verify<M: Mac + KeyInit>(&self, data: &[u8], signature: &[u8]) -> Option<usize> {
        let is_signed =
            |key: &Zeroizing<Vec<u8>>| mac::<M>(key, data).verify_slice(signature).is_ok();
        let signed: Vec<_> = self.keys.iter().map(is_signed).collect();
        signed.iter().position(|is_signed| *is_signed)
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], data: &[u8]) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac
}

impl fmt::Debug for HmacKeys {
    /// Omits the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HmacKeys")
            .field("keys", &self.keys.len())
            .finish()
    }
}
