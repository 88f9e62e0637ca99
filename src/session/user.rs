//! The user of a session: signing in and out, and the age of the login. Changes are only
//! recorded here; a save executes them.

use std::time::Duration;

use super::Session;
use crate::{Error, Expiry, Login};

impl Session {
    /// Signs a user in, in one transaction when the session is saved.
    ///
    /// - The session gets a new id, as by [`cycle_id`](Self::cycle_id). A token
    ///   that an attacker planted or saw before no longer opens it (ASVS 5.0
    ///   item 7.2.4). A failed response (a 5xx or a 408) keeps the old id.
    /// - The session belongs to the user: [`PgSessionStore::user`] lists and
    ///   destroys it, and [`max_sessions_per_user`] counts it.
    /// - The device, external id, expiry and cookie lifetime of an earlier login are dropped,
    ///   unless you call [`Login::keep_settings`].
    /// - Its clocks restart: the idle timeout, the absolute timeout, and
    ///   [`authenticated_within`](Self::authenticated_within).
    /// - The data of an anonymous session stays, such as a basket, unless you
    ///   call [`Login::discard_data`]. The data of another user is always dropped.
    ///
    /// Call it also when a user signs in again, for example before a sensitive
    /// step. Call [`cycle_id`](Self::cycle_id) at every other change of
    /// privilege. The application checks the password.
    ///
    /// ```
    /// use axum::{Router, body::Body, http::Request, routing::post};
    /// use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session};
    /// use tower::ServiceExt;
    ///
    /// async fn sign_in(session: Session) -> Result<(), Error> {
    ///     // The password was right.
    ///     session.login("alice")?;
    ///     assert_eq!(session.user_id().as_deref(), Some("alice"));
    ///     Ok(())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let app = Router::new().route("/", post(sign_in)).layer(PgSessionLayer::new(store.clone()));
    /// let response = app.oneshot(Request::post("/").body(Body::empty())?).await?;
    /// assert!(response.status().is_success());
    /// assert_eq!(store.user("alice").count().await?, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of one of these kinds:
    ///
    /// - [`Setup`](crate::ErrorKind::Setup) if the table lacks a column that
    ///   the login needs.
    /// - [`Serialize`](crate::ErrorKind::Serialize) if the user's id is empty,
    ///   is too long, or contains U+0000 or U+001F.
    /// - [`TooLarge`](crate::ErrorKind::TooLarge) if the user is stored in the
    ///   document, as in Express's format, and exceeds its limits. Then nothing is
    ///   changed.
    /// - [`ResponseStarted`](crate::ErrorKind::ResponseStarted) if the response
    ///   has started.
    ///
    /// If the user has as many sessions as allowed, and the store
    /// [refuses](crate::SessionLimitPolicy::Refuse) more, [`save`](Self::save) returns an
    /// error of kind [`SessionLimit`](crate::ErrorKind::SessionLimit).
    ///
    /// [`PgSessionStore::user`]: crate::PgSessionStore::user
    /// [`max_sessions_per_user`]: crate::PgSessionStore::max_sessions_per_user
    pub fn login(&self, login: impl Into<Login>) -> Result<(), Error> {
        let login = login.into();
        login.check()?;
        let mut state = self.open_state()?;
        self.store()
            .format()
            .layout()
            .check(login.end().unwrap_or(Expiry::Default))?;
        self.store().check_login(&login)?;
        state.log_in(self.store().as_stored(login))
    }

    /// Signs the user out: destroys the session as [`destroy`](Self::destroy)
    /// does, and asks the browser to clear what
    /// [`clear_site_data`](crate::PgSessionLayer::clear_site_data) names.
    ///
    /// The response is sent after the deletion of the row is committed. If the
    /// deletion fails, the response is a 503, whatever the handler returned. If the
    /// request has no session, such as a form that another site posts, nothing is
    /// destroyed, and the response is a success: see [`destroy`](Self::destroy).
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store.clone());
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.login("ada")).await?;
    /// ada.with_session(|session| session.logout()).await?;
    /// assert!(ada.session().await?.is_new());
    /// assert_eq!(store.user("ada").count().await?, 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`ResponseStarted`](crate::ErrorKind::ResponseStarted) if the
    /// response has started.
    pub fn logout(&self) -> Result<(), Error> {
        self.open_state()?.log_out();
        Ok(())
    }

    /// Returns the id of the user who signed in by [`login`](Self::login), in
    /// this request or before. In Express's format, also the user that Passport stored.
    ///
    /// ```
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.insert("basket", ["tea"])).await?;
    /// assert_eq!(ada.session().await?.user_id(), None);
    ///
    /// ada.with_session(|session| session.login("ada")).await?;
    /// assert_eq!(ada.session().await?.user_id().as_deref(), Some("ada"));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn user_id(&self) -> Option<String> {
        let state = self.state();
        let user = state.user()?;
        Some(self.store().own_realm().id_of(user).to_owned())
    }

    /// Returns whether the user last signed in within `duration` before the
    /// call; `false` for a session without a user.
    ///
    /// Call it before a sensitive step, such as a change of the password. If it
    /// returns `false`, let the user sign in again (ASVS 5.0 items 7.5.1 and
    /// 7.5.3). Only [`login`](Self::login) restarts this clock. Use of the
    /// session doesn't. If the table lacks the column `created`, the time of
    /// the login is unknown: the result is `false`, except in the request of
    /// the login. The time is also unknown after a
    /// [takeover](crate::PgSessionLayer::takeover), until the next login, and if it is more
    /// than a second in the future, because the database's clock was set back. If Koa or
    /// Express shares the table, each row that it inserts counts as a login.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// const MINUTE: Duration = Duration::from_secs(60);
    ///
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.login("ada")).await?;
    /// assert!(ada.session().await?.authenticated_within(5 * MINUTE));
    ///
    /// ada.signed_in_ago(6 * MINUTE).await?;
    /// assert!(!ada.session().await?.authenticated_within(5 * MINUTE));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn authenticated_within(&self, duration: Duration) -> bool {
        let now = self.store().now();
        let age = self.state().age_of_login(now);
        // `created` is in the future if the database's clock was set back. A second is allowed.
        age.is_some_and(|age| (-1.0..=duration.as_secs_f64()).contains(&age))
    }

    pub(super) fn check_expiry(&self, expiry: Expiry) -> Result<(), Error> {
        self.store().format().layout().check(expiry)?;
        self.store().check_expiry(expiry)
    }
}
