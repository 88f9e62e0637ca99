//! The seam between sessions and the way in which a table and a browser keep
//! them: one implementation for each format, and no other code that knows it.

use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderValue, Uri};

use crate::{
    CookieLifetime, Error,
    cookie::{CookieConfig, Cookies},
    credentials::{Reading, RequestTokens},
    document::{Document, Layout, Terms},
    id::{RowId, SessionId, Token},
    realm::Realm,
};

pub(crate) mod koa;
mod native;

pub(crate) use native::Native;

/// How one kind of application keeps its sessions.
pub(crate) trait Format: fmt::Debug + Send + Sync + 'static {
    /// A token that nobody had before.
    fn new_token(&self) -> Result<Token, Error>;

    /// A token as something else than our cookie carries it.
    fn read(&self, value: &[u8], config: &CookieConfig) -> Reading;

    /// What [`read`](Self::read) takes for this token.
    fn spell(&self, token: &Token, config: &CookieConfig) -> String;

    /// The row that the token opens in the realm.
    fn row_id(&self, token: &Token, realm: &Realm) -> RowId;

    /// What may be shown of a row's id.
    fn handle(&self, id: &RowId) -> SessionId;

    /// The row of a handle, where that can be told without the table.
    fn row_of(&self, handle: &SessionId, realm: &Realm) -> Option<RowId>;

    fn columns(&self) -> ColumnNames;

    fn old_id(&self) -> OldId;

    fn layout(&self) -> &'static dyn Layout;

    /// The document of a new session, before anybody inserts anything.
    fn blank(&self, config: &CookieConfig) -> Document;

    /// # Errors
    ///
    /// When the configuration can't be kept in this format.
    fn check(&self, config: &CookieConfig) -> Result<(), Error>;

    /// # Errors
    ///
    /// When the format has no place for the realm.
    fn check_realm(&self, realm: &Realm) -> Result<(), Error>;

    fn cookie_name<'c>(&self, config: &'c CookieConfig) -> &'c str;

    fn line(&self, uri: &Uri, headers: &HeaderMap) -> Line;

    /// What the request's cookies say of its session.
    fn presented(&self, cookies: &Cookies, config: &CookieConfig) -> RequestTokens;

    /// The cookies that give a browser its session.
    fn set(&self, ticket: &Ticket, config: &CookieConfig, line: Line) -> Vec<HeaderValue>;

    /// The cookies that end it, as they were set by `terms`.
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
    /// Those that the statements are written with, which are Koa's too.
    pub(crate) const OURS: Self = Self {
        id: "id",
        expiry: "expiry",
        session: "session",
    };
}

/// What stays under the old id of a session that gets a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OldId {
    /// For a moment, where the session went.
    Forwards,
    /// Nothing: another application would take it for a session.
    IsDeleted,
}

/// What a response tells the browser of its session.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    pub(crate) token: Token,
    /// As long as the session can live.
    pub(crate) life: Duration,
    /// How long the browser keeps the cookie, if the session says so itself.
    pub(crate) lifetime: Option<CookieLifetime>,
    /// The database's clock, in seconds since the epoch.
    pub(crate) now: f64,
    pub(crate) terms: Terms,
}

/// What a response does to the cookie.
#[derive(Clone, Debug, Default)]
pub(crate) enum CookieChange {
    #[default]
    None,
    /// It stays, but the cookie of a former scope is removed: both open
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
