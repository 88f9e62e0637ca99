//! The layer: its options, and the part of a response that concerns the session.
//! It knows requests, responses and the calls of a session, but no SQL.
//!
//! - **Load**: the first extractor, or the first call of `LazySession::load`, loads
//!   the session. Without a token this runs no query. A request that doesn't use its
//!   session runs no query, and its response stays as it is.
//! - **Save**: the response saves the recorded changes, unless it is a 5xx or a 408;
//!   `save_if` sets another rule. A `destroy`, a `logout`, and the deletion of a
//!   session that `valid_if` refused, are executed with any response. Without a
//!   response, because the handler panicked, failed or was canceled, nothing is
//!   saved or deleted. If a save fails, an error replaces the response.
//! - **Touch**: the response extends a loaded session that is stored, if `touch_if`
//!   allows it and `touch_interval` has passed since the last touch. A 5xx extends it,
//!   too. A call of `Session::touch`, and a token with an outdated signature, extend
//!   the session before the interval has passed.
//! - **Cookie**: the response sets the cookie if the session began, got a new id, was
//!   extended by `Session::touch` or for a new signature, got another expiry or cookie
//!   lifetime, or was extended beyond the longest lifetime of a cookie. In the formats of
//!   Koa and Express, each extension sets it. The response removes the cookie if `destroy`
//!   or `logout` was executed, and the cookie of a former scope if the session is ambiguous.
//!   Such a response must not be stored by a shared cache, so it gets
//!   `Cache-Control: no-store`, unless the handler has forbidden that already. Headers that
//!   single caches prefer to it, such as `CDN-Cache-Control`, are removed.
//! - **Vary**: each response whose session was loaded names the request's header that
//!   carries the token.
//!
//! [`service`] starts a request, [`future`] decides what its response does, and
//! `session/saving.rs` executes it.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use cookie::SameSite;
use http::{StatusCode, request::Parts};
use tower_layer::Layer;

use crate::{
    ClearSiteData, CookieLifetime, CookiePriority, Error, ErrorKind, FailurePolicy, PgSessionStore,
    Session, SessionId, SigningKeys, Transport,
    cookie::{CookieConfig, NamedBy, Scope},
    layer::{service::PgSessionService, site_data::header_value},
    request::{
        config::{BlankDocuments, Config, CrossSite, Empty},
        hooks::Validity,
    },
    session::Settings,
    takeover::Takeover,
    timeouts::{Absolute, Timeouts},
};

pub(crate) mod future;
pub(crate) mod response_body;
mod response_headers;
pub(crate) mod service;
pub(crate) mod site_data;

/// Adds a session to the requests of the services under it.
///
/// The defaults are the safe ones: a cookie `__Host-id` with `Secure`,
/// `HttpOnly` and `SameSite=Lax`, an idle timeout of one day and an absolute
/// timeout of 30 days. OWASP recommends shorter timeouts: an idle timeout of 15 to
/// 30 minutes for low-risk and 2 to 5 minutes for high-value applications, and an
/// absolute timeout of 4 to 8 hours.
///
/// Layers with different cookie names can be nested. [`Session`] then belongs to
/// the inner one. If two nested layers have the same name, the inner one has no
/// effect. A warning is logged once, unless one is an unchanged clone of the other. Two layers
/// with the same name on one table that are not nested share their sessions, see
/// [`cookie_name`](Self::cookie_name).
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use axum_pg_session::{PgSessionLayer, PgSessionStore, Session};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let pool = sqlx::PgPool::connect_lazy("postgres:///")?;
/// let layer = PgSessionLayer::new(PgSessionStore::new(pool))
///     .idle_timeout(Duration::from_secs(30 * 60))
///     .absolute_timeout(Some(Duration::from_secs(8 * 60 * 60)));
/// assert!(layer.check().is_ok());
///
/// let app: Router = Router::new()
///     .route("/", get(async |session: Session| session.keys().join(", ")))
///     .layer(layer);
/// # Ok(()) }
/// ```
///
/// [`Session`]: crate::Session
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it is added to a router or service"]
pub struct PgSessionLayer {
    config: Arc<Config>,
    /// The configuration with its defaults, computed when the layer is first added. axum adds
    /// it again for each route of each connection.
    complete: Arc<OnceLock<Arc<Config>>>,
}

impl PgSessionLayer {
    /// Creates a layer with the defaults.
    ///
    /// To add one layer in several places, clone it. A second layer of the same
    /// table accepts the tokens of the first one, unless it has another
    /// [`cookie_name`](Self::cookie_name) or its store another
    /// [`realm`](PgSessionStore::realm). A warning is logged once.
    pub fn new(store: PgSessionStore) -> Self {
        Self {
            config: Arc::new(Config::new(store)),
            complete: Arc::default(),
        }
    }

    /// The cookie with its default name, and the one for this machine if its name differs
    /// there.
    fn named_cookies(&self) -> (CookieConfig, Option<CookieConfig>) {
        let Config {
            store, transport, ..
        } = &*self.config;
        let mark = store.mark();
        let mut cookie = self.config.cookie.clone();
        let header = transport.as_ref().map(|transport| transport.varies_by());
        cookie.set_default_name(&NamedBy {
            mark: &mark,
            realm: store.own_realm().name.as_deref(),
            header: header.as_ref(),
        });
        let local = match transport {
            None => store.format().on_this_machine(&cookie, &mark),
            Some(_) => None,
        };
        (cookie, local)
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        let config = Arc::make_mut(&mut self.config);
        change(config);
        // A changed clone is another layer.
        config.is_ignored = Arc::default();
        self.complete = Arc::default();
        self
    }

    fn with_timeouts(self, change: impl FnOnce(&mut Timeouts)) -> Self {
        self.with(|config| change(Arc::make_mut(&mut config.timeouts)))
    }

    /// Sets the name of the cookie. Tokens are bound to it: they open no session in a
    /// layer with another name. The formats of [Koa](crate::Koa) and
    /// [Express](crate::Express) are the exception, because they don't bind an id to a name.
    ///
    /// The default is
    ///
    /// - `__Host-id`,
    /// - `id` with a [`cookie_domain`](Self::cookie_domain), which forbids the prefix,
    /// - `id-` and eight hexadecimal digits with a [`cookie_path`](Self::cookie_path) other
    ///   than `/`. The digits depend on the path, so two areas don't share sessions,
    /// - `id-` and eight hexadecimal digits without [`secure`](Self::secure). The
    ///   digits depend on the name of the database,
    /// - the name of the header that carries the token, with a
    ///   [`transport`](Self::transport).
    ///
    /// Without `secure` and with a path, both groups of digits follow `id-`. If the store has
    /// a [`realm`](PgSessionStore::realm), its name follows, as in `__Host-id-admin`, but not
    /// the name of a header.
    ///
    /// On localhost, eight hexadecimal digits follow the default name, as in
    /// `__Host-id-3fa9c1e2`. They depend on the name of the database, because
    /// browsers send a cookie to each port of a host: applications on `localhost:3000` and
    /// `localhost:4000` would overwrite each other's cookie. Localhost is a request whose `Host`
    /// is `localhost`, a name under `.localhost`, `127.0.0.1` or `[::1]`, with any port. A proxy
    /// that doesn't forward the browser's `Host` can cause the longer name in production.
    /// Sessions work there, too, but when the `Host` changes, users must sign in again. Tokens
    /// are bound to the shorter name. [`LazySession::named`](crate::LazySession::named) and logs
    /// use the shorter name, too. On localhost, the name stays the same if you choose it, without
    /// `secure`, with a `transport`, and in the formats of Koa and Express.
    ///
    /// Two layers with the same name on one table share their sessions: a customer
    /// of the shop is signed in to the admin area. If the second layer is not a clone
    /// of the first, a warning is logged once, when it is added. To share sessions,
    /// clone the layer. To separate them, give each layer a name, or give the stores
    /// realms if the areas have different users.
    ///
    /// If two layers with the same name wrap a handler, the inner one has no effect.
    /// A layer can't detect this when it is added, so a warning is logged at the first
    /// request.
    ///
    /// ```
    /// # use axum::{Router, body::Body, http::Request, routing::post};
    /// # use tower::ServiceExt;
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, Session};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let layer = PgSessionLayer::new(store).cookie_name("sid");
    /// let app = Router::new()
    ///     .route("/", post(async |session: Session| session.insert("theme", "dark")))
    ///     .layer(layer);
    ///
    /// let response = app.oneshot(Request::post("/").body(Body::empty())?).await?;
    /// assert!(response.headers()["set-cookie"].to_str()?.starts_with("sid="));
    /// # Ok(()) }
    /// ```
    pub fn cookie_name(self, name: impl Into<String>) -> Self {
        self.with(|config| config.cookie.name = Some(name.into()))
    }

    /// Sets the path under which browsers send the cookie. Default: `/`.
    ///
    /// A path by itself doesn't separate sessions, because a client can send the cookie to
    /// another path. The [name](Self::cookie_name) does. The default name depends on the
    /// path, so after a change of the path every visitor gets a new session, unless you chose
    /// a name.
    pub fn cookie_path(self, path: impl Into<String>) -> Self {
        self.with(|config| config.cookie.path = Some(path.into()))
    }

    /// Sets the domain whose hosts receive the cookie. Default: none, so only this
    /// host receives it. With a domain, every host under it can read and overwrite
    /// the cookie.
    pub fn cookie_domain(self, domain: impl Into<String>) -> Self {
        self.with(|config| config.cookie.domain = Some(domain.into()))
    }

    /// Removes the cookie of a scope that this layer had before. Default: none.
    ///
    /// Call this after a change of [`cookie_domain`](Self::cookie_domain) or
    /// [`cookie_path`](Self::cookie_path), with the former values, for as long as
    /// the former cookies live. A browser keeps both cookies and sends both. If both
    /// open a session, it is unknown which one is meant: the request reads an empty
    /// session, and a change is a 400. With this setting, that response removes the
    /// former cookie, so the next request works. Each response that sets or removes
    /// the cookie removes the former one, too. A visitor with only the former cookie
    /// stays signed in.
    ///
    /// It needs a [`cookie_name`](Self::cookie_name) if the default names of the two scopes
    /// differ; [`check`](Self::check) refuses it otherwise. It can be called several times.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// // The cookie was the host's own, under /shop.
    /// let layer = PgSessionLayer::new(store)
    ///     .cookie_name("sid")
    ///     .cookie_domain("example.com")
    ///     .former_cookie_scope(None, "/shop");
    /// assert!(layer.check().is_ok());
    /// # Ok(()) }
    /// ```
    pub fn former_cookie_scope(self, domain: Option<&str>, path: impl Into<String>) -> Self {
        let scope = Scope {
            domain: domain.map(str::to_owned),
            path: path.into(),
        };
        self.with(|config| config.cookie.former.push(scope))
    }

    /// Sets whether a form that another site posts can begin a session if it carries
    /// no cookie. Default: `true`.
    ///
    /// Browsers send no `SameSite=Lax` cookie with such a request, for example
    /// the `form_post` of an identity provider (Apple, Entra). The handler reads an
    /// empty session although the visitor has one, and an insert replaces the
    /// visitor's session. With `false`, the handler reads an empty session, too, but a
    /// change of it is a 403 ([`ErrorKind::CrossSite`]), and the browser keeps its
    /// cookie. Let the handler redirect to a page of your own (303, with the code and
    /// the state in the query). The browser sends the cookie to that page, so sign in
    /// there. This setting also refuses logins that another site forges.
    ///
    /// The layer recognizes such a request by its `Origin` header, which browsers send
    /// with a `POST` and not with a link, and by `Sec-Fetch-Site: cross-site`. Safari
    /// before 16.4, and every browser on plain HTTP, sends no `Sec-Fetch-Site`. Then
    /// the host of `Origin` must be that of `Host`. So a proxy must forward the `Host`
    /// of the browser, and for these browsers another subdomain is another site.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// let layer = PgSessionLayer::new(store).begin_on_cross_site_post(false);
    /// assert!(layer.check().is_ok());
    /// # Ok(()) }
    /// ```
    pub fn begin_on_cross_site_post(self, begin: bool) -> Self {
        let cross_site = match begin {
            true => CrossSite::Begins,
            false => CrossSite::IsRefused,
        };
        self.with(|config| config.cross_site = cross_site)
    }

    /// Sets when browsers send the cookie with requests that other sites cause.
    /// Default: [`SameSite::Lax`].
    ///
    /// With [`SameSite::Strict`], browsers send no cookie when the visitor follows a
    /// link from another site, a mail or an identity provider. The visitor seems to be
    /// signed out, and an insert replaces the visitor's session with a new one.
    /// [`begin_on_cross_site_post`](Self::begin_on_cross_site_post) doesn't prevent
    /// that, because the request has no `Origin`. With `Strict`, don't insert in pages
    /// that links lead to.
    ///
    /// ```
    /// # use axum::{Router, body::Body, http::Request, routing::post};
    /// # use tower::ServiceExt;
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, SameSite, Session};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let layer = PgSessionLayer::new(store).same_site(SameSite::Strict);
    /// let app = Router::new()
    ///     .route("/", post(async |session: Session| session.insert("theme", "dark")))
    ///     .layer(layer);
    ///
    /// let response = app.oneshot(Request::post("/").body(Body::empty())?).await?;
    /// let cookie = response.headers()["set-cookie"].to_str()?;
    /// assert!(cookie.contains("SameSite=Strict") && cookie.contains("HttpOnly") && cookie.contains("Secure"));
    /// # Ok(()) }
    /// ```
    pub fn same_site(self, same_site: SameSite) -> Self {
        self.with(|config| config.cookie.same_site = Some(same_site))
    }

    /// Sets whether browsers send the cookie over encrypted connections only.
    /// Default: `true`. Set it to `false` only to develop on `http://localhost`:
    /// Safari rejects a `Secure` cookie there, Chrome and Firefox accept it.
    ///
    /// Browsers send a cookie to each port of a host: applications on
    /// `localhost:3000` and `localhost:4000` get each other's cookies, and overwrite
    /// them. So without `Secure`, the default name of the cookie depends on the
    /// database. With `Secure` it does so only on localhost, see
    /// [`cookie_name`](Self::cookie_name). Applications whose databases have the same name
    /// need cookie names of their own. On localhost, the layer logs a warning
    /// once, when a new session replaces a cookie that another application may have set.
    pub fn secure(self, secure: bool) -> Self {
        self.with(|config| config.cookie.secure = Some(secure))
    }

    /// Sets whether browsers hide the cookie from scripts. Default: `true`.
    pub fn http_only(self, http_only: bool) -> Self {
        self.with(|config| config.cookie.http_only = Some(http_only))
    }

    /// Sets whether the cookie is kept when the browser is closed. Default:
    /// [`CookieLifetime::Persistent`].
    pub fn cookie_lifetime(self, lifetime: CookieLifetime) -> Self {
        self.with(|config| config.cookie.lifetime = Some(lifetime))
    }

    /// Sets the priority of the cookie, for browsers that evict cookies when there
    /// are too many. Default: none, so the cookie has no such attribute.
    pub fn cookie_priority(self, priority: CookiePriority) -> Self {
        self.with(|config| config.cookie.priority = Some(priority))
    }

    /// Sets whether browsers keep a separate cookie for each site that embeds this
    /// one (CHIPS). Default: `false`.
    pub fn cookie_partitioned(self, partitioned: bool) -> Self {
        self.with(|config| config.cookie.partitioned = partitioned)
    }

    /// Carries the token in other headers, instead of a cookie. Default: a cookie.
    ///
    /// Other sites can't send a header that scripts set. But scripts can read the
    /// token, so any script in the page can steal the session. Prefer the cookie if
    /// the client is a browser.
    ///
    /// The token is bound to the header that the transport
    /// [varies by](Transport::varies_by), so a token of `X-Shop` opens no session in
    /// `X-Admin`. If several carriers should open the same session, such as a cookie
    /// and a header, give their layers the same [`cookie_name`](Self::cookie_name). A
    /// warning is logged, because the layers are different. Two layers that read the
    /// same header need different names. The formats of Koa and Express are the exception, because
    /// they don't bind an id to a name: there, each header and each cookie opens every session.
    pub fn transport(self, transport: impl Transport) -> Self {
        self.with(|config| config.transport = Some(Arc::new(transport)))
    }

    /// Sets how long a session lives without a request. Default: 1 day.
    ///
    /// In the formats of Koa and Express the default is the lifetime that is stored with the
    /// session. If this is set, it takes precedence, as the `ttl` of koa-generic-session does.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let layer = PgSessionLayer::new(store).idle_timeout(Duration::from_secs(30 * 60));
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.insert("basket", ["tea"])).await?;
    /// ada.idle_for(Duration::from_secs(31 * 60)).await?;
    /// assert!(ada.session().await?.is_new());
    /// # Ok(()) }
    /// ```
    pub fn idle_timeout(self, timeout: Duration) -> Self {
        self.with_timeouts(|timeouts| timeouts.idle = Some(timeout))
    }

    /// Sets how long a session lives, whatever its activity; `None` for no limit.
    /// Default: 30 days if the table has the column `created`, otherwise no limit.
    /// In the formats of Koa and Express, the default is no limit.
    ///
    /// An explicit limit on a table without that column is an error of
    /// [`check`](Self::check).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let layer = PgSessionLayer::new(store).absolute_timeout(Duration::from_secs(8 * 60 * 60));
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.login("ada")).await?;
    /// ada.signed_in_ago(Duration::from_secs(9 * 60 * 60)).await?;
    /// assert!(ada.session().await?.is_new());
    /// # Ok(()) }
    /// ```
    pub fn absolute_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        let absolute = timeout.into().map_or(Absolute::Off, Absolute::After);
        self.with_timeouts(|timeouts| timeouts.absolute = absolute)
    }

    /// Sets how much of the idle timeout must pass before a request extends the
    /// session. Default: a twentieth of the timeout, 72 minutes for a day.
    ///
    /// Each extension is an expensive write, so most requests should need none. In
    /// return, a session can expire earlier by this duration, never later.
    /// `Duration::ZERO` extends it at every request.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// let layer = PgSessionLayer::new(store).idle_timeout(Duration::from_secs(30 * 60));
    /// assert!(layer.clone().touch_interval(Duration::from_secs(60)).check().is_ok());
    /// // It would never extend a session.
    /// assert!(layer.touch_interval(Duration::from_secs(30 * 60)).check().is_err());
    /// # Ok(()) }
    /// ```
    pub fn touch_interval(self, interval: Duration) -> Self {
        self.with_timeouts(|timeouts| timeouts.touch_interval = Some(interval))
    }

    /// Sets which requests extend the session. Default: all that use it.
    ///
    /// Polling requests and rejected attempts are not user activity.
    /// The closure gets the head of the request and the status of the response.
    /// The URI is the one that the client requested, also in a nested router.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// let layer = PgSessionLayer::new(store)
    ///     .touch_if(|request, status| request.uri.path() != "/poll" && status.is_success());
    /// assert!(layer.check().is_ok());
    /// # Ok(()) }
    /// ```
    pub fn touch_if(
        self,
        predicate: impl Fn(&Parts, StatusCode) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.with(|config| config.hooks.set_touch_if(predicate))
    }

    /// Sets which responses save the changes of their handler. Default: all but 5xx
    /// and 408 (Request Timeout), so a request that failed, or that a timeout layer
    /// canceled, leaves the session as it was.
    ///
    /// [`destroy`](crate::Session::destroy) and
    /// [`logout`](crate::Session::logout) are executed with any response, and an
    /// explicit [`save`](crate::Session::save) stays committed. If a timeout layer
    /// inside of this one responds with another status, exclude that status here, or
    /// put the timeout layer outside: then a canceled handler has no response, and
    /// nothing is saved.
    ///
    /// ```
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore};
    /// use http::StatusCode;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// // A failed payment is remembered.
    /// let layer = PgSessionLayer::new(store).save_if(|request, status| {
    ///     request.uri.path() == "/pay" || status.as_u16() < 500 && status != StatusCode::REQUEST_TIMEOUT
    /// });
    /// assert!(layer.check().is_ok());
    /// # Ok(()) }
    /// ```
    pub fn save_if(
        self,
        predicate: impl Fn(&Parts, StatusCode) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.with(|config| config.hooks.set_save_if(predicate))
    }

    /// Sets whether a new session is stored even if it is empty. Default: `false`.
    ///
    /// With `true`, every client that requests a page that loads the session gets a
    /// row and a cookie, crawlers included.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let layer = PgSessionLayer::new(store).allow_empty(true);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|_| Ok(())).await?;
    /// assert!(!ada.session().await?.is_new());
    /// # Ok(()) }
    /// ```
    pub fn allow_empty(self, allow: bool) -> Self {
        let empty = match allow {
            true => Empty::IsStored,
            false => Empty::IsNone,
        };
        self.with(|config| config.empty = empty)
    }

    /// Sets what to do if the database fails while a session is loaded. Default:
    /// [`FailurePolicy::Refuse`], the response is a 503, or a 500 for the kinds
    /// [`Database`](ErrorKind::Database) and [`Setup`](ErrorKind::Setup).
    ///
    /// With [`FailurePolicy::Continue`], the handler gets an empty session that can't
    /// be saved: a change of it is a failed save. The stored session and the browser's
    /// cookie stay as they are. A [`valid_if`](Self::valid_if) that fails is an error under
    /// either policy.
    pub fn on_load_failure(self, policy: FailurePolicy) -> Self {
        self.with(|config| config.on_load_failure = policy)
    }

    /// Sets what to do with the response if the database fails while the session is
    /// saved. Default: [`FailurePolicy::Refuse`], a 503 replaces the response.
    ///
    /// With [`FailurePolicy::Continue`], the changes are dropped and logged, and the
    /// response is sent. This never applies to a login, a logout, a `destroy` or a new
    /// id, because the response must not claim a logout that did not happen, nor to a
    /// [`before_save`](Self::before_save) that fails.
    pub fn on_save_failure(self, policy: FailurePolicy) -> Self {
        self.with(|config| config.on_save_failure = policy)
    }

    /// Sets which data browsers clear after [`Session::logout`](crate::Session::logout),
    /// in addition to the session's cookie (ASVS 5.0 item 14.3.1). Default: none.
    ///
    /// Browsers honor the header on encrypted connections only. Clearing the cache can
    /// take seconds. The header is not sent if the logout failed, or if the same
    /// response begins another session. With
    /// [`ClearSiteData::Cookies`](crate::ClearSiteData::Cookies), the browser also removes
    /// the cookies of other layers, even one that the same response sets.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, ClearSiteData};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// let layer = PgSessionLayer::new(store).clear_site_data([ClearSiteData::Cache, ClearSiteData::Storage]);
    /// assert!(layer.check().is_ok());
    /// # Ok(()) }
    /// ```
    pub fn clear_site_data(self, data: impl IntoIterator<Item = ClearSiteData>) -> Self {
        self.with(|config| config.clear_site_data = header_value(data))
    }

    /// Sets an additional check that a loaded session must pass. Default: none.
    ///
    /// The check runs when the session is loaded, once per request. It runs again if
    /// a caller stopped waiting for the load. If it returns `false`, the handler gets a
    /// new session, and the response deletes the row. If another request has changed the session
    /// or given it a new id since it was loaded, the row stays, and the check runs again at the
    /// next request. A touch doesn't count as a change. [`destroy`](Session::destroy) and
    /// [`logout`](Session::logout) delete the row in any case. If the check returns an error,
    /// the session stays and the response is a 503. An [`Error`] keeps its own
    /// [status](Error::status), except an [`Error::application`].
    ///
    /// The store's [`timeout`](PgSessionStore::timeout) bounds the load and the
    /// check together. A check that takes longer counts as failed: the response is a
    /// 503, and the session stays. The check's future is then dropped at the `await`
    /// where it waits. A statement that it waits for may still run on the server.
    ///
    /// [`PgSessionStore::load`] and [`touch`](Self::touch) don't run the check.
    ///
    /// The check may change its session. The changes are saved with the response.
    /// Saving that session, or loading it again, is an error of kind
    /// [`Reentrant`](ErrorKind::Reentrant).
    ///
    /// A check that uses a pool clones it for each call. An `async` closure can't
    /// capture the pool:
    ///
    /// ```
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// use sqlx::{PgPool, query, query_scalar};
    ///
    /// /// Whether the account exists and is not locked.
    /// async fn may_stay(pool: &PgPool, user_id: Option<String>) -> Result<bool, sqlx::Error> {
    ///     let Some(user_id) = user_id else {
    ///         return Ok(true); // an anonymous visitor
    ///     };
    ///     let is_locked = query_scalar("SELECT is_locked FROM account WHERE id = $1")
    ///         .bind(user_id)
    ///         .fetch_optional(pool)
    ///         .await?;
    ///     Ok(is_locked == Some(false))
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let pool = PgPool::connect(database.url()).await?;
    /// # let store = PgSessionStore::new(pool.clone());
    /// # store.migrate().await?;
    /// # sqlx::raw_sql("CREATE TABLE account (id text PRIMARY KEY, is_locked boolean NOT NULL);
    /// #     INSERT INTO account VALUES ('ada', false), ('bob', false)").execute(&pool).await?;
    /// let accounts = pool.clone();
    /// let layer = PgSessionLayer::new(store).valid_if(move |session, _| {
    ///     let pool = accounts.clone();
    ///     async move { may_stay(&pool, session.user_id()).await }
    /// });
    ///
    /// let (ada, bob) = (TestVisitor::new(&layer), TestVisitor::new(&layer));
    /// ada.with_session(|session| session.login("ada")).await?;
    /// bob.with_session(|session| session.login("bob")).await?;
    /// query("UPDATE account SET is_locked = true WHERE id = 'ada'").execute(&pool).await?;
    /// query("DELETE FROM account WHERE id = 'bob'").execute(&pool).await?;
    /// assert!(ada.session().await?.is_new());
    /// assert!(bob.session().await?.is_new());
    /// # Ok(()) }
    /// ```
    ///
    /// Return `Ok(false)` for a missing account: `fetch_one` returns an error instead,
    /// so each request of a deleted account would be a 503 for as long as the session
    /// lives.
    ///
    /// A check without captures can be an `async` closure:
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// // A session stays with the browser that began it.
    /// let layer = PgSessionLayer::new(store).valid_if(async |session, request| {
    ///     let agent: Option<String> = session.get("agent").unwrap_or_default();
    ///     let header = request.headers.get("user-agent").and_then(|value| value.to_str().ok());
    ///     agent.as_deref() == header
    /// });
    /// assert!(layer.check().is_ok());
    /// # Ok(()) }
    /// ```
    pub fn valid_if<F, Fut>(self, check: F) -> Self
    where
        F: Fn(Session, Arc<Parts>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Validity> + Send + 'static,
    {
        self.with(|config| config.hooks.set_valid_if(check))
    }

    /// Sets a closure that runs before a document is saved, after the handler or in
    /// [`Session::save`](crate::Session::save). Default: none.
    ///
    /// It runs only if there are changes to save. Its own changes are saved with them.
    /// If it returns an error, only a `destroy` or a `logout` is executed, and the
    /// response is a 503. [`Error::application`] converts an error of the
    /// application.
    ///
    /// ```
    /// use std::time::Duration;
    /// # use axum_pg_session::{Expiry, PgSessionLayer, PgSessionStore};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// // Administrators are signed out after a quarter of an hour.
    /// let layer = PgSessionLayer::new(store).before_save(|session| {
    ///     if session.contains_key("admin") {
    ///         session.set_expiry(Expiry::Idle(Duration::from_secs(15 * 60)))?;
    ///     }
    ///     Ok(())
    /// });
    /// assert!(layer.check().is_ok());
    /// # Ok(()) }
    /// ```
    pub fn before_save(
        self,
        prepare: impl Fn(&Session) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Self {
        self.with(|config| config.hooks.set_before_save(prepare))
    }

    /// Extends the session of this handle from outside of a request, for example for
    /// a visitor who uses only a WebSocket. Returns whether the session is alive:
    /// `false` if it expired or was destroyed.
    ///
    /// It extends the session as a request does: by the layer's timeouts or the
    /// session's own, never beyond the absolute timeout, and at most once per
    /// [`touch_interval`](Self::touch_interval), so you can call it often. It never
    /// revives a destroyed or expired session. For one minute it follows the session
    /// to a new id, as [`PgSessionStore::load`] does. Load the session to get the new
    /// handle. It sends no cookie. In this crate's own format the cookie lives as long
    /// as the session can. In the formats of Koa and Express the next
    /// request renews it.
    ///
    /// Call it on user activity, not by a timer: a session that a timer extends never
    /// reaches its idle timeout.
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// const MINUTE: Duration = Duration::from_secs(60);
    /// let layer = PgSessionLayer::new(store).idle_timeout(30 * MINUTE);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.login("ada")).await?;
    /// let id = ada.session().await?.id().expect("it is stored");
    ///
    /// for _ in 0..3 {
    ///     ada.idle_for(20 * MINUTE).await?;
    ///     assert!(layer.touch(&id).await?);
    /// }
    /// ada.idle_for(31 * MINUTE).await?;
    /// assert!(!layer.touch(&id).await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`check`](Self::check), and if the database could not be queried, or
    /// could not extend the session.
    pub async fn touch(&self, id: &SessionId) -> Result<bool, Error> {
        self.check()?;
        let config = &self.config;
        config.store.touch_by_id(id, &config.timeouts).await
    }

    /// Takes over the sessions of another system in the same database, so that its visitors
    /// stay signed in when an application moves to this crate. Default: none.
    ///
    /// If the layer's own cookie opens no session and the request carries the other system's
    /// cookie, the load deletes the row of the other system and inserts one of ours with the same
    /// data, expiry and user, in one transaction. The response sets our cookie and removes the
    /// other one, whatever its status is. A `GET` does that, too.
    ///
    /// - A cookie that opens nothing runs one query. A signed or encrypted cookie with a
    ///   wrong signature runs none.
    /// - For 60 seconds, requests with the other cookie find the same session, and get the same
    ///   token. So concurrent requests work, and so does the request after a response that was
    ///   lost. After that, the other cookie opens nothing.
    /// - [`Session::authenticated_within`](crate::Session::authenticated_within) returns `false`
    ///   until the next login.
    /// - The calls by user, such as
    ///   [`destroy_all`](crate::UserSessions::destroy_all), don't reach sessions that were not
    ///   taken over yet. If users can be locked, or change their password, check each session
    ///   with [`valid_if`](Self::valid_if).
    /// - One layer should take over from a table. If two do, a visitor's session goes to the
    ///   one that loads it first.
    /// - A row that is not in the expected form, or that a constraint of our table refuses,
    ///   stays, and its visitor gets a new session. A warning is logged once for each such row.
    ///   After the first 1,024 of them, this process logs no more.
    /// - A user can have more sessions than
    ///   [`max_sessions_per_user`](PgSessionStore::max_sessions_per_user) until the next login.
    ///
    /// Stop all processes of the other system first. A process that still runs can save a
    /// session again after it was taken over.
    ///
    /// [`check`](Self::check) returns an error with [`koa`](PgSessionStore::koa) or a
    /// [`transport`](Self::transport), because a takeover needs this crate's own format and
    /// cookies.
    ///
    /// ```
    /// use axum::{Router, body::Body, http::Request, routing::get};
    /// use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session, Takeover};
    /// use tower::ServiceExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// async fn cart(session: Session) -> Result<String, Error> {
    ///     Ok(session.get::<Vec<String>>("cart")?.unwrap_or_default().join(", "))
    /// }
    ///
    /// # let database = dev_postgres::test_database().await?;
    /// # let pool = sqlx::PgPool::connect(database.url()).await?;
    /// # sqlx::raw_sql("CREATE SCHEMA tower_sessions;
    /// #     CREATE TABLE tower_sessions.session (id text PRIMARY KEY, data bytea NOT NULL, expiry_date timestamptz NOT NULL);
    /// #     INSERT INTO tower_sessions.session VALUES ('AAECAwQFBgcICQoLDA0ODw', decode('93c410000102030405060708090a0b0c0d0e0f'
    /// #         || '81a46361727491a374656199cd07eacd014d0c1e0f00000000', 'hex'), now() + interval '1 day')").execute(&pool).await?;
    /// let store = PgSessionStore::new(pool);
    /// store.migrate().await?;
    /// let app = Router::new()
    ///     .route("/", get(cart))
    ///     .layer(PgSessionLayer::new(store).takeover(Takeover::tower_sessions()));
    ///
    /// let cookie = "id=AAECAwQFBgcICQoLDA0ODw"; // of tower-sessions
    /// let request = Request::get("/").header("cookie", cookie).body(Body::empty())?;
    /// let response = app.oneshot(request).await?;
    /// let cookies = response.headers().get_all("set-cookie");
    /// assert_eq!(cookies.iter().count(), 2); // ours, and the removal of theirs
    /// assert_eq!(axum::body::to_bytes(response.into_body(), 100).await?, "tea");
    /// # Ok(()) }
    /// ```
    pub fn takeover(self, takeover: Takeover) -> Self {
        self.with(|config| config.takeover = Some(Arc::new(takeover)))
    }

    /// Checks that the cookie's attributes and the timeouts don't contradict each
    /// other, or the table, if the store has already inspected it.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = sqlx::PgPool::connect_lazy("postgres:///")?;
    /// let store = || PgSessionStore::new(pool.clone());
    /// assert!(PgSessionLayer::new(store()).check().is_ok());
    /// // Browsers reject a cookie with this prefix that has a domain.
    /// let layer = PgSessionLayer::new(store()).cookie_name("__Host-id").cookie_domain("example.com");
    /// assert!(layer.check().is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`Setup`](ErrorKind::Setup), with a message that names the
    /// contradiction.
    pub fn check(&self) -> Result<(), Error> {
        let format = self.config.store.format();
        // The realm is part of the cookie's default name.
        format.check_realm(self.config.store.own_realm())?;
        let (cookie, local) = self.named_cookies();
        format.check(&cookie)?;
        local.map_or(Ok(()), |local| format.check(&local))?;
        self.check_takeover()?;
        self.config.timeouts.check()?;
        self.config.store.check_timeouts(&self.config.timeouts)
    }

    fn check_takeover(&self) -> Result<(), Error> {
        match (&self.config.takeover, &self.config.transport) {
            (None, _) => Ok(()),
            (Some(takeover), None) => self.config.store.check_takeover(takeover),
            (Some(_), Some(_)) => Err(Error::new(
                ErrorKind::Setup,
                "a takeover needs cookies, because its response removes the other system's cookie",
            )),
        }
    }

    /// Returns the complete configuration, with its defaults.
    ///
    /// # Panics
    ///
    /// If [`check`](Self::check) finds a contradiction.
    pub(crate) fn checked(&self) -> Arc<Config> {
        Arc::clone(self.complete.get_or_init(|| self.complete_config()))
    }

    fn complete_config(&self) -> Arc<Config> {
        if let Err(error) = self.check() {
            panic!("PgSessionLayer: {error}");
        }
        let mut config = Config::clone(&self.config);
        (config.cookie, config.local_cookie) = self.named_cookies();
        let format = config.store.format();
        config.blank = BlankDocuments::new(format, &config.cookie);
        if let Some(idle) = format.idle_timeout() {
            Arc::make_mut(&mut config.timeouts).default_idle = idle;
        }
        config.store = config.store.clone().for_cookie(config.cookie_name());
        config.session = Arc::new(Settings {
            store: config.store.clone(),
            timeouts: Arc::clone(&config.timeouts),
            before_save: config.hooks.before_save(),
        });
        config.warn_of_a_layer_that_shares_sessions();
        config.warn_of_a_second_takeover();
        Arc::new(config)
    }

    /// Sets how many bytes a session's document may have as JSON. Default: 1,048,576
    /// (1 MiB).
    ///
    /// A change that would exceed it is an error of kind
    /// [`TooLarge`](ErrorKind::TooLarge): of the call, or of the save if another
    /// request enlarged the session meanwhile. The stored session stays as it was. The
    /// crate's own data in the document does not count. A session that is already too
    /// large can be read, and can shrink.
    ///
    /// ```
    /// # use axum::{Router, body::Body, http::Request, routing::get};
    /// # use axum_pg_session::{ErrorKind, PgSessionLayer, PgSessionStore, Session};
    /// # use tower::ServiceExt;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// async fn note(session: Session) {
    ///     let error = session.insert("note", "x".repeat(100)).unwrap_err();
    ///     assert_eq!(error.kind(), ErrorKind::TooLarge);
    ///     assert!(session.is_empty());
    /// }
    /// let layer = PgSessionLayer::new(store).max_document_size(100);
    /// let app = Router::new().route("/", get(note)).layer(layer);
    /// assert!(app.oneshot(Request::new(Body::empty())).await?.status().is_success());
    /// # Ok(()) }
    /// ```
    pub fn max_document_size(self, bytes: usize) -> Self {
        self.with(|config| config.limits.size = bytes)
    }

    /// Sets how many keys a session may have; `None` for no limit. Default: `None`,
    /// because [`max_document_size`](Self::max_document_size) limits them, too, and
    /// many keys cost no more than one long value.
    ///
    /// Set it if visitors choose the keys. A change that would exceed it is an error of
    /// kind [`TooLarge`](ErrorKind::TooLarge).
    ///
    /// ```
    /// # use axum_pg_session::{ErrorKind, PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let layer = PgSessionLayer::new(store).max_keys(2);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| {
    ///     session.insert("a", 1)?;
    ///     session.insert("b", 2)?;
    ///     assert_eq!(session.insert("c", 3).unwrap_err().kind(), ErrorKind::TooLarge);
    ///     session.insert("b", 4)
    /// })
    /// .await?;
    /// assert_eq!(ada.session().await?.keys(), ["a", "b"]);
    /// # Ok(()) }
    /// ```
    pub fn max_keys(self, keys: impl Into<Option<usize>>) -> Self {
        self.with(|config| config.limits.keys = keys.into())
    }

    /// Sets how deep the arrays and objects of a value may be nested; a number or a
    /// string has the depth 0, and `[]` has 1. Default: 64.
    ///
    /// A deeper value is an error of kind [`TooLarge`](ErrorKind::TooLarge). A deeper
    /// value that another writer stored stays as it is. serde_json can't read more
    /// than 126 levels.
    ///
    /// ```
    /// # use axum_pg_session::{ErrorKind, PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let layer = PgSessionLayer::new(store).max_depth(1);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| {
    ///     session.insert("list", [1, 2])?;
    ///     assert_eq!(session.insert("lists", [[1, 2]]).unwrap_err().kind(), ErrorKind::TooLarge);
    ///     Ok(())
    /// })
    /// .await?;
    /// assert_eq!(ada.session().await?.keys(), ["list"]);
    /// # Ok(()) }
    /// ```
    pub fn max_depth(self, levels: usize) -> Self {
        self.with(|config| config.limits.depth = levels)
    }

    /// Signs the token, in the cookie or wherever the
    /// [transport](Self::transport) carries it. Default: no signature.
    ///
    /// A token is safe without a signature: it has 256 random bits, and only tokens
    /// in the table open a session. With a signature, a forged token runs no
    /// query. A token that is signed with a later key of the list opens the
    /// session, and the next response that may extend the session replaces its
    /// signature. So a rotation of the keys signs no user out.
    ///
    /// The keys belong to the layer, not to the store, because they also sign the
    /// cookie's name. The formats of Koa and Express have their own
    /// keys: see [`Koa::new`](crate::Koa::new) and [`Express::new`](crate::Express::new).
    pub fn signing_keys(self, keys: SigningKeys) -> Self {
        self.with(|config| config.cookie.signing = Some(Arc::new(keys)))
    }
}

impl<S> Layer<S> for PgSessionLayer {
    type Service = PgSessionService<S>;

    /// # Panics
    ///
    /// If [`check`](Self::check) finds a contradiction. This happens at setup, not at
    /// the first request.
    fn layer(&self, inner: S) -> Self::Service {
        PgSessionService::new(inner, self.checked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_configuration_is_completed_once_until_it_changes() {
        let pool = sqlx::PgPool::connect_lazy("postgres:///").expect("a URL");
        let layer = PgSessionLayer::new(PgSessionStore::new(pool)).cookie_name("first");
        let complete = layer.checked();
        assert!(Arc::ptr_eq(&complete, &layer.checked()));
        let other = layer.cookie_name("other");
        assert_eq!(other.checked().cookie_name(), "other");
        assert_eq!(complete.cookie_name(), "first");
    }
}
