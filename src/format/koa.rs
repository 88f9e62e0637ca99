//! The format of koa-generic-session and koa-pg-session. Everything about Koa is in
//! this module, behind the trait [`Format`]. It does no I/O.
//!
//! - The token is Koa's sid, and the row's id is a prefix and the sid. So a reader of
//!   the table can open sessions if cookies are not signed.
//! - The cookie is `koa.sid`. Its signature is a second cookie, `koa.sid.sig`, see
//!   `keygrip`. `header` reads and writes both byte by byte as Koa does.
//! - The member `cookie` of the stored object has the session's lifetime and the
//!   attributes of its cookie, see `terms`. A response sets the cookie with these, not
//!   with the layer's.
//! - An old id leaves no row, because Koa would load it as a session.

mod header;
mod keygrip;
mod terms;

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, Uri};

use crate::{
    CookieLifetime, Error, ErrorKind,
    cookie::{CookieConfig, Cookies},
    document::{Document, Layout, Terms},
    format::{
        ColumnNames, Format, Line, OldId, Ticket,
        hmac_keys::HmacKeys,
        javascript::forwarded_proto,
        koa::{
            header::{Attributes, first},
            keygrip::Keygrip,
            terms::KoaLayout,
        },
    },
    id::{RowId, Token, random},
    realm::Realm,
    request_tokens::{Reading, RequestTokens, Signature},
};

pub use keygrip::KeygripDigest;

/// The bytes of koa-generic-session's `genSid`.
const SID_BYTES: usize = 24;
/// The longest sid. An application can have a `genSid` of its own.
const MAX_SID: usize = 255;
/// A day, as in koa-generic-session.
const MAX_AGE: Duration = Duration::from_hours(24);

/// The format of koa-generic-session and koa-pg-session, to share a table with a site
/// on Koa, for [`PgSessionStore::koa`](crate::PgSessionStore::koa).
///
/// Both sites read and write the same rows, and a visitor keeps one session. The row's
/// id is the prefix and the token. The cookie is `koa.sid`, with the signature
/// `koa.sid.sig`. The member `cookie` of the stored object has the lifetime of the
/// session and the attributes of its cookie: those of the layer when the session began.
/// The defaults are Koa's: no `SameSite`, `secure` only if the connection is known to be
/// encrypted, no absolute timeout.
///
/// As in Koa, the id of a row doesn't depend on the cookie's name: two areas of a site
/// that share a table and a prefix share their sessions, whatever the names of their
/// cookies are. Give each area a [`prefix`](Self::prefix) or a table. Stores with
/// different prefixes share their users, and a handle finds a session from each of them.
/// Only separate tables separate these.
///
/// ```
/// use axum_pg_session::{Koa, PgSessionLayer, PgSessionStore};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let pool = sqlx::PgPool::connect_lazy("postgres:///")?;
/// // As `app.keys = ['new key', 'old key']` in Koa.
/// let koa = Koa::new(["new key", "old key"]);
/// let layer = PgSessionLayer::new(PgSessionStore::new(pool).koa(koa));
/// assert!(layer.check().is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a format does nothing until a store uses it"]
pub struct Koa {
    /// `None` if cookies have no signature.
    keygrip: Option<Keygrip>,
    prefix: String,
    max_age: Option<Duration>,
    proxy: Proxy,
}

/// Whether the `X-Forwarded-Proto` of a proxy is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proxy {
    Trusted,
    Ignored,
}

impl Koa {
    /// Creates a format with signed cookies, as with `app.keys` in Koa: the first key
    /// signs, and all keys verify. A cookie that a later key verified is signed again.
    ///
    /// Without a key, or with an empty one,
    /// [`PgSessionLayer::check`](crate::PgSessionLayer::check) is an error.
    pub fn new<K: Into<Vec<u8>>>(keys: impl IntoIterator<Item = K>) -> Self {
        Self {
            keygrip: Some(Keygrip::new(HmacKeys::new(keys))),
            ..Self::unsigned()
        }
    }

    /// Creates a format with unsigned cookies, as with `signed: false` in Koa. Then
    /// everyone who can read the table can open its sessions.
    pub fn unsigned() -> Self {
        Self {
            keygrip: None,
            prefix: "koa:sess:".into(),
            max_age: Some(MAX_AGE),
            proxy: Proxy::Ignored,
        }
    }

    /// Sets the prefix of the token in the row's id. Default: `koa:sess:`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the digest of the signatures, the second argument of Keygrip. Default:
    /// [`KeygripDigest::Sha1`].
    pub fn digest(mut self, digest: KeygripDigest) -> Self {
        self.keygrip = self.keygrip.map(|keygrip| keygrip.with(digest));
        self
    }

    /// Sets how long a new session's cookie and row live after the cookie was last set.
    /// Default: 1 day. With `None`, the browser drops the cookie when it is closed, and
    /// the row lives for 45 minutes, as in Koa.
    ///
    /// The value is stored with each session, so a change doesn't apply to stored
    /// sessions. [`Session::set_expiry`](crate::Session::set_expiry) changes that of one
    /// session.
    pub fn max_age(mut self, max_age: impl Into<Option<Duration>>) -> Self {
        self.max_age = max_age.into();
        self
    }

    /// Sets whether `X-Forwarded-Proto: https` makes the cookie `secure`, as `app.proxy`
    /// does in Koa. Default: `false`.
    ///
    /// It has no effect if
    /// [`PgSessionLayer::secure`](crate::PgSessionLayer::secure) or the stored session
    /// sets the attribute.
    pub fn trust_proxy(mut self, trust: bool) -> Self {
        self.proxy = match trust {
            true => Proxy::Trusted,
            false => Proxy::Ignored,
        };
        self
    }
}

impl Koa {
    /// How the cookie is signed; `None` if the signature is invalid.
    fn verified(&self, name: &str, value: &[u8], cookies: &Cookies) -> Option<Signature> {
        let Some(keygrip) = &self.keygrip else {
            return Some(Signature::UpToDate);
        };
        let signature = first(cookies, &format!("{name}.sig"))?;
        let key = keygrip.verify(&header::pair(name, value), signature)?;
        Some(Signature::by_key(key))
    }

    /// Accepts any sid that a cookie can carry, because an application on Koa may have a
    /// `genSid` of its own.
    pub(crate) fn token(&self, value: &[u8]) -> Option<Token> {
        let is_sid = (1..=MAX_SID).contains(&value.len()) && value.iter().all(is_cookie_byte);
        let text = std::str::from_utf8(value).ok().filter(|_| is_sid)?;
        Some(Token::new(text))
    }

    /// The cookie and, if cookies are signed, the cookie of its signature.
    fn cookies(&self, name: &str, value: &str, attributes: &str) -> Vec<HeaderValue> {
        let mut cookies = vec![format!("{name}={value}{attributes}")];
        if let Some(keygrip) = &self.keygrip {
            let signature = keygrip.sign(&header::pair(name, value.as_bytes()));
            cookies.push(format!("{name}.sig={signature}{attributes}"));
        }
        let values = cookies.into_iter().map(HeaderValue::try_from);
        values.filter_map(Result::ok).collect()
    }

    /// The stored attributes, or those of a new session.
    fn attributes(&self, terms: &Terms, config: &CookieConfig) -> Attributes {
        let stored = terms.as_ref().and_then(Attributes::parse);
        let blank = || Attributes::parse(self.blank(config, Line::Unknown).terms().as_ref()?);
        stored.or_else(blank).unwrap_or_default()
    }

    fn check_keys(&self) -> Result<(), Error> {
        match &self.keygrip {
            Some(keygrip) if !keygrip.has_keys() => Err(Error::new(
                ErrorKind::Setup,
                "Koa's format needs a key that is not empty, or Koa::unsigned",
            )),
            _ => Ok(()),
        }
    }
}

impl Format for Koa {
    fn new_token(&self) -> Result<Token, Error> {
        Ok(Token::new(URL_SAFE_NO_PAD.encode(random::<SID_BYTES>()?)))
    }

    /// A header has no signature, because Koa signs cookies only.
    fn read(&self, value: &[u8], _: &CookieConfig) -> Reading {
        self.token(value).map_or(Reading::Malformed, |token| {
            Reading::Token(token, Signature::UpToDate)
        })
    }

    fn encode(&self, token: &Token, _: &CookieConfig) -> String {
        token.as_str().to_owned()
    }

    /// As in Koa, without the cookie's name.
    fn row_id(&self, token: &Token, _: &Realm) -> RowId {
        RowId::from(format!("{}{}", self.prefix, token.as_str()))
    }

    fn check_realm(&self, realm: &Realm) -> Result<(), Error> {
        match realm.name {
            None => Ok(()),
            Some(_) => Err(Error::new(
                ErrorKind::Setup,
                "Koa's format has no realms, as the id of a row is Koa's; \
                 give each area a prefix (Koa::prefix) or a table of its own",
            )),
        }
    }

    fn columns(&self) -> ColumnNames {
        ColumnNames::OURS
    }

    /// Koa would load a row that forwards as a session without cookie settings, and
    /// could write it back as a live one. It would also contain the new token.
    fn old_id(&self) -> OldId {
        OldId::IsDeleted
    }

    fn layout(&self) -> &'static dyn Layout {
        &KoaLayout
    }

    fn blank(&self, config: &CookieConfig, _: Line) -> Document {
        let lifetime = config.lifetime;
        let max_age = self
            .max_age
            .filter(|_| lifetime != Some(CookieLifetime::BrowserSession));
        terms::blank(config, max_age, self.keygrip.is_some())
    }

    fn check(&self, config: &CookieConfig) -> Result<(), Error> {
        self.check_keys()?;
        if config.signing.is_some() {
            return Err(Error::new(
                ErrorKind::Setup,
                "Koa's format signs with the keys of Koa::new; signing_keys is for this crate's own",
            ));
        }
        let name = format!("{}.sig", self.cookie_name(config));
        config.check_foreign(name, MAX_SID)
    }

    fn is_always_secure(&self, config: &CookieConfig) -> bool {
        config.secure == Some(true)
    }

    fn cookie_name<'c>(&self, config: &'c CookieConfig) -> &'c str {
        config.name.as_deref().unwrap_or("koa.sid")
    }

    fn line(&self, uri: &Uri, headers: &HeaderMap) -> Line {
        let is_trusted = self.proxy == Proxy::Trusted;
        let is_forwarded = is_trusted && forwarded_proto(headers) == Some(b"https");
        Line::of(uri, is_forwarded)
    }

    fn presented(&self, cookies: &Cookies, config: &CookieConfig) -> RequestTokens {
        let name = self.cookie_name(config);
        let mut presented = RequestTokens::default();
        if let Some(value) = first(cookies, name) {
            presented.add(match self.token(value) {
                Some(token) => self
                    .verified(name, value, cookies)
                    .map_or(Reading::Forged, |signature| {
                        Reading::Token(token, signature)
                    }),
                None => Reading::Malformed,
            });
        }
        presented
    }

    fn set(&self, ticket: &Ticket, config: &CookieConfig, line: Line) -> Vec<HeaderValue> {
        let attributes = self.attributes(&ticket.terms, config);
        let expires = attributes.expiry_after(ticket.now);
        self.cookies(
            self.cookie_name(config),
            ticket.token.as_str(),
            &attributes.encoded(expires, line),
        )
    }

    fn removal(&self, terms: &Terms, config: &CookieConfig, line: Line) -> Vec<HeaderValue> {
        let attributes = self.attributes(terms, config).encoded(Some(0.0), line);
        self.cookies(self.cookie_name(config), "", &attributes)
    }
}

/// `cookie-octet` of RFC 6265bis, section 4.1.1.
fn is_cookie_byte(byte: &u8) -> bool {
    (0x21..0x7f).contains(byte) && !b"\",;\\".contains(byte)
}

impl fmt::Debug for Koa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Koa")
            .field("keygrip", &self.keygrip)
            .field("prefix", &self.prefix)
            .field("max_age", &self.max_age)
            .field("proxy", &self.proxy)
            .finish()
    }
}

#[cfg(test)]
mod tests;
