use std::{future::Future, sync::Arc, time::Duration};

use cookie::SameSite;
use http::{StatusCode, request::Parts};
use tower_layer::Layer;

use crate::{
    ClearSiteData, CookieLifetime, CookiePriority, Error, FailurePolicy, PgSessionStore, Session,
    SessionId, SigningKeys, Transport,
    cookie::{CookieConfig, NamedBy, Scope},
    expiry::{Absolute, Timeouts},
    layer::{service::PgSessionService, site_data::header_value},
    request::{
        config::{Config, CrossSite, Empty},
        hooks::Validity,
    },
    session::Settings,
};

#[cfg(doc)]
use crate::ErrorKind;

pub(crate) mod future;
pub(crate) mod response_body;
mod response_headers;
pub(crate) mod service;
pub(crate) mod site_data;

/// Adds a session to the requests of the services under it.
///
/// The defaults are the safe ones: a cookie `__Host-id` with `Secure`,
/// `HttpOnly` and `SameSite=Lax`, an idle timeout of a day and an absolute one
/// of 30 days. OWASP asks for less where more is at stake: idle 15 to 30
/// minutes for low, 2 to 5 for high value applications, absolute 4 to 8 hours.
///
/// Two layers with different cookie names can be nested; [`Session`] is then
/// the inner one's. Of two with the same name the inner one does nothing, which
/// is logged once as a warning. Two layers with the same name beside each other
/// share their sessions, see [`cookie_name`](Self::cookie_name).
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
}

impl PgSessionLayer {
    /// Creates a layer with the defaults.
    ///
    /// To add one layer in several places, clone it. A second layer of the same
    /// store accepts the tokens of the first one, unless it has another
    /// [`cookie_name`](Self::cookie_name) or its store another
    /// [`realm`](PgSessionStore::realm). That is logged as a warning, once. It is not
    /// noticed if the layers have two stores that were built separately for one
    /// table.
    pub fn new(store: PgSessionStore) -> Self {
        Self {
            config: Arc::new(Config::new(store)),
        }
    }

    /// The cookie with its default name.
    fn named_cookie(&self) -> CookieConfig {
        let mut cookie = self.config.cookie.clone();
        let header = self.config.transport.as_ref();
        cookie.set_default_name(&NamedBy {
            mark: &self.config.store.mark(),
            realm: self.config.store.own_realm().name.as_deref(),
            header: header.map(|transport| transport.varies_by()).as_ref(),
        });
        cookie
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        let config = Arc::make_mut(&mut self.config);
        change(config);
        // A changed clone is another layer.
        config.is_ignored = Arc::default();
        self
    }

    fn with_timeouts(self, change: impl FnOnce(&mut Timeouts)) -> Self {
        self.with(|config| change(Arc::make_mut(&mut config.timeouts)))
    }

    /// The name of the cookie, to which its tokens are bound: they open nothing
    /// in a layer with another name. In [Koa's format](crate::Koa) the ids are
    /// Koa's, which no name binds. Default: `__Host-id`, or `id` if
    /// [`cookie_path`](Self::cookie_path) or
    /// [`cookie_domain`](Self::cookie_domain) forbid the prefix, or `id-` and
    /// eight hexadecimal digits, which follow from the names of the database and
    /// the table, without [`secure`](Self::secure). If the store has a
    /// [`realm`](PgSessionStore::realm), its name follows, as in `__Host-id-admin`.
    /// With a [`transport`](Self::transport) the default is the name of the header
    /// that carries the token.
    ///
    /// Two layers with the same name on one store share their sessions: a customer
    /// of the shop is signed in to the admin area. That is logged as a warning when
    /// the second one is added, once, unless it is a clone of the first. To share
    /// sessions, clone the layer. To separate them, give each layer a name, or give
    /// the stores realms if the areas have different users.
    ///
    /// Of two layers with the same name around a handler, the inner one has no
    /// effect. A layer can't see what it is added to, so this is a warning when
    /// the first request arrives, and no error at set-up.
    pub fn cookie_name(self, name: impl Into<String>) -> Self {
        self.with(|config| config.cookie.name = Some(name.into()))
    }

    /// The path under which browsers send the cookie. Default: `/`.
    ///
    /// A path separates nothing: a client can send the cookie to another path, and
    /// `/shop` and `/admin` have the same default name `id`. Give areas of different
    /// sessions different [names](Self::cookie_name).
    pub fn cookie_path(self, path: impl Into<String>) -> Self {
        self.with(|config| config.cookie.path = Some(path.into()))
    }

    /// The domain to whose hosts browsers send the cookie. Default: none,
    /// which means this host alone. With a domain every host under it can read
    /// and overwrite the cookie.
    pub fn cookie_domain(self, domain: impl Into<String>) -> Self {
        self.with(|config| config.cookie.domain = Some(domain.into()))
    }

    /// Removes the cookie of a scope that this layer had before. Default: none.
    ///
    /// Call this after a change of [`cookie_domain`](Self::cookie_domain) or
    /// [`cookie_path`](Self::cookie_path), with the former values, for as long as
    /// the former cookies live. A browser keeps both cookies and sends both, and
    /// if both open a session a request can't say which one it means: it reads an
    /// empty session, and changes are answered with 400. With this setting
    /// that response removes the former cookie, so the next request works. Each
    /// response that sets or removes the cookie removes the former one, too. A
    /// visitor with only the former cookie stays signed in.
    ///
    /// It can be called several times.
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

    /// Whether a form that another site posts can begin a session if it brings no
    /// cookie. Default: `true`.
    ///
    /// Browsers send no `SameSite=Lax` cookie with such a request, for example
    /// the `form_post` of an identity provider (Apple, Entra). The handler finds
    /// an empty session though the visitor has one, and whatever it inserts
    /// replaces the visitor's session. With `false` it can't: the handler reads an
    /// empty session, a change of it is refused with 403
    /// ([`ErrorKind::CrossSite`]), and the browser keeps its cookie. Let
    /// the handler redirect to a page of your own (303, with the code and the
    /// state in the query), which gets the cookie, and sign in there. It also
    /// refuses logins that another site forges.
    ///
    /// Such a request has an `Origin` header, which browsers send with a `POST` and
    /// not with a link, and `Sec-Fetch-Site: cross-site`. Without `Sec-Fetch-Site`,
    /// which Safari before 16.4 does not send, nor any browser on plain HTTP, the
    /// host of `Origin` must be that of `Host`. So a proxy must pass on the `Host`
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

    /// When browsers send the cookie with requests that other sites cause.
    /// Default: [`SameSite::Lax`].
    ///
    /// With [`SameSite::Strict`], a link from another site, from a mail or from an
    /// identity provider brings no cookie. The visitor looks signed out, and a page
    /// that inserts something replaces the visitor's session by a new one.
    /// [`begin_on_cross_site_post`](Self::begin_on_cross_site_post) doesn't prevent
    /// that, because a link has no `Origin`. With `Strict`, don't insert in the
    /// pages that links lead to.
    pub fn same_site(self, same_site: SameSite) -> Self {
        self.with(|config| config.cookie.same_site = Some(same_site))
    }

    /// Whether browsers keep the cookie off unencrypted connections. Default:
    /// `true`. Set it to `false` only to develop on `http://localhost`: Safari
    /// takes no `Secure` cookie there, though Chrome and Firefox do.
    ///
    /// Cookies don't know ports: applications on `localhost:3000` and
    /// `localhost:4000` get each other's cookies, and sign each other out. Without
    /// `Secure` the default name of the cookie therefore names the database and
    /// the table, see [`cookie_name`](Self::cookie_name). Applications that keep
    /// `Secure`, or whose databases have the same name, need names of their own. On
    /// localhost, the layer logs a warning, once, when a new session replaces a
    /// cookie that another application may have set.
    pub fn secure(self, secure: bool) -> Self {
        self.with(|config| config.cookie.secure = Some(secure))
    }

    /// Whether browsers hide the cookie from scripts. Default: `true`.
    pub fn http_only(self, http_only: bool) -> Self {
        self.with(|config| config.cookie.http_only = Some(http_only))
    }

    /// Whether the cookie survives the end of the browser. Default:
    /// [`CookieLifetime::Persistent`].
    pub fn cookie_lifetime(self, lifetime: CookieLifetime) -> Self {
        self.with(|config| config.cookie.lifetime = Some(lifetime))
    }

    /// Which cookies a browser with too many of them drops first. Default: it
    /// is not said.
    pub fn cookie_priority(self, priority: CookiePriority) -> Self {
        self.with(|config| config.cookie.priority = Some(priority))
    }

    /// Whether the cookie of a page inside another site's page is kept apart
    /// for each such site (CHIPS). Default: `false`.
    pub fn cookie_partitioned(self, partitioned: bool) -> Self {
        self.with(|config| config.cookie.partitioned = partitioned)
    }

    /// Where the token travels, instead of a cookie. Default: a cookie.
    ///
    /// A header that scripts set is safe from requests that other sites
    /// cause, but scripts can read it, so any script in the page can take the
    /// session along. Prefer the cookie wherever a browser is the client.
    ///
    /// The token is bound to the header that the transport
    /// [varies by](Transport::varies_by), so a token of `X-Shop` opens nothing in
    /// `X-Admin`. If several carriers are to open the same session, such as a cookie
    /// and a header, give their layers the same [`cookie_name`](Self::cookie_name).
    /// That is logged as a warning, because the layers are different. Two layers
    /// that read the same header need names that differ.
    pub fn transport(self, transport: impl Transport) -> Self {
        self.with(|config| config.transport = Some(Arc::new(transport)))
    }

    /// How long a session lives without a request. Default: 1 day.
    ///
    /// In Koa's format the stored session says, unless this is set: then it
    /// is the `ttl` of koa-generic-session.
    pub fn idle_timeout(self, timeout: Duration) -> Self {
        self.with_timeouts(|timeouts| timeouts.idle = Some(timeout))
    }

    /// How long a session lives whatever its activity; `None` for no limit.
    /// Default: 30 days where the table has the column `created`, otherwise
    /// none.
    ///
    /// An explicit limit on a table without that column is an error of
    /// [`check`](Self::check).
    pub fn absolute_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        let absolute = timeout.into().map_or(Absolute::Off, Absolute::After);
        self.with_timeouts(|timeouts| timeouts.absolute = absolute)
    }

    /// How much of the idle timeout may pass before a request extends it.
    /// Default: a twentieth of it, 72 minutes for a day.
    ///
    /// Each extension is a write, and the dearest one, so most requests should
    /// do without. The price is that a session may end early by this much,
    /// never late. `Duration::ZERO` extends at every request.
    pub fn touch_interval(self, interval: Duration) -> Self {
        self.with_timeouts(|timeouts| timeouts.touch_interval = Some(interval))
    }

    /// Which requests extend the session. Default: all that use it.
    ///
    /// Polling requests and attempts that were refused are not user activity.
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

    /// Which responses save what their handler did to the session. Default: all
    /// but 5xx and 408 (Request Timeout), so a request that failed, or that a
    /// timeout layer cancelled halfway, leaves the session as it was.
    ///
    /// [`destroy`](crate::Session::destroy) and
    /// [`logout`](crate::Session::logout) are executed with any response, and what
    /// the handler [saved](crate::Session::save) itself stays saved. If a timeout layer
    /// inside of this one responds with another status, exclude that here, or
    /// put the timeout layer outside: then a handler that is cancelled has no
    /// response, and nothing is saved.
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

    /// Whether a new session is stored that nobody inserted anything into.
    /// Default: `false`.
    ///
    /// With `true` every visitor of a page that looks at the session gets a
    /// row and a cookie, robots included.
    pub fn allow_empty(self, allow: bool) -> Self {
        let empty = match allow {
            true => Empty::IsStored,
            false => Empty::IsNone,
        };
        self.with(|config| config.empty = empty)
    }

    /// What a handler gets that asks for a session while the database can't
    /// say whether there is one. Default: [`FailurePolicy::Refuse`], its
    /// request is answered with 503.
    ///
    /// With [`FailurePolicy::Continue`] it gets an empty session that is not
    /// kept: a change of it is a failure to save, and the stored session and
    /// the browser's cookie stay as they are.
    pub fn on_load_failure(self, policy: FailurePolicy) -> Self {
        self.with(|config| config.on_load_failure = policy)
    }

    /// What becomes of an answer whose changes to the session the database
    /// did not take. Default: [`FailurePolicy::Refuse`], it is replaced by a
    /// 503.
    ///
    /// With [`FailurePolicy::Continue`] the changes are lost, which is logged,
    /// and the answer goes out. Never where a session or a token was to end:
    /// an answer must not claim a logout that did not happen.
    pub fn on_save_failure(self, policy: FailurePolicy) -> Self {
        self.with(|config| config.on_save_failure = policy)
    }

    /// What browsers are asked to forget with the response of
    /// [`Session::logout`](crate::Session::logout), beside the session's
    /// cookie (ASVS 5.0 item 14.3.1). Default: nothing.
    ///
    /// Browsers heed it on encrypted connections only. Forgetting the cache
    /// can take them seconds. Not sent where the logout failed, or where the
    /// same response begins another session.
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

    /// An additional check that a loaded session must pass. Default: none.
    ///
    /// The check runs once a request, when the session is loaded. If it returns
    /// `false`, the row is deleted with the response, whatever the handler does,
    /// and the handler gets a new session. If it returns an error, because it
    /// could not find out, the session stays and the request gets a 503. An
    /// [`Error`] keeps its own [status](Error::status).
    ///
    /// The store's [`timeout`](PgSessionStore::timeout) bounds the load and the
    /// check together. A check that takes longer counts as one that failed: the
    /// request gets a 503, and the session stays. The check's future is then dropped
    /// at the `await` where it waits, and what follows doesn't run. A statement that
    /// it waits for may still run on the server.
    ///
    /// [`PgSessionStore::load`] and [`touch`](Self::touch) don't run the check.
    ///
    /// It may change the session that it is given; the changes are saved with the
    /// response. To save that session, or to load it in another way, is an error
    /// of kind [`Reentrant`](ErrorKind::Reentrant).
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

    /// A closure that runs before a document is saved, after the handler or in
    /// [`Session::save`](crate::Session::save). Default: none.
    ///
    /// It runs only if there is something to save. What it changes is saved as
    /// if the handler had done it. If it returns an error, nothing is saved but
    /// an end, and the response is a 503. [`Error::application`] makes an error
    /// of one of the application's own.
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

    /// Keeps the session of this handle alive from outside of a request, such
    /// as for a visitor who uses only a WebSocket. Returns whether the session is
    /// alive: `false` if it ended.
    ///
    /// It extends the session as a request does: by the layer's timeouts or the
    /// session's own, never beyond the absolute timeout, and at most once in a
    /// [`touch_interval`](Self::touch_interval), so it can be called often. It
    /// never revives an ended session. If the session got a new id, it
    /// follows, as [`PgSessionStore::load`] does: for one minute, so load the
    /// session to learn the new handle. It sends no cookie. In this crate's own
    /// format the cookie lives as long as the session can, whatever extends it;
    /// in Koa's format the next request renews it.
    ///
    /// Call it when the visitor does something, not when a timer fires: a
    /// session that a timer keeps alive never idles out.
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
    /// Those of [`check`](Self::check), and when the database could not be
    /// asked, or could not extend the session.
    pub async fn touch(&self, id: &SessionId) -> Result<bool, Error> {
        self.check()?;
        let config = &self.config;
        config.store.touch_by_id(id, &config.timeouts).await
    }

    /// Looks for contradictions: between the cookie's attributes, the
    /// timeouts, and the table where the store has looked at it.
    ///
    /// # Errors
    ///
    /// Of kind [`Setup`](ErrorKind::Setup), saying what contradicts what.
    pub fn check(&self) -> Result<(), Error> {
        let format = self.config.store.format();
        // The realm is part of the cookie's default name.
        format.check_realm(self.config.store.own_realm())?;
        format.check(&self.named_cookie())?;
        self.config.timeouts.check()?;
        self.config.store.check_timeouts(&self.config.timeouts)
    }

    /// # Panics
    ///
    /// Where [`check`](Self::check) finds a contradiction.
    pub(crate) fn checked(&self) -> Arc<Config> {
        if let Err(error) = self.check() {
            panic!("PgSessionLayer: {error}");
        }
        let mut config = Config::clone(&self.config);
        config.cookie = self.named_cookie();
        config.blank = Arc::new(config.store.format().blank(&config.cookie));
        config.store = config.store.clone().for_cookie(config.cookie_name());
        config.session = Arc::new(Settings {
            store: config.store.clone(),
            timeouts: Arc::clone(&config.timeouts),
            before_save: config.hooks.before_save(),
        });
        Arc::new(config)
    }

    /// How many octets a session's document may have as JSON. Default:
    /// 1,048,576, a mebibyte.
    ///
    /// A change that would make it larger is an error of kind
    /// [`TooLarge`](ErrorKind::TooLarge), of the call or, where another
    /// request filled the session meanwhile, of the save; the stored session
    /// stays as it was. What the crate itself keeps in the document does not
    /// count, and a session that is too large already can be read, and shrink.
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
    pub fn max_document_size(self, octets: usize) -> Self {
        self.with(|config| config.limits.size = octets)
    }

    /// How many keys a session may have; `None` for no limit. Default: `None`,
    /// because [`max_document_size`](Self::max_document_size) bounds them too,
    /// and many keys cost no more than one long value.
    ///
    /// Set it where visitors choose the keys. It is kept as that size is.
    pub fn max_keys(self, keys: impl Into<Option<usize>>) -> Self {
        self.with(|config| config.limits.keys = keys.into())
    }

    /// How deep the arrays and objects of a value may be nested; a number or a
    /// text has the depth 0, and `[]` has 1. Default: 64.
    ///
    /// A deeper value is an error of kind [`TooLarge`](ErrorKind::TooLarge).
    /// What another writer nested deeper stays as it is. More than 126 levels
    /// are not read by serde_json.
    pub fn max_depth(self, levels: usize) -> Self {
        self.with(|config| config.limits.depth = levels)
    }

    /// Signs the token, in the cookie or wherever the
    /// [transport](Self::transport) carries it. Default: no signature.
    ///
    /// A token needs none to be safe: it has 256 random bits, and the table
    /// alone says which are alive. A signature spares the database those that
    /// somebody made up: they cost no statement. A signature by a later key
    /// opens the session, and is replaced when the session is extended, which
    /// it is at once, so a rotation of the keys signs nobody out.
    ///
    /// The keys are the layer's rather than the store's, because the cookie
    /// is, whose name they sign. Koa's format has its own: see
    /// [`Koa::new`](crate::Koa::new).
    pub fn signing_keys(self, keys: SigningKeys) -> Self {
        self.with(|config| config.cookie.signing = Some(Arc::new(keys)))
    }
}

impl<S> Layer<S> for PgSessionLayer {
    type Service = PgSessionService<S>;

    /// # Panics
    ///
    /// Where [`check`](Self::check) finds a contradiction: at set-up, rather
    /// than at a visitor's request.
    fn layer(&self, inner: S) -> Self::Service {
        let config = self.checked();
        config.warn_of_a_layer_that_shares_sessions();
        PgSessionService::new(inner, config)
    }
}
