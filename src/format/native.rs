//! This crate's own format: random tokens, whose digests are the ids of the rows. It
//! does no I/O.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, Uri};
use sha2::{Digest as _, Sha256};

use crate::{
    Error,
    cookie::{CookieConfig, Cookies, presented},
    document::{Document, Layout, NativeLayout, Terms},
    format::{ColumnNames, Format, Line, OldId, Ticket},
    id::{RowId, SessionId, Token, random},
    realm::Realm,
    request_tokens::{Reading, RequestTokens, Signature},
};

/// Bytes of a token: 256 random bits, twice what ASVS 5.0 item 7.2.3 requires.
const TOKEN_BYTES: usize = 32;
/// Characters of a token as base64url without padding.
pub(crate) const TOKEN_CHARS: usize = 43;

/// This crate's own format: the table holds digests of the tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Native;

impl Native {
    pub(crate) fn shared() -> Arc<dyn Format> {
        Arc::new(Self)
    }

    /// Accepts only the canonical encoding of a token.
    pub(crate) fn token(self, value: &[u8]) -> Option<Token> {
        bytes(value)?;
        Some(Token::new(std::str::from_utf8(value).ok()?))
    }
}

impl Format for Native {
    fn new_token(&self) -> Result<Token, Error> {
        Ok(Token::new(URL_SAFE_NO_PAD.encode(random::<TOKEN_BYTES>()?)))
    }

    fn read(&self, value: &[u8], config: &CookieConfig) -> Reading {
        match &config.signing {
            Some(keys) => keys.read(config.name(), value, |value| self.token(value)),
            None => self.token(value).map_or(Reading::Malformed, |token| {
                Reading::Token(token, Signature::UpToDate)
            }),
        }
    }

    fn encode(&self, token: &Token, config: &CookieConfig) -> String {
        config.encode(token)
    }

    /// A fast digest is enough, because 256 random bits can't be guessed. So a dump of
    /// the table opens no session.
    ///
    /// The digest is of the cookie as a browser sends it, `name=token`, so a token under
    /// another name belongs to another row. A name can't contain `=`.
    fn row_id(&self, token: &Token, realm: &Realm) -> RowId {
        let mut digest = Sha256::new();
        digest.update(realm.cookie_name.as_bytes());
        digest.update(b"=");
        digest.update(token.as_str());
        RowId::from(realm.row(&URL_SAFE_NO_PAD.encode(digest.finalize())))
    }

    fn handle(&self, id: &RowId) -> SessionId {
        SessionId::of_digest(id, Realm::digest_of(id.as_str()))
    }

    fn row_of(&self, handle: &SessionId, realm: &Realm) -> Option<RowId> {
        Some(RowId::from(realm.row(handle.as_str())))
    }

    fn has_realms(&self) -> bool {
        true
    }

    fn check_realm(&self, realm: &Realm) -> Result<(), Error> {
        realm.check()
    }

    fn columns(&self) -> ColumnNames {
        ColumnNames::OURS
    }

    fn old_id(&self) -> OldId {
        OldId::Forwards
    }

    fn layout(&self) -> &'static dyn Layout {
        &NativeLayout
    }

    fn blank(&self, _: &CookieConfig, _: Line) -> Document {
        Document::default()
    }

    fn check(&self, config: &CookieConfig) -> Result<(), Error> {
        config.check(TOKEN_CHARS)
    }

    fn is_always_secure(&self, config: &CookieConfig) -> bool {
        config.secure()
    }

    fn cookie_name<'c>(&self, config: &'c CookieConfig) -> &'c str {
        config.name()
    }

    fn on_this_machine(&self, config: &CookieConfig, mark: &str) -> Option<CookieConfig> {
        config.on_this_machine(mark)
    }

    /// The cookie doesn't depend on the connection.
    fn line(&self, _: &Uri, _: &HeaderMap) -> Line {
        Line::Unknown
    }

    fn presented(&self, cookies: &Cookies, config: &CookieConfig) -> RequestTokens {
        presented(cookies, config.name(), |value| self.read(value, config))
    }

    fn set(&self, ticket: &Ticket, config: &CookieConfig, _: Line) -> Vec<HeaderValue> {
        vec![config.set(&ticket.token, ticket.life, ticket.lifetime)]
    }

    fn removal(&self, _: &Terms, config: &CookieConfig, _: Line) -> Vec<HeaderValue> {
        vec![config.removal()]
    }
}

fn bytes(value: &[u8]) -> Option<[u8; TOKEN_BYTES]> {
    if value.len() != TOKEN_CHARS {
        return None;
    }
    let mut bytes = [0; TOKEN_BYTES];
    URL_SAFE_NO_PAD.decode_slice(value, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated() -> Token {
        Native.new_token().expect("random")
    }

    #[test]
    fn a_token_carries_at_least_128_random_bits() {
        let tokens: Vec<_> = (0..512)
            .map(|_| bytes(generated().as_str().as_bytes()).expect("a token"))
            .collect();
        for bit in 0..TOKEN_BYTES * 8 {
            let ones = tokens
                .iter()
                .filter(|token| token[bit / 8] >> (bit % 8) & 1 == 1)
                .count();
            // 512 fair bits leave this range with a probability below 10^-20.
            assert!(
                (150..362).contains(&ones),
                "bit {bit} is set {ones} times of 512"
            );
        }
    }

    #[test]
    fn a_token_survives_encoding_and_decoding() {
        let token = generated();
        assert_eq!(token.as_str().len(), TOKEN_CHARS);
        assert_eq!(Native.token(token.as_str().as_bytes()), Some(token));
    }

    #[test]
    fn only_the_canonical_encoding_is_a_token() {
        let token = generated();
        let encoded = token.as_str();
        assert_eq!(Native.token(b""), None);
        assert_eq!(Native.token(&encoded.as_bytes()[1..]), None);
        assert_eq!(Native.token(format!("{encoded}=").as_bytes()), None);
        assert_eq!(Native.token(format!("\"{encoded}\"").as_bytes()), None);
        assert_eq!(Native.token(&[b'+'; TOKEN_CHARS]), None);
        assert_eq!(Native.token(&[0xff; TOKEN_CHARS]), None);
        // The last character has two bits that belong to no byte.
        assert_eq!(Native.token(&[b'B'; TOKEN_CHARS]), None);
    }

    #[test]
    fn the_row_id_is_a_digest_that_is_no_token_of_itself() {
        let token = generated();
        let id = Native.row_id(&token, &Realm::default());
        assert_ne!(id.as_str(), token.as_str());
        let again = Native.token(id.as_str().as_bytes()).expect("same alphabet");
        assert_ne!(Native.row_id(&again, &Realm::default()), id);
    }

    fn realm(name: Option<&str>, cookie_name: &str) -> Realm {
        Realm {
            name: name.map(Into::into),
            cookie_name: cookie_name.into(),
        }
    }

    #[test]
    fn a_token_is_another_row_under_another_name_or_in_another_realm() {
        let token = generated();
        let shop = realm(None, "shop");
        let id = Native.row_id(&token, &shop);
        assert_eq!(Native.row_id(&token, &shop), id);
        let pair = format!("shop={}", token.as_str());
        assert_eq!(id.as_str(), URL_SAFE_NO_PAD.encode(Sha256::digest(pair)));
        let admin = realm(Some("admin"), "shop");
        assert_ne!(Native.row_id(&token, &realm(None, "admin")), id);
        assert_eq!(
            Native.row_id(&token, &admin).as_str(),
            format!("admin:{}", id.as_str())
        );
    }

    #[test]
    fn a_handle_leads_to_the_row_of_its_own_realm_only() {
        let admin = realm(Some("admin"), "id");
        let id = Native.row_id(&generated(), &admin);
        let handle = Native.handle(&id);
        assert_eq!(handle.as_str().len(), TOKEN_CHARS);
        assert_eq!(Native.row_of(&handle, &admin).as_ref(), Some(&id));
        for other in [Realm::default(), realm(Some("shop"), "id")] {
            assert_ne!(Native.row_of(&handle, &other).as_ref(), Some(&id));
        }
    }

    #[test]
    fn the_handle_is_the_row_id_which_leads_back_to_it() {
        let id = Native.row_id(&generated(), &Realm::default());
        let handle = Native.handle(&id);
        assert_eq!(handle.as_str(), id.as_str());
        assert_eq!(Native.row_of(&handle, &Realm::default()), Some(id));
    }
}
