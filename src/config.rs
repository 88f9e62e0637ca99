//! What an application chose for its sessions, and what follows for the headers
//! of a request and its response.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{COOKIE, ORIGIN},
};

use crate::{
    FailurePolicy, PgSessionStore, Transport,
    cookie::{CookieConfig, Cookies, attach, forbid_shared_caching, vary_by},
    document::Document,
    expiry::Timeouts,
    format::{CookieChange, Line},
    hooks::Hooks,
    id::sensitive,
    limits::Limits,
    presented::Presented,
};

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// What the layer, its services and its sessions share.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) store: PgSessionStore,
    pub(crate) cookie: CookieConfig,
    /// Where the token does not travel as a cookie.
    pub(crate) transport: Option<Arc<dyn Transport>>,
    /// What a new session holds before anybody inserts anything.
    pub(crate) blank: Arc<Document>,
    pub(crate) timeouts: Arc<Timeouts>,
    pub(crate) empty: Empty,
    pub(crate) cross_site: CrossSite,
    pub(crate) on_load_failure: FailurePolicy,
    pub(crate) on_save_failure: FailurePolicy,
    pub(crate) clear_site_data: Option<HeaderValue>,
    pub(crate) hooks: Hooks,
    pub(crate) limits: Limits,
    /// Whether a layer further out was found to have the same cookie name.
    pub(crate) is_ignored: Arc<AtomicBool>,
}

/// What a request says of its session, where that is not read before somebody
/// asks.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) cookies: Cookies,
    pub(crate) line: Line,
    pub(crate) presented: OnceLock<Presented>,
    /// Whether the request can't begin a session.
    pub(crate) is_refused_a_session: bool,
}

/// Whether a form that another site posts without our cookie begins a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrossSite {
    Begins,
    IsRefused,
}

/// What becomes of a new session that holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Empty {
    IsNone,
    IsStored,
}

impl Config {
    pub(crate) fn new(store: PgSessionStore) -> Self {
        Self {
            store,
            cookie: CookieConfig::default(),
            transport: None,
            blank: Arc::default(),
            timeouts: Arc::default(),
            empty: Empty::IsNone,
            cross_site: CrossSite::Begins,
            on_load_failure: FailurePolicy::Refuse,
            on_save_failure: FailurePolicy::Refuse,
            clear_site_data: None,
            hooks: Hooks::default(),
            limits: Limits::default(),
            is_ignored: Arc::default(),
        }
    }

    pub(crate) fn cookie_name(&self) -> &str {
        self.store.format().cookie_name(&self.cookie)
    }

    /// Warns once of a layer whose options have no effect, because `outer` has
    /// the same cookie name and sees each request first.
    pub(crate) fn warn_of_a_layer_that_is_ignored(&self, outer: &Self) {
        let is_copy = Arc::ptr_eq(&self.is_ignored, &outer.is_ignored);
        if !is_copy && !self.is_ignored.swap(true, Relaxed) {
            tracing::warn!(
                cookie.name = self.cookie_name(),
                "a session layer inside of another one with the same cookie name has no effect; \
                 give it another cookie name"
            );
        }
    }

    /// What the request says of its session.
    pub(crate) fn unread(&self, uri: &Uri, headers: &HeaderMap) -> Unread {
        match &self.transport {
            None => Unread {
                cookies: Cookies::of(headers),
                line: self.store.format().line(uri, headers),
                presented: OnceLock::new(),
                is_refused_a_session: self.cross_site == CrossSite::IsRefused
                    && is_cross_site_post(headers),
            },
            Some(transport) => Unread {
                cookies: Cookies::None,
                line: Line::Unknown,
                presented: OnceLock::from(self.carried(&**transport, headers)),
                is_refused_a_session: false,
            },
        }
    }

    fn carried(&self, transport: &dyn Transport, headers: &HeaderMap) -> Presented {
        let value = transport.read(headers).filter(|value| !value.is_empty());
        let mut presented = Presented::default();
        if let Some(value) = value {
            presented.add(self.store.format().read(value, &self.cookie));
            // The header is the application's choice, so no other program's.
            presented.named = true;
        }
        presented
    }

    /// Gives the browser its cookie, or removes it.
    pub(crate) fn write_cookie(&self, change: &CookieChange, line: Line, headers: &mut HeaderMap) {
        let format = self.store.format();
        match (change, &self.transport) {
            (CookieChange::None, _) | (CookieChange::RemoveFormer, Some(_)) => {}
            (CookieChange::RemoveFormer, None) => {
                let former = self.removal_of_former(line);
                if !former.is_empty() {
                    attach(headers, former);
                }
            }
            (CookieChange::Set(ticket), None) => {
                let mut cookies = self.removal_of_former(line);
                cookies.extend(format.set(ticket, &self.cookie, line));
                attach(headers, cookies);
            }
            (CookieChange::Remove(terms), None) => {
                let mut cookies = self.removal_of_former(line);
                cookies.extend(format.removal(terms, &self.cookie, line));
                attach(headers, cookies);
            }
            (CookieChange::Set(ticket), Some(transport)) => {
                let token = format.spell(&ticket.token, &self.cookie);
                transport.write(&sensitive(&token), headers);
                forbid_shared_caching(headers);
            }
            (CookieChange::Remove(_), Some(transport)) => {
                transport.remove(headers);
                forbid_shared_caching(headers);
            }
        }
    }

    /// A cookie that the layer set under a former configuration would stay
    /// beside the present one, as no response for another scope replaces it.
    fn removal_of_former(&self, line: Line) -> Vec<HeaderValue> {
        let format = self.store.format();
        let former = self.cookie.former();
        former
            .flat_map(|cookie| format.removal(&None, &cookie, line))
            .collect()
    }

    /// A new session's cookie must not be forgotten with the old one's.
    pub(crate) fn clear_site_data(&self, change: &CookieChange, headers: &mut HeaderMap) {
        if let (Some(data), CookieChange::None | CookieChange::Remove(_)) =
            (&self.clear_site_data, change)
        {
            headers.insert(CLEAR_SITE_DATA, data.clone());
        }
    }

    pub(crate) fn vary(&self, headers: &mut HeaderMap) {
        match &self.transport {
            Some(transport) => vary_by(&transport.varies_by(), headers),
            None => vary_by(&COOKIE, headers),
        }
    }
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A link from another site has no `Origin`, and brings a `Lax` cookie.
fn is_cross_site_post(headers: &HeaderMap) -> bool {
    headers
        .get(SEC_FETCH_SITE)
        .is_some_and(|site| site.as_bytes() == b"cross-site")
        && headers.contains_key(ORIGIN)
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("store", &self.store)
            .field("cookie", &self.cookie)
            .field("transport", &self.transport)
            .field("timeouts", &self.timeouts)
            .field("empty", &self.empty)
            .field("cross_site", &self.cross_site)
            .field("on_load_failure", &self.on_load_failure)
            .field("on_save_failure", &self.on_save_failure)
            .field("clear_site_data", &self.clear_site_data)
            .field("hooks", &self.hooks)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
