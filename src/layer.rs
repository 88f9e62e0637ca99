use std::{fmt, sync::Arc, time::Duration};

use cookie::SameSite;
use tower_layer::Layer;

use crate::{
    CookieLifetime, Error, ErrorKind, PgSessionStore,
    cookie::CookieConfig,
    expiry::{Absolute, Timeouts},
    service::{Exchange, PgSessionService},
};

type TouchIf = Arc<dyn Fn(&Exchange) -> bool + Send + Sync>;

/// Adds a session to the requests of the services under it.
///
/// The defaults are the safe ones: a cookie `__Host-id` with `Secure`,
/// `HttpOnly` and `SameSite=Lax`, an idle timeout of a day and an absolute one
/// of 30 days. OWASP asks for less where more is at stake: idle 15 to 30
/// minutes for low, 2 to 5 for high value applications, absolute 4 to 8 hours.
///
/// Two layers with different cookie names can be nested; [`Session`] is then
/// the inner one's. Of two with the same name the inner one does nothing.
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

/// What the layer, its services and its sessions share.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) store: PgSessionStore,
    pub(crate) cookie: CookieConfig,
    pub(crate) timeouts: Arc<Timeouts>,
    pub(crate) touch_if: Option<TouchIf>,
    pub(crate) save_on_server_error: bool,
}

impl PgSessionLayer {
    /// A layer with the defaults.
    pub fn new(store: PgSessionStore) -> Self {
        Self {
            config: Arc::new(Config {
                store,
                cookie: CookieConfig::default(),
                timeouts: Arc::default(),
                touch_if: None,
                save_on_server_error: false,
            }),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }

    fn with_timeouts(self, change: impl FnOnce(&mut Timeouts)) -> Self {
        self.with(|config| change(Arc::make_mut(&mut config.timeouts)))
    }

    /// The name of the cookie. Default: `__Host-id`, or `id` where
    /// [`secure`](Self::secure), [`cookie_path`](Self::cookie_path) or
    /// [`cookie_domain`](Self::cookie_domain) forbid the prefix.
    pub fn cookie_name(self, name: impl Into<String>) -> Self {
        self.with(|config| config.cookie.name = Some(name.into()))
    }

    /// The path under which browsers send the cookie. Default: `/`.
    pub fn cookie_path(self, path: impl Into<String>) -> Self {
        self.with(|config| config.cookie.path = path.into())
    }

    /// The domain to whose hosts browsers send the cookie. Default: none,
    /// which means this host alone. With a domain every host under it can read
    /// and overwrite the cookie.
    pub fn cookie_domain(self, domain: impl Into<String>) -> Self {
        self.with(|config| config.cookie.domain = Some(domain.into()))
    }

    /// When browsers send the cookie with requests that other sites cause.
    /// Default: [`SameSite::Lax`], because with `Strict` visitors who come
    /// from a mail or an identity provider look signed out.
    pub fn same_site(self, same_site: SameSite) -> Self {
        self.with(|config| config.cookie.same_site = same_site)
    }

    /// Whether browsers keep the cookie off unencrypted connections. Default:
    /// `true`. Set it to `false` only to develop on `http://localhost`.
    pub fn secure(self, secure: bool) -> Self {
        self.with(|config| config.cookie.secure = secure)
    }

    /// Whether browsers hide the cookie from scripts. Default: `true`.
    pub fn http_only(self, http_only: bool) -> Self {
        self.with(|config| config.cookie.http_only = http_only)
    }

    /// Whether the cookie survives the end of the browser. Default:
    /// [`CookieLifetime::Persistent`].
    pub fn cookie_lifetime(self, lifetime: CookieLifetime) -> Self {
        self.with(|config| config.cookie.lifetime = lifetime)
    }

    /// How long a session lives without a request. Default: 1 day.
    pub fn idle_timeout(self, timeout: Duration) -> Self {
        self.with_timeouts(|timeouts| timeouts.idle = timeout)
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

    /// Which requests keep the session alive. Default: all that look at it.
    ///
    /// A page that asks for news by itself, or an attempt that was refused, is
    /// no activity of the visitor's.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
    /// let layer = PgSessionLayer::new(store)
    ///     .touch_if(|exchange| exchange.uri.path() != "/poll" && exchange.status.is_success());
    /// assert!(layer.check().is_ok());
    /// # Ok(()) }
    /// ```
    pub fn touch_if(self, predicate: impl Fn(&Exchange) -> bool + Send + Sync + 'static) -> Self {
        self.with(|config| config.touch_if = Some(Arc::new(predicate)))
    }

    /// Whether what a handler did is saved also when it answers with 5xx.
    /// Default: `false`, so that a failed request leaves the session as it
    /// was. [`destroy`](crate::Session::destroy) is carried out all the same.
    pub fn save_on_server_error(self, save: bool) -> Self {
        self.with(|config| config.save_on_server_error = save)
    }

    /// Looks for contradictions: between the cookie's attributes, the
    /// timeouts, and the table where the store has looked at it.
    ///
    /// # Errors
    ///
    /// Of kind [`Setup`](ErrorKind::Setup), saying what contradicts what.
    pub fn check(&self) -> Result<(), Error> {
        self.config.cookie.check()?;
        self.config.timeouts.check()?;
        self.config.store.check_timeouts(&self.config.timeouts)
    }
}

impl Timeouts {
    fn check(&self) -> Result<(), Error> {
        if self.idle.is_zero() || self.absolute == Absolute::After(Duration::ZERO) {
            return Err(Error::new(
                ErrorKind::Setup,
                "a timeout of zero ends every session at once",
            ));
        }
        if self
            .touch_interval
            .is_some_and(|interval| interval >= self.idle)
        {
            return Err(Error::new(
                ErrorKind::Setup,
                "with a touch interval as long as the idle timeout no session is ever extended",
            ));
        }
        Ok(())
    }
}

impl<S> Layer<S> for PgSessionLayer {
    type Service = PgSessionService<S>;

    /// # Panics
    ///
    /// Where [`check`](Self::check) finds a contradiction: at set-up, rather
    /// than at a visitor's request.
    fn layer(&self, inner: S) -> Self::Service {
        if let Err(error) = self.check() {
            panic!("PgSessionLayer: {error}");
        }
        PgSessionService::new(inner, Arc::clone(&self.config))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("store", &self.store)
            .field("cookie", &self.cookie)
            .field("timeouts", &self.timeouts)
            .field("save_on_server_error", &self.save_on_server_error)
            .finish_non_exhaustive()
    }
}
