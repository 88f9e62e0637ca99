//! A simple browser: it stores the cookies of responses and sends them with requests. It
//! doesn't know sessions.

use std::sync::Arc;

use cookie::{Cookie, SameSite};
use http::{
    HeaderMap, HeaderValue, Method, Uri,
    header::{COOKIE, Entry, HOST, IntoHeaderName},
};

use super::carrier::{self, Carry};
use crate::{
    cookie::set_by,
    id::sensitive,
    request::{
        config::{Config, Host},
        lazy::host_of,
    },
    testing::carrier::TokenChange,
};

/// A browser of one host, whose connection is encrypted.
///
/// A test may name the host in some requests only. On this machine, the cookie of a layer can
/// have another name. So the browser keeps such a cookie under both names, and sends the one
/// for the host of the request.
#[derive(Clone)]
pub(super) struct Browser {
    cookies: Vec<Kept>,
    /// Sent with every request.
    headers: HeaderMap,
    /// One for each layer.
    sides: Vec<Side>,
}

/// A cookie. The path distinguishes two with one name (RFC 6265bis, section 5.7).
#[derive(Clone)]
struct Kept {
    name: String,
    path: String,
    value: String,
    same_site: SameSite,
}

/// The page that causes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// One of the site, or none: an address that the user typed.
    OwnSite,
    /// A link or a redirect of another site.
    ForeignLink,
    /// Anything else of another site, such as a form that it posts.
    Foreign,
}

impl Cause {
    /// Which cookies the browser sends (RFC 6265bis, section 5.8.3).
    fn sends(self, same_site: SameSite) -> bool {
        match self {
            Self::OwnSite => true,
            Self::ForeignLink => same_site != SameSite::Strict,
            Self::Foreign => same_site == SameSite::None,
        }
    }
}

fn elsewhere(host: Host) -> Host {
    match host {
        Host::ThisMachine => Host::Other,
        Host::Other => Host::ThisMachine,
    }
}

/// What the visitor has of one layer, where its token is in no cookie.
#[derive(Clone)]
pub(super) struct Side {
    config: Arc<Config>,
    token: Option<HeaderValue>,
    carry: Option<Carry>,
}

impl Side {
    pub(super) fn of(config: Arc<Config>) -> Self {
        let carry = config
            .transport
            .as_ref()
            .and_then(|transport| carrier::found_for(transport));
        Self {
            config,
            token: None,
            carry,
        }
    }

    pub(super) fn carry_by(&mut self, carry: Carry) {
        self.carry = Some(carry);
    }

    /// The name of the layer's cookie on this machine and elsewhere, if they differ.
    fn name_on(&self, host: Host) -> Option<&str> {
        self.config.local_cookie.as_ref()?;
        Some(self.config.cookie_of(host).name())
    }

    /// The name and the value that the layer's cookie has on the other kind of host.
    fn counterpart_of(&self, name: &str, value: &str) -> Option<(String, String)> {
        let mut hosts = [Host::ThisMachine, Host::Other].into_iter();
        let from = hosts.find(|host| self.name_on(*host) == Some(name))?;
        let to = elsewhere(from);
        let name = self.name_on(to)?.to_owned();
        Some((name, self.config.value_on(to, value, from)))
    }

    fn send(&self, headers: &mut HeaderMap) {
        let Some(token) = &self.token else {
            return;
        };
        let carry = self.carry.as_ref().unwrap_or_else(|| {
            panic!(
                "it is unknown how a client sends the token of {:?}; call \
                 `TestVisitor::send_token_by`",
                self.config.transport
            )
        });
        carry(token, headers);
    }

    fn store_cookies(&mut self, response: &HeaderMap) {
        let Some(transport) = &self.config.transport else {
            return;
        };
        match carrier::token_change(&**transport, response) {
            TokenChange::None => {}
            TokenChange::Removed => self.token = None,
            TokenChange::Set(token) => self.token = Some(sensitive(&token)),
        }
    }
}

impl Browser {
    pub(super) fn with(side: Side) -> Self {
        Self {
            cookies: Vec::new(),
            headers: HeaderMap::new(),
            sides: vec![side],
        }
    }

    /// Adds a layer, unless there is one with these cookie names.
    pub(super) fn add_layer(&mut self, side: Side) {
        let names = |side: &Side| {
            let local = side.name_on(Host::ThisMachine).map(str::to_owned);
            (side.config.cookie_name().to_owned(), local)
        };
        let added = names(&side);
        if !self.sides.iter().any(|known| names(known) == added) {
            self.sides.push(side);
        }
    }

    pub(super) fn side(&mut self, cookie_name: &str) -> &mut Side {
        let mut sides = self.sides.iter_mut();
        let side = sides.find(|side| side.config.cookie_name() == cookie_name);
        side.expect("a visitor's layer is added when the visitor is created")
    }

    pub(super) fn always_send(&mut self, name: impl IntoHeaderName, value: HeaderValue) {
        self.headers.insert(name, value);
    }

    /// Whether it is a browser, and no other client with a token in a header.
    pub(super) fn sends_fetch_metadata(&self) -> bool {
        self.sides
            .iter()
            .any(|side| side.config.transport.is_none())
    }

    /// By the headers with which browsers say where a request comes from (Fetch
    /// Metadata): those of the request, or else those that are always sent.
    pub(super) fn cause(&self, method: &Method, request: &HeaderMap) -> Cause {
        let said = |name| {
            let value = request.get(name).or_else(|| self.headers.get(name));
            value.map(HeaderValue::as_bytes)
        };
        if said("sec-fetch-site") != Some(b"cross-site") {
            return Cause::OwnSite;
        }
        let is_navigation = matches!(said("sec-fetch-mode"), None | Some(b"navigate"));
        match method.is_safe() && is_navigation {
            true => Cause::ForeignLink,
            false => Cause::Foreign,
        }
    }

    /// By the request's URI and headers, or else those that are always sent.
    pub(super) fn host(&self, uri: &Uri, request: &HeaderMap) -> Host {
        match request.contains_key(HOST) {
            true => host_of(uri, request),
            false => host_of(uri, &self.headers),
        }
    }

    /// Without a host, a cookie of two names is sent under both.
    pub(super) fn headers(&self, path: &str, cause: Cause, host: Option<Host>) -> HeaderMap {
        let mut headers = self.headers.clone();
        let cookies = self.cookies.iter();
        let sent = cookies.filter(|kept| {
            kept.is_for(path)
                && cause.sends(kept.same_site)
                && host.is_none_or(|host| self.sends_to(host, &kept.name))
        });
        let pairs: Vec<_> = sent
            .map(|kept| format!("{}={}", kept.name, kept.value))
            .collect();
        if !pairs.is_empty() {
            headers.append(COOKIE, sensitive(&pairs.join("; ")));
        }
        for side in &self.sides {
            side.send(&mut headers);
        }
        headers
    }

    fn sends_to(&self, host: Host, name: &str) -> bool {
        let mut sides = self.sides.iter();
        !sides.any(|side| side.name_on(elsewhere(host)) == Some(name))
    }

    pub(super) fn store_cookies(&mut self, response: &HeaderMap) {
        for mut cookie in set_by(response) {
            self.keep(&cookie);
            let sides = self.sides.iter();
            let counterparts: Vec<_> = sides
                .filter_map(|side| side.counterpart_of(cookie.name(), cookie.value()))
                .collect();
            for (name, value) in counterparts {
                cookie.set_name(name);
                cookie.set_value(value);
                self.keep(&cookie);
            }
        }
        for side in &mut self.sides {
            side.store_cookies(response);
        }
    }

    fn keep(&mut self, cookie: &Cookie<'_>) {
        let path = cookie.path().unwrap_or("/");
        let is_same = |kept: &Kept| kept.name == cookie.name() && kept.path == path;
        self.cookies.retain(|kept| !is_same(kept));
        if !is_over(cookie) {
            self.cookies.push(Kept {
                name: cookie.name().to_owned(),
                path: path.to_owned(),
                value: cookie.value().to_owned(),
                // As in browsers by now.
                same_site: cookie.same_site().unwrap_or(SameSite::Lax),
            });
        }
    }
}

impl Kept {
    /// RFC 6265bis, section 5.1.4.
    fn is_for(&self, path: &str) -> bool {
        path.strip_prefix(&self.path).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with('/') || self.path.ends_with('/')
        })
    }
}

/// Whether the response removes the cookie. Any other cookie is stored, even if it expires
/// soon: the server decides whether its session has expired.
fn is_over(cookie: &Cookie<'_>) -> bool {
    match cookie.max_age() {
        Some(age) => !age.is_positive(),
        None => cookie
            .expires_datetime()
            .is_some_and(|end| end.unix_timestamp() <= 0),
    }
}

/// Adds the browser's headers to those of the request.
pub(super) fn add(kept: HeaderMap, request: &mut HeaderMap) {
    for (name, value) in kept {
        let Some(name) = name else { continue };
        match request.entry(name) {
            Entry::Occupied(mut said) if said.key() == COOKIE => said.append(value),
            Entry::Occupied(_) => {}
            Entry::Vacant(free) => {
                free.insert(value);
            }
        }
    }
}
