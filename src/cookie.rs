use std::{fmt, sync::Arc, time::Duration};

use cookie::{Cookie, SameSite};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, COOKIE, SET_COOKIE, VARY},
};

use crate::{
    Error, ErrorKind, SigningKeys,
    id::Token,
    presented::{Presented, Reading},
    signing::SIGNED_CHARS,
};

/// RFC 6265bis, section 5.6: longer cookies are dropped by browsers.
const MAX_NAME_AND_VALUE: usize = 4096;
const MAX_ATTRIBUTE: usize = 1024;

/// How long the browser keeps the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CookieLifetime {
    /// As long as the session can live, at most 400 days.
    Persistent,
    /// Until the browser is closed.
    BrowserSession,
}

/// Which cookies a browser drops first when it has too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CookiePriority {
    /// Before others.
    Low,
    /// What browsers take it for by themselves.
    Medium,
    /// After others.
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

/// What the application chose of the attributes of the cookie that carries
/// the token. Each format has its own defaults.
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
}

impl CookieConfig {
    pub(crate) fn path(&self) -> &str {
        self.path.as_deref().unwrap_or("/")
    }

    fn same_site(&self) -> SameSite {
        self.same_site.unwrap_or(SameSite::Lax)
    }

    fn secure(&self) -> bool {
        self.secure.unwrap_or(true)
    }

    fn outlives_the_browser(&self) -> bool {
        self.lifetime != Some(CookieLifetime::BrowserSession)
    }

    /// `__Host-id` where its attributes allow the prefix (ASVS 5.0 item 3.3.3).
    pub(crate) fn name(&self) -> &str {
        match &self.name {
            Some(name) => name,
            None if self.may_be_host_prefixed() => "__Host-id",
            None => "id",
        }
    }

    fn may_be_host_prefixed(&self) -> bool {
        self.secure() && self.path() == "/" && self.domain.is_none()
    }

    /// What carries the token, signed where there are keys.
    pub(crate) fn spell(&self, token: &Token) -> String {
        match &self.signing {
            Some(keys) => keys.spell(self.name(), token),
            None => token.as_str().to_owned(),
        }
    }

    pub(crate) fn set(&self, token: &Token, life: Duration) -> HeaderValue {
        let mut cookie = self.with_value(self.spell(token));
        if self.outlives_the_browser() {
            let seconds = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
            cookie.set_max_age(time::Duration::seconds(seconds));
        }
        self.header_value(&cookie)
    }

    /// Browsers only remove what has the same name, path and domain, and
    /// obey only headers that would be allowed to set it.
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
    /// When a browser would drop or misread a cookie with a token of so many
    /// characters, or a key is weak.
    pub(crate) fn check(&self, token_chars: usize) -> Result<(), Error> {
        let mut value_chars = token_chars;
        if let Some(keys) = &self.signing {
            keys.check()?;
            value_chars += SIGNED_CHARS;
        }
        self.check_name(value_chars)?;
        self.check_attributes()?;
        self.check_prefix()?;
        if self.same_site() == SameSite::None && !self.secure() {
            return Err(refused("SameSite=None needs Secure (RFC 6265bis)"));
        }
        if self.partitioned && !self.secure() {
            return Err(refused("a partitioned cookie needs Secure"));
        }
        Ok(())
    }

    fn check_name(&self, value_chars: usize) -> Result<(), Error> {
        let name = self.name();
        if name.is_empty() || !name.bytes().all(is_token_octet) {
            return Err(refused(
                "the cookie's name is not a token (RFC 6265bis, section 4.1.1)",
            ));
        }
        if name.len() + value_chars > MAX_NAME_AND_VALUE {
            return Err(refused("name and value together exceed 4096 octets"));
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
                return Err(refused("an attribute of the cookie exceeds 1024 octets"));
            }
            if !attribute.bytes().all(is_attribute_octet) || attribute.is_empty() {
                return Err(refused(
                    "an attribute of the cookie is empty or has a character that ends it",
                ));
            }
        }
        Ok(())
    }

    fn check_prefix(&self) -> Result<(), Error> {
        let name = self.name().to_ascii_lowercase();
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

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet)
}

/// `av-octet` of RFC 6265bis, section 4.1.1.
pub(crate) fn is_attribute_octet(octet: u8) -> bool {
    (0x20..0x7f).contains(&octet) && octet != b';'
}

/// The `Cookie` headers of a request, unread: most requests of most sites need
/// no session.
#[derive(Clone, Default)]
pub(crate) enum Cookies {
    #[default]
    None,
    One(HeaderValue),
    Several(Vec<HeaderValue>),
}

impl Cookies {
    /// Shares the headers' octets.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(COOKIE).into_iter();
        match (values.next(), values.next()) {
            (None, _) => Self::None,
            (Some(one), None) => Self::One(one.clone()),
            (Some(_), Some(_)) => Self::Several(headers.get_all(COOKIE).iter().cloned().collect()),
        }
    }

    pub(crate) fn values(&self) -> &[HeaderValue] {
        match self {
            Self::None => &[],
            Self::One(value) => std::slice::from_ref(value),
            Self::Several(values) => values,
        }
    }
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookies(REDACTED)")
    }
}

/// Reads the tokens from all `Cookie` headers, as octets: the name must match
/// to the letter, and order proves nothing (RFC 6265bis, section 5.8.3).
pub(crate) fn presented(
    cookies: &Cookies,
    name: &str,
    read: impl Fn(&[u8]) -> Reading,
) -> Presented {
    let mut presented = Presented::default();
    let values = cookies
        .values()
        .iter()
        .flat_map(|header| header.as_bytes().split(|octet| *octet == b';'))
        .filter_map(|pair| value_of(pair, name.as_bytes()));
    for value in values {
        presented.add(read(value));
    }
    presented
}

fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, value) = trim(pair).split_at_checked(name.len())?;
    let value = trim_start(value).strip_prefix(b"=")?;
    (found == name).then(|| trim(value))
}

fn is_blank(octet: u8) -> bool {
    octet == b' ' || octet == b'\t'
}

fn trim_start(octets: &[u8]) -> &[u8] {
    let blanks = octets.iter().take_while(|octet| is_blank(**octet)).count();
    &octets[blanks..]
}

fn trim(octets: &[u8]) -> &[u8] {
    let octets = trim_start(octets);
    let blanks = octets
        .iter()
        .rev()
        .take_while(|octet| is_blank(**octet))
        .count();
    &octets[..octets.len() - blanks]
}

/// Adds the cookies, instead of others of their names; no cache may keep a
/// response that carries one of ours.
pub(crate) fn attach(headers: &mut HeaderMap, cookies: Vec<HeaderValue>) {
    let others: Vec<_> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.remove(SET_COOKIE);
    let is_replaced = |other: &HeaderValue| {
        cookies
            .iter()
            .any(|cookie| name_of(cookie) == name_of(other))
    };
    for other in others.into_iter().filter(|other| !is_replaced(other)) {
        headers.append(SET_COOKIE, other);
    }
    for mut cookie in cookies {
        // Neither printed nor kept in a table of HTTP/2.
        cookie.set_sensitive(true);
        headers.append(SET_COOKIE, cookie);
    }
    forbid_shared_caching(headers);
}

/// The cookies that a response gives or takes, for a browser of a test.
#[cfg(feature = "testing")]
pub(crate) fn set_by(headers: &HeaderMap) -> impl Iterator<Item = Cookie<'_>> {
    let lines = headers.get_all(SET_COOKIE).into_iter();
    lines.filter_map(|line| Cookie::parse(line.to_str().ok()?).ok())
}

fn name_of(set_cookie: &HeaderValue) -> &[u8] {
    let octets = set_cookie.as_bytes();
    let end = octets.iter().position(|octet| b"=;".contains(octet));
    trim(&octets[..end.unwrap_or(octets.len())])
}

/// Whether somebody else sets a cookie of this name already.
pub(crate) fn is_set(headers: &HeaderMap, name: &str) -> bool {
    let mut cookies = headers.get_all(SET_COOKIE).iter();
    cookies.any(|cookie| name_of(cookie) == name.as_bytes())
}

pub(crate) fn forbid_shared_caching(headers: &mut HeaderMap) {
    if !forbids_shared_caching(headers) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// `private` with a field list only speaks of those fields (RFC 9111, section
/// 5.2.2.7), so it is not enough.
fn forbids_shared_caching(headers: &HeaderMap) -> bool {
    let mut directives = headers
        .get_all(CACHE_CONTROL)
        .into_iter()
        .flat_map(|header| header.as_bytes().split(|octet| *octet == b','))
        .map(trim);
    let mut strict = false;
    directives.all(|directive| {
        strict |= is_any_of(directive, &["private", "no-store"]);
        !is_any_of(directive, &["public"]) && !starts_with(directive, "s-maxage")
    }) && strict
}

fn is_any_of(directive: &[u8], names: &[&str]) -> bool {
    names
        .iter()
        .any(|name| directive.eq_ignore_ascii_case(name.as_bytes()))
}

fn starts_with(directive: &[u8], name: &str) -> bool {
    directive
        .get(..name.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
}

/// Says that the response depends on this header, once.
pub(crate) fn vary_by(name: &HeaderName, headers: &mut HeaderMap) {
    let varies = headers
        .get_all(VARY)
        .into_iter()
        .flat_map(|header| header.as_bytes().split(|octet| *octet == b','))
        .map(trim)
        .any(|field| field == b"*" || field.eq_ignore_ascii_case(name.as_str().as_bytes()));
    if !varies {
        headers.append(VARY, HeaderValue::from(name.clone()));
    }
}

#[cfg(test)]
mod tests;
