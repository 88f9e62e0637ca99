//! The format of express-session with connect-pg-simple or connect-session-knex. Everything
//! about Express is in this module, behind the trait [`Format`]. It does no I/O.
//!
//! - The row's id is Express's session id, and the token. So a reader of the table knows the
//!   tokens. They open nothing without a signature, see `header`.
//! - The member `cookie` of the stored object has the session's lifetime and the attributes of
//!   its cookie, see `settings`. A response sets the cookie with these, not with the layer's.
//! - Passport stores the user in the member `passport`. A login writes it, and the column
//!   `user_id` is generated from it, so the sessions of both applications belong to the user.
//! - An old id leaves no row, because Express would load it as a session.

mod header;
mod settings;

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, Uri};

use crate::{
    CookieLifetime, Error, ErrorKind,
    cookie::{CookieConfig, Cookies, first_value},
    document::{Document, Layout, Terms},
    format::{
        ColumnNames, Format, Line, OldId, Ticket,
        express::{
            header::{MAX_SID, MAX_VALUE},
            settings::{CookieSettings, ExpressLayout},
        },
        hmac_keys::HmacKeys,
        javascript::forwarded_proto,
    },
    id::{RowId, Token, random},
    realm::Realm,
    request_tokens::{Reading, RequestTokens, Signature},
};

/// The bytes of express-session's default `genid`.
const ID_BYTES: usize = 24;

/// The format of express-session with connect-pg-simple or connect-session-knex, to share a
/// table with a site on Express, for
/// [`PgSessionStore::express`](crate::PgSessionStore::express).
///
/// Both sites read and write the same rows, and a visitor keeps one session. The columns are
/// `sid`, `sess` and `expire`. The cookie is `connect.sid`, signed with the secrets. The member
/// `cookie` of the stored object has the lifetime of the session and the attributes of its
/// cookie: those of the layer when the session began. The defaults are Express's: no
/// `SameSite`, not `secure`, until the browser is closed, no absolute timeout.
///
/// Set `resave: false` in Express first. Otherwise each of its requests writes the whole
/// document back, and overwrites what this crate saved meanwhile. The
/// [guide](crate::guide::from_express) has the details.
///
/// ```
/// use axum_pg_session::{Express, PgSessionLayer, PgSessionStore};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let pool = sqlx::PgPool::connect_lazy("postgres:///")?;
/// // As `secret: ['new secret', 'old secret']` in Express.
/// let express = Express::new(["new secret", "old secret"]);
/// let layer = PgSessionLayer::new(PgSessionStore::new(pool).express(express));
/// assert!(layer.check().is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a format does nothing until a store uses it"]
pub struct Express {
    secrets: HmacKeys,
    max_age: Option<Duration>,
    ttl: Duration,
    expiry_column: &'static str,
    secure_auto: bool,
    trust_proxy: bool,
}

impl Express {
    /// Creates a format with these secrets, as the option `secret` of express-session: the first
    /// one signs, and all verify. A cookie that a later secret verified is signed again.
    ///
    /// Without a secret, or with an empty one,
    /// [`PgSessionLayer::check`](crate::PgSessionLayer::check) is an error.
    pub fn new<K: Into<Vec<u8>>>(secrets: impl IntoIterator<Item = K>) -> Self {
        Self {
            secrets: HmacKeys::new(secrets),
            max_age: None,
            ttl: Duration::from_hours(24),
            expiry_column: "expire",
            secure_auto: false,
            trust_proxy: false,
        }
    }

    /// Sets how long a new session's cookie and row live after they were last extended, as
    /// `cookie.maxAge` in Express. Default: `None`, so the browser drops the cookie when it is
    /// closed, and the row lives for the [`ttl`](Self::ttl).
    ///
    /// The value is stored with each session, so a change doesn't apply to stored sessions.
    /// [`Session::set_expiry`](crate::Session::set_expiry) changes that of one session.
    pub fn max_age(mut self, max_age: impl Into<Option<Duration>>) -> Self {
        self.max_age = max_age.into();
        self
    }

    /// Sets how long the row of a session without a [`max_age`](Self::max_age) lives after its
    /// last extension, as `ttl` of connect-pg-simple. Default: 1 day, as there and in
    /// connect-session-knex.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Uses the column names of connect-session-knex: `expired` instead of `expire`. Its table
    /// is `sessions` by default, so call
    /// [`PgSessionStore::table`](crate::PgSessionStore::table), too.
    ///
    /// ```
    /// use axum_pg_session::{Express, PgSessionStore};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = sqlx::PgPool::connect_lazy("postgres:///")?;
    /// let express = Express::new(["secret"]).knex();
    /// let store = PgSessionStore::new(pool).table("sessions").express(express);
    /// # let _ = store; Ok(()) }
    /// ```
    pub fn knex(mut self) -> Self {
        self.expiry_column = "expired";
        self
    }

    /// Makes the cookie of a new session `secure` if the connection of its first request is
    /// encrypted, as `cookie.secure: 'auto'` in Express. The choice is stored with the session.
    ///
    /// An encrypted connection is known by the scheme of the request's URI, or by the proxy, see
    /// [`trust_proxy`](Self::trust_proxy).
    /// [`PgSessionLayer::secure`](crate::PgSessionLayer::secure) overrides it.
    pub fn secure_auto(mut self) -> Self {
        self.secure_auto = true;
        self
    }

    /// Sets whether `X-Forwarded-Proto: https` counts as an encrypted connection, as the option
    /// `proxy` of express-session. Default: `false`.
    pub fn trust_proxy(mut self, trust: bool) -> Self {
        self.trust_proxy = trust;
        self
    }
}

impl Express {
    /// Accepts any id that Express could have made and a header can carry, because an
    /// application may have a `genid` of its own.
    pub(crate) fn token(text: &str) -> Option<Token> {
        let is_id =
            (1..=MAX_SID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_id.then(|| Token::new(text))
    }

    /// The stored settings, or those of a new session.
    fn settings(&self, terms: &Terms, config: &CookieConfig) -> CookieSettings {
        let stored = terms.as_ref().and_then(CookieSettings::parse);
        let blank = || {
            let blank = self.blank(config, Line::Unknown);
            CookieSettings::parse(blank.terms().as_ref()?)
        };
        stored.or_else(blank).unwrap_or_default()
    }

    fn cookie(&self, value: &str, attributes: &str, config: &CookieConfig) -> Vec<HeaderValue> {
        let cookie = format!("{}={value}{attributes}", self.cookie_name(config));
        HeaderValue::try_from(cookie).into_iter().collect()
    }
}

impl Format for Express {
    fn new_token(&self) -> Result<Token, Error> {
        Ok(Token::new(URL_SAFE_NO_PAD.encode(random::<ID_BYTES>()?)))
    }

    /// A header carries the signed value of the cookie, because the table contains the tokens.
    fn read(&self, value: &[u8], _: &CookieConfig) -> Reading {
        let Some((text, signature)) = header::parse(value) else {
            return Reading::Malformed;
        };
        match (
            Self::token(&text),
            header::verify(&self.secrets, &text, &signature),
        ) {
            (None, _) => Reading::Malformed,
            (Some(_), None) => Reading::Forged,
            (Some(token), Some(key)) => Reading::Token(token, Signature::by_key(key)),
        }
    }

    fn encode(&self, token: &Token, _: &CookieConfig) -> String {
        header::encode(&self.secrets, token.as_str())
    }

    /// As in Express, without the cookie's name.
    fn row_id(&self, token: &Token, _: &Realm) -> RowId {
        RowId::from(token.as_str().to_owned())
    }

    fn check_realm(&self, realm: &Realm) -> Result<(), Error> {
        match realm.name {
            None => Ok(()),
            Some(_) => Err(refused(
                "Express's format has no realms: remove `realm`, and give each area its own table",
            )),
        }
    }

    fn columns(&self) -> ColumnNames {
        ColumnNames {
            id: "sid",
            expiry: self.expiry_column,
            session: "sess",
        }
    }

    /// Express would load a row that forwards as a session, and write it back as a live one.
    /// It would also contain the new token.
    fn old_id(&self) -> OldId {
        OldId::IsDeleted
    }

    fn layout(&self) -> &'static dyn Layout {
        &ExpressLayout
    }

    fn blank(&self, config: &CookieConfig, line: Line) -> Document {
        let is_kept = config.lifetime != Some(CookieLifetime::BrowserSession);
        let is_auto = self.secure_auto.then_some(line == Line::Encrypted);
        let secure = config.secure.or(is_auto);
        settings::blank(config, self.max_age.filter(|_| is_kept), secure)
    }

    fn idle_timeout(&self) -> Option<Duration> {
        Some(self.ttl)
    }

    fn check(&self, config: &CookieConfig) -> Result<(), Error> {
        if !self.secrets.are_usable() {
            return Err(refused("Express's format needs a secret that is not empty"));
        }
        let is_zero = |lifetime: Duration| lifetime.as_millis() == 0;
        if is_zero(self.ttl) || self.max_age.is_some_and(is_zero) {
            return Err(refused(
                "`Express::ttl` and `Express::max_age` must be at least 1 millisecond",
            ));
        }
        if config.signing.is_some() {
            return Err(refused(
                "remove `signing_keys`: Express's format signs with the secrets of `Express::new`",
            ));
        }
        config.check_foreign(self.cookie_name(config).to_owned(), MAX_VALUE)
    }

    fn is_always_secure(&self, config: &CookieConfig) -> bool {
        config.secure == Some(true)
    }

    fn cookie_name<'c>(&self, config: &'c CookieConfig) -> &'c str {
        config.name.as_deref().unwrap_or("connect.sid")
    }

    fn line(&self, uri: &Uri, headers: &HeaderMap) -> Line {
        let is_https = |proto: &[u8]| proto.eq_ignore_ascii_case(b"https");
        let is_forwarded = self.trust_proxy && forwarded_proto(headers).is_some_and(is_https);
        Line::of(uri, is_forwarded)
    }

    /// Only the first cookie of the name counts, as in Express.
    fn presented(&self, cookies: &Cookies, config: &CookieConfig) -> RequestTokens {
        let mut presented = RequestTokens::default();
        if let Some(value) = first_value(cookies, self.cookie_name(config)) {
            presented.add(self.read(value, config));
        }
        presented
    }

    fn set(&self, ticket: &Ticket, config: &CookieConfig, _: Line) -> Vec<HeaderValue> {
        let settings = self.settings(&ticket.terms, config);
        let attributes = settings.encode(settings.expiry_after(ticket.now));
        self.cookie(&self.encode(&ticket.token, config), &attributes, config)
    }

    fn removal(&self, terms: &Terms, config: &CookieConfig, _: Line) -> Vec<HeaderValue> {
        let attributes = self.settings(terms, config).encode(Some(0.0));
        self.cookie("", &attributes, config)
    }
}

fn refused(message: &'static str) -> Error {
    Error::new(ErrorKind::Setup, message)
}

impl fmt::Debug for Express {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Express")
            .field("secrets", &self.secrets)
            .field("max_age", &self.max_age)
            .field("ttl", &self.ttl)
            .field("expiry_column", &self.expiry_column)
            .field("secure_auto", &self.secure_auto)
            .field("trust_proxy", &self.trust_proxy)
            .finish()
    }
}

#[cfg(test)]
mod tests;
