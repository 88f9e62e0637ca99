//! The trait of a storage format: how the table and the browser store a session. Each
//! format is one implementation, and no other code knows which one is in use. A format
//! does no I/O and doesn't know the store.

use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderValue, Uri};

use crate::{
    CookieLifetime, Error,
    cookie::{CookieConfig, Cookies},
    document::{Document, Layout, Terms},
    id::{RowId, SessionId, Token},
    realm::Realm,
    request_tokens::{Reading, RequestTokens},
};

pub(crate) mod express;
mod hmac_keys;
mod javascript;
pub(crate) mod koa;
mod native;

pub(crate) use native::Native;

/// How one kind of application stores its sessions.
pub(crate) trait Format: fmt::Debug + Send + Sync + 'static {
    /// Creates a random token.
    fn new_token(&self) -> Result<Token, Error>;

    /// Reads a token from a header of a transport.
    fn read(&self, value: &[u8], config: &CookieConfig) -> Reading;

    /// The value that [`read`](Self::read) reads as this token.
    fn encode(&self, token: &Token, config: &CookieConfig) -> String;

    /// The row that the token opens in the realm.
    fn row_id(&self, token: &Token, realm: &Realm) -> RowId;

    /// The public handle of a row: a digest, if the id of the row contains the token.
    fn handle(&self, id: &RowId) -> SessionId {
        SessionId::digest_of(id)
    }

    /// Whether the id of a row contains the token. Then its handle is a digest of the id, and a
    /// handle that was read from text is found by an index.
    fn has_secret_ids(&self) -> bool {
        self.old_id() == OldId::IsDeleted
    }

    /// The row of a handle, if it is known without a query.
    fn row_of(&self, handle: &SessionId, _realm: &Realm) -> Option<RowId> {
        handle.row().cloned()
    }

    fn columns(&self) -> ColumnNames;

    fn old_id(&self) -> OldId;

    fn layout(&self) -> &'static dyn Layout;

    /// The document of a session that begins with a request over `line`.
    fn blank(&self, config: &CookieConfig, line: Line) -> Document;

    /// The idle timeout of a session that has none, if the layer sets none either. `None` is
    /// this crate's default.
    fn idle_timeout(&self) -> Option<Duration> {
        None
    }

    /// # Errors
    ///
    /// If this format can't store the configuration.
    fn check(&self, config: &CookieConfig) -> Result<(), Error>;

    /// Whether a realm can precede the id of a user.
    fn has_realms(&self) -> bool {
        false
    }

    /// # Errors
    ///
    /// If this format can't store the realm.
    fn check_realm(&self, realm: &Realm) -> Result<(), Error>;

    /// Whether browsers drop the cookie if it comes over plain HTTP.
    fn is_always_secure(&self, config: &CookieConfig) -> bool;

    fn cookie_name<'c>(&self, config: &'c CookieConfig) -> &'c str;

    /// The cookie for hosts of the developer's machine, if its name differs there. `mark`
    /// distinguishes the site from others. Koa and Express send the same name to every host.
    fn on_this_machine(&self, _config: &CookieConfig, _mark: &str) -> Option<CookieConfig> {
        None
    }

    fn line(&self, uri: &Uri, headers: &HeaderMap) -> Line;

    /// The tokens in the request's cookies.
    fn presented(&self, cookies: &Cookies, config: &CookieConfig) -> RequestTokens;

    /// The cookies that give a browser its session.
    fn set(&self, ticket: &Ticket, config: &CookieConfig, line: Line) -> Vec<HeaderValue>;

    /// The cookies that remove those that were set with `terms`.
    fn removal(&self, terms: &Terms, config: &CookieConfig, line: Line) -> Vec<HeaderValue>;
}

/// The columns that every statement names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ColumnNames {
    pub(crate) id: &'static str,
    pub(crate) expiry: &'static str,
    pub(crate) session: &'static str,
}

impl ColumnNames {
    /// The names in the statements, which are also Koa's.
    pub(crate) const OURS: Self = Self {
        id: "id",
        expiry: "expiry",
        session: "session",
    };
}

/// What remains under the old id of a session that gets a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OldId {
    /// For a minute, a row that forwards to the new id.
    Forwards,
    /// Nothing: another application would read such a row as a session.
    IsDeleted,
}

/// The data of the cookie that a response sets.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    pub(crate) token: Token,
    /// As long as the session can live.
    pub(crate) life: Duration,
    /// The session's own cookie lifetime, if it has one.
    pub(crate) lifetime: Option<CookieLifetime>,
    /// The database's clock, in seconds since the epoch.
    pub(crate) now: f64,
    pub(crate) terms: Terms,
}

/// The change of the cookie in a response.
#[derive(Clone, Debug, Default)]
pub(crate) enum CookieChange {
    #[default]
    None,
    /// The cookie stays, but the one of a former scope is removed, because both open
    /// sessions.
    RemoveFormer,
    Set(Ticket),
    Remove(Terms),
}

impl CookieChange {
    /// Whether both send the same token.
    pub(crate) fn sets_the_token_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Set(this), Self::Set(other)) => this.token == other.token,
            _ => false,
        }
    }
}

/// Whether the visitor's connection is known to be encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Line {
    Encrypted,
    #[default]
    Unknown,
}

impl Line {
    /// The line of a request whose URI or whose trusted proxy names the scheme.
    pub(crate) fn of(uri: &Uri, is_forwarded_over_tls: bool) -> Self {
        match is_forwarded_over_tls || uri.scheme_str() == Some("https") {
            true => Self::Encrypted,
            false => Self::Unknown,
        }
    }
}
