//! The attributes of the cookie that carries the token, and the header values that set and
//! remove it. It does no I/O and doesn't know sessions.

use std::{sync::Arc, time::Duration};

use cookie::{Cookie, SameSite};
use http::{HeaderName, HeaderValue};

use crate::{
    Error, ErrorKind, SigningKeys,
    cookie::signing::SIGNED_CHARS,
    id::{Token, short_digest},
};

/// RFC 6265bis, section 5.6: longer cookies are dropped by browsers.
const MAX_NAME_AND_VALUE: usize = 4096;
const MAX_ATTRIBUTE: usize = 1024;

/// How long the browser keeps the cookie.
///
/// ```
/// use axum_pg_session::{CookieLifetime, PgSessionLayer, PgSessionStore};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
/// // A user who closes the browser is signed out.
/// let layer = PgSessionLayer::new(store).cookie_lifetime(CookieLifetime::BrowserSession);
/// assert!(layer.check().is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CookieLifetime {
    /// As long as the session can live, at most 400 days.
    Persistent,
    /// Until the browser is closed.
    BrowserSession,
}

/// The priority of the cookie, for browsers that evict cookies when there are too many.
///
/// ```
/// use axum_pg_session::{CookiePriority, PgSessionLayer, PgSessionStore};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
/// let layer = PgSessionLayer::new(store).cookie_priority(CookiePriority::High);
/// assert!(layer.check().is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CookiePriority {
    /// Evicted before others.
    Low,
    /// The default of browsers.
    Medium,
    /// Evicted after others.
    High,
}

impl CookiePriority {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// The attributes that the application chose for the cookie. Each format has its own
/// defaults.
#[derive(Clone, Debug, Default)]
pub(crate) struct CookieConfig {
    pub(crate) name: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) domain: Option<String>,
    pub(crate) same_site: Option<SameSite>,
    pub(crate) secure: Option<bool>,
    pub(crate) http_only: Option<bool>,
    pub(crate) lifetime: Option<CookieLifetime>,
    pub(crate) priority: Option<CookiePriority>,
    pub(crate) partitioned: bool,
    pub(crate) signing: Option<Arc<SigningKeys>>,
    /// The scopes in which the cookie was set before.
    pub(crate) former: Vec<Scope>,
    /// The name if none was chosen. It depends on the other options of the layer, so the
    /// layer [sets](Self::set_default_name) it last.
    pub(crate) default_name: Option<String>,
}

/// The inputs of a cookie's default name, beside its attributes.
pub(crate) struct NamedBy<'a> {
    /// Distinguishes the sites that a developer runs on one host.
    pub(crate) mark: &'a str,
    pub(crate) realm: Option<&'a str>,
    /// The header that carries the token instead of a cookie.
    pub(crate) header: Option<&'a HeaderName>,
}

/// The hosts and paths that receive a cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) domain: Option<String>,
    pub(crate) path: String,
}

impl CookieConfig {
    pub(crate) fn path(&self) -> &str {
        self.path.as_deref().unwrap_or("/")
    }

    fn scope(&self) -> Scope {
        Scope {
            domain: self.domain.clone(),
            path: self.path().to_owned(),
        }
    }

    /// Whether a browser keeps only one of both cookies.
    pub(crate) fn is_the_cookie_of(&self, other: &Self) -> bool {
        self.name() == other.name() && self.scope() == other.scope()
    }

    /// The cookies of the former scopes, to remove them.
    pub(crate) fn former(&self) -> impl Iterator<Item = Self> {
        self.former.iter().map(|scope| Self {
            // The default depends on the scope.
            name: self.name.clone().or_else(|| Some(self.name().to_owned())),
            domain: scope.domain.clone(),
            path: Some(scope.path.clone()),
            former: Vec::new(),
            ..self.clone()
        })
    }

    fn same_site(&self) -> SameSite {
        self.same_site.unwrap_or(SameSite::Lax)
    }

    pub(crate) fn secure(&self) -> bool {
        self.secure.unwrap_or(true)
    }

    /// The default is `__Host-id` if the attributes allow the prefix (ASVS 5.0 item
    /// 3.3.3).
    pub(crate) fn name(&self) -> &str {
        match self.name.as_deref().or(self.default_name.as_deref()) {
            Some(name) => name,
            None if self.may_be_host_prefixed() => "__Host-id",
            None => "id",
        }
    }

    /// Sets the name if none was chosen.
    ///
    /// Browsers don't separate the ports of a host, so the cookie of an unencrypted site
    /// gets a name of its own. A token is bound to the name, so areas of a site with paths of
    /// their own, such as `/shop` and `/admin`, don't share sessions. The cookies of two
    /// realms must not replace each other. A token in a header is bound to the header's name,
    /// so it opens no session in another header.
    pub(crate) fn set_default_name(&mut self, by: &NamedBy<'_>) {
        self.default_name = None;
        let name = match by.header {
            Some(header) => header.as_str().to_owned(),
            None => {
                let own = match self.secure() {
                    true => self.name().to_owned(),
                    false => format!("id-{}", by.mark),
                };
                let path = (self.path() != "/").then(|| short_digest(self.path()));
                let parts = [Some(own), path, by.realm.map(str::to_owned)];
                parts.into_iter().flatten().collect::<Vec<_>>().join("-")
            }
        };
        self.default_name = Some(name);
    }

    /// The cookie for hosts of the developer's machine, if its name differs there: the default
    /// name is followed by `mark`, because browsers don't separate the ports of a host. A
    /// chosen name stays, and the default name without `Secure` has the mark already.
    pub(crate) fn on_this_machine(&self, mark: &str) -> Option<Self> {
        let is_marked = self.name.is_none() && self.secure();
        is_marked.then(|| Self {
            default_name: Some(format!("{}-{mark}", self.name())),
            ..self.clone()
        })
    }

    fn may_be_host_prefixed(&self) -> bool {
        self.secure() && self.path() == "/" && self.domain.is_none()
    }

    /// The value of the cookie: the token, signed if there are keys.
    pub(crate) fn encode(&self, token: &Token) -> String {
        match &self.signing {
            Some(keys) => keys.encode(self.name(), token),
            None => token.as_str().to_owned(),
        }
    }

    /// The `lifetime` of the session overrides the layer's.
    pub(crate) fn set(
        &self,
        token: &Token,
        life: Duration,
        lifetime: Option<CookieLifetime>,
    ) -> HeaderValue {
        let mut cookie = self.with_value(self.encode(token));
        if lifetime.or(self.lifetime) != Some(CookieLifetime::BrowserSession) {
            let seconds = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
            cookie.set_max_age(time::Duration::seconds(seconds));
        }
        self.header_value(&cookie)
    }

    /// A browser removes only a cookie with the same name, path and domain, and only if
    /// the header would be allowed to set it.
    pub(crate) fn removal(&self) -> HeaderValue {
        let mut cookie = self.with_value(String::new());
        cookie.make_removal();
        cookie.set_expires(time::OffsetDateTime::UNIX_EPOCH);
        self.header_value(&cookie)
    }

    fn with_value(&self, value: String) -> Cookie<'_> {
        let mut cookie = Cookie::build((self.name(), value))
            .path(self.path())
            .same_site(self.same_site())
            .secure(self.secure())
            .http_only(self.http_only.unwrap_or(true))
            .partitioned(self.partitioned)
            .build();
        if let Some(domain) = &self.domain {
            cookie.set_domain(domain.as_str());
        }
        cookie
    }

    fn header_value(&self, cookie: &Cookie<'_>) -> HeaderValue {
        let mut text = cookie.to_string();
        if let Some(priority) = self.priority {
            text.push_str("; Priority=");
            text.push_str(priority.as_str());
        }
        HeaderValue::from_str(&text).expect("checked when the layer was set up")
    }

    /// # Errors
    ///
    /// If a browser would drop or misread a cookie with a token of so many characters,
    /// or if a key is too short.
    pub(crate) fn check(&self, token_chars: usize) -> Result<(), Error> {
        let mut value_chars = token_chars;
        if let Some(keys) = &self.signing {
            keys.check()?;
            value_chars += SIGNED_CHARS;
        }
        self.check_name(value_chars)?;
        self.check_attributes()?;
        self.check_prefix()?;
        self.check_former()?;
        if self.same_site() == SameSite::None && !self.secure() {
            return Err(refused("SameSite=None needs Secure (RFC 6265bis)"));
        }
        if self.partitioned && !self.secure() {
            return Err(refused("a partitioned cookie needs Secure"));
        }
        Ok(())
    }

    /// As [`check`](Self::check), with the name that the format uses. The cookie counts
    /// as `Secure` unless `secure(false)` is set.
    ///
    /// # Errors
    ///
    /// Those of `check`.
    pub(crate) fn check_foreign(&self, name: String, token_chars: usize) -> Result<(), Error> {
        let resolved = Self {
            name: Some(name),
            secure: Some(self.secure != Some(false)),
            ..self.clone()
        };
        resolved.check(token_chars)
    }

    fn check_name(&self, value_chars: usize) -> Result<(), Error> {
        let name = self.name();
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return Err(refused(
                "the cookie's name is not a token (RFC 6265bis, section 4.1.1)",
            ));
        }
        if name.len() + value_chars > MAX_NAME_AND_VALUE {
            return Err(refused("name and value together exceed 4096 bytes"));
        }
        Ok(())
    }

    fn check_attributes(&self) -> Result<(), Error> {
        if !self.path().starts_with('/') {
            return Err(refused("the cookie's path must start with a slash"));
        }
        for attribute in [Some(self.path()), self.domain.as_deref()]
            .into_iter()
            .flatten()
        {
            if attribute.len() > MAX_ATTRIBUTE {
                return Err(refused("an attribute of the cookie exceeds 1024 bytes"));
            }
            if !attribute.bytes().all(is_attribute_byte) || attribute.is_empty() {
                return Err(refused(
                    "an attribute of the cookie is empty or has a character that ends it",
                ));
            }
        }
        if !is_path_of_a_url(self.path()) {
            return Err(refused(
                "the cookie's path is not the path of a URL as browsers send it: \
                 no blank, no query, no fragment, no segment . or .., \
                 and other characters percent-encoded",
            ));
        }
        if let Some(domain) = &self.domain
            && !is_host(domain)
        {
            return Err(refused(
                "the cookie's domain is not a host's name, such as example.com: \
                 no scheme, port, path, blank or wildcard, and no dot before or after it",
            ));
        }
        Ok(())
    }

    fn check_former(&self) -> Result<(), Error> {
        if !self.former.is_empty() && self.name().to_ascii_lowercase().starts_with("__host-") {
            return Err(refused("a __Host- cookie never had another scope"));
        }
        for former in self.former() {
            let has_its_name = former.path() == self.path()
                && former.may_be_host_prefixed() == self.may_be_host_prefixed();
            if self.name.is_none() && !has_its_name {
                return Err(refused(
                    "the cookie of the former scope had another default name; choose a \
                     cookie_name, or leave out former_cookie_scope",
                ));
            }
            if former.scope() == self.scope() {
                return Err(refused("the cookie's former scope is its present one"));
            }
            former.check_attributes()?;
        }
        Ok(())
    }

    fn check_prefix(&self) -> Result<(), Error> {
        let name = self.name().to_ascii_lowercase();
        let is_for_http = name.starts_with("__http-") || name.starts_with("__host-http-");
        if is_for_http && !(self.secure() && self.http_only.unwrap_or(true)) {
            return Err(refused(
                "a __Http- or __Host-Http- cookie needs Secure and HttpOnly",
            ));
        }
        if name.starts_with("__host-") && !self.may_be_host_prefixed() {
            return Err(refused(
                "a __Host- cookie needs Secure, the path / and no domain",
            ));
        }
        if name.starts_with("__secure-") && !self.secure() {
            return Err(refused("a __Secure- cookie needs Secure"));
        }
        Ok(())
    }
}

fn refused(message: &'static str) -> Error {
    Error::new(ErrorKind::Setup, message)
}

/// Whether a request's path can start with this path: browsers normalize URLs and
/// compare them byte by byte.
fn is_path_of_a_url(path: &str) -> bool {
    path.bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"\"#<>?\\^`{}".contains(&byte))
        && path
            .split('/')
            .all(|segment| segment != "." && segment != "..")
}

/// A name of the DNS in its ASCII form, or an IPv4 address.
fn is_host(domain: &str) -> bool {
    domain.len() <= 253
        && domain.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `av-octet` of RFC 6265bis, section 4.1.1.
pub(crate) fn is_attribute_byte(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) && byte != b';'
}
