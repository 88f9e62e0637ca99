use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::{Error, ErrorKind};

/// Octets of a token: 256 random bits, twice what ASVS 5.0 item 7.2.3 asks.
const TOKEN_OCTETS: usize = 32;
/// Characters of a token as base64url without padding.
pub(crate) const TOKEN_CHARS: usize = 43;

/// The secret that a browser's cookie carries. Never stored, never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token([u8; TOKEN_OCTETS]);

impl Token {
    /// Asks the system's generator, without any fallback (CVE-2026-41838).
    pub(crate) fn generate() -> Result<Self, Error> {
        let mut octets = [0; TOKEN_OCTETS];
        getrandom::fill(&mut octets).map_err(|source| {
            Error::caused(ErrorKind::Random, "the system gave no random bits", source)
        })?;
        Ok(Self(octets))
    }

    /// Accepts the one canonical spelling of a token and nothing else.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        if value.len() != TOKEN_CHARS {
            return None;
        }
        let mut octets = [0; TOKEN_OCTETS];
        URL_SAFE_NO_PAD.decode_slice(value, &mut octets).ok()?;
        Some(Self(octets))
    }

    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// A fast digest is enough for a secret of 256 random bits: there is
    /// nothing to guess, and a dump of the table opens no session.
    pub(crate) fn row_id(&self) -> RowId {
        RowId(URL_SAFE_NO_PAD.encode(Sha256::digest(self.0)).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(REDACTED)")
    }
}

/// The `id` of a row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
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

/// The public handle of a session: safe to show, to log and to store.
///
/// It is a digest of the secret that the cookie carries, so nobody can use it
/// as a cookie. It changes with [`Session::cycle_id`](crate::Session::cycle_id).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(RowId);

impl SessionId {
    /// The handle as text, 43 characters of base64url.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl From<RowId> for SessionId {
    fn from(id: RowId) -> Self {
        Self(id)
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
    fn a_token_carries_at_least_128_random_bits() {
        let tokens: Vec<_> = (0..512)
            .map(|_| Token::generate().expect("random"))
            .collect();
        for bit in 0..TOKEN_OCTETS * 8 {
            let ones = tokens
                .iter()
                .filter(|token| token.0[bit / 8] >> (bit % 8) & 1 == 1)
                .count();
            // 512 fair bits leave this range with a probability below 10^-20.
            assert!(
                (150..362).contains(&ones),
                "bit {bit} is set {ones} times of 512"
            );
        }
    }

    #[test]
    fn a_token_survives_its_own_spelling() {
        let token = Token::generate().expect("random");
        assert_eq!(token.encode().len(), TOKEN_CHARS);
        assert_eq!(Token::parse(token.encode().as_bytes()), Some(token));
    }

    #[test]
    fn only_the_canonical_spelling_is_a_token() {
        let spelling = Token::generate().expect("random").encode();
        assert_eq!(Token::parse(b""), None);
        assert_eq!(Token::parse(&spelling.as_bytes()[1..]), None);
        assert_eq!(Token::parse(format!("{spelling}=").as_bytes()), None);
        assert_eq!(Token::parse(format!("\"{spelling}\"").as_bytes()), None);
        assert_eq!(Token::parse(&[b'+'; TOKEN_CHARS]), None);
        assert_eq!(Token::parse(&[0xff; TOKEN_CHARS]), None);
        // The last character has two bits that belong to no octet.
        assert_eq!(Token::parse(&[b'B'; TOKEN_CHARS]), None);
    }

    #[test]
    fn the_row_id_is_a_digest_that_is_no_token_of_itself() {
        let token = Token::generate().expect("random");
        let id = token.row_id();
        assert_ne!(id.as_str(), token.encode());
        let again = Token::parse(id.as_str().as_bytes()).expect("same alphabet");
        assert_ne!(again.row_id(), id);
    }

    #[test]
    fn a_token_prints_as_redacted() {
        let token = Token::generate().expect("random");
        assert_eq!(format!("{token:?}"), "Token(REDACTED)");
    }
}
