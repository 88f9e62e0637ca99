//! The options of a layer, which its services and sessions share. This module only holds
//! them, and warns of layers that conflict.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use http::HeaderValue;

#[cfg(feature = "testing")]
use crate::request_tokens::Reading;
use crate::{
    FailurePolicy, PgSessionStore, Transport,
    cookie::CookieConfig,
    document::{Document, limits::Limits},
    format::{Format, Line, OldId},
    request::hooks::Hooks,
    session::Settings,
    takeover::Takeover,
    timeouts::Timeouts,
};

/// The configuration that the layer, its services and its sessions share.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) store: PgSessionStore,
    /// The part that each session uses.
    pub(crate) session: Arc<Settings>,
    pub(crate) cookie: CookieConfig,
    /// The cookie for requests to this machine, if its name differs there. Tokens are bound
    /// to the name of `cookie`.
    pub(crate) local_cookie: Option<CookieConfig>,
    /// The headers that carry the token, if it is not a cookie.
    pub(crate) transport: Option<Arc<dyn Transport>>,
    /// The document of a new session.
    pub(crate) blank: BlankDocuments,
    pub(crate) timeouts: Arc<Timeouts>,
    pub(crate) empty: Empty,
    pub(crate) cross_site: CrossSite,
    pub(crate) on_load_failure: FailurePolicy,
    pub(crate) on_save_failure: FailurePolicy,
    pub(crate) clear_site_data: Option<HeaderValue>,
    pub(crate) hooks: Hooks,
    pub(crate) limits: Limits,
    /// The other system whose sessions are taken over.
    pub(crate) takeover: Option<Arc<Takeover>>,
    /// Whether an outer layer has the same cookie name. Clones of a layer share this
    /// value, so it also distinguishes them from other layers.
    pub(crate) is_ignored: Arc<AtomicBool>,
}

/// The documents of sessions that begin with a request over an encrypted connection or another
/// one.
#[derive(Clone, Default)]
pub(crate) struct BlankDocuments {
    encrypted: Arc<Document>,
    other: Arc<Document>,
}

impl BlankDocuments {
    pub(crate) fn new(format: &dyn Format, cookie: &CookieConfig) -> Self {
        let blank = |line| Arc::new(format.blank(cookie, line));
        Self {
            encrypted: blank(Line::Encrypted),
            other: blank(Line::Unknown),
        }
    }

    pub(crate) fn over(&self, line: Line) -> &Arc<Document> {
        match line {
            Line::Encrypted => &self.encrypted,
            Line::Unknown => &self.other,
        }
    }
}

/// Whether a form that another site posts without our cookie begins a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrossSite {
    Begins,
    IsRefused,
}

/// The host of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// Where a developer runs applications on several ports.
    ThisMachine,
    Other,
}

/// Whether a new session without data is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Empty {
    IsNone,
    IsStored,
}

impl Config {
    pub(crate) fn new(store: PgSessionStore) -> Self {
        Self {
            session: Arc::new(Settings {
                store: store.clone(),
                timeouts: Arc::default(),
                before_save: None,
            }),
            store,
            cookie: CookieConfig::default(),
            local_cookie: None,
            transport: None,
            blank: BlankDocuments::default(),
            timeouts: Arc::default(),
            empty: Empty::IsNone,
            cross_site: CrossSite::Begins,
            on_load_failure: FailurePolicy::Refuse,
            on_save_failure: FailurePolicy::Refuse,
            clear_site_data: None,
            hooks: Hooks::default(),
            limits: Limits::default(),
            takeover: None,
            is_ignored: Arc::default(),
        }
    }

    /// The name that identifies the layer. The cookie of a request can have a longer one.
    pub(crate) fn cookie_name(&self) -> &str {
        self.store.format().cookie_name(&self.cookie)
    }

    /// The cookie that a request reads and its response sets.
    pub(crate) fn cookie_of(&self, host: Host) -> &CookieConfig {
        match (host, &self.local_cookie) {
            (Host::ThisMachine, Some(cookie)) => cookie,
            _ => &self.cookie,
        }
    }

    /// Warns once per process that browsers drop the cookie.
    pub(super) fn warn_of_plain_http(&self) {
        let is_secure = self.store.format().is_always_secure(&self.cookie);
        if is_secure && !IS_WARNED_OF_PLAIN_HTTP.swap(true, Relaxed) {
            tracing::warn!(
                cookie.name = self.cookie_name(),
                "a request came over plain HTTP, where browsers drop the Secure cookie; use HTTPS, \
                 or set secure(false) on the layer during development"
            );
        }
    }

    /// The value that the cookie with this value on one host has on the other. A signature
    /// covers the cookie's name.
    #[cfg(feature = "testing")]
    pub(crate) fn value_on(&self, host: Host, value: &str, from: Host) -> String {
        let format = self.store.format();
        match format.read(value.as_bytes(), self.cookie_of(from)) {
            Reading::Token(token, _) => format.encode(&token, self.cookie_of(host)),
            Reading::Malformed | Reading::Forged => value.to_owned(),
        }
    }

    /// Warns, once per process, of two applications that replace each other's cookie. An
    /// old cookie of this application looks the same. With the default name, only
    /// applications whose databases and tables have the same names replace it.
    pub(crate) fn warn_of_another_application(&self) {
        if !IS_WARNED_OF_ANOTHER_APPLICATION.swap(true, Relaxed) {
            let cookie = self.cookie_name();
            match self.store.format().old_id() {
                OldId::Forwards => tracing::warn!(
                    cookie.name = cookie,
                    "a new session replaced a cookie that opened none; another application on \
                     this host may have set it: give each application its own cookie_name"
                ),
                OldId::IsDeleted => tracing::warn!(
                    cookie.name = cookie,
                    "a new session replaced a cookie that opened none; compare the secrets, the \
                     table and the time_zone with those of the application that shares the table"
                ),
            }
        }
    }

    /// Warns once of two layers that accept each other's tokens. It is no error,
    /// because an application may build the same layer twice, for example in a
    /// function.
    pub(crate) fn warn_of_a_layer_that_shares_sessions(&self) {
        if self.store.is_first_to_share(&self.is_ignored) {
            tracing::warn!(
                cookie.name = self.cookie_name(),
                "two session layers have the same cookie name and share their sessions; use a \
                 clone of one layer if that is intended, or else another cookie_name, or a store \
                 with a realm"
            );
        }
    }

    /// Warns once of two layers that take over from one table: each session of it goes to one
    /// of them.
    pub(crate) fn warn_of_a_second_takeover(&self) {
        let Some(takeover) = &self.takeover else {
            return;
        };
        let table = takeover.domain();
        if self.store.is_first_to_share_table(table, &self.is_ignored) {
            tracing::warn!(
                cookie.name = self.cookie_name(),
                "two session layers take over the sessions of one table; each session goes to \
                 the layer that loads it first, so let one layer take over"
            );
        }
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
}

/// Whether this process has warned that browsers drop its cookie.
static IS_WARNED_OF_PLAIN_HTTP: AtomicBool = AtomicBool::new(false);
/// Whether this process has warned of another application on its host.
static IS_WARNED_OF_ANOTHER_APPLICATION: AtomicBool = AtomicBool::new(false);

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
            .field("takeover", &self.takeover)
            .finish_non_exhaustive()
    }
}
