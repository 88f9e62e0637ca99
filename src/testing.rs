//! Support for the tests of an application: visitors whose sessions are in a known
//! state.
//!
//! It needs the feature `testing`, which belongs in the dev-dependencies:
//!
//! ```toml
//! [dev-dependencies]
//! axum-pg-session = { version = "0.1", features = ["testing"] }
//! dev-postgres = "0.1" # a real Postgres for tests, installed by cargo
//! ```
//!
//! Nothing is mocked: a [`TestVisitor`] sends its requests through the layer of the
//! application, to a real Postgres. So it works with every format, signature, transport
//! and cookie name, and the application's `valid_if` and `before_save` run, too.
//!
//! ```
//! use axum::{Router, body::Body, http::{Request, StatusCode}, routing::post};
//! use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session, testing::TestVisitor};
//!
//! // The handler under test.
//! async fn add(session: Session, item: String) -> Result<StatusCode, Error> {
//!     if session.user_id().is_none() {
//!         return Ok(StatusCode::UNAUTHORIZED);
//!     }
//!     session.update("basket", move |basket: Option<Vec<String>>| {
//!         let mut basket = basket.unwrap_or_default();
//!         basket.push(item.clone());
//!         basket
//!     })?;
//!     Ok(StatusCode::OK)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A database of this test's own.
//! let database = dev_postgres::test_database().await?;
//! let store = PgSessionStore::connect(database.url()).await?;
//! store.migrate().await?;
//! let layer = PgSessionLayer::new(store);
//! let app = Router::new().route("/", post(add)).layer(layer.clone());
//!
//! // A visitor in a known state.
//! let ada = TestVisitor::new(&layer);
//! ada.with_session(|session| {
//!     session.insert("basket", ["tea"])?;
//!     session.login("ada")
//! })
//! .await?;
//!
//! // A request as her browser sends it.
//! let response = ada.send(&app, Request::post("/").body(Body::from("bread"))?).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//!
//! // What was saved, as her next request would find it.
//! let basket: Option<Vec<String>> = ada.session().await?.get("basket")?;
//! assert_eq!(basket.expect("a basket"), ["tea", "bread"]);
//!
//! // A visitor who is not signed in.
//! let other_visitor = TestVisitor::new(&layer);
//! let response = other_visitor.send(&app, Request::post("/").body(Body::from("bread"))?).await?;
//! assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
//! assert!(other_visitor.session().await?.is_new());
//! # Ok(()) }
//! ```
//!
//! [`idle_for`](TestVisitor::idle_for) and
//! [`signed_in_ago`](TestVisitor::signed_in_ago) move a session's times, so a test of a
//! timeout need not sleep.

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response,
    header::{IntoHeaderName, ORIGIN},
};
use tower_service::Service;

use crate::{
    Error, ErrorKind, LazySession, PgSessionLayer, PgSessionService, Session,
    request::{config::Config, lazy::Unread},
    row::Row,
    store::Shift,
};

mod act;
mod browser;
mod carrier;
#[cfg(test)]
mod tests;

use act::Act;
use browser::{Browser, Cause, Side};

/// A visitor of the application in a test, with a browser that stores cookies.
///
/// Clones share one browser. For another user, or another device of the same user, create
/// [another visitor](Self::new).
///
/// ```
/// use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// # let store = PgSessionStore::connect(database.url()).await?;
/// # store.migrate().await?;
/// # let layer = PgSessionLayer::new(store);
/// let visitor = TestVisitor::new(&layer);
/// visitor.with_session(|session| session.insert("visits", 41)).await?;
///
/// let session = visitor.session().await?;
/// assert_eq!(session.get("visits")?, Some(41));
/// assert_eq!(session.user_id(), None);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a visitor does nothing until it is given a session or sends a request"]
pub struct TestVisitor {
    browser: Arc<Mutex<Browser>>,
    config: Arc<Config>,
}

impl TestVisitor {
    /// Creates a visitor without cookies, for the sessions of this layer.
    ///
    /// # Panics
    ///
    /// If [`PgSessionLayer::check`] finds a contradiction, as when the layer is added to a
    /// router.
    pub fn new(layer: &PgSessionLayer) -> Self {
        let config = layer.checked();
        let browser = Browser::with(Side::of(Arc::clone(&config)));
        Self {
            browser: Arc::new(Mutex::new(browser)),
            config,
        }
    }

    /// Returns the same visitor, with the same browser, for the sessions of another layer.
    /// An application can have several layers, each with its own cookie.
    ///
    /// ```
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let shop = PgSessionLayer::new(store.clone());
    /// let admin = PgSessionLayer::new(store).cookie_name("__Host-admin");
    ///
    /// let ada = TestVisitor::new(&shop);
    /// let ada_as_admin = ada.on_layer(&admin);
    /// ada_as_admin.with_session(|session| session.login("ada")).await?;
    ///
    /// assert!(ada.session().await?.is_new());
    /// assert_eq!(ada.headers("/").len(), 1); // the cookie of the other layer
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn on_layer(&self, layer: &PgSessionLayer) -> Self {
        let config = layer.checked();
        self.browser().add_layer(Side::of(Arc::clone(&config)));
        Self {
            browser: Arc::clone(&self.browser),
            config,
        }
    }

    /// Returns another browser with a copy of the cookies, like that of an attacker who
    /// stole them. Later cookies of one browser don't change the other.
    ///
    /// ```
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.insert("basket", ["tea"])).await?;
    /// let thief = ada.clone_cookies();
    ///
    /// // The login gives the session a new id, so the copy opens nothing.
    /// ada.with_session(|session| session.login("ada")).await?;
    /// assert!(thief.session().await?.is_new());
    /// # Ok(()) }
    /// ```
    pub fn clone_cookies(&self) -> Self {
        let browser = self.browser().clone();
        Self {
            browser: Arc::new(Mutex::new(browser)),
            config: Arc::clone(&self.config),
        }
    }

    /// Adds a header that the browser sends with every request, such as the `User-Agent`
    /// that a [`valid_if`](PgSessionLayer::valid_if) compares.
    pub fn header(self, name: impl IntoHeaderName, value: HeaderValue) -> Self {
        self.browser().always_send(name, value);
        self
    }

    /// Sets how the client sends the token of a [`transport`](PgSessionLayer::transport).
    ///
    /// This is not necessary if the token is the whole value of the header that the
    /// transport [varies by](crate::Transport::varies_by), or follows `Bearer` there.
    ///
    /// ```
    /// use axum_pg_session::{HeaderTransport, PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// use http::HeaderName;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// const NAME: HeaderName = HeaderName::from_static("x-session");
    /// let layer = PgSessionLayer::new(store).transport(HeaderTransport::new(NAME));
    /// let app_on_a_phone = TestVisitor::new(&layer).send_token_by(|token, request| {
    ///     request.insert(NAME, token.clone());
    /// });
    /// app_on_a_phone.with_session(|session| session.login("ada")).await?;
    /// assert!(app_on_a_phone.headers("/").contains_key(NAME));
    /// # Ok(()) }
    /// ```
    pub fn send_token_by(
        self,
        carry: impl Fn(&HeaderValue, &mut HeaderMap) + Send + Sync + 'static,
    ) -> Self {
        self.browser()
            .side(self.config.cookie_name())
            .carry_by(Arc::new(carry));
        self
    }

    /// Puts the visitor's session into a known state: sends one request through the
    /// layer, with this closure as its handler. Returns the closure's result after the
    /// changes are committed.
    ///
    /// Another call uses the same session. A closure that changes nothing begins no
    /// session; [`touch`](Session::touch) does.
    ///
    /// ```
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store.clone());
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.login("ada")).await?;
    /// ada.with_session(|session| session.insert("theme", "dark")).await?;
    ///
    /// assert_eq!(ada.session().await?.user_id().as_deref(), Some("ada"));
    /// assert_eq!(store.user("ada").count().await?, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// - The error of the closure. Then nothing is saved.
    /// - Those of [`Session::save`], for example of kind [`Setup`](ErrorKind::Setup) if the
    ///   test did not call [`migrate`](crate::PgSessionStore::migrate).
    /// - Of kind [`Setup`](ErrorKind::Setup) if the layer's transport wrote no token that
    ///   opens the session.
    ///
    /// # Panics
    ///
    /// As [`headers`](Self::headers).
    pub async fn with_session<T: Send>(
        &self,
        act: impl FnOnce(&Session) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let mut outcome = None;
        let act = Act::new(act, &mut outcome, self.config.cookie_name().to_owned());
        let mut service = PgSessionService::new(act, Arc::clone(&self.config));
        let response = service.call(self.request()).await?;
        self.store_cookies(response.headers());
        let (value, session) = outcome.ok_or_else(nothing_happened)?;
        if !response.status().is_success() {
            return Err(not_committed());
        }
        if !session.is_new() && !self.lazy().has_token() {
            return Err(not_carried());
        }
        Ok(value)
    }

    /// Returns the session as the visitor's next request would load it. It is read-only:
    /// to change it, call [`with_session`](Self::with_session).
    ///
    /// This does not extend the session. If it was destroyed or expired, or never began,
    /// it [is new](Session::is_new).
    ///
    /// # Errors
    ///
    /// If it could not be loaded.
    ///
    /// # Panics
    ///
    /// As [`headers`](Self::headers).
    pub async fn session(&self) -> Result<Session, Error> {
        let lazy = self.lazy();
        lazy.start_response();
        lazy.load().await
    }

    /// Sends a request with the cookies and headers of the browser, and stores the cookies
    /// of the response. A header of the request takes precedence.
    ///
    /// A request without the headers `Sec-Fetch-Site` and `Origin` is caused by the site itself,
    /// and gets `Sec-Fetch-Site: same-origin`.
    ///
    /// A request with the header `Sec-Fetch-Site: cross-site` is caused by another site. As
    /// in browsers, it carries cookies with `SameSite=Lax`, or without the attribute, only
    /// if it is a link: its method is safe, such as `GET`, and `Sec-Fetch-Mode` is absent or
    /// `navigate`. It never carries cookies with `SameSite=Strict`.
    ///
    /// ```
    /// use axum::{Router, body::Body, http::Request, routing::post};
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore, Session, testing::TestVisitor};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let app = Router::new()
    ///     .route("/sign-out", post(async |session: Session| session.logout()))
    ///     .layer(layer.clone());
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.login("ada")).await?;
    ///
    /// let forged = Request::post("/sign-out")
    ///     .header("sec-fetch-site", "cross-site")
    ///     .header("origin", "https://evil.example")
    ///     .body(Body::empty())?;
    /// ada.send(&app, forged).await?;
    /// assert_eq!(ada.session().await?.user_id().as_deref(), Some("ada"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the service; a router has none.
    ///
    /// # Panics
    ///
    /// As [`headers`](Self::headers).
    pub async fn send<S, B, C>(
        &self,
        app: &S,
        mut request: Request<B>,
    ) -> Result<Response<C>, S::Error>
    where
        S: Service<Request<B>, Response = Response<C>> + Clone,
    {
        let kept = {
            let browser = self.browser();
            let cause = browser.cause(request.method(), request.headers());
            let host = browser.host(request.uri(), request.headers());
            let mut kept = browser.headers(request.uri().path(), cause, Some(host));
            if browser.sends_fetch_metadata() && !request.headers().contains_key(ORIGIN) {
                let site = HeaderName::from_static("sec-fetch-site");
                kept.entry(site)
                    .or_insert(HeaderValue::from_static("same-origin"));
            }
            kept
        };
        browser::add(kept, request.headers_mut());
        let mut app = app.clone();
        poll_fn(|cx| app.poll_ready(cx)).await?;
        let response = app.call(request).await?;
        self.store_cookies(response.headers());
        Ok(response)
    }

    /// Returns the headers that the browser sends with a request for this path, for a test
    /// that can't use [`send`](Self::send), for example with a real connection. The request
    /// is caused by the site itself, so all cookies are sent, whatever their `SameSite` is. A
    /// cookie that has [another name on localhost](PgSessionLayer::cookie_name) is sent under
    /// both names.
    ///
    /// ```
    /// use axum::{Router, body::Body, http::Request, routing::get};
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore, Session, testing::TestVisitor};
    /// use tower::ServiceExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let app = Router::new()
    ///     .route("/", get(async |session: Session| session.login("ada")))
    ///     .layer(layer.clone());
    ///
    /// let ada = TestVisitor::new(&layer);
    /// let mut request = Request::get("/").body(Body::empty())?;
    /// request.headers_mut().extend(ada.headers("/"));
    /// let response = app.oneshot(request).await?;
    /// ada.store_cookies(response.headers());
    /// assert_eq!(ada.session().await?.user_id().as_deref(), Some("ada"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    ///
    /// If the visitor has a token of a transport, and it is unknown how a client sends it:
    /// see [`send_token_by`](Self::send_token_by).
    #[must_use]
    pub fn headers(&self, path: &str) -> HeaderMap {
        self.browser().headers(path, Cause::OwnSite, None)
    }

    /// Stores the cookies of a response, as browsers do: by name and path, with their
    /// `SameSite`. Also stores the token of a [`transport`](PgSessionLayer::transport). The
    /// host is always the same, and the connection is encrypted.
    pub fn store_cookies(&self, response: &HeaderMap) {
        self.browser().store_cookies(response);
    }

    /// Simulates this much time without a request: moves the session's times back. If a
    /// timeout is exceeded, the session has expired.
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
    ///
    /// ada.idle_for(20 * MINUTE).await?;
    /// assert!(!ada.session().await?.authenticated_within(15 * MINUTE));
    /// ada.idle_for(15 * MINUTE).await?;
    /// assert!(ada.session().await?.is_new());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`Ended`](ErrorKind::Ended) if the visitor has no session. Others if its row
    /// could not be changed.
    ///
    /// # Panics
    ///
    /// As [`headers`](Self::headers).
    pub async fn idle_for(&self, duration: Duration) -> Result<(), Error> {
        let row = self.row().await?;
        let shift = Shift::by(&row, duration.as_secs_f64());
        self.config.store.shift(row.id.clone(), shift).await
    }

    /// Moves the time of the login, or of the session's creation, to this long ago. The
    /// session counts as used since. For tests of
    /// [`authenticated_within`](Session::authenticated_within) and of the
    /// [absolute timeout](PgSessionLayer::absolute_timeout).
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// const HOUR: Duration = Duration::from_secs(60 * 60);
    /// let layer = PgSessionLayer::new(store).absolute_timeout(8 * HOUR);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.login("ada")).await?;
    ///
    /// ada.signed_in_ago(7 * HOUR).await?;
    /// assert!(!ada.session().await?.authenticated_within(HOUR));
    /// ada.signed_in_ago(9 * HOUR).await?;
    /// assert!(ada.session().await?.is_new());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`Ended`](ErrorKind::Ended) if the visitor has no session, and of kind
    /// [`Setup`](ErrorKind::Setup) if the table lacks the column `created`. Others if the
    /// row could not be changed.
    ///
    /// # Panics
    ///
    /// As [`headers`](Self::headers).
    pub async fn signed_in_ago(&self, duration: Duration) -> Result<(), Error> {
        let row = self.row().await?;
        let shift = Shift::to_age(&row, duration.as_secs_f64());
        let shift = shift.ok_or_else(|| self.has_no_age())?;
        self.config.store.shift(row.id.clone(), shift).await
    }

    fn browser(&self) -> MutexGuard<'_, Browser> {
        self.browser.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request for the path of the layer's cookie.
    fn request(&self) -> Request<()> {
        let path = self.config.cookie.path();
        let mut request = Request::new(());
        *request.uri_mut() = path.parse().expect("checked when the layer was set up");
        *request.headers_mut() = self.headers(path);
        request
    }

    /// The `LazySession` that the layer would put into the next request.
    fn lazy(&self) -> LazySession {
        let request = self.request();
        let unread = Unread::of(&self.config, request.uri(), request.headers());
        let head = self.config.hooks.head_of(&request);
        LazySession::new(Arc::clone(&self.config), unread, head, None)
    }

    async fn row(&self) -> Result<Arc<Row>, Error> {
        let row = self.session().await?.row();
        row.ok_or_else(|| {
            Error::new(
                ErrorKind::Ended,
                "the visitor has no session, or it ended; create one with `TestVisitor::with_session`",
            )
        })
    }

    fn has_no_age(&self) -> Error {
        let table = self.config.store.table_name();
        Error::new(
            ErrorKind::Setup,
            format!(
                "the column `created` is missing from the table {table}; run `migrate` or add it"
            ),
        )
    }
}

fn nothing_happened() -> Error {
    Error::new(
        ErrorKind::Setup,
        "the layer did not let the request through to the session",
    )
}

fn not_committed() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the session could not be committed; the log has the cause",
    )
}

fn not_carried() -> Error {
    Error::new(
        ErrorKind::Setup,
        "the session is stored, but the token that the layer's transport wrote does not open it; \
         see TestVisitor::send_token_by",
    )
}

impl fmt::Debug for TestVisitor {
    /// Omits the cookies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestVisitor")
            .field("cookie_name", &self.config.cookie_name())
            .finish_non_exhaustive()
    }
}
