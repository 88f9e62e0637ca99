//! Sessions as koa-generic-session and koa-pg-session keep them.
//!
//! Everything that is Koa's is in this module, behind the crate's one seam for
//! formats.

use std::fmt;

/// One table with a site on Koa: the format of koa-generic-session and
/// koa-pg-session, for [`PgSessionStore::koa`](crate::PgSessionStore::koa).
///
/// Both sites then read and write the same rows, and a visitor keeps one
/// session. The row's id is the prefix and the token itself, the cookie is
/// `koa.sid` with its signature `koa.sid.sig`, and the member `cookie` of the
/// stored object says how long the session lives and which attributes its
/// cookie has.
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
#[must_use = "a format does nothing until a store keeps to it"]
pub struct Koa {
    keys: Vec<Vec<u8>>,
    signing: Signing,
    digest: KeygripDigest,
    prefix: String,
    proxy: Proxy,
}

/// Whether a cookie needs a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signing {
    Signed,
    Unsigned,
}

/// Whether a proxy's word on the visitor's connection counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proxy {
    Trusted,
    Ignored,
}

/// The digest that Keygrip signs with.
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

impl Koa {
    /// Signed cookies, as with `app.keys` in Koa: the first key signs, all of
    /// them verify. A cookie that a later key verified is signed anew.
    ///
    /// Without a key, or with an empty one,
    /// [`PgSessionLayer::check`](crate::PgSessionLayer::check) is an error.
    pub fn new<K: Into<Vec<u8>>>(keys: impl IntoIterator<Item = K>) -> Self {
        Self {
            keys: keys.into_iter().map(Into::into).collect(),
            ..Self::unsigned()
        }
        .signed()
    }

    /// Cookies without a signature, as with `signed: false` in Koa. Whoever
    /// reads the table can then open its sessions.
    pub fn unsigned() -> Self {
        Self {
            keys: Vec::new(),
            signing: Signing::Unsigned,
            digest: KeygripDigest::Sha1,
            prefix: "koa:sess:".into(),
            proxy: Proxy::Ignored,
        }
    }

    fn signed(mut self) -> Self {
        self.signing = Signing::Signed;
        self
    }

    /// What precedes the token in the row's id. Default: `koa:sess:`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The digest of the signatures, the second argument of Keygrip. Default:
    /// [`KeygripDigest::Sha1`].
    pub fn digest(mut self, digest: KeygripDigest) -> Self {
        self.digest = digest;
        self
    }

    /// Whether `X-Forwarded-Proto: https` makes the cookie `secure`, as
    /// `app.proxy` does in Koa. Default: `false`.
    ///
    /// It only matters where neither
    /// [`PgSessionLayer::secure`](crate::PgSessionLayer::secure) nor the stored
    /// session says.
    pub fn trust_proxy(mut self, trust: bool) -> Self {
        self.proxy = match trust {
            true => Proxy::Trusted,
            false => Proxy::Ignored,
        };
        self
    }
}

impl fmt::Debug for Koa {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Koa")
            .field("keys", &self.keys.len())
            .field("signing", &self.signing)
            .field("digest", &self.digest)
            .field("prefix", &self.prefix)
            .field("proxy", &self.proxy)
            .finish()
    }
}

use crate::{
    Error,
    cookie::{CookieConfig, Presented},
    document::Document,
    format::{ColumnNames, Format, Layout, Line, Native, NativeLayout, OldId, Terms, Ticket},
    id::{RowId, SessionId, Token},
};
use http::{HeaderMap, HeaderValue, Uri};

impl Format for Koa {
    fn new_token(&self) -> Result<Token, Error> {
        Native.new_token()
    }
    fn token(&self, value: &[u8]) -> Option<Token> {
        Native.token(value)
    }
    fn row_id(&self, token: &Token) -> RowId {
        Native.row_id(token)
    }
    fn handle(&self, id: &RowId) -> SessionId {
        SessionId::digest_of(id)
    }
    fn row_of(&self, handle: &SessionId) -> Option<RowId> {
        handle.row().cloned()
    }
    fn columns(&self) -> ColumnNames {
        Native.columns()
    }
    fn old_id(&self) -> OldId {
        OldId::IsDeleted
    }
    fn layout(&self) -> &'static dyn Layout {
        &NativeLayout
    }
    fn blank(&self, config: &CookieConfig) -> Document {
        Native.blank(config)
    }
    fn check(&self, config: &CookieConfig) -> Result<(), Error> {
        Native.check(config)
    }
    fn cookie_name<'c>(&self, config: &'c CookieConfig) -> &'c str {
        Native.cookie_name(config)
    }
    fn presented(&self, uri: &Uri, headers: &HeaderMap, config: &CookieConfig) -> Presented {
        Native.presented(uri, headers, config)
    }
    fn set(&self, ticket: &Ticket, config: &CookieConfig, line: Line) -> Vec<HeaderValue> {
        Native.set(ticket, config, line)
    }
    fn removal(&self, terms: &Terms, config: &CookieConfig, line: Line) -> Vec<HeaderValue> {
        Native.removal(terms, config, line)
    }
}
