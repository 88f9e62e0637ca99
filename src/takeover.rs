//! The takeover of another system's sessions: which cookie and table they have, and how a
//! row is read. It does no I/O, and doesn't know our table or the store.
//!
//! Each system is one implementation of [`System`]. The rest of the crate knows only a
//! [`Takeover`]: a cookie that leads to a key, a table in which the key finds a row, and
//! what the row holds.
//!
//! How a takeover works:
//!
//! 1. If the layer's own cookie opens no session, the load looks for the other system's
//!    cookie. A signature is verified before the first statement.
//! 2. One transaction deletes the other system's row and inserts two of ours: that of the
//!    session, under a fresh token, and one that forwards for a minute. The id of the second
//!    row is a digest of the key, and it holds the token, sealed by the key. So only a
//!    request with the other cookie can read it.
//! 3. Each request that arrives in that minute with the other cookie unseals the token, and
//!    continues as if the browser had sent it. So all of them work with one session.
//! 4. Their responses set our cookie and remove the other one, whatever their status is. If
//!    one is lost, the next one has the same token.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::{
    Error, ErrorKind,
    cookie::{CookieConfig, Cookies, last_value},
    document::{Document, Json, NativeLayout, check_key},
    expiry::Meta,
    id::{RowId, Token, random},
    request_tokens::{Reading, RequestTokens},
    row::Row,
};

#[cfg(feature = "takeover")]
pub(crate) mod tower_sessions;

/// How many rows that can't be taken over are logged as warnings, so that the set of those that
/// were logged stays small.
const MAX_REPORTED: usize = 1024;

/// Sessions of another system in the same database, for
/// [`PgSessionLayer::takeover`](crate::PgSessionLayer::takeover).
///
/// With the feature `takeover`, `Takeover::tower_sessions` takes over the sessions of
/// tower-sessions-sqlx-store. The setters describe how the other system was configured.
///
/// ```
/// use axum_pg_session::{PgSessionLayer, PgSessionStore, Takeover};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
/// let takeover = Takeover::tower_sessions()
///     .cookie_name("sid")
///     .cookie_domain("example.com")
///     .table("public", "tower_sessions")
///     .user_from("auth", "user");
/// let layer = PgSessionLayer::new(store).takeover(takeover);
/// assert!(layer.check().is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a takeover does nothing until it is given to a layer"]
pub struct Takeover {
    system: Arc<dyn System>,
    cookie: CookieConfig,
    schema: String,
    table: String,
    /// The key of the document, and its member, that hold the user's id.
    user: Option<(String, String)>,
    expiry: TakenExpiry,
    /// Why the settings can't be used.
    fault: Option<&'static str>,
    reported: Arc<Mutex<HashSet<RowId>>>,
}

/// When a session expires that was taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TakenExpiry {
    /// When it would have expired in the other system.
    IsKept,
    /// By the layer's timeouts.
    IsOfTheLayer,
}

/// How another system stores its sessions.
pub(crate) trait System: fmt::Debug + Send + Sync + 'static {
    /// Reads the key of a row from the value of a cookie.
    fn key(&self, cookie_name: &str, value: &str) -> Reading;

    /// # Errors
    ///
    /// The reason if the row is not in the expected form.
    fn members(&self, data: &[u8]) -> Result<Map<String, Value>, Unfit>;
}

/// Why a row can't be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfit(pub(crate) &'static str);

/// The content of a row that is taken over.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) document: Arc<Document>,
    pub(crate) user: Option<String>,
}

impl Takeover {
    /// Sets the name of the other system's cookie. Default: that of the system, which is
    /// `id` for tower-sessions.
    pub fn cookie_name(mut self, name: impl Into<String>) -> Self {
        self.cookie.name = Some(name.into());
        self
    }

    /// Sets the path of the other system's cookie, so that a browser removes it. Default:
    /// `/`.
    pub fn cookie_path(mut self, path: impl Into<String>) -> Self {
        self.cookie.path = Some(path.into());
        self
    }

    /// Sets the domain of the other system's cookie, so that a browser removes it. Default:
    /// none.
    pub fn cookie_domain(mut self, domain: impl Into<String>) -> Self {
        self.cookie.domain = Some(domain.into());
        self
    }

    /// Sets whether the other system's cookie has `Secure`. Default: `true`. Browsers ignore
    /// a header with `Secure` on an unencrypted connection, also one that removes a cookie.
    pub fn secure(mut self, secure: bool) -> Self {
        self.cookie.secure = Some(secure);
        self
    }

    /// Sets the schema and the table of the other system. Default: those of the system, which
    /// are `tower_sessions` and `session` for tower-sessions. The table must be in the
    /// database of the store, and the role of the store needs the privileges `SELECT`
    /// and `DELETE` on it, and `USAGE` on its schema.
    pub fn table(mut self, schema: impl Into<String>, table: impl Into<String>) -> Self {
        (self.schema, self.table) = (schema.into(), table.into());
        self
    }

    /// Sets the key of the session whose object has the user's id in `member`, as a string or
    /// an integer. Default: that of the system, which is the key `axum-login.data` and the
    /// member `user_id` for tower-sessions.
    ///
    /// The id is copied to the column `user_id`, if the table has it, so that
    /// [`Session::user_id`](crate::Session::user_id) returns it and
    /// [`store.user(id)`](crate::PgSessionStore::user) lists the session. The key stays in
    /// the session, too. A session without the key has no user.
    pub fn user_from(mut self, key: impl Into<String>, member: impl Into<String>) -> Self {
        self.user = Some((key.into(), member.into()));
        self
    }

    /// Sets whether the layer's timeouts apply to a session that was taken over. Default:
    /// `false`, so the session ends when it would have ended in the other system, whatever
    /// its activity, and a login starts the layer's timeouts.
    ///
    /// Another system's row has the time at which the session ends, not the rule. Set this
    /// to `true` if activity extended the sessions, as `Expiry::OnInactivity` of
    /// tower-sessions does. The absolute timeout then counts from the takeover.
    pub fn layer_timeouts(mut self, apply: bool) -> Self {
        self.expiry = match apply {
            true => TakenExpiry::IsOfTheLayer,
            false => TakenExpiry::IsKept,
        };
        self
    }

    pub(crate) fn schema_and_table(&self) -> (&str, &str) {
        (&self.schema, &self.table)
    }

    /// # Errors
    ///
    /// If a setting can't be used.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(fault) = self.fault {
            return Err(Error::new(ErrorKind::Setup, fault));
        }
        self.cookie.check(0)
    }

    /// The key in the request's cookies, at most one. Of several cookies of the name, the
    /// last one counts, as in the `cookie` crate.
    pub(crate) fn presented(&self, cookies: &Cookies) -> RequestTokens {
        let mut presented = RequestTokens::default();
        let name = self.cookie.name();
        if let Some(value) = last_value(cookies, name) {
            presented.add(match std::str::from_utf8(value) {
                Ok(value) => self.system.key(name, value),
                Err(_) => Reading::Malformed,
            });
        }
        presented
    }

    /// Reads a row of the other system, which expires at `expires`.
    ///
    /// # Errors
    ///
    /// If it is not in the expected form, or can't be kept as it is.
    pub(crate) fn read(&self, data: &[u8], expires: f64) -> Result<Taken, Unfit> {
        let members = self.system.members(data)?;
        if members
            .keys()
            .any(|key| check_key(&NativeLayout, key).is_err())
        {
            return Err(Unfit("it has the key _session, which is reserved"));
        }
        let user =
            self.user
                .as_ref()
                .and_then(|(key, member)| match members.get(key)?.get(member)? {
                    Value::String(id) => Some(id.clone()),
                    Value::Number(id) if id.is_i64() || id.is_u64() => Some(id.to_string()),
                    _ => None,
                });
        let mut document = Document::default();
        for (key, value) in &members {
            let json = Json::of(value).map_err(|_| Unfit("it is not JSON"))?;
            document.insert(key, json);
        }
        let is_kept = self.expiry == TakenExpiry::IsKept && expires.is_finite();
        let until = is_kept.then_some(expires);
        document.set_meta(&Meta::of_takeover(until, user.is_some()));
        let document = Arc::new(document);
        Ok(Taken { document, user })
    }

    /// The header that removes the other system's cookie, unless one of ours replaces it.
    pub(crate) fn removal(&self, ours: &CookieConfig) -> Option<HeaderValue> {
        (!self.cookie.is_the_cookie_of(ours)).then(|| self.cookie.removal())
    }

    /// The text that separates the keys of this table from all tokens: no name of a cookie
    /// begins with a quotation mark.
    pub(crate) fn domain(&self) -> String {
        format!("{:?}.{:?}", self.schema, self.table)
    }

    /// Whether this row that can't be taken over was not reported yet.
    pub(crate) fn is_first_report_of(&self, id: &RowId) -> bool {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.len() < MAX_REPORTED && reported.insert(id.clone())
    }
}

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Takeover")
            .field("system", &self.system)
            .field("cookie", &self.cookie)
            .field("schema", &self.schema)
            .field("table", &self.table)
            .field("user", &self.user)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}

/// What a key leads to.
#[derive(Debug)]
pub(crate) enum TakenOver {
    /// This request has moved the row of the session.
    Now(Token, Arc<Row>),
    /// An earlier request has. The token may open nothing by now.
    Before(Token),
    Nothing,
    /// A row of the other system that stays where it is.
    Unfit(Unfit),
}

/// A request's takeover: what the other system's cookie holds.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) takeover: Arc<Takeover>,
    pub(crate) token: Token,
}

/// Separates the pad of a key from other digests. No name of a cookie has a space.
const PAD: &str = "axum-pg-session takeover ";
/// Bytes.
const SALT: usize = 16;

impl Key {
    /// Encrypts the token of the session that this key led to. The key has 128 random bits
    /// and our table holds only its digest, so only a request with the key can
    /// [`unseal`](Self::unseal) it.
    ///
    /// # Errors
    ///
    /// If the system has no random numbers.
    ///
    /// # Panics
    ///
    /// If it is no token of this crate's own format.
    pub(crate) fn seal(&self, token: &Token) -> Result<String, Error> {
        let bytes = bytes_of(token.as_str()).expect("a token of our own");
        let salt = random::<SALT>()?;
        let padded = self.padded(&salt, bytes);
        Ok(URL_SAFE_NO_PAD.encode([&salt[..], &padded].concat()))
    }

    /// The token that was sealed with this key.
    pub(crate) fn unseal(&self, sealed: &str) -> Option<Token> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (salt, padded) = bytes.split_at_checked(SALT)?;
        let bytes = self.padded(salt, padded.try_into().ok()?);
        Some(Token::new(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Encrypts and decrypts. With the salt no pad is used twice: if a process of the other
    /// system writes its row again, the same key may lead to a second session.
    fn padded(&self, salt: &[u8], mut bytes: [u8; 32]) -> [u8; 32] {
        let pad = Sha256::new_with_prefix(PAD)
            .chain_update(salt)
            .chain_update(self.token.as_str());
        for (byte, pad) in bytes.iter_mut().zip(pad.finalize()) {
            *byte ^= pad;
        }
        bytes
    }
}

fn bytes_of(token: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()
}

#[cfg(all(test, feature = "takeover"))]
mod tests {
    use super::*;

    fn key(token: &str) -> Key {
        Key {
            takeover: Arc::new(Takeover::tower_sessions()),
            token: Token::new(token),
        }
    }

    #[test]
    fn only_its_key_unseals_a_token() {
        let token = Token::new(URL_SAFE_NO_PAD.encode([7; 32]));
        let seal = || key("AAECAwQFBgcICQoLDA0ODw").seal(&token).expect("a salt");
        let sealed = seal();
        assert_eq!(sealed.len(), 64);
        assert!(!sealed.contains(token.as_str()));
        assert_ne!(seal()[24..], sealed[24..], "the pad of another seal");
        let unsealed = |by| key(by).unseal(&sealed);
        assert_eq!(unsealed("AAECAwQFBgcICQoLDA0ODw"), Some(token.clone()));
        assert_ne!(unsealed("AAECAwQFBgcICQoLDA0OEA"), Some(token));
        for damaged in ["", "AAAA", &sealed[1..], "ü"] {
            assert_eq!(key("AAECAwQFBgcICQoLDA0ODw").unseal(damaged), None);
        }
    }
}
